"""Scaled dot-product attention: every query mixes the values of the keys that it resembles."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.half import widened
from xbackprop.dispatch import ArraySpec, op
from xbackprop.nn.attention.scores import masked_scores, part_of, shifted_exponentials, transposed
from xbackprop.ops.broadcast import sum_to_shape
from xbackprop.ops.matmul import product


def _attention_flops(
    q: ArraySpec,
    k: ArraySpec,
    v: ArraySpec,
    scale: float = 1.0,
    attn_mask: ArraySpec | None = None,
    kept: ArraySpec | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    block_size: int | None = None,
) -> int:
    scores, mixed = _pairs(q, k, v, is_causal, block_size)
    return 2 * (scores * q.shape[-1] + mixed * v.shape[-1])  # Q K^T, P V


def _attention_backward_flops(
    grad_output: ArraySpec,
    q: ArraySpec,
    k: ArraySpec,
    v: ArraySpec,
    output: ArraySpec,
    shift: ArraySpec,
    log_total: ArraySpec,
    scale: float = 1.0,
    attn_mask: ArraySpec | None = None,
    kept: ArraySpec | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    block_size: int | None = None,
) -> int:
    scores, mixed = _pairs(q, k, v, is_causal, block_size)
    # Q K^T again; dS K and dS^T Q; G V^T and P^T G.
    return 2 * (scores * q.shape[-1] + 2 * mixed * q.shape[-1] + 2 * mixed * v.shape[-1])


def _pairs(
    q: ArraySpec, k: ArraySpec, v: ArraySpec, is_causal: bool, block_size: int | None
) -> tuple[int, int]:
    """Return how many pairs of a query and a key are scored, and how many mix values."""
    seen = sum(
        (rows.stop - rows.start) * keys.stop for rows, keys in _blocks(q, k, is_causal, block_size)
    )
    lead = np.broadcast_shapes(q.shape[:-2], k.shape[:-2])
    mixed = np.broadcast_shapes(lead, v.shape[:-2])
    return math.prod(lead) * seen, math.prod(mixed) * seen


@op(
    formula="output = exp(q @ swapaxes(k, -1, -2) * scale) @ v "
    "/ exp(q @ swapaxes(k, -1, -2) * scale).sum(-1, keepdims=True)",
    flops=_attention_flops,
)
def scaled_dot_product_attention_forward(
    q: Array,
    k: Array,
    v: Array,
    scale: float,
    attn_mask: Array | None = None,
    kept: Array | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    block_size: int | None = None,
) -> tuple[Array, Any]:
    """Compute ``O = P V`` with ``P = softmax(S)`` and ``S = scale Q K^T + mask``.

    Parameters
    ----------
    q : array of float, shape (..., queries, features)
        Leading axes: batch and heads.
    k : array, shape (..., keys, features)
        Of the dtype of ``q``; its leading axes broadcast with those of ``q``.
    v : array, shape (..., keys, value_features)
        As ``k``.
    scale : float
        Usually ``1 / sqrt(features)``.
    attn_mask : array, optional
        Broadcasts to ``(..., queries, keys)``. Bool: False hides a key from a query. Of the dtype
        of ``q``: added to the scores.
    kept : array of bool, shape (..., queries, keys), optional
        Which probabilities dropout leaves, each then times ``1 / (1 - dropout_p)``.
    dropout_p : float, default 0.0
        Of ``kept``; below 1.
    is_causal : bool, default False
        Hide key ``j`` from query ``i`` where ``j > i``.
    block_size : int, optional
        Queries at a time. The scores then take ``block_size * keys`` numbers instead of
        ``queries * keys``; results agree to rounding. With ``is_causal`` a block leaves out the
        keys behind its last query, which saves up to half the work.

    Returns
    -------
    output : array, shape (..., queries, value_features)
        Zeros for a query that sees no key, as in PyTorch.
    saved : (q, k, v, output, shift, log_total, scale, attn_mask, kept, dropout_p, is_causal, \
block_size)
        The logsumexp of the scores in two parts, their maximum and the logarithm of the shifted
        sum: added up, float32 loses three digits at scores of 1e4. No probability is saved.

    Notes
    -----
    With ``G = dLoss/dO``, softmax has the Jacobian ``dP_ij/dS_ik = P_ij (1 where j = k, else 0) -
    P_ij P_ik`` along each row, so that ``dS_ij = P_ij (dP_ij - sum_k dP_ik P_ik)`` with
    ``dP = G V^T``. The sum is ``sum_k P_ik sum_c G_ic V_kc = sum_c G_ic O_ic =: D_i``, one number
    per query, which needs no probabilities: a block of queries is differentiated by itself, with
    ``P = exp(S - logsumexp)`` made anew. Then ``dQ = scale dS K``, ``dK = scale dS^T Q``,
    ``dV = P^T G`` and ``dmask = dS``. Dropout multiplies ``P`` by ``Z`` of 0 and ``1 / (1 - p)``:
    ``dV = (P Z)^T G`` and ``dP = (G V^T) Z``, ``D`` is the same.

    References
    ----------
    Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.2.1.
    Dao, "FlashAttention-2", 2023, algorithm 2 for ``D`` and for what is saved.
    """
    xp = get_array_module(q)
    keys_t = transposed(k)
    lead = np.broadcast_shapes(q.shape[:-2], k.shape[:-2])
    shift = xp.zeros((*lead, q.shape[-2], 1), dtype=widened(q.dtype))
    log_total = xp.zeros_like(shift)
    lead = np.broadcast_shapes(lead, v.shape[:-2])
    output = xp.zeros((*lead, q.shape[-2], v.shape[-1]), dtype=q.dtype)
    for rows, keys in _blocks(q, k, is_causal, block_size):
        scores = masked_scores(q, keys_t, scale, attn_mask, is_causal, rows, keys)
        numerators, shift[..., rows, :], total = shifted_exponentials(scores)
        log_total[..., rows, :] = xp.log(total)
        if kept is not None:
            numerators *= part_of(kept, rows, keys)
            total *= 1 - dropout_p
        output[..., rows, :] = product(numerators, v[..., keys, :]) / total
    saved = (q, k, v, output, shift, log_total, scale, attn_mask, kept, dropout_p, is_causal)
    return output, (*saved, block_size)


_PROBABILITIES = "exp(q @ swapaxes(k, -1, -2) * scale - shift - log_total)"
_GRAD_SCORES = (
    f"({_PROBABILITIES} * (grad_output @ swapaxes(v, -1, -2) "
    "- (grad_output * output).sum(-1, keepdims=True)))"
)


@op(
    formula=f"grad_q = {_GRAD_SCORES} @ k * scale; "
    f"grad_k = swapaxes({_GRAD_SCORES}, -1, -2) @ q * scale; "
    f"grad_v = swapaxes({_PROBABILITIES}, -1, -2) @ grad_output",
    flops=_attention_backward_flops,
)
def scaled_dot_product_attention_backward(
    grad_output: Array,
    q: Array,
    k: Array,
    v: Array,
    output: Array,
    shift: Array,
    log_total: Array,
    scale: float,
    attn_mask: Array | None = None,
    kept: Array | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    block_size: int | None = None,
) -> tuple[Array, Array, Array, Array | None]:
    """Return ``scale dS K``, ``scale dS^T Q``, ``P^T G`` and, for a float mask, ``dS``."""
    xp = get_array_module(q)
    lead = output.shape[:-2]
    low, wide = q.dtype, widened(q.dtype)
    grad_q, grad_k, grad_v = (xp.zeros((*lead, *x.shape[-2:]), dtype=wide) for x in (q, k, v))
    grad_mask = None
    if attn_mask is not None and attn_mask.dtype.kind != "b":
        grad_mask = xp.zeros(attn_mask.shape, dtype=wide)
    keys_t, values_t = transposed(k), transposed(v)
    grad = grad_output = grad_output.astype(wide, copy=False)
    if kept is not None:
        grad = grad_output * (1 / (1 - dropout_p))
    means = (grad_output * output.astype(wide, copy=False)).sum(axis=-1, keepdims=True)  # D
    for rows, keys in _blocks(q, k, is_causal, block_size):
        scores = masked_scores(q, keys_t, scale, attn_mask, is_causal, rows, keys)
        scores -= shift[..., rows, :]
        scores -= log_total[..., rows, :]
        probabilities = xp.exp(scores)
        grad_scores = product(grad[..., rows, :], values_t[..., keys])
        passed = probabilities
        if kept is not None:
            block = part_of(kept, rows, keys)
            grad_scores *= block
            passed = probabilities * block
        grad_scores -= means[..., rows, :]
        grad_scores *= probabilities
        grad_q[..., rows, :] = product(grad_scores, k[..., keys, :])
        grad_k[..., keys, :] += product(xp.swapaxes(grad_scores, -1, -2), q[..., rows, :])
        grad_v[..., keys, :] += product(xp.swapaxes(passed, -1, -2), grad[..., rows, :], half=low)
        if grad_mask is not None:
            mask_part = part_of(grad_mask, rows, keys)
            mask_part += sum_to_shape(grad_scores, mask_part.shape)
    grad_q *= scale
    grad_k *= scale
    inputs = ((grad_q, q), (grad_k, k), (grad_v, v))
    sums = (sum_to_shape(grad, x.shape).astype(low, copy=False) for grad, x in inputs)
    return *sums, grad_mask


def _blocks(
    q: Array | ArraySpec, k: Array | ArraySpec, is_causal: bool, block_size: int | None
) -> Iterator[tuple[slice, slice]]:
    """Yield queries that are treated at a time, and the keys that any of them may see."""
    queries, keys = q.shape[-2], k.shape[-2]
    if not keys:
        return
    size = queries if block_size is None else block_size
    for start in range(0, queries, max(size, 1)):
        stop = min(start + size, queries)
        yield slice(start, stop), slice(0, min(stop, keys) if is_causal else keys)
