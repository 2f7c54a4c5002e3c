"""Upsampling: an image of another size, each axis interpolated on its own."""

import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.dispatch import op
from xbackprop.module import Module, describe_layer
from xbackprop.nn.activations import check_float
from xbackprop.nn.pooling.adaptive_average import (
    adaptive_avg_pool_backward,
    adaptive_avg_pool_forward,
)
from xbackprop.nn.sizes import as_count
from xbackprop.ops.interpolation import Resampling, interpolate_axis, interpolate_axis_back

# How many axes after the channels a mode is for, and what it does along each of them.
_MODES = {
    "nearest": ((1, 2, 3), "nearest"),
    "nearest-exact": ((1, 2, 3), "nearest-exact"),
    "area": ((1, 2, 3), "area"),
    "linear": ((1,), "linear"),
    "bilinear": ((2,), "linear"),
    "bicubic": ((2,), "cubic"),
    "trilinear": ((3,), "linear"),
}
_ALIGNABLE = ("linear", "bilinear", "bicubic", "trilinear")


@op
def upsample_forward(x: Array, axes: tuple[Resampling, ...]) -> tuple[Array, Any]:
    """Compute ``y[o] = sum over t of w_t(c - i) x[i + t]`` with ``c = (o + 1/2) r - 1/2``.

    Parameters
    ----------
    x : array of float
        Shape (batch, channels, and one axis per entry of ``axes``).
    axes : tuple of Resampling
        Lengths, outputs, ratio ``r`` and kind along the last axes.

    Returns
    -------
    output : array
        The last axes have ``outputs`` elements each.
    saved : (axes,)

    Notes
    -----
    ``i`` is the floor of the source ``c``, which with aligned corners is ``o r``, and ``i + t``
    stays within the image. Weights are 1 at ``floor(o r)`` or ``floor(c + 1/2)`` (nearest, and
    nearest-exact), ``1 - f`` and ``f = c - i`` (linear), or those of Keys' cubic with -0.75 at the
    four elements around ``c``. The output is linear in ``x``, so backward is the transposed sum:
    the element ``j`` gets ``w_t(c - i) g[o]`` from all ``o`` with ``i + t = j``. They are a run,
    since ``c`` grows with ``o``; backward walks it as forward walks the taps.

    Besides the output of each axis' turn there are two arrays of its size at a time. Half floats
    are computed in float32.
    """
    wide = x.astype(np.result_type(x.dtype.newbyteorder("="), np.float32), copy=False)
    for axis, how in reversed(list(enumerate(axes, start=-len(axes)))):
        if not _is_copy(how):
            wide = interpolate_axis(wide, axis, how)
    return wide.astype(x.dtype.newbyteorder("="), copy=False), (axes,)


@op
def upsample_backward(grad_output: Array, axes: tuple[Resampling, ...]) -> Array:
    """Return at every element the sum of ``w_t g`` over the outputs that read it."""
    dtype = grad_output.dtype.newbyteorder("=")
    grad = grad_output.astype(np.result_type(dtype, np.float32), copy=False)
    for axis, how in enumerate(axes, start=-len(axes)):
        if not _is_copy(how):
            grad = interpolate_axis_back(grad, axis, how)
    return grad.astype(dtype, copy=False)


def _is_copy(how: Resampling) -> bool:
    return how.ratio == 1 and how.length == how.outputs


