"""Average pooling: the mean of every window."""

from typing import Any, ClassVar

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.module import Module
from xbackprop.nn.activations import check_float
from xbackprop.nn.padding.widths import check_image
from xbackprop.nn.pooling.windows import Window, check_ints, check_padding, offsets, windows_of


@op
def avg_pool_forward(
    x: Array, windows: tuple[Window, ...], count_include_pad: bool, divisor_override: int | None
) -> tuple[Array, Any]:
    """Compute ``y[o] = (sum over k of x[o stride + k - padding]) / n[o]``.

    Parameters
    ----------
    x : array of float
        Shape (..., channels, and one axis per window).
    windows : tuple of Window
        Kernel, stride, padding and number of outputs along the last axes.
    count_include_pad : bool
        Whether ``n`` counts padding, which is 0; what stands out beyond it never counts.
    divisor_override : int or None
        ``n`` itself.

    Returns
    -------
    output : array
        The last axes have ``outputs`` elements each.
    saved : (spatial, windows, count_include_pad, divisor_override)
        The last axes' lengths, and the options.

    Notes
    -----
    ``dy[o]/dx[i] = 1 / n[o]`` for every ``i`` in the window.
    """
    spatial = x.shape[-len(windows) :]
    output = window_sums(x, windows)
    output /= divisor(output, spatial, windows, count_include_pad, divisor_override)
    output = output.astype(x.dtype.newbyteorder("="), copy=False)
    return output, (spatial, windows, count_include_pad, divisor_override)


@op
def avg_pool_backward(
    grad_output: Array,
    spatial: tuple[int, ...],
    windows: tuple[Window, ...],
    count_include_pad: bool,
    divisor_override: int | None,
) -> Array:
    """Return at every element the sum of ``g / n`` over the windows that it is in."""
    n = divisor(grad_output, spatial, windows, count_include_pad, divisor_override)
    return spread_over_windows(grad_output / n, spatial, windows)


def window_sums(x: Array, windows: tuple[Window, ...]) -> Array:
    """Return the sum of every window, of half floats in float32."""
    shape = (*x.shape[: -len(windows)], *(window.outputs for window in windows))
    dtype = np.result_type(x.dtype.newbyteorder("="), np.float32)
    output = get_array_module(x).zeros(shape, dtype=dtype)
    for windows_here, elements in offsets(x.shape[-len(windows) :], windows):
        output[windows_here] += x[elements]
    return output


def spread_over_windows(
    grad: Array, spatial: tuple[int, ...], windows: tuple[Window, ...]
) -> Array:
    """Return at every element the sum of ``grad`` over the windows that it is in."""
    shape = (*grad.shape[: -len(windows)], *spatial)
    spread = get_array_module(grad).zeros(shape, dtype=grad.dtype.newbyteorder("="))
    for windows_here, elements in offsets(spatial, windows):
        spread[elements] += grad[windows_here]
    return spread


def divisor(
    like: Array,
    spatial: tuple[int, ...],
    windows: tuple[Window, ...],
    count_include_pad: bool,
    divisor_override: int | None,
) -> Any:
    """Return ``n``: a number, or one for every window where they hold unequally many elements."""
    if divisor_override is not None:
        return divisor_override
    counts: Any = 1
    for axis, (length, window) in enumerate(zip(spatial, windows, strict=True)):
        end = (window.outputs - 1) * window.stride - window.padding + window.kernel_size
        counted = length + window.padding if count_include_pad else length
        if end <= counted and (count_include_pad or not window.padding):
            counts = counts * window.kernel_size
            continue
        xp = get_array_module(like)
        start = xp.arange(window.outputs) * window.stride - window.padding
        stop = xp.minimum(start + window.kernel_size, counted)
        count = stop - (start if count_include_pad else xp.maximum(start, 0))
        count = count.astype(like.dtype.newbyteorder("="))
        counts = counts * count.reshape(-1, *(1,) * (len(spatial) - 1 - axis))
    return counts


