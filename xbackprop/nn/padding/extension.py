"""Padding with elements of the image itself: mirrored, repeated, or from the other end."""

from typing import Any, ClassVar

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.module import Module, describe_layer
from xbackprop.nn.activations import check_float
from xbackprop.nn.padding.constant import constant_pad_backward, constant_pad_forward
from xbackprop.nn.padding.widths import Widths, check_image, check_padding, widths_of
from xbackprop.ops.padding import extension_sources, unextend_axis


@op(formula="output = take(x, pad(arange(x.shape[axis]), (before, after), mode), axis)")
def extension_forward(x: Array, axis: int, before: int, after: int, mode: str) -> tuple[Array, Any]:
    """Put elements of ``x`` before and behind it along one axis.

    Parameters
    ----------
    x : array of float
        Any shape.
    axis : int
        The axis that becomes longer, counted from 0.
    before, after : int
        How many elements; at most the axis' length, with "reflect" less.
    mode : {'reflect', 'edge', 'wrap'}
        Mirrored at the end element, the end element again, or those at the other end.

    Returns
    -------
    output : array
        Like ``x``, longer by ``before + after`` along the axis.
    saved : (axis, before, after, mode)

    Notes
    -----
    An element is in the output once and in each side at most once, or with "edge" ``before`` or
    ``after`` times. Its gradient is the sum over these places, added side by side as slices.
    """
    xp = get_array_module(x)
    left, right = extension_sources(axis, x.shape[axis], before, after, mode)
    parts = [x[left], x, x[right]]
    if mode == "edge":
        parts[0] = xp.repeat(parts[0], before, axis=axis)
        parts[2] = xp.repeat(parts[2], after, axis=axis)
    return xp.concatenate(parts, axis=axis), (axis, before, after, mode)


@op(
    formula="grad_input = moveaxis(moveaxis(grad_output, axis, -1) "
    "@ eye(grad_output.shape[axis] - before - after)"
    "[pad(arange(grad_output.shape[axis] - before - after), (before, after), mode)], -1, axis)"
)
def extension_backward(grad_output: Array, axis: int, before: int, after: int, mode: str) -> Array:
    """Return the sum of the gradients of an element's places."""
    return unextend_axis(grad_output, axis, before, after, mode)


class _Extension(Module):
    """What padding with an image's own elements in one to three axes shares."""

    spatial_axes: ClassVar[int]
    mode: ClassVar[str]

    def __init__(self, padding: int | tuple[int, ...]) -> None:
        self.padding = check_padding(type(self).__name__, padding, self.spatial_axes)

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Extend by the positive widths; cut by the negative ones behind that, or before."""
        check_float(self, x)
        check_image(self, x.shape, self.spatial_axes)
        widths = ((0, 0),) * (x.ndim - self.spatial_axes) + widths_of(self.padding)
        self.check_widths(x.shape, widths)
        steps: list[Any] = []
        if self.mode == "wrap":  # what was cut off comes in nowhere, as in PyTorch
            x = self._cut(x, widths, steps)
        for axis, (before, after) in enumerate(widths):
            if before > 0 or after > 0:
                x, saved = extension_forward(x, axis, max(before, 0), max(after, 0), self.mode)
                steps.append((extension_backward, saved))
        if self.mode != "wrap":
            x = self._cut(x, widths, steps)
        return x, steps

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Add up the gradients of the places to which an element went."""
        if not input_grad:
            return None
        for backward, step in reversed(saved):
            grad_output = backward(grad_output, *step)
        return grad_output

    def _cut(self, x: Array, widths: Widths, steps: list[Any]) -> Array:
        """Take away what negative widths say."""
        cut = tuple((min(before, 0), min(after, 0)) for before, after in widths)
        if all(pair == (0, 0) for pair in cut):
            return x
        x, saved = constant_pad_forward(x, cut, 0.0)
        steps.append((constant_pad_backward, saved))
        return x

    def check_widths(self, shape: tuple[int, ...], widths: Widths) -> None:
        """Refuse widths for which an axis has too few elements."""
        for axis, (length, pair) in enumerate(zip(shape, widths, strict=True)):
            if pair == (0, 0) and axis < len(shape) - self.spatial_axes:
                continue
            kept = length + sum(min(width, 0) for width in pair)
            most = {"reflect": length - 1, "edge": max(pair), "wrap": kept}[self.mode]
            least = 0 if self.mode == "wrap" else 1
            if max(pair) > most or length + sum(pair) < least or not length:
                raise ValueError(
                    f"{describe_layer(self)} with padding={self.padding} needs a longer axis "
                    f"{axis}; got x of shape {shape}"
                )

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"{self.padding}"


