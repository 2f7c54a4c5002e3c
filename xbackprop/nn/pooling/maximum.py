"""Max pooling: the largest element of every window."""

import math
from typing import Any, ClassVar

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.module import Module
from xbackprop.nn.activations import check_float
from xbackprop.nn.padding.widths import check_image
from xbackprop.nn.pooling.windows import (
    Window,
    check_ints,
    check_padding,
    grad_of_maxima,
    offsets,
    windows_of,
)


@op
def max_pool_forward(x: Array, windows: tuple[Window, ...]) -> tuple[Array, Any]:
    """Compute ``y[o] = max over k of x[o stride + k dilation - padding]``.

    Parameters
    ----------
    x : array of float
        Shape (..., channels, and one axis per window).
    windows : tuple of Window
        Kernel, stride, padding, dilation and number of outputs along the last axes.

    Returns
    -------
    output : array
        The last axes have ``outputs`` elements each.
    saved : (indices, spatial, windows)
        Where the maximum stands in the flattened last axes of ``x``, as :func:`index_dtype`, and
        their shape.

    Notes
    -----
    A window's gradient belongs to its maximum alone: of equals to the first, of NaNs to the last,
    as in PyTorch. Padding is less than every number and is never the maximum, not even among
    ``-inf``. Windows that overlap may share a maximum; one offset in the kernel at a time, every
    element is read by one window, so backward adds without writing to any twice.
    """
    xp = get_array_module(x)
    spatial = x.shape[-len(windows) :]
    positions = _positions(xp, spatial)
    shape = (*x.shape[: -len(windows)], *(window.outputs for window in windows))
    output = xp.full(shape, -math.inf, dtype=x.dtype.newbyteorder("="))
    indices = xp.full(shape, -1, dtype=index_dtype(spatial))
    for windows_here, elements in offsets(spatial, windows):
        value, best, index = x[elements], output[windows_here], indices[windows_here]
        is_larger = (value > best) | (value != value) | (index < 0)
        output[windows_here] = xp.where(is_larger, value, best)
        indices[windows_here] = xp.where(is_larger, positions[elements], index)
    return output, (indices, spatial, windows)


@op
def max_pool_backward(
    grad_output: Array, indices: Array, spatial: tuple[int, ...], windows: tuple[Window, ...]
) -> Array:
    """Return at every element the sum of ``g`` over the windows whose maximum it is."""
    xp = get_array_module(grad_output)
    positions = _positions(xp, spatial)
    shape = (*grad_output.shape[: -len(windows)], *spatial)
    grad_input = xp.zeros(shape, dtype=grad_output.dtype.newbyteorder("="))
    for windows_here, elements in offsets(spatial, windows):
        is_maximum = indices[windows_here] == positions[elements]
        grad_input[elements] += xp.where(is_maximum, grad_output[windows_here], 0)
    return grad_input


def _positions(xp: Any, spatial: tuple[int, ...]) -> Array:
    return xp.arange(math.prod(spatial), dtype=index_dtype(spatial)).reshape(spatial)


def index_dtype(spatial: tuple[int, ...]) -> Any:
    """Return int32 where all places fit: what is kept for backward takes half the memory."""
    return np.int32 if math.prod(spatial) < 1 << 31 else np.int64


