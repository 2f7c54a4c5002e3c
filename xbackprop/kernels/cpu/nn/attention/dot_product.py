"""Attention of one head at a time, whose scores stay in the cache between the products."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.loops import HAS_NUMBA, loops
from xbackprop.nn.attention.dot_product import (
    scaled_dot_product_attention_backward as backward_op,
)
from xbackprop.nn.attention.dot_product import (
    scaled_dot_product_attention_forward as forward_op,
)


def can_serve(
    q: ArraySpec,
    k: ArraySpec,
    v: ArraySpec,
    scale: float,
    attn_mask: ArraySpec | None = None,
    kept: ArraySpec | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    block_size: int | None = None,
) -> bool:
    """Tell whether every head sees all keys, or those up to its query; float32, no dropout."""
    is_simple = attn_mask is None and kept is None and block_size is None
    return (
        HAS_NUMBA
        and is_simple
        and q.shape[:-2] == k.shape[:-2] == v.shape[:-2]
        and all(spec.dtype == np.float32 and spec.dtype.isnative for spec in (q, k, v))
        and 0 not in (*q.shape, *k.shape, *v.shape)
    )


def can_go_back(
    grad_output: ArraySpec,
    q: ArraySpec,
    k: ArraySpec,
    v: ArraySpec,
    output: ArraySpec,
    shift: ArraySpec,
    log_total: ArraySpec,
    *options: Any,
) -> bool:
    """Tell the same of a backward."""
    return can_serve(q, k, v, *options) and grad_output.dtype == np.float32


def _heads(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Go through the matrices of all heads; views, whatever the strides of the leading axes."""
    for index in np.ndindex(arrays[0].shape[:-2]):
        yield tuple(array[index] for array in arrays)


def _beside_each_other(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an empty array whose heads lie side by side in a token, so joining copies nothing."""
    if len(shape) < 4:  # no heads
        return np.empty(shape, dtype)
    *lead, heads, tokens, features = shape
    return np.empty((*lead, tokens, heads, features), dtype).swapaxes(-3, -2)


@forward_op.kernel("cpu", when=can_serve, smallest=4096)
def scaled_dot_product_attention_forward(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    scale: float,
    attn_mask: None = None,
    kept: None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    block_size: None = None,
) -> tuple[np.ndarray, Any]:
    """Return output and saved, as the op of this name."""
    numerators_of = loops("rows").softmax_numerators
    shift = np.empty((*q.shape[:-1], 1), q.dtype)
    total = np.empty_like(shift)
    output = _beside_each_other((*q.shape[:-1], v.shape[-1]), q.dtype)
    scores = np.empty((q.shape[-2], k.shape[-2]), q.dtype)
    factor = np.float32(scale)
    for queries, keys, values, out, shifts, totals in _heads(q, k, v, output, shift, total):
        np.matmul(queries, keys.T, out=scores)
        numerators_of(scores, factor, is_causal, shifts.ravel(), totals.ravel())
        np.matmul(scores, values, out=out)
        out /= totals
    saved = (q, k, v, output, shift, np.log(total), scale, attn_mask, kept, dropout_p, is_causal)
    return output, (*saved, block_size)


@backward_op.kernel("cpu", when=can_go_back, smallest=4096)
def scaled_dot_product_attention_backward(
    grad_output: np.ndarray,
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    output: np.ndarray,
    shift: np.ndarray,
    log_total: np.ndarray,
    scale: float,
    attn_mask: None = None,
    kept: None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    block_size: None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, None]:
    """Return the gradients, as the op of this name."""
    gradients_of = loops("rows").score_gradients
    grads = grad_q, grad_k, grad_v = tuple(np.empty(x.shape, x.dtype) for x in (q, k, v))
    means = (grad_output * output).sum(axis=-1, keepdims=True)
    scores = np.empty((q.shape[-2], k.shape[-2]), q.dtype)
    grad_scores = np.empty_like(scores)
    factor = np.float32(scale)
    parts = _heads(grad_output, q, k, v, shift, log_total, means, *grads)
    for grad, queries, keys, values, shifts, logs, mean, to_q, to_k, to_v in parts:
        np.matmul(queries, keys.T, out=scores)
        np.matmul(grad, values.T, out=grad_scores)
        gradients_of(
            scores, grad_scores, factor, is_causal, shifts.ravel(), logs.ravel(), mean.ravel()
        )
        np.matmul(grad_scores, keys, out=to_q)
        np.matmul(grad_scores.T, queries, out=to_k)
        np.matmul(scores.T, grad, out=to_v)
    grad_q *= factor
    grad_k *= factor
    return grad_q, grad_k, grad_v, None
