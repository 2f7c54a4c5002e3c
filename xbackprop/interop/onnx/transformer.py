"""Transformers: sums with a normalization, stacks, and positions."""

from collections.abc import Callable
from typing import Any

import numpy as np

from xbackprop import nn
from xbackprop.interop.onnx.graph import Exporter, Graph, Value
from xbackprop.module import Module


def _sum(graph: Graph, layer: Any, norm: str, x: Value, branch: Callable[[Value], Value]) -> Value:
    """``x + f(norm(x))``, or without ``norm_first`` ``norm(x + f(x))``."""
    if layer.norm_first:
        return graph.add(x, branch(graph.child(getattr(layer, norm), norm, x)))
    return graph.child(getattr(layer, norm), norm, graph.add(x, branch(x)))


def _feed_forward(graph: Graph, layer: Any) -> Callable[[Value], Value]:
    def branch(x: Value) -> Value:
        for name in ("linear1", "activation", "linear2"):
            x = graph.child(getattr(layer, name), name, x)
        return x

    return branch


def _attention(
    graph: Graph, layer: Any, name: str, memory: Value | None, **options: Any
) -> Callable[[Value], Value]:
    def branch(x: Value) -> Value:
        keys = x if memory is None else memory
        attention = getattr(layer, name)
        output, _ = graph.child(attention, name, x, keys, keys, need_weights=False, **options)
        return output

    return branch


def encoder_layer(
    graph: Graph,
    layer: Any,
    src: Value,
    src_mask: Value | None = None,
    src_key_padding_mask: Value | None = None,
    is_causal: bool = False,
) -> Value:
    """Attention of all tokens to all, then a layer of features."""
    options = {
        "attn_mask": src_mask, "key_padding_mask": src_key_padding_mask, "is_causal": is_causal
    }  # fmt: skip
    x = _sum(graph, layer, "norm1", src, _attention(graph, layer, "self_attn", None, **options))
    return _sum(graph, layer, "norm2", x, _feed_forward(graph, layer))


def decoder_layer(
    graph: Graph,
    layer: Any,
    tgt: Value,
    memory: Value,
    tgt_mask: Value | None = None,
    memory_mask: Value | None = None,
    tgt_key_padding_mask: Value | None = None,
    memory_key_padding_mask: Value | None = None,
    tgt_is_causal: bool = False,
    memory_is_causal: bool = False,
) -> Value:
    """Attention among the tokens, to the memory, then a layer of features."""
    own = {
        "attn_mask": tgt_mask, "key_padding_mask": tgt_key_padding_mask, "is_causal": tgt_is_causal
    }  # fmt: skip
    other = {
        "attn_mask": memory_mask, "key_padding_mask": memory_key_padding_mask,
        "is_causal": memory_is_causal,
    }  # fmt: skip
    x = _sum(graph, layer, "norm1", tgt, _attention(graph, layer, "self_attn", None, **own))
    cross = _attention(graph, layer, "multihead_attn", memory, **other)
    return _sum(
        graph, layer, "norm3", _sum(graph, layer, "norm2", x, cross), _feed_forward(graph, layer)
    )


def encoder(
    graph: Graph,
    layer: Any,
    src: Value,
    mask: Value | None = None,
    src_key_padding_mask: Value | None = None,
    is_causal: bool | None = None,
) -> Value:
    """All layers, and the last normalization."""
    for number, child in enumerate(layer.layers):
        src = graph.child(
            child, f"layers.{number}", src, src_mask=mask,
            src_key_padding_mask=src_key_padding_mask, is_causal=bool(is_causal),
        )  # fmt: skip
    return _normed(graph, layer, src)