class Upsample(Module):
    """Interpolate an image to another size, ``y[o] = sum_t w_t(c - i) x[i + t]``, ``i <= c``.

    Parameters
    ----------
    size : int or tuple of int, optional
        Elements of the output along the axes after the channels.
    scale_factor : float or tuple of float, optional
        Instead of a size: output elements for one of the input, rounded down.
    mode : str, default "nearest"
        "nearest", "nearest-exact" or "area" for one to three axes, "linear" for one, "bilinear" or
        "bicubic" for two, "trilinear" for three.
    align_corners : bool, optional
        Let the end elements of input and output fall together; for the linear modes and
        "bicubic" only, where None is False.
    recompute_scale_factor : bool, optional
        Take the ratio of the sizes, rounded as they are, for the distance ``r`` of outputs instead
        of ``1 / scale_factor``.

    Notes
    -----
    Input ``(batch, channels, length)``, ``(..., height, width)`` or ``(..., depth, height,
    width)``, the batch alone may be empty. The source ``c`` of an output is ``(o + 1/2) r - 1/2``,
    with aligned corners ``o r``. "area" is adaptive average pooling. The derivative is derived in
    :func:`upsample_forward`; it is that of what forward computed, also where PyTorch's backward
    takes another neighbour than its forward ("nearest" with a scale factor to an equal or twice the
    size).

    References
    ----------
    Keys, "Cubic convolution interpolation for digital image processing", IEEE Trans. Acoustics,
    Speech, and Signal Processing 29 (1981), with -0.75 for -1/2.
    """

    def __init__(
        self,
        size: int | tuple[int, ...] | None = None,
        scale_factor: float | tuple[float, ...] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        name = type(self).__name__
        if (size is None) == (scale_factor is None):
            raise ValueError(
                f"{name} expects either size or scale_factor; got size={size} and "
                f"scale_factor={scale_factor}"
            )
        if mode not in _MODES:
            raise ValueError(f"{name} expects mode to be one of {', '.join(_MODES)}; got {mode!r}")
        if align_corners is not None and mode not in _ALIGNABLE:
            raise ValueError(
                f"{name} expects align_corners with mode {', '.join(_ALIGNABLE)} only; got "
                f"align_corners={align_corners} and mode={mode!r}"
            )
        if recompute_scale_factor and size is not None:
            raise ValueError(f"{name} recomputes a scale_factor, and none is given beside size")
        self.size = _check_each(name, "size", size, _check_size)
        self.scale_factor = _check_each(name, "scale_factor", scale_factor, _check_factor)
        self.mode = mode
        self.align_corners = _check_bool(name, "align_corners", align_corners)
        self.recompute_scale_factor = _check_bool(
            name, "recompute_scale_factor", recompute_scale_factor
        )

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Return the image in its new size."""
        check_float(self, x)
        outputs, factors = self._sizes_for(x.shape)
        backward: Any = upsample_backward
        if self.mode == "area":
            backward = adaptive_avg_pool_backward
            output, saved = adaptive_avg_pool_forward(x, outputs)
        else:
            output, saved = upsample_forward(
                x,
                tuple(
                    self._resampling(*numbers_of_axis)
                    for numbers_of_axis in zip(x.shape[2:], outputs, factors, strict=True)
                ),
            )
        return output, (backward, saved)

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Give every element its share of the outputs that read it."""
        backward, inner = saved
        return backward(grad_output, *inner) if input_grad else None

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        shown = "size" if self.scale_factor is None else "scale_factor"
        return f"{shown}={getattr(self, shown)}, mode={self.mode!r}"

    def _sizes_for(
        self, shape: tuple[int, ...]
    ) -> tuple[tuple[int, ...], tuple[float | None, ...]]:
        """Return the output's lengths, and the factors that count for the ratio."""
        ndim, (allowed, _) = len(shape) - 2, _MODES[self.mode]
        if ndim not in allowed or 0 in shape[1:]:
            axes = " or ".join(str(number + 2) for number in allowed)
            raise ValueError(
                f"{describe_layer(self)} with mode={self.mode!r} expects x of {axes} axes, (batch, "
                f"channels, ...), none but the batch empty; got {shape}"
            )
        given: Any = self.size if self.scale_factor is None else self.scale_factor
        given = given if isinstance(given, tuple) else (given,) * ndim
        if len(given) != ndim:
            raise ValueError(
                f"{describe_layer(self)} expects x of {len(given) + 2} axes, as it has so many "
                f"sizes or factors after batch and channels; got {shape}"
            )
        if self.scale_factor is None:
            return given, (None,) * ndim
        outputs = tuple(
            int(length * factor) for length, factor in zip(shape[2:], given, strict=True)
        )
        if 0 in outputs:
            raise ValueError(
                f"{describe_layer(self)} with scale_factor={self.scale_factor} leaves nothing of x "
                f"of shape {shape}"
            )
        return outputs, (None,) * ndim if self.recompute_scale_factor else given

    def _resampling(self, length: int, outputs: int, factor: float | None) -> Resampling:
        kind, is_aligned = _MODES[self.mode][1], bool(self.align_corners)
        if kind == "linear" and length == outputs:  # PyTorch copies, whatever the factor
            ratio = 1.0
        elif is_aligned:
            ratio = (length - 1) / (outputs - 1) if outputs > 1 else 0.0
        else:
            ratio = length / outputs if factor is None else 1.0 / factor
        return Resampling(length, outputs, ratio, kind, is_aligned)


class UpsamplingNearest2d(Upsample):
    """Take the nearest pixel, ``y[o] = x[floor(o r)]`` with ``r`` the distance of outputs.

    Parameters
    ----------
    size : int or tuple of 2 int, optional
        Height and width of the output.
    scale_factor : float or tuple of 2 float, optional
        Instead of a size: output elements for one of the input, rounded down.

    Notes
    -----
    ``Upsample(size, scale_factor, mode="nearest")``.
    """

    def __init__(
        self,
        size: int | tuple[int, ...] | None = None,
        scale_factor: float | tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(size, scale_factor, mode="nearest")


class UpsamplingBilinear2d(Upsample):
    """Interpolate between four pixels, ``y[o] = (1 - f) x[i] + f x[i + 1]``, ``i + f = o r``.

    Parameters
    ----------
    size : int or tuple of 2 int, optional
        Height and width of the output.
    scale_factor : float or tuple of 2 float, optional
        Instead of a size: output elements for one of the input, rounded down.

    Notes
    -----
    ``Upsample(size, scale_factor, mode="bilinear", align_corners=True)``: in both libraries the
    corners are aligned here, unlike in :class:`Upsample`.
    """

    def __init__(
        self,
        size: int | tuple[int, ...] | None = None,
        scale_factor: float | tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(size, scale_factor, mode="bilinear", align_corners=True)


def _check_each(layer: str, name: str, value: Any, check: Callable[[str, str, Any], Any]) -> Any:
    """Check one value or a tuple of them; None is none given."""
    if isinstance(value, (tuple, list)):
        return tuple(check(layer, name, part) for part in value)
    return None if value is None else check(layer, name, value)


def _check_size(layer: str, name: str, value: Any) -> int:
    return as_count(layer, name, value, 1)


def _check_factor(layer: str, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{layer} expects {name} of numbers; got {type(value).__name__}")
    if not 0 < float(value) < math.inf:
        raise ValueError(f"{layer} expects a finite {name} > 0; got {value}")
    return float(value)


def _check_bool(layer: str, name: str, value: Any) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise TypeError(f"{layer} expects {name} to be a bool or None; got {type(value).__name__}")
    return value
