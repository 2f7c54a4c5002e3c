"""Softmax and its logarithm along an axis, shifted by the maximum so that exp cannot overflow."""

from xbackprop.backend.array_module import Array, get_array_module


def logsumexp(x: Array, axis: int = -1) -> Array:
    """Return ``log(sum(exp(x)))`` along ``axis``, which is kept with length 1.

    Rows of only ``-inf`` give ``-inf``, as in PyTorch.
    """
    xp = get_array_module(x)
    top = x.max(axis=axis, keepdims=True)
    # A row without any finite entry would compute inf - inf; shift it by zero instead.
    shift = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
    return xp.log(xp.exp(x - shift).sum(axis=axis, keepdims=True)) + shift


def softmax(x: Array, axis: int = -1) -> Array:
    """Return ``exp(x) / sum(exp(x))`` along ``axis``."""
    xp = get_array_module(x)
    return xp.exp(x - logsumexp(x, axis))


def log_softmax(x: Array, axis: int = -1) -> Array:
    """Return ``x - logsumexp(x)`` along ``axis``."""
    return x - logsumexp(x, axis)
