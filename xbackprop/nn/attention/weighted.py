"""Attention that shows its weights, and takes a gradient for them."""

import math
from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.half import widened
from xbackprop.dispatch import ArraySpec, op
from xbackprop.nn.attention.scores import masked_scores, transposed
from xbackprop.ops.broadcast import sum_to_shape
from xbackprop.ops.matmul import product
from xbackprop.ops.softmax import softmax


def _weighted_flops(q: ArraySpec, k: ArraySpec, v: ArraySpec, *_: Any) -> int:
    pairs = math.prod(q.shape[:-1]) * k.shape[-2]
    return 2 * pairs * (q.shape[-1] + v.shape[-1])  # Q K^T, P V


def _weighted_backward_flops(
    grad_output: ArraySpec, q: ArraySpec, k: ArraySpec, v: ArraySpec, *_: Any
) -> int:
    return 2 * _weighted_flops(q, k, v)  # dS K, dS^T Q; G V^T, P^T G


@op(
    formula="output = exp(q @ swapaxes(k, -1, -2) * scale) @ v "
    "/ exp(q @ swapaxes(k, -1, -2) * scale).sum(-1, keepdims=True); "
    "weights = exp(q @ swapaxes(k, -1, -2) * scale) "
    "/ exp(q @ swapaxes(k, -1, -2) * scale).sum(-1, keepdims=True)",
    flops=_weighted_flops,
)
def weighted_attention_forward(
    q: Array,
    k: Array,
    v: Array,
    scale: float,
    attn_mask: Array | None = None,
    kept: Array | None = None,
    dropout_p: float = 0.0,
) -> tuple[tuple[Array, Array], Any]:
    """Compute ``O = W V`` and ``W = softmax(scale Q K^T + mask)``, after dropout.

    Parameters
    ----------
    q, k, v : array
        Of one float dtype and the same leading axes.
    scale, attn_mask, kept, dropout_p
        As :func:`scaled_dot_product_attention_forward` takes them.

    Returns
    -------
    output : array, shape (..., queries, value_features)
    weights : array, shape (..., queries, keys)
        NaN, as the output, for a query that sees no key, as PyTorch's with weights.
    saved : (q, k, v, probabilities, scale, attn_mask, kept, dropout_p)

    Notes
    -----
    With ``G = dLoss/dO`` and ``H`` what else the loss asks of the weights: ``dW = G V^T + H``,
    ``dV = W^T G``. Dropout and softmax lead to ``dS`` as for
    :func:`scaled_dot_product_attention_forward`; the sum ``D_i = sum_k P_ik dP_ik`` has ``H`` in
    it here, so it is taken from the probabilities, which are there anyway.
    """
    probabilities = softmax(masked_scores(q, transposed(k), scale, attn_mask, is_causal=False))
    weights = _dropped(probabilities, kept, dropout_p)
    output = product(weights, v)
    saved = (q, k, v, probabilities, scale, attn_mask, kept, dropout_p)
    return (output, weights), saved


_GRAD_SCORES = (
    "probabilities * (grad_output @ swapaxes(v, -1, -2) "
    "- (probabilities * (grad_output @ swapaxes(v, -1, -2))).sum(-1, keepdims=True))"
)


@op(
    formula=f"grad_q = ({_GRAD_SCORES}) @ k * scale; "
    f"grad_k = swapaxes({_GRAD_SCORES}, -1, -2) @ q * scale; "
    "grad_v = swapaxes(probabilities, -1, -2) @ grad_output",
    flops=_weighted_backward_flops,
)
def weighted_attention_backward(
    grad_output: Array,
    q: Array,
    k: Array,
    v: Array,
    probabilities: Array,
    scale: float,
    attn_mask: Array | None = None,
    kept: Array | None = None,
    dropout_p: float = 0.0,
    grad_weights: Array | None = None,
) -> tuple[Array, Array, Array, Array | None]:
    """Return ``scale dS K``, ``scale dS^T Q``, ``W^T G`` and, for a float mask, ``dS``."""
    xp = get_array_module(q)
    low, wide = q.dtype, widened(q.dtype)
    grad_output = grad_output.astype(wide, copy=False)
    grad_scores = product(grad_output, transposed(v))
    if grad_weights is not None:
        grad_scores += grad_weights
    grad_scores = _dropped(grad_scores, kept, dropout_p)
    grad_scores -= (grad_scores * probabilities).sum(axis=-1, keepdims=True)
    grad_scores *= probabilities
    weights = _dropped(probabilities, kept, dropout_p)
    grad_v = product(xp.swapaxes(weights, -1, -2), grad_output, half=low)
    grad_mask = None
    if attn_mask is not None and attn_mask.dtype.kind != "b":
        grad_mask = sum_to_shape(grad_scores, attn_mask.shape)
    grad_q = product(grad_scores, k)
    grad_q *= scale
    grad_k = product(xp.swapaxes(grad_scores, -1, -2), q)
    grad_k *= scale
    grads = (grad.astype(low, copy=False) for grad in (grad_q, grad_k, grad_v))
    return *grads, grad_mask


def _dropped(values: Array, kept: Array | None, p: float) -> Array:
    """Return the values, or those that dropout keeps times ``1 / (1 - p)`` in a new array."""
    return values if kept is None else values * kept * (1 / (1 - p))
