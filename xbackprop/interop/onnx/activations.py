"""Activations, as operators of ONNX where those compute the same, else by their formulas."""

import math
from typing import Any

from xbackprop import nn
from xbackprop.interop.onnx.graph import Exporter, Graph, Value
from xbackprop.module import Module


def plain(kind: str, **names: str) -> Exporter:
    """Return the exporter of an operator whose attributes are the layer's."""

    def export(graph: Graph, layer: Any, x: Value) -> str:
        attributes: dict[str, Any] = {
            ours: float(getattr(layer, theirs)) for ours, theirs in names.items()
        }
        return str(graph.op(kind, x, **attributes))

    return export


def hardtanh(graph: Graph, layer: Any, x: Value) -> str:
    """``y = min(max(x, min_val), max_val)``."""
    return str(graph.op("Clip", x, float(layer.min_val), float(layer.max_val)))


def threshold(graph: Graph, layer: Any, x: Value) -> str:
    """``y = x`` above the threshold, else the value."""
    is_above = graph.op("Greater", x, float(layer.threshold))
    return str(graph.op("Where", is_above, x, float(layer.value)))


def prelu(graph: Graph, layer: Any, x: Value) -> str:
    """``y = x`` above 0, else ``w x``, with a slope for each channel."""
    slope = graph.parameter(layer.weight)
    if slope.size > 1:
        slope = slope.reshape(-1, *(1,) * (len(x.shape) - 2))
    return str(graph.op("PRelu", x, slope))


def rrelu(graph: Graph, layer: Any, x: Value) -> str:
    """In evaluation the slope is the mean of its bounds."""
    return str(graph.op("LeakyRelu", x, alpha=(layer.lower + layer.upper) / 2))


def log_sigmoid(graph: Graph, layer: Any, x: Value) -> str:
    """``y = -log(1 + exp(-x))``."""
    return str(graph.op("Neg", graph.op("Softplus", graph.op("Neg", x))))


def hardsigmoid(graph: Graph, layer: Any, x: Value) -> str:
    """``y = min(max(x / 6 + 1 / 2, 0), 1)``."""
    return str(graph.op("HardSigmoid", x, alpha=1 / 6, beta=0.5))


def softplus(graph: Graph, layer: Any, x: Value) -> str:
    """``y = log(1 + exp(beta x)) / beta``, and ``x`` where ``beta x`` is above the threshold."""
    scaled = graph.op("Mul", x, float(layer.beta))
    soft = graph.op("Div", graph.op("Softplus", scaled), float(layer.beta))
    return str(graph.op("Where", graph.op("Greater", scaled, float(layer.threshold)), x, soft))


def gelu(graph: Graph, layer: Any, x: Value) -> str:
    """``y = x (1 + erf(x / sqrt 2)) / 2``, or with tanh in place of erf."""
    if layer.approximate == "tanh":
        cube = graph.op("Mul", graph.op("Mul", x, x), x)
        inner = graph.op("Add", x, graph.op("Mul", cube, 0.044715))
        curve = graph.op("Tanh", graph.op("Mul", inner, math.sqrt(2 / math.pi)))
    else:
        curve = graph.op("Erf", graph.op("Mul", x, math.sqrt(0.5)))
    half = graph.op("Mul", graph.op("Add", curve, 1.0), 0.5)
    return str(graph.op("Mul", x, half))


def silu(graph: Graph, layer: Any, x: Value) -> str:
    """``y = x sigmoid(x)``."""
    return str(graph.op("Mul", x, graph.op("Sigmoid", x)))


def mish(graph: Graph, layer: Any, x: Value) -> str:
    """``y = x tanh(log(1 + exp(x)))``."""
    return str(graph.op("Mul", x, graph.op("Tanh", graph.op("Softplus", x))))


def hardshrink(graph: Graph, layer: Any, x: Value) -> str:
    """``y = 0`` between ``-lambd`` and ``lambd``."""
    return str(graph.op("Shrink", x, lambd=float(layer.lambd), bias=0.0))


def tanhshrink(graph: Graph, layer: Any, x: Value) -> str:
    """``y = x - tanh(x)``."""
    return str(graph.op("Sub", x, graph.op("Tanh", x)))


def along_axis(kind: str, *, negated: bool = False) -> Exporter:
    """Return the exporter of a softmax along the layer's ``dim``."""

    def export(graph: Graph, layer: Any, x: Value) -> str:
        if not x.shape:
            raise graph.refuse(layer, "an input without axes")
        read = graph.op("Neg", x) if negated else x
        return str(graph.op(kind, read, axis=_dim(layer, len(x.shape))))

    return export


def _dim(layer: Any, ndim: int) -> int:
    """Return the axis; without one PyTorch's choice by the number of axes."""
    if layer.dim is None:
        return 0 if ndim in (0, 1, 3) else 1
    return int(layer.dim)


def glu(graph: Graph, layer: Any, x: Value) -> str:
    """``y = a sigmoid(b)`` of the halves along ``dim``."""
    values, gates = graph.op("Split", x, outputs=2, axis=layer.dim)
    return str(graph.op("Mul", values, graph.op("Sigmoid", gates)))


ACTIVATIONS: dict[type[Module], Exporter] = {
    nn.ReLU: plain("Relu"),
    nn.ReLU6: hardtanh,
    nn.Hardtanh: hardtanh,
    nn.Threshold: threshold,
    nn.LeakyReLU: plain("LeakyRelu", alpha="negative_slope"),
    nn.PReLU: prelu,
    nn.RReLU: rrelu,
    nn.ELU: plain("Elu", alpha="alpha"),
    nn.CELU: plain("Celu", alpha="alpha"),
    nn.SELU: plain("Selu"),
    nn.Sigmoid: plain("Sigmoid"),
    nn.LogSigmoid: log_sigmoid,
    nn.Hardsigmoid: hardsigmoid,
    nn.Tanh: plain("Tanh"),
    nn.Softsign: plain("Softsign"),
    nn.Softplus: softplus,
    nn.GELU: gelu,
    nn.SiLU: silu,
    nn.Mish: mish,
    nn.Hardswish: plain("HardSwish"),
    nn.GLU: glu,
    nn.Hardshrink: hardshrink,
    nn.Softshrink: plain("Shrink", lambd="lambd", bias="lambd"),
    nn.Tanhshrink: tanhshrink,
    nn.Softmax: along_axis("Softmax"),
    nn.Softmin: along_axis("Softmax", negated=True),
    nn.LogSoftmax: along_axis("LogSoftmax"),
    nn.Softmax2d: along_axis("Softmax"),
}
