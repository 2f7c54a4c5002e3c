"""Padding with one number."""

import math
from typing import Any, ClassVar

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.module import Module, describe_layer
from xbackprop.nn.activations import as_number, check_float
from xbackprop.nn.padding.widths import Widths, check_padding, widths_of


@op(formula="output = pad(x, widths, constant_values=value)", flops=lambda *_: 0)
def constant_pad_forward(x: Array, widths: Widths, value: float) -> tuple[Array, Any]:
    """Put ``value`` around ``x``; a negative width takes elements of ``x`` away instead.

    Parameters
    ----------
    x : array of float
        Any shape.
    widths : tuple of (int, int)
        Elements before and after, one pair per axis of ``x``.
    value : float
        What is put there.

    Returns
    -------
    output : array
        Axis ``i`` is longer by ``sum(widths[i])``.
    saved : (widths,)

    Notes
    -----
    Every element of ``x`` stands once in the output or not at all, so its gradient is that of its
    place, or 0: padding with the widths' negatives and the value 0.
    """
    return _pad(x, widths, value), (widths,)


@op(
    formula="grad_input = grad_output[tuple(map(slice, array(widths)[:, 0], "
    "array(grad_output.shape) - array(widths)[:, 1]))]",
    flops=lambda *_: 0,
)
def constant_pad_backward(grad_output: Array, widths: Widths) -> Array:
    """Return the gradient at the places that ``x`` has in the output, 0 for what was cut off."""
    return _pad(grad_output, tuple((-before, -after) for before, after in widths), 0.0)


def _pad(x: Array, widths: Widths, value: float) -> Array:
    """Cut by the negative widths, then put ``value`` around by the positive ones."""
    cut = x[
        tuple(
            slice(max(-before, 0), length + min(after, 0))
            for length, (before, after) in zip(x.shape, widths, strict=True)
        )
    ]
    inside = tuple(
        slice(max(before, 0), max(before, 0) + length)
        for length, (before, _) in zip(cut.shape, widths, strict=True)
    )
    shape = tuple(
        max(before, 0) + length + max(after, 0)
        for length, (before, after) in zip(cut.shape, widths, strict=True)
    )
    padded = get_array_module(x).full(shape, value, dtype=x.dtype.newbyteorder("="))
    padded[inside] = cut
    return padded


class _ConstantPad(Module):
    """What padding with one number in one to three axes shares."""

    spatial_axes: ClassVar[int]

    def __init__(self, padding: int | tuple[int, ...], value: float) -> None:
        self.padding = check_padding(type(self).__name__, padding, self.spatial_axes)
        self.value = as_number(type(self).__name__, "value", value)

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Return a larger, or smaller, copy."""
        check_float(self, x)
        if x.ndim < self.spatial_axes:
            raise ValueError(
                f"{describe_layer(self)} expects x with at least {self.spatial_axes} axes; "
                f"got {x.shape}"
            )
        if math.isfinite(self.value) and abs(self.value) > np.finfo(x.dtype).max:
            raise ValueError(f"{describe_layer(self)}: {x.dtype} cannot hold value={self.value}")
        widths = ((0, 0),) * (x.ndim - self.spatial_axes) + widths_of(self.padding)
        for length, pair in zip(x.shape, widths, strict=True):
            if length + sum(min(width, 0) for width in pair) < 0:
                raise ValueError(
                    f"{describe_layer(self)} with padding={self.padding} takes more away than x "
                    f"of shape {x.shape} has"
                )
        return constant_pad_forward(x, widths, self.value)

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Return the gradient of what was inside."""
        return constant_pad_backward(grad_output, *saved) if input_grad else None

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"padding={self.padding}, value={self.value}"


class _ZeroPad(_ConstantPad):
    """:class:`_ConstantPad` with the value 0."""

    def __init__(self, padding: int | tuple[int, ...]) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"{self.padding}"


class ConstantPad1d(_ConstantPad):
    """Put one number around the last axis, ``y = pad(x, widths, constant_values=value)``.

    Parameters
    ----------
    padding : int or tuple of 2 int
        Widths ``(left, right)``; one int stands for all.
        Negative ones take elements away.
    value : float
        What is put there.

    Notes
    -----
    Any axes may come before. The derivative is derived in :func:`constant_pad_forward`.
    """

    spatial_axes = 1


class ConstantPad2d(_ConstantPad):
    """Put one number around the last two axes, ``y = pad(x, widths, constant_values=value)``.

    Parameters
    ----------
    padding : int or tuple of 4 int
        Widths ``(left, right, top, bottom)``; one int stands for all.
        Negative ones take elements away.
    value : float
        What is put there.

    Notes
    -----
    Any axes may come before. The derivative is derived in :func:`constant_pad_forward`.
    """

    spatial_axes = 2


class ConstantPad3d(_ConstantPad):
    """Put one number around the last three axes, ``y = pad(x, widths, constant_values=value)``.

    Parameters
    ----------
    padding : int or tuple of 6 int
        Widths ``(left, right, top, bottom, front, back)``; one int stands for all.
        Negative ones take elements away.
    value : float
        What is put there.

    Notes
    -----
    Any axes may come before. The derivative is derived in :func:`constant_pad_forward`.
    """

    spatial_axes = 3


class ZeroPad1d(_ZeroPad):
    """Put zeros around the last axis, ``y = pad(x, widths)``.

    Parameters
    ----------
    padding : int or tuple of 2 int
        Widths ``(left, right)``; one int stands for all.
        Negative ones take elements away.

    Notes
    -----
    :class:`ConstantPad1d` with ``value=0``.
    """

    spatial_axes = 1


class ZeroPad2d(_ZeroPad):
    """Put zeros around the last two axes, ``y = pad(x, widths)``.

    Parameters
    ----------
    padding : int or tuple of 4 int
        Widths ``(left, right, top, bottom)``; one int stands for all.
        Negative ones take elements away.

    Notes
    -----
    :class:`ConstantPad2d` with ``value=0``.
    """

    spatial_axes = 2


class ZeroPad3d(_ZeroPad):
    """Put zeros around the last three axes, ``y = pad(x, widths)``.

    Parameters
    ----------
    padding : int or tuple of 6 int
        Widths ``(left, right, top, bottom, front, back)``; one int stands for all.
        Negative ones take elements away.

    Notes
    -----
    :class:`ConstantPad3d` with ``value=0``.
    """

    spatial_axes = 3