class _MaxPool(Module):
    """What max pooling of one to three axes shares."""

    samples_apart = True

    spatial_axes: ClassVar[int]

    def __init__(
        self,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] | None = None,
        padding: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        name, ndim = type(self).__name__, self.spatial_axes
        self.kernel_size = check_ints(name, "kernel_size", kernel_size, ndim, 1)
        stride = kernel_size if stride is None else stride
        self.stride = check_ints(name, "stride", stride, ndim, 1)
        self.padding = check_padding(name, padding, kernel_size, ndim)
        self.dilation = check_ints(name, "dilation", dilation, ndim, 1)
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, x: Array) -> tuple[Any, Any]:
        """Return the maxima, and with ``return_indices`` where they stand."""
        check_float(self, x)
        check_image(self, x.shape, self.spatial_axes)
        windows = windows_of(
            self,
            x.shape,
            self.spatial_axes,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
        )
        output, saved = max_pool_forward(x, windows)
        if self.return_indices:
            return (output, saved[0].astype(np.int64)), (saved, output.dtype)
        return output, (saved, output.dtype)

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Give every window's gradient to its maximum; indices have none."""
        if not input_grad:
            return None
        inner, dtype = saved
        return max_pool_backward(grad_of_maxima(grad_output, inner[0], dtype), *inner)

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """Largest element of every window along the last axis, ``y[o] = max x[o s + k d - p]``.

    Parameters
    ----------
    kernel_size : int or tuple of one
        Elements of a window, ``k = 0 ... kernel_size - 1``.
    stride : int or tuple of one, optional
        ``s``, the distance of windows; None is ``kernel_size``.
    padding : int or tuple of one, default 0
        ``p``, at most half the kernel: so much may stand out at both ends.
    dilation : int or tuple of one, default 1
        ``d``, the distance of a window's elements.
    return_indices : bool, default False
        Return ``(output, indices)``; the indices count the flattened axes ``(length)``.
    ceil_mode : bool, default False
        Let a last window stand out at the end, if it starts before it.

    Notes
    -----
    Input ``(batch, channels, length)``, or that without the batch axis.
    NaN wins, as in PyTorch. A window that dilation leads around all elements gives ``-inf`` and the
    index -1, where PyTorch's index lies beside the image; it has no gradient. The derivative is
    derived in :func:`max_pool_forward`.
    """

    spatial_axes = 1


class MaxPool2d(_MaxPool):
    """Largest element of every window along the last two axes, ``y[o] = max x[o s + k d - p]``.

    Parameters
    ----------
    kernel_size : int or tuple of 2 int
        Elements of a window, ``k = 0 ... kernel_size - 1``.
    stride : int or tuple of 2 int, optional
        ``s``, the distance of windows; None is ``kernel_size``.
    padding : int or tuple of 2 int, default 0
        ``p``, at most half the kernel: so much may stand out at both ends.
    dilation : int or tuple of 2 int, default 1
        ``d``, the distance of a window's elements.
    return_indices : bool, default False
        Return ``(output, indices)``; the indices count the flattened axes ``(height, width)``.
    ceil_mode : bool, default False
        Let a last window stand out at the end, if it starts before it.

    Notes
    -----
    Input ``(batch, channels, height, width)``, or that without the batch axis.
    NaN wins, as in PyTorch. A window that dilation leads around all elements gives ``-inf`` and the
    index -1, where PyTorch's index lies beside the image; it has no gradient. The derivative is
    derived in :func:`max_pool_forward`.
    """

    spatial_axes = 2


class MaxPool3d(_MaxPool):
    """Largest element of every window along the last three axes, ``y[o] = max x[o s + k d - p]``.

    Parameters
    ----------
    kernel_size : int or tuple of 3 int
        Elements of a window, ``k = 0 ... kernel_size - 1``.
    stride : int or tuple of 3 int, optional
        ``s``, the distance of windows; None is ``kernel_size``.
    padding : int or tuple of 3 int, default 0
        ``p``, at most half the kernel: so much may stand out at both ends.
    dilation : int or tuple of 3 int, default 1
        ``d``, the distance of a window's elements.
    return_indices : bool, default False
        Return ``(output, indices)``; the indices count the flattened axes
        ``(depth, height, width)``.
    ceil_mode : bool, default False
        Let a last window stand out at the end, if it starts before it.

    Notes
    -----
    Input ``(batch, channels, depth, height, width)``, or that without the batch axis.
    NaN wins, as in PyTorch. A window that dilation leads around all elements gives ``-inf`` and the
    index -1, where PyTorch's index lies beside the image; it has no gradient. The derivative is
    derived in :func:`max_pool_forward`.
    """

    spatial_axes = 3
