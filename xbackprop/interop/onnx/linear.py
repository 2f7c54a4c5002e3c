"""Linear maps, and layers that do nothing in evaluation."""

from typing import Any

import numpy as np

from xbackprop import nn
from xbackprop.interop.onnx.graph import Exporter, Graph, Value
from xbackprop.module import Module


def linear(graph: Graph, layer: Any, x: Value) -> str:
    """``y = x W^T + b`` over any leading axes."""
    product = graph.op("MatMul", x, np.ascontiguousarray(graph.parameter(layer.weight).T))
    return product if layer.bias is None else graph.op("Add", product, graph.parameter(layer.bias))


def bilinear(graph: Graph, layer: Any, x1: Value, x2: Value) -> str:
    """``y_o = x1^T W_o x2 + b_o``."""
    weight = graph.parameter(layer.weight)
    product = graph.op("Einsum", x1, weight, x2, equation="...i,oij,...j->...o")
    return product if layer.bias is None else graph.op("Add", product, graph.parameter(layer.bias))


def nothing(graph: Graph, layer: Module, x: Value) -> str:
    """``y = x``."""
    return x.name


LINEAR: dict[type[Module], Exporter] = {
    nn.Linear: linear,
    nn.LazyLinear: linear,
    nn.Bilinear: bilinear,
    **dict.fromkeys(
        (
            nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
            nn.FeatureAlphaDropout,
        ),
        nothing,
    ),
}  # fmt: skip
