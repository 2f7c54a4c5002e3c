"""Average pooling of a given number of windows."""

from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.nn.pooling.intervals import Adaptive, interval_steps
from xbackprop.ops.broadcast import as_axis


@op
def adaptive_avg_pool_forward(x: Array, sizes: tuple[int, ...]) -> tuple[Array, Any]:
    """Compute the mean of ``x[floor(o n / m) : ceil((o + 1) n / m)]`` for ``m`` outputs of ``n``.

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
    saved : (spatial,)
        The lengths that the last axes of ``x`` have.

    Notes
    -----
    A mean over a box is a mean along one axis after the other. Output ``o`` reads element ``i`` if
    ``o n / m < i + 1`` and ``(o + 1) n / m > i``. This is the same relation with ``n`` and ``m``,
    ``o`` and ``i`` exchanged, so the windows that read an element are an interval too, and
    backward sums over it as forward does.
    """
    spatial = x.shape[-len(sizes) :]
    output = x.astype(np.result_type(x.dtype.newbyteorder("="), np.float32), copy=False)
    for axis, size in enumerate(sizes, start=x.ndim - len(sizes)):
        lengths = _lengths(output, axis, x.shape[axis], size)
        output = _interval_sums(output, axis, size) / lengths
    return output.astype(x.dtype.newbyteorder("="), copy=False), (spatial,)


@op
def adaptive_avg_pool_backward(grad_output: Array, spatial: tuple[int, ...]) -> Array:
    """Return at every element the sum of ``g / length`` over the windows that it is in."""
    grad = grad_output
    for axis, length in enumerate(spatial, start=grad_output.ndim - len(spatial)):
        lengths = _lengths(grad, axis, length, grad_output.shape[axis])
        grad = _interval_sums(grad / lengths, axis, length)
    return grad


def _lengths(like: Array, axis: int, length: int, size: int) -> Array:
    """Return how many elements each interval has, along an axis of ``like``."""
    numbers = get_array_module(like).arange(size)
    counts = -((numbers + 1) * -length // size) - numbers * length // size
    return as_axis(counts.astype(like.dtype.newbyteorder("=")), axis - like.ndim)


def _interval_sums(x: Array, axis: int, size: int) -> Array:
    """Return the sum of each of ``size`` intervals along an axis."""
    xp = get_array_module(x)
    shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
    sums = xp.zeros(shape, dtype=x.dtype.newbyteorder("="))
    for place, is_there in interval_steps(xp, x.shape[axis], size):
        sums += xp.where(as_axis(is_there, axis - x.ndim), xp.take(x, place, axis=axis), 0)
    return sums


class _AdaptiveAvgPool(Adaptive):
    def forward(self, x: Array) -> tuple[Array, Any]:
        """Return the means."""
        return adaptive_avg_pool_forward(x, self.sizes_for(x))

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Give every element of a window its share of the gradient."""
        return adaptive_avg_pool_backward(grad_output, *saved) if input_grad else None


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """Mean of ``m`` windows along the last axis, ``y[o] = mean(x[o n // m : ...])``.

    Parameters
    ----------
    output_size : int or tuple of one
        ``m``, windows along each axis.

    Notes
    -----
    Input ``(batch, channels, length)``, or that without the batch axis.
    Window ``o`` goes from ``floor(o n / m)`` to ``ceil((o + 1) n / m)``: neighbours overlap where
    ``m`` does not divide ``n``. The derivative is derived in
    :func:`adaptive_avg_pool_forward`.
    """

    spatial_axes = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Mean of ``m`` windows along the last two axes, ``y[o] = mean(x[o n // m : ...])``.

    Parameters
    ----------
    output_size : int or tuple of 2
        ``m``, windows along each axis; None keeps the axis as it is.

    Notes
    -----
    Input ``(batch, channels, height, width)``, or that without the batch axis.
    Window ``o`` goes from ``floor(o n / m)`` to ``ceil((o + 1) n / m)``: neighbours overlap where
    ``m`` does not divide ``n``. The derivative is derived in
    :func:`adaptive_avg_pool_forward`.
    """

    spatial_axes = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """Mean of ``m`` windows along the last three axes, ``y[o] = mean(x[o n // m : ...])``.

    Parameters
    ----------
    output_size : int or tuple of 3
        ``m``, windows along each axis; None keeps the axis as it is.

    Notes
    -----
    Input ``(batch, channels, depth, height, width)``, or that without the batch axis.
    Window ``o`` goes from ``floor(o n / m)`` to ``ceil((o + 1) n / m)``: neighbours overlap where
    ``m`` does not divide ``n``. The derivative is derived in
    :func:`adaptive_avg_pool_forward`.
    """

    spatial_axes = 3
