"""The distance of pairs of vectors, and its derivative."""

import math
from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op


@op(formula="output = (abs(x1 - x2 + eps) ** p).sum(-1) ** (1 / p)")
def pairwise_distance_forward(
    x1: Array, x2: Array, p: float, eps: float, keepdim: bool = False
) -> tuple[Array, Any]:
    """Compute ``y = |x1 - x2 + eps|``, the p-norm over the last axis.

    Parameters
    ----------
    x1, x2 : array of float
        Of one shape.
    p : float
        Exponent of the norm; 0 counts what is not 0, an infinite one takes the extreme.
    eps : float
        Added to every difference.
    keepdim : bool, default False
        Keep the last axis, with length 1.

    Returns
    -------
    output : array
    saved : (difference, norm, p)
        The norm with a last axis of length 1.

    Notes
    -----
    With ``d = x1 - x2 + eps``: ``dy/dd_i = sign(d_i) (|d_i| / y)^(p - 1)``, and 0 where ``d_i`` or
    ``y`` is 0. ``dLoss/dx2`` is its negative. For infinite ``p`` the extreme differences share the
    gradient; for ``p = 0`` there is none.
    """
    difference = x1 - x2
    difference += eps
    norm = p_norm(difference, p)
    output = norm if keepdim else norm.reshape(norm.shape[:-1])
    return output, (difference, norm, p)


def p_norm(x: Array, p: float) -> Array:
    """Return ``(sum |x|^p)^(1/p)`` over the last axis, which is kept with length 1."""
    xp = get_array_module(x)
    if p == 0:
        return (x != 0).sum(axis=-1, keepdims=True).astype(x.dtype)
    if p == 1:
        return xp.abs(x).sum(axis=-1, keepdims=True)
    if p == 2:
        return xp.sqrt((x * x).sum(axis=-1, keepdims=True))
    if math.isinf(p):
        extreme = xp.max if p > 0 else xp.min
        return extreme(xp.abs(x), axis=-1, keepdims=True)
    return (xp.abs(x) ** p).sum(axis=-1, keepdims=True) ** (1 / p)


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
    if math.isinf(p):  # several extreme ones share it evenly, as in PyTorch
        is_extreme = ((size == norm) | (xp.isnan(size) & xp.isnan(norm))).astype(size.dtype)
        return sign * is_extreme * (grad_output / is_extreme.sum(axis=-1, keepdims=True))
    slope = sign * (size / norm) ** (p - 1) * grad_output
    return xp.where((size == 0) | (norm == 0), 0, slope)