class _AvgPool(Module):
    """What average pooling of one to three axes shares."""

    samples_apart = True

    spatial_axes: ClassVar[int]
    divisor_override: int | None = None

    def __init__(
        self,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] | None = None,
        padding: int | tuple[int, ...] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        name, ndim = type(self).__name__, self.spatial_axes
        self.kernel_size = check_ints(name, "kernel_size", kernel_size, ndim, 1)
        stride = kernel_size if stride is None else stride
        self.stride = check_ints(name, "stride", stride, ndim, 1)
        self.padding = check_padding(name, padding, kernel_size, ndim)
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Return the means."""
        check_float(self, x)
        check_image(self, x.shape, self.spatial_axes)
        windows = windows_of(
            self,
            x.shape,
            self.spatial_axes,
            self.kernel_size,
            self.stride,
            self.padding,
            ceil_mode=self.ceil_mode,
        )
        return avg_pool_forward(x, windows, self.count_include_pad, self.divisor_override)

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Give every element of a window its share of the gradient."""
        return avg_pool_backward(grad_output, *saved) if input_grad else None

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AvgPoolOfImages(_AvgPool):
    """Average pooling whose divisor may be given."""

    samples_apart = True

    def __init__(
        self,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] | None = None,
        padding: int | tuple[int, ...] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        name = type(self).__name__
        if divisor_override is not None and (
            isinstance(divisor_override, bool) or not isinstance(divisor_override, int)
        ):
            raise TypeError(
                f"{name} expects divisor_override to be an int or None; got "
                f"{type(divisor_override).__name__}"
            )
        if divisor_override == 0:
            raise ValueError(f"{name} expects divisor_override other than 0")
        self.divisor_override = divisor_override


class AvgPool1d(_AvgPool):
    """Mean of every window along the last axis, ``y[o] = sum(x[o s + k - p]) / n[o]``.

    Parameters
    ----------
    kernel_size : int or tuple of one
        Elements of a window, ``k = 0 ... kernel_size - 1``.
    stride : int or tuple of one, optional
        ``s``, the distance of windows; None is ``kernel_size``.
    padding : int or tuple of one, default 0
        ``p``, at most half the kernel: so many zeros stand at both ends.
    ceil_mode : bool, default False
        Let a last window stand out at the end, if it starts before it.
    count_include_pad : bool, default True
        Count padding in ``n``; what stands out beyond it never counts.

    Notes
    -----
    Input ``(batch, channels, length)``, or that without the batch axis.
    The derivative is derived in :func:`avg_pool_forward`.
    """

    spatial_axes = 1


class AvgPool2d(_AvgPoolOfImages):
    """Mean of every window along the last two axes, ``y[o] = sum(x[o s + k - p]) / n[o]``.

    Parameters
    ----------
    kernel_size : int or tuple of 2 int
        Elements of a window, ``k = 0 ... kernel_size - 1``.
    stride : int or tuple of 2 int, optional
        ``s``, the distance of windows; None is ``kernel_size``.
    padding : int or tuple of 2 int, default 0
        ``p``, at most half the kernel: so many zeros stand at both ends.
    ceil_mode : bool, default False
        Let a last window stand out at the end, if it starts before it.
    count_include_pad : bool, default True
        Count padding in ``n``; what stands out beyond it never counts.
    divisor_override : int, optional
        ``n`` itself.

    Notes
    -----
    Input ``(batch, channels, height, width)``, or that without the batch axis.
    The derivative is derived in :func:`avg_pool_forward`.
    """

    spatial_axes = 2


class AvgPool3d(_AvgPoolOfImages):
    """Mean of every window along the last three axes, ``y[o] = sum(x[o s + k - p]) / n[o]``.

    Parameters
    ----------
    kernel_size : int or tuple of 3 int
        Elements of a window, ``k = 0 ... kernel_size - 1``.
    stride : int or tuple of 3 int, optional
        ``s``, the distance of windows; None is ``kernel_size``.
    padding : int or tuple of 3 int, default 0
        ``p``, at most half the kernel: so many zeros stand at both ends.
    ceil_mode : bool, default False
        Let a last window stand out at the end, if it starts before it.
    count_include_pad : bool, default True
        Count padding in ``n``; what stands out beyond it never counts.
    divisor_override : int, optional
        ``n`` itself.

    Notes
    -----
    Input ``(batch, channels, depth, height, width)``, or that without the batch axis.
    The derivative is derived in :func:`avg_pool_forward`.
    """

    spatial_axes = 3
