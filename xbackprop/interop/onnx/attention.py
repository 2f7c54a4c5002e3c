"""Attention: scores, masks, weights and what they take from the values."""

import math
from typing import Any

import numpy as np

from xbackprop import nn
from xbackprop.interop.onnx.graph import Exporter, Graph, Operand, Value
from xbackprop.module import Module


def attend(
    graph: Graph,
    q: Operand,
    k: Operand,
    v: Operand,
    scale: float,
    masks: list[Any],
    *,
    ndim: int = 4,
    shows_weights: bool = False,
) -> tuple[str, str]:
    """Return ``softmax(scale q k^T + masks) v`` and the weights, ``(..., queries, keys)``.

    A query that sees no key takes nothing, and where its weights are shown they are NaN.
    """
    keys = graph.op("Transpose", k, perm=[*range(ndim - 2), ndim - 1, ndim - 2])
    scores = graph.op("Mul", graph.op("MatMul", q, keys), scale)
    for mask in masks:
        scores = graph.op("Add", scores, mask)
    weights = graph.op("Softmax", scores, axis=-1)
    if masks and not shows_weights:
        most = graph.op("ReduceMax", scores, axes=[-1])
        sees_none = graph.op("Equal", most, np.float32(-np.inf))
        weights = graph.op("Where", sees_none, np.float32(0), weights)
    return str(graph.op("MatMul", weights, v)), weights


def causal(queries: int, keys: int) -> np.ndarray:
    """Return what hides the keys after each query."""
    hidden = np.triu(np.ones((queries, keys), bool), 1)
    return np.where(hidden, -np.inf, 0).astype(np.float32)


def dot_product(
    graph: Graph, layer: Any, q: Value, k: Value, v: Value, attn_mask: Value | None = None
) -> str:
    """Attention of queries that are given."""
    if layer.enable_gqa:
        raise graph.refuse(layer, "enable_gqa=True")
    masks: list[Any] = [causal(q.shape[-2], k.shape[-2])] if layer.is_causal else []
    if attn_mask is not None:
        if attn_mask.sample.dtype == np.bool_:  # here True lets see
            masks.append(graph.op("Where", attn_mask, np.float32(0), np.float32(-np.inf)))
        else:
            masks.append(attn_mask)
    scale = 1 / math.sqrt(q.shape[-1]) if layer.scale is None else layer.scale
    return attend(graph, q, k, v, scale, masks, ndim=len(k.shape))[0]


def multihead(
    graph: Graph,
    layer: Any,
    query: Value,
    key: Value,
    value: Value,
    key_padding_mask: Value | None = None,
    need_weights: bool = True,
    attn_mask: Value | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> Any:
    """Project, attend in every head, join the heads and project."""
    if layer.bias_k is not None or layer.add_zero_attn:
        raise graph.refuse(layer, "add_bias_kv or add_zero_attn")
    is_single = len(query.shape) == 2
    q, k, v = (
        _heads(graph, layer, _project(graph, layer, x, place), is_single)
        for place, x in enumerate((query, key, value))
    )
    time = 1 if layer.batch_first and not is_single else 0
    masks = _masks(graph, layer, key_padding_mask, attn_mask)
    if is_causal and key_padding_mask is None and not need_weights:
        masks = [causal(query.shape[time], key.shape[time])]
    scale = math.sqrt(layer.num_heads / layer.embed_dim)
    output, weights = attend(graph, q, k, v, scale, masks, shows_weights=need_weights)
    order = [0, 2, 1, 3] if layer.batch_first or is_single else [2, 0, 1, 3]
    joined = graph.op("Transpose", output, perm=order)
    joined = graph.op("Reshape", joined, np.array([0, 0, layer.embed_dim], np.int64))
    projected = graph.op("MatMul", joined, _transposed(graph.parameter(layer.out_proj.weight)))
    if layer.out_proj.bias is not None:
        projected = graph.op("Add", projected, graph.parameter(layer.out_proj.bias))
    if is_single:
        projected = graph.op("Squeeze", projected, np.array([0], np.int64))
    return projected, _shown(graph, weights, need_weights, average_attn_weights, is_single)


def _shown(graph: Graph, weights: str, is_shown: bool, is_mean: bool, is_single: bool) -> Any:
    if not is_shown:
        return None
    if is_mean:
        weights = graph.op("ReduceMean", weights, axes=[1], keepdims=0)
    return graph.op("Squeeze", weights, np.array([0], np.int64)) if is_single else weights


def _project(graph: Graph, layer: Any, x: Value, place: int) -> str:
    if layer.in_proj_weight is not None:
        weight = np.split(graph.parameter(layer.in_proj_weight), 3)[place]
    else:
        weights = (layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight)
        weight = graph.parameter(weights[place])
    product = graph.op("MatMul", x, _transposed(weight))
    if layer.in_proj_bias is None:
        return str(product)
    bias = np.split(graph.parameter(layer.in_proj_bias), 3)[place]
    return str(graph.op("Add", product, bias))


def _heads(graph: Graph, layer: Any, x: str, is_single: bool) -> str:
    """Return ``(batch, heads, time, features)``."""
    if is_single:
        x = graph.op("Unsqueeze", x, np.array([0], np.int64))
    sizes = np.array([0, 0, layer.num_heads, layer.embed_dim // layer.num_heads], np.int64)
    order = [0, 2, 1, 3] if layer.batch_first or is_single else [1, 2, 0, 3]
    return str(graph.op("Transpose", graph.op("Reshape", x, sizes), perm=order))


def _masks(graph: Graph, layer: Any, padding: Value | None, mask: Value | None) -> list[Any]:
    masks = []
    if padding is not None:  # (batch, keys), or (keys)
        axes = np.array([1, 2] if len(padding.shape) == 2 else [0, 1, 2], np.int64)
        masks.append(graph.op("Unsqueeze", _added(graph, padding), axes))
    if mask is not None:  # (queries, keys), or one for each head of each sample
        added = _added(graph, mask)
        if len(mask.shape) == 3:
            sizes = np.array([-1, layer.num_heads, *mask.shape[1:]], np.int64)
            added = graph.op("Reshape", added, sizes)
        masks.append(added)
    return masks


def _added(graph: Graph, mask: Value) -> str:
    """Return what is added to the scores; in masks of bools True hides."""
    if mask.sample.dtype != np.bool_:
        return mask.name
    return str(graph.op("Where", mask, np.float32(-np.inf), np.float32(0)))


def _transposed(weight: Any) -> np.ndarray:
    return np.ascontiguousarray(weight.T)


ATTENTION: dict[type[Module], Exporter] = {
    nn.ScaledDotProductAttention: dot_product,
    nn.MultiheadAttention: multihead,
}
