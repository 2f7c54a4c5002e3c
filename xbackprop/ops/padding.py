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
            grad = _unpad_axis(grad, axis, *width, mode)
    return grad


def _inside(lengths: Sequence[int], widths: Widths) -> tuple[object, ...]:
    axes = zip(lengths, widths, strict=True)
    return (..., *(slice(before, n - after) for n, (before, after) in axes))


def _unpad_axis(grad: Array, axis: int, before: int, after: int, mode: str) -> Array:
    moved = grad.swapaxes(0, axis)
    length = moved.shape[0] - before - after
    inner = moved[before : before + length].copy()
    first, last = moved[:before], moved[before + length :]
    if mode == "reflect":
        inner[1 : 1 + before] += first[::-1]
        inner[length - 1 - after : length - 1] += last[::-1]
    elif mode == "replicate":
        inner[:1] += first.sum(axis=0, keepdims=True)
        inner[length - 1 :] += last.sum(axis=0, keepdims=True)
    else:
        inner[length - before :] += first
        inner[:after] += last
    return inner.swapaxes(0, axis)
