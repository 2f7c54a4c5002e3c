"""Softmax and its logarithm along an axis, shifted by the maximum so that exp cannot overflow."""

from xbackprop.backend.array_module import Array, get_array_module


def logsumexp(x: Array, axis: int = -1) -> Array:
    """Return ``log(sum(exp(x)))`` along ``axis``, which is kept with length 1.

    Rows of only ``-inf`` give ``-inf``, as in PyTorch.
    """
    shift, log_total = shifted_logsumexp(x, axis)
    return log_total + shift


def shifted_logsumexp(x: Array, axis: int = -1) -> tuple[Array, Array]:
    """Return the maximum ``m`` along ``axis`` and ``log(sum(exp(x - m)))``.

    Their sum is the logsumexp, but ``(x - m) - log_total`` keeps the digits that ``x - logsumexp``
    loses: at 1e4 three of float32's seven. ``m`` is 0 in rows without any finite entry.
    """
    shift = _finite_maximum(x, axis)
    xp = get_array_module(x)
    return shift, xp.log(xp.exp(x - shift).sum(axis=axis, keepdims=True))


def softmax(x: Array, axis: int = -1) -> Array:
    """Return ``exp(x) / sum(exp(x))`` along ``axis``.

    Rows of only ``-inf``, and rows with ``inf``, give NaN, as in PyTorch.
    """
    if not x.size:
        return x.copy()
    # Not exp(x - logsumexp(x)): at 1e4 the sum's logarithm has lost three of float32's digits.
    output = get_array_module(x).exp(x - x.max(axis=axis, keepdims=True))
    output /= output.sum(axis=axis, keepdims=True)
    return output


def log_softmax(x: Array, axis: int = -1) -> Array:
    """Return ``x - logsumexp(x)`` along ``axis``; NaN where :func:`softmax` gives NaN."""
    if not x.size:
        return x.copy()
    xp = get_array_module(x)
    output = x - x.max(axis=axis, keepdims=True)
    output -= xp.log(xp.exp(output).sum(axis=axis, keepdims=True))
    return output


def _finite_maximum(x: Array, axis: int) -> Array:
    """Return the maximum; 0 for a row without any finite entry, which would give inf - inf."""
    xp = get_array_module(x)
    top = x.max(axis=axis, keepdims=True)
    return xp.where(xp.isfinite(top), top, xp.zeros_like(top))
