"""Max pooling of a given number of windows."""

import itertools
import math
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.nn.pooling.intervals import Adaptive, interval_steps
from xbackprop.nn.pooling.windows import grad_of_maxima
from xbackprop.ops.broadcast import as_axis


@op
def adaptive_max_pool_forward(x: Array, sizes: tuple[int, ...]) -> tuple[Array, Any]:
    """Compute the maximum of ``x[floor(o n / m) : ceil((o + 1) n / m)]``, ``m`` outputs of ``n``.

    Parameters
    ----------
    x : array of float
        Shape (..., channels, and one axis per size).
    sizes : tuple of int
        ``m`` along each of the last axes.

    Returns
    -------
    output : array
        The last axes have these sizes.
    saved : (indices, spatial)
        Where the maximum stands in the flattened last axes of ``x``, as int64, and their shape.

    Notes
    -----
    A window's gradient belongs to its maximum alone: of equals to the first, of NaNs to the last,
    as in PyTorch. The windows that read an element are an interval along each axis, see
    :func:`adaptive_avg_pool_forward`; backward looks through them for those whose maximum it is.
    """
    xp = get_array_module(x)
    spatial = x.shape[-len(sizes) :]
    positions = xp.arange(math.prod(spatial), dtype=np.int64).reshape(spatial)
    output, indices = x, xp.broadcast_to(positions, x.shape)
    # From the last axis on: of equals in several rows, the first row's comes first in memory.
    for axis in reversed(range(x.ndim - len(sizes), x.ndim)):
        output, indices = _interval_maxima(output, indices, axis, sizes[axis - x.ndim])
    return output, (indices, spatial)


@op
def adaptive_max_pool_backward(
    grad_output: Array, indices: Array, spatial: tuple[int, ...]
) -> Array:
    """Return at every element the sum of ``g`` over the windows whose maximum it is."""
    xp = get_array_module(grad_output)
    axes = range(grad_output.ndim - len(spatial), grad_output.ndim)
    positions = xp.arange(math.prod(spatial), dtype=np.int64).reshape(spatial)
    shape = (*grad_output.shape[: axes.start], *spatial)
    grad_input = xp.zeros(shape, dtype=grad_output.dtype.newbyteorder("="))
    steps = [
        interval_steps(xp, grad_output.shape[axis], length)
        for axis, length in zip(axes, spatial, strict=True)
    ]
    for windows in itertools.product(*steps):
        grad, index, is_inside = grad_output, indices, positions >= 0
        for axis, (place, is_there) in zip(axes, windows, strict=True):
            grad, index = xp.take(grad, place, axis=axis), xp.take(index, place, axis=axis)
            is_inside = is_inside & as_axis(is_there, axis - grad_output.ndim)
        grad_input += xp.where(is_inside & (index == positions), grad, 0)
    return grad_input


def _interval_maxima(x: Array, indices: Array, axis: int, size: int) -> tuple[Array, Array]:
    """Return the maximum of each of ``size`` intervals along an axis, and its index."""
    xp = get_array_module(x)
    steps = interval_steps(xp, x.shape[axis], size)
    best, index = (xp.take(array, steps[0][0], axis=axis) for array in (x, indices))
    for place, is_there in steps[1:]:
        value = xp.take(x, place, axis=axis)
        is_larger = ((value > best) | (value != value)) & as_axis(is_there, axis - x.ndim)
        best = xp.where(is_larger, value, best)
        index = xp.where(is_larger, xp.take(indices, place, axis=axis), index)
    return best, index


class _AdaptiveMaxPool(Adaptive):
    def __init__(
        self, output_size: int | tuple[int | None, ...], return_indices: bool = False
    ) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices

    def forward(self, x: Array) -> tuple[Any, Any]:
        """Return the maxima, and with ``return_indices`` where they stand."""
        output, saved = adaptive_max_pool_forward(x, self.sizes_for(x))
        return ((output, saved[0]) if self.return_indices else output), (saved, output.dtype)

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Give every window's gradient to its maximum; indices have none."""
        if not input_grad:
            return None
        inner, dtype = saved
        return adaptive_max_pool_backward(grad_of_maxima(grad_output, inner[0], dtype), *inner)


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """Maximum of ``m`` windows along the last axis, ``y[o] = max(x[o n // m : ...])``.

    Parameters
    ----------
    output_size : int or tuple of one
        ``m``, windows along each axis.
    return_indices : bool, default False
        Return ``(output, indices)``; the indices count the flattened axes
        ``(length)``.

    Notes
    -----
    Input ``(batch, channels, length)``, or that without the batch axis.
    Window ``o`` goes from ``floor(o n / m)`` to ``ceil((o + 1) n / m)``: neighbours overlap where
    ``m`` does not divide ``n``. The derivative is derived in
    :func:`adaptive_max_pool_forward`.
    """

    spatial_axes = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """Maximum of ``m`` windows along the last two axes, ``y[o] = max(x[o n // m : ...])``.

    Parameters
    ----------
    output_size : int or tuple of 2
        ``m``, windows along each axis; None keeps the axis as it is.
    return_indices : bool, default False
        Return ``(output, indices)``; the indices count the flattened axes
        ``(height, width)``.

    Notes
    -----
    Input ``(batch, channels, height, width)``, or that without the batch axis.
    Window ``o`` goes from ``floor(o n / m)`` to ``ceil((o + 1) n / m)``: neighbours overlap where
    ``m`` does not divide ``n``. The derivative is derived in
    :func:`adaptive_max_pool_forward`.
    """

    spatial_axes = 2


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """Maximum of ``m`` windows along the last three axes, ``y[o] = max(x[o n // m : ...])``.

    Parameters
    ----------
    output_size : int or tuple of 3
        ``m``, windows along each axis; None keeps the axis as it is.
    return_indices : bool, default False
        Return ``(output, indices)``; the indices count the flattened axes
        ``(depth, height, width)``.

    Notes
    -----
    Input ``(batch, channels, depth, height, width)``, or that without the batch axis.
    Window ``o`` goes from ``floor(o n / m)`` to ``ceil((o + 1) n / m)``: neighbours overlap where
    ``m`` does not divide ``n``. The derivative is derived in
    :func:`adaptive_max_pool_forward`.
    """

    spatial_axes = 3
