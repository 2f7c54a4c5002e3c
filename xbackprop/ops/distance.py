"""The distance of pairs of vectors, and its derivative."""

import math
from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.ops.broadcast import sum_to_shape


@op(formula="distance = ((abs(x1 - x2 + eps) ** p).sum(-1)) ** (1 / p)")
def pairwise_distance_forward(
    x1: Array, x2: Array, *, p: float = 2.0, eps: float = 1e-6
) -> tuple[Array, Any]:
    """Compute ``|x1 - x2 + eps|_p`` along the last axis.

    Parameters
    ----------
    x1, x2 : array, shape (..., n)
        They broadcast.
    p : float
        Of the norm: 0 counts what is not zero, ``inf`` takes the largest. Not negative.
    eps : float
        Added to every difference.

    Returns
    -------
    distance : array, shape (...)
    saved : (x1, x2, distance)

    Notes
    -----
    With ``d = x1 - x2 + eps``: ``d|d|_p / dd = sign(d) (|d| / |d|_p)^(p-1)``.
    """
    xp = get_array_module(x1)
    difference = x1 - x2 + eps
    size = xp.abs(difference)
    if p == 2:
        distance = xp.sqrt((difference * difference).sum(axis=-1))
    elif p == 1:
        distance = size.sum(axis=-1)
    elif p == 0:
        distance = (difference != 0).sum(axis=-1).astype(x1.dtype)
    elif p == math.inf:
        distance = size.max(axis=-1)
    else:
        distance = xp.power(xp.power(size, p).sum(axis=-1), 1 / p)
    return distance, (x1, x2, distance)


@op(formula="grad1 = grad_output[..., None] * (x1 - x2 + eps) / distance[..., None]")
def pairwise_distance_backward(
    grad_output: Array,
    x1: Array,
    x2: Array,
    distance: Array,
    *,
    p: float = 2.0,
    eps: float = 1e-6,
) -> tuple[Array, Array]:
    """Return ``sign(d) (|d| / |d|_p)^(p-1) g`` and minus that; 0 where the distance is 0."""
    xp = get_array_module(x1)
    difference = x1 - x2 + eps
    length = xp.expand_dims(distance, -1)
    slope = _norm_slope(xp, difference, length, p) * xp.expand_dims(grad_output, -1)
    return sum_to_shape(slope, x1.shape), sum_to_shape(-slope, x2.shape)


def _norm_slope(xp: Any, difference: Array, length: Array, p: float) -> Array:
    if p == 0:
        return xp.zeros_like(difference)
    if p == 2:
        return xp.where(length == 0, 0, difference / length)
    size = xp.abs(difference)
    sign = (difference > 0).astype(size.dtype) - (difference < 0).astype(size.dtype)
    if p == 1:
        return sign
    if p == math.inf:  # several largest ones share it evenly, as in PyTorch
        is_largest = ((size == length) | (xp.isnan(size) & xp.isnan(length))).astype(size.dtype)
        return sign * is_largest / is_largest.sum(axis=-1, keepdims=True)
    return xp.where(size == 0, 0, sign * xp.power(size / length, p - 1))