def decoder(
    graph: Graph,
    layer: Any,
    tgt: Value,
    memory: Value,
    tgt_mask: Value | None = None,
    memory_mask: Value | None = None,
    tgt_key_padding_mask: Value | None = None,
    memory_key_padding_mask: Value | None = None,
    tgt_is_causal: bool | None = None,
    memory_is_causal: bool = False,
) -> Value:
    """All layers beside the memory, and the last normalization."""
    for number, child in enumerate(layer.layers):
        tgt = graph.child(
            child, f"layers.{number}", tgt, memory, tgt_mask=tgt_mask, memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
            tgt_is_causal=bool(tgt_is_causal), memory_is_causal=memory_is_causal,
        )  # fmt: skip
    return _normed(graph, layer, tgt)


def _normed(graph: Graph, layer: Any, x: Value) -> Value:
    return x if layer.norm is None else graph.child(layer.norm, "norm", x)


def transformer(
    graph: Graph,
    layer: Any,
    src: Value,
    tgt: Value,
    src_mask: Value | None = None,
    tgt_mask: Value | None = None,
    memory_mask: Value | None = None,
    src_key_padding_mask: Value | None = None,
    tgt_key_padding_mask: Value | None = None,
    memory_key_padding_mask: Value | None = None,
    src_is_causal: bool | None = None,
    tgt_is_causal: bool | None = None,
    memory_is_causal: bool = False,
) -> Value:
    """The encoder, and the decoder beside what it gives."""
    memory = graph.child(
        layer.encoder,
        "encoder",
        src,
        mask=src_mask,
        src_key_padding_mask=src_key_padding_mask,
        is_causal=src_is_causal,
    )
    output: Value = graph.child(
        layer.decoder, "decoder", tgt, memory, tgt_mask=tgt_mask, memory_mask=memory_mask,
        tgt_key_padding_mask=tgt_key_padding_mask,
        memory_key_padding_mask=memory_key_padding_mask,
        tgt_is_causal=tgt_is_causal, memory_is_causal=memory_is_causal,
    )  # fmt: skip
    return output


def swiglu(graph: Graph, layer: Any, x: Value) -> Value:
    """``y = W2 (act(W1 x) W3 x)``."""
    gate = graph.child(layer.act, "act", graph.child(layer.w1, "w1", x))
    output: Value = graph.child(
        layer.w2, "w2", graph.multiply(gate, graph.child(layer.w3, "w3", x))
    )
    return output


def added_positions(graph: Graph, layer: Any, x: Value) -> str:
    """Add what the layer adds to zeros."""
    zeros = np.zeros_like(x.sample)
    if zeros.ndim == 3:  # one sample stands for all
        zeros = zeros[:1] if layer.batch_first else zeros[:, :1]
    return str(graph.op("Add", x, np.asarray(layer(zeros))))


def rotary(graph: Graph, layer: Any, x: Value, positions: Value | None = None) -> str:
    """Turn pairs of features: a product with cosines, and one of the others with sines."""
    if positions is not None:
        raise graph.refuse(layer, "positions")
    time, dim = x.shape[-2:]
    basis = np.eye(dim, dtype=np.float32)[:, None].repeat(time, 1)  # (dim, time, dim)
    turned = np.asarray(layer(basis))  # row i of each time: what feature i becomes
    maps = np.ascontiguousarray(turned.transpose(1, 0, 2))  # (time, dim, dim)
    rows = graph.op("Unsqueeze", x, np.array([len(x.shape) - 1], np.int64))
    product = graph.op("MatMul", rows, maps)
    return str(graph.op("Squeeze", product, np.array([len(x.shape) - 1], np.int64)))


TRANSFORMERS: dict[type[Module], Exporter] = {
    nn.TransformerEncoderLayer: encoder_layer,
    nn.TransformerDecoderLayer: decoder_layer,
    nn.TransformerEncoder: encoder,
    nn.TransformerDecoder: decoder,
    nn.Transformer: transformer,
    nn.SwiGLU: swiglu,
    nn.SinusoidalPositionalEncoding: added_positions,
    nn.LearnedPositionalEmbedding: added_positions,
    nn.RotaryEmbedding: rotary,
}
