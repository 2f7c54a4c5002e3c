"""Longer axes by a rule for what stands beyond the ends, and the way back."""

from collections.abc import Sequence

from xbackprop.backend.array_module import Array, get_array_module

Widths = Sequence[tuple[int, int]]

# What NumPy and CuPy call PyTorch's modes.
_NUMPY_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pad_axes(x: Array, widths: Widths, mode: str) -> Array:
    """Lengthen the last axes.

    Parameters
    ----------
    x : array
        Any shape with at least ``len(widths)`` axes.
    widths : sequence of (before, after)
        Elements to add at the ends of each of the last axes.
    mode : {"zeros", "reflect", "replicate", "circular"}
        What they are. A width is less than the axis for "reflect", and at most the axis for
        "circular".

    Returns
    -------
    array
        ``x`` itself where there is nothing to add.
    """
    if not any(map(any, widths)):
        return x
    lead = x.ndim - len(widths)
    xp = get_array_module(x)
    if mode != "zeros":
        return xp.pad(x, ((0, 0),) * lead + tuple(widths), mode=_NUMPY_MODES[mode])
    lengths = (n + sum(width) for n, width in zip(x.shape[lead:], widths, strict=True))
    padded = xp.zeros((*x.shape[:lead], *lengths), dtype=x.dtype)
    padded[_inside(padded.shape[lead:], widths)] = x
    return padded


def unpad_axes(grad: Array, widths: Widths, mode: str) -> Array:
    """Add what was padded to where it came from: the adjoint of `pad_axes`.

    Parameters
    ----------
    grad : array
        Of the padded shape.
    widths : sequence of (before, after)
        As for `pad_axes`.
    mode : {"zeros", "reflect", "replicate", "circular"}
        As for `pad_axes`.

    Returns
    -------
    array
        Of the shape before.
    """
    if mode == "zeros":
        return grad[_inside(grad.shape[grad.ndim - len(widths) :], widths)]
    for axis, width in enumerate(widths, grad.ndim - len(widths)):
        if any(width):
            grad = unextend_axis(grad, axis, *width, _NUMPY_MODES[mode])
    return grad


def _inside(lengths: Sequence[int], widths: Widths) -> tuple[object, ...]:
    axes = zip(lengths, widths, strict=True)
    return (..., *(slice(before, n - after) for n, (before, after) in axes))


def unextend_axis(grad: Array, axis: int, before: int, after: int, mode: str) -> Array:
    """Add both ends of an extended axis to the elements that they were taken from.

    Parameters
    ----------
    grad : array
        Of the extended shape.
    axis : int
        The axis, counted from 0.
    before, after : int
        By how much it was extended.
    mode : {"reflect", "edge", "wrap"}
        NumPy's word for what was put there.

    Returns
    -------
    array
        A fresh one, shorter by ``before + after`` along the axis.
    """
    length = grad.shape[axis] - before - after
    inner = grad[along(axis, slice(before, before + length))].copy()
    ends = (slice(0, before), slice(before + length, None))
    sources = extension_sources(axis, length, before, after, mode)
    for source, end, width in zip(sources, ends, (before, after), strict=True):
        if width:
            part = grad[along(axis, end)]
            inner[source] += part.sum(axis=axis, keepdims=True) if mode == "edge" else part
    return inner


def extension_sources(
    axis: int, length: int, before: int, after: int, mode: str
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return where the elements of both ends come from, in the order in which they stand there."""
    if mode == "reflect":
        # The stop of the last is -1 where all is mirrored, which a slice would count from the end.
        last = length - 2 - after
        left, right = slice(before, 0, -1), slice(length - 2, None if last < 0 else last, -1)
        right = right if after else slice(0, 0)
    elif mode == "edge":
        left, right = slice(0, 1), slice(length - 1, length)
    else:
        left, right = slice(length - before, length), slice(0, after)
    return along(axis, left), along(axis, right)


def along(axis: int, part: slice) -> tuple[slice, ...]:
    """Return an index that takes a part of one axis, and all of those before and behind it."""
    return (slice(None),) * axis + (part,)
