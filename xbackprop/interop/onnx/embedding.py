"""Rows of a table, alone or in bags."""

from typing import Any

import numpy as np

from xbackprop import nn
from xbackprop.interop.onnx.graph import Exporter, Graph, Value
from xbackprop.module import Module


def table_of(layer: Any) -> np.ndarray:
    """Return the rows as the layer gives them: no longer than ``max_norm``."""
    alone = nn.Embedding(layer.num_embeddings, layer.embedding_dim, None, layer.max_norm)
    alone.load_state_dict(layer.state_dict())  # a copy, for reading shortens the rows
    alone.norm_type = layer.norm_type
    return np.asarray(alone(np.arange(layer.num_embeddings)))


def embedding(graph: Graph, layer: Any, x: Value) -> str:
    """The row of every index."""
    return str(graph.op("Gather", table_of(layer), x))


def embedding_bag(graph: Graph, layer: Any, x: Value, *others: Value) -> str:
    """Sum, mean or maximum of the rows of each bag, for bags of one length without padding."""
    if len(x.shape) != 2 or others:
        raise graph.refuse(layer, "offsets or per_sample_weights")
    if layer.padding_idx is not None:
        raise graph.refuse(layer, f"padding_idx={layer.padding_idx}")
    rows = graph.op("Gather", table_of(layer), x)
    if layer.mode == "sum":
        return str(graph.op("ReduceSum", rows, np.array([1], np.int64), keepdims=0))
    kind = "ReduceMean" if layer.mode == "mean" else "ReduceMax"
    return str(graph.op(kind, rows, axes=[1], keepdims=0))


EMBEDDINGS: dict[type[Module], Exporter] = {
    nn.Embedding: embedding,
    nn.EmbeddingBag: embedding_bag,
}