class ReflectionPad1d(_Extension):
    """Mirror the last axis at the end elements, ``y = pad(x, widths, 'reflect')``.

    Parameters
    ----------
    padding : int or tuple of 2 int
        Widths ``(left, right)``; one int stands for all.
        Negative ones take elements away.

    Notes
    -----
    Input ``(batch, channels, length)``,
    or that without the batch axis.
    The end element is not repeated, so a width is less than its axis' length.
    The derivative is derived in :func:`extension_forward`.
    """

    spatial_axes = 1
    mode = "reflect"


class ReflectionPad2d(_Extension):
    """Mirror the last two axes at the end elements, ``y = pad(x, widths, 'reflect')``.

    Parameters
    ----------
    padding : int or tuple of 4 int
        Widths ``(left, right, top, bottom)``; one int stands for all.
        Negative ones take elements away.

    Notes
    -----
    Input ``(batch, channels, height, width)``,
    or that without the batch axis.
    The end element is not repeated, so a width is less than its axis' length.
    The derivative is derived in :func:`extension_forward`.
    """

    spatial_axes = 2
    mode = "reflect"


class ReflectionPad3d(_Extension):
    """Mirror the last three axes at the end elements, ``y = pad(x, widths, 'reflect')``.

    Parameters
    ----------
    padding : int or tuple of 6 int
        Widths ``(left, right, top, bottom, front, back)``; one int stands for all.
        Negative ones take elements away.

    Notes
    -----
    Input ``(batch, channels, depth, height, width)``,
    or that without the batch axis.
    The end element is not repeated, so a width is less than its axis' length.
    The derivative is derived in :func:`extension_forward`.
    """

    spatial_axes = 3
    mode = "reflect"


class ReplicationPad1d(_Extension):
    """Repeat the end elements of the last axis, ``y = pad(x, widths, 'edge')``.

    Parameters
    ----------
    padding : int or tuple of 2 int
        Widths ``(left, right)``; one int stands for all.
        Negative ones take elements away.

    Notes
    -----
    Input ``(batch, channels, length)``,
    or that without the batch axis.
    Widths may be any.
    The derivative is derived in :func:`extension_forward`.
    """

    spatial_axes = 1
    mode = "edge"


class ReplicationPad2d(_Extension):
    """Repeat the end elements of the last two axes, ``y = pad(x, widths, 'edge')``.

    Parameters
    ----------
    padding : int or tuple of 4 int
        Widths ``(left, right, top, bottom)``; one int stands for all.
        Negative ones take elements away.

    Notes
    -----
    Input ``(batch, channels, height, width)``,
    or that without the batch axis.
    Widths may be any.
    The derivative is derived in :func:`extension_forward`.
    """

    spatial_axes = 2
    mode = "edge"


class ReplicationPad3d(_Extension):
    """Repeat the end elements of the last three axes, ``y = pad(x, widths, 'edge')``.

    Parameters
    ----------
    padding : int or tuple of 6 int
        Widths ``(left, right, top, bottom, front, back)``; one int stands for all.
        Negative ones take elements away.

    Notes
    -----
    Input ``(batch, channels, depth, height, width)``,
    or that without the batch axis.
    Widths may be any.
    The derivative is derived in :func:`extension_forward`.
    """

    spatial_axes = 3
    mode = "edge"


class CircularPad1d(_Extension):
    """Continue the last axis at the other end, ``y = pad(x, widths, 'wrap')``.

    Parameters
    ----------
    padding : int or tuple of 2 int
        Widths ``(left, right)``; one int stands for all.
        Negative ones take elements away.

    Notes
    -----
    Input ``(batch, channels, length)``,
    or that without the batch axis.
    A width is at most its axis' length, less what the other side takes away.
    The derivative is derived in :func:`extension_forward`.
    """

    spatial_axes = 1
    mode = "wrap"


class CircularPad2d(_Extension):
    """Continue the last two axes at the other end, ``y = pad(x, widths, 'wrap')``.

    Parameters
    ----------
    padding : int or tuple of 4 int
        Widths ``(left, right, top, bottom)``; one int stands for all.
        Negative ones take elements away.

    Notes
    -----
    Input ``(batch, channels, height, width)``,
    or that without the batch axis.
    A width is at most its axis' length, less what the other side takes away.
    The derivative is derived in :func:`extension_forward`.
    """

    spatial_axes = 2
    mode = "wrap"


class CircularPad3d(_Extension):
    """Continue the last three axes at the other end, ``y = pad(x, widths, 'wrap')``.

    Parameters
    ----------
    padding : int or tuple of 6 int
        Widths ``(left, right, top, bottom, front, back)``; one int stands for all.
        Negative ones take elements away.

    Notes
    -----
    Input ``(batch, channels, depth, height, width)``,
    or that without the batch axis.
    A width is at most its axis' length, less what the other side takes away.
    The derivative is derived in :func:`extension_forward`.
    """

    spatial_axes = 3
    mode = "wrap"
