"""Scores of queries and keys, with what masks hide, and their exponentials."""

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.half import is_half, widened
from xbackprop.ops.matmul import product

_ALL = slice(None)
_HIDDEN = float("-inf")


def transposed(x: Array) -> Array:
    """Exchange the last two axes in an array of its own.

    On a CPU the product with a view of a transpose takes about twice the time.
    """
    xp = get_array_module(x)
    return xp.ascontiguousarray(xp.swapaxes(x, -1, -2))


def part_of(mask: Array, rows: slice, keys: slice) -> Array:
    """View some queries and keys of what broadcasts to ``(..., queries, keys)``."""
    return mask[..., _ALL if mask.shape[-2] == 1 else rows, _ALL if mask.shape[-1] == 1 else keys]


def masked_scores(
    q: Array,
    keys_t: Array,
    scale: float,
    attn_mask: Array | None,
    is_causal: bool,
    rows: slice = _ALL,
    keys: slice = _ALL,
) -> Array:
    """Return ``scale Q K^T + mask`` of some queries and keys, in an array of its own.

    Parameters
    ----------
    q : array, shape (..., queries, features)
        The queries.
    keys_t : array, shape (..., features, keys)
        The transpose of the keys.
    scale, attn_mask, is_causal
        As :func:`scaled_dot_product_attention_forward` takes them.
    rows, keys : slice
        Which queries and keys, all of them by default.

    Returns
    -------
    array, shape (..., rows, keys)
        Of the dtype of ``q``, or float32 where that is half; ``-inf`` where a key is hidden.
    """
    xp = get_array_module(q)
    queries = q[..., rows, :]
    if is_half(q.dtype):  # where scale * Q would be rounded
        scores = product(queries, keys_t[..., keys], dtype=widened(q.dtype))
        scores *= scale
    else:
        scores = xp.matmul(queries * scale, keys_t[..., keys])
    if attn_mask is not None:
        mask = part_of(attn_mask, rows, keys)
        if mask.dtype.kind == "b":
            scores = xp.where(mask, scores, _HIDDEN)
        else:
            scores += mask
    if is_causal:
        positions = xp.arange(rows.start or 0, (rows.start or 0) + scores.shape[-2])
        is_past = xp.arange(scores.shape[-1]) <= positions.reshape(-1, 1)
        scores = xp.where(is_past, scores, _HIDDEN)
    return scores


def shifted_exponentials(scores: Array) -> tuple[Array, Array, Array]:
    """Return ``exp(S - m)``, the row's maximum ``m`` and the row's sum of the first.

    For rows in which everything is hidden these are zeros, 0 and 1. Rows with ``inf`` give NaN.
    """
    xp = get_array_module(scores)
    shift = scores.max(axis=-1, keepdims=True)
    shift = xp.where(shift == _HIDDEN, 0, shift)
    scores = scores - shift
    numerators = xp.exp(scores)
    total = numerators.sum(axis=-1, keepdims=True)
    return numerators, shift, xp.where(total == 0, 1, total)
