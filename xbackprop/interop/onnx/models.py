"""Whole networks: ResNet and GPT."""

from typing import Any

import numpy as np

from xbackprop import nn
from xbackprop.interop.onnx.attention import attend, causal
from xbackprop.interop.onnx.graph import Exporter, Graph, Value
from xbackprop.module import Module
from xbackprop.nn.gpt import CausalSelfAttention, GPTBlock


def basic_block(graph: Graph, layer: Any, x: Value) -> Value:
    """``y = relu(f(x) + shortcut(x))``."""
    branch: Value = x
    for place, child in enumerate(layer._branch()):
        branch = graph.child(child, f"branch.{place}", branch)
    shortcut = x
    if layer.downsample is not None:
        shortcut = graph.child(layer.downsample, "downsample", x)
    output: Value = graph.child(layer.relu, "relu", graph.add(branch, shortcut))
    return output


def resnet(graph: Graph, layer: Any, x: Value) -> Value:
    """All layers in order."""
    for place, child in enumerate(layer._order()):
        x = graph.child(child, str(place), x)
    return x


def causal_attention(graph: Graph, layer: Any, x: Value) -> str:
    """Every token attends to those before it."""
    features = x.shape[2]
    joined = graph.child(layer.c_attn, "c_attn", x)
    sizes = np.array([0, 0, layer.num_heads, features // layer.num_heads], np.int64)
    q, k, v = (
        graph.op("Transpose", graph.op("Reshape", part, sizes), perm=[0, 2, 1, 3])
        for part in graph.op("Split", joined, outputs=3, axis=-1)
    )
    scale = (features // layer.num_heads) ** -0.5
    mixed, _ = attend(graph, q, k, v, scale, [causal(x.shape[1], x.shape[1])])
    rows = graph.op("Transpose", mixed, perm=[0, 2, 1, 3])
    flat = graph.op("Reshape", rows, np.array([0, 0, features], np.int64))
    output = graph.op("MatMul", flat, np.ascontiguousarray(_values(graph, layer.c_proj.weight).T))
    if layer.c_proj.bias is None:
        return str(output)
    return str(graph.op("Add", output, graph.parameter(layer.c_proj.bias)))


def block(graph: Graph, layer: Any, x: Value) -> Value:
    """``h = x + f(norm(x))`` and ``y = h + g(norm(h))``."""
    hidden = graph.add(x, graph.child(layer.attn, "attn", graph.child(layer.ln_1, "ln_1", x)))
    return graph.add(hidden, graph.child(layer.mlp, "mlp", graph.child(layer.ln_2, "ln_2", hidden)))


def gpt(graph: Graph, layer: Any, tokens: Value) -> str:
    """Embeddings, blocks, and a score for each token."""
    positions = _values(graph, layer.wpe.weight)[: tokens.shape[1]]
    embedded: Value = graph.child(layer.wte, "wte", tokens)
    x = Value(graph.op("Add", embedded, positions), embedded.sample + positions)
    for number, child in enumerate(layer.h):
        x = graph.child(child, f"h.{number}", x)
    normed = graph.child(layer.ln_f, "ln_f", x)
    weight = np.ascontiguousarray(_values(graph, layer.wte.weight).T)
    return str(graph.op("MatMul", normed, weight))


def _values(graph: Graph, parameter: Any) -> np.ndarray:
    return np.asarray(graph.parameter(parameter))


MODELS: dict[type[Module], Exporter] = {
    nn.BasicBlock: basic_block,
    nn.ResNet: resnet,
    CausalSelfAttention: causal_attention,
    GPTBlock: block,
    nn.GPT: gpt,
}
