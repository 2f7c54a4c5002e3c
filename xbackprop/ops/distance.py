"""The distance of pairs of vectors, and its derivative."""

import math
from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op


@op(formula="output = (abs(x1 - x2 + eps) ** p).sum(-1) ** (1 / p)")
def pairwise_distance_forward(x1: Array, x2: Array, p: float, eps: float) -> tuple[Array, Any]:
    """Compute ``y = |x1 - x2 + eps|``, the p-norm over the last axis.

    Parameters
    ----------
    x1, x2 : array of float, shape (..., n)
        They broadcast.
    p : float
        Exponent of the norm; 0 counts what is not 0, ``inf`` takes the largest. Not negative.
    eps : float
        Added to every difference.

    Returns
    -------
    output : array, shape (...)
    saved : (difference, norm, p)
        The norm with a last axis of length 1.

    Notes
    -----
    With ``d = x1 - x2 + eps``: ``dy/dd_i = sign(d_i) (|d_i| / y)^(p - 1)``, and 0 where ``d_i`` or
    ``y`` is 0. ``dLoss/dx2`` is its negative.
    """
    difference = x1 - x2
    difference += eps
    norm = _p_norm(difference, p)
    return norm.reshape(norm.shape[:-1]), (difference, norm, p)


def _p_norm(x: Array, p: float) -> Array:
    xp = get_array_module(x)
    if p == 0:
        return (x != 0).sum(axis=-1, keepdims=True).astype(x.dtype)
    if p == 1:
        return xp.abs(x).sum(axis=-1, keepdims=True)
    if p == 2:
        return xp.sqrt((x * x).sum(axis=-1, keepdims=True))
    if p == math.inf:
        return xp.abs(x).max(axis=-1, keepdims=True)
    return xp.power(xp.power(xp.abs(x), p).sum(axis=-1, keepdims=True), 1 / p)


@op(
    formula="grad_difference = grad_output.reshape(norm.shape) * sign(difference) "
    "* (abs(difference) / norm) ** (p - 1)"
)
def pairwise_distance_backward(
    grad_output: Array, difference: Array, norm: Array, p: float
) -> Array:
    """Return ``g sign(d) (|d| / y)^(p - 1)``, 0 where ``d`` or ``y`` is 0."""
    xp = get_array_module(difference)
    grad_output = grad_output.reshape(norm.shape)
    if p == 0:
        return xp.zeros_like(difference)
    if p == 2:
        return difference * xp.where(norm == 0, 0, grad_output / norm)
    size = xp.abs(difference)
    # Not xp.sign, which keeps NaN: PyTorch's is 0 there.
    sign = (difference > 0).astype(size.dtype) - (difference < 0).astype(size.dtype)
    if p == 1:
        return sign * grad_output
    if p == math.inf:  # several largest ones share it evenly, as in PyTorch
        is_largest = ((size == norm) | (xp.isnan(size) & xp.isnan(norm))).astype(size.dtype)
        return sign * is_largest * (grad_output / is_largest.sum(axis=-1, keepdims=True))
    return xp.where(size == 0, 0, sign * xp.power(size / norm, p - 1) * grad_output)
