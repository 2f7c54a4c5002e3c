"""Containers: their layers one after the other, beside each other, and around."""

from typing import Any

from xbackprop import nn
from xbackprop.interop.onnx.graph import Exporter, Graph, Value
from xbackprop.module import Module


def sequential(graph: Graph, layer: Any, x: Any) -> Any:
    """Each layer takes what the one before it gives."""
    for name, child in layer.named_children():
        x = graph.child(child, name, x)
    return x


def residual(graph: Graph, layer: Any, x: Value) -> Value:
    """``y = x + f(x)``."""
    return graph.add(x, graph.child(layer.module, "module", x))


def parallel(graph: Graph, layer: Any, x: Value) -> tuple[Any, ...]:
    """All take ``x``."""
    return tuple(graph.child(child, name, x) for name, child in layer.named_children())


def concat(graph: Graph, layer: Any, x: Value) -> Value:
    """What all make of ``x``, joined."""
    return graph.concatenate(parallel(graph, layer, x), layer.dim)


def recompute(graph: Graph, layer: Any, *inputs: Any) -> Any:
    """Inference recomputes nothing."""
    ((name, child),) = layer.named_children()
    return graph.child(child, name, *inputs)


CONTAINERS: dict[type[Module], Exporter] = {
    nn.Sequential: sequential,
    nn.Residual: residual,
    nn.Parallel: parallel,
    nn.Concat: concat,
    nn.Recompute: recompute,
}
