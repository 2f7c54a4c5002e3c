"""Distances between vectors."""

import math
from typing import Any

import numpy as np

from xbackprop import nn
from xbackprop.interop.onnx.graph import Exporter, Graph, Value
from xbackprop.module import Module


def cosine_similarity(graph: Graph, layer: Any, x1: Value, x2: Value) -> str:
    """``y = x1 x2 / (max(|x1|, eps) max(|x2|, eps))`` along the layer's axis."""
    if len(x1.shape) != len(x2.shape):
        raise graph.refuse(layer, "inputs of different numbers of axes")
    axes = np.array([layer.dim], np.int64)
    product = graph.op("ReduceSum", graph.op("Mul", x1, x2), axes, keepdims=0)
    lengths = (
        graph.op("Sqrt", graph.op("ReduceSum", graph.op("Mul", x, x), axes, keepdims=0))
        for x in (x1, x2)
    )
    first, second = (graph.op("Max", length, float(layer.eps)) for length in lengths)
    return str(graph.op("Div", product, graph.op("Mul", first, second)))


def pairwise_distance(graph: Graph, layer: Any, x1: Value, x2: Value) -> str:
    """``y = |x1 - x2 + eps|_p`` along the last axis."""
    p, keep = float(layer.norm), int(layer.keepdim)
    if not (x1.shape and x2.shape):
        raise graph.refuse(layer, "inputs without axes")
    if p == 0:
        raise graph.refuse(layer, "p=0")
    size = graph.op("Abs", graph.op("Add", graph.op("Sub", x1, x2), float(layer.eps)))
    if math.isinf(p):
        kind = "ReduceMax" if p > 0 else "ReduceMin"
        return str(graph.op(kind, size, axes=[-1], keepdims=keep))
    last = np.array([-1], np.int64)
    total = graph.op("ReduceSum", graph.op("Pow", size, p), last, keepdims=keep)
    return str(graph.op("Pow", total, 1 / p))


DISTANCES: dict[type[Module], Exporter] = {
    nn.CosineSimilarity: cosine_similarity,
    nn.PairwiseDistance: pairwise_distance,
}
