"""Normalization: with running statistics an operator of ONNX, else by its formula."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from xbackprop import nn
from xbackprop.interop.onnx.graph import Exporter, Graph, Operand, Value
from xbackprop.module import Module


def batch_norm(graph: Graph, layer: Any, x: Value) -> str:
    """Normalize channels with the running statistics, or with those of the batch."""
    if layer.track_running_stats:
        return _by_running(graph, layer, x)
    axes = (0, *range(2, len(x.shape)))
    return _scaled(graph, layer, normalized(graph, x, axes, layer.eps), _channels(x))


def instance_norm(graph: Graph, layer: Any, x: Value) -> str:
    """Normalize the channels of each sample, or with the running statistics."""
    spatial = len(layer.spatial)
    is_single = len(x.shape) == 1 + spatial
    if layer.track_running_stats:
        if not is_single:
            return _by_running(graph, layer, x)
        alone = np.array([0], np.int64)
        output = _by_running(graph, layer, graph.op("Unsqueeze", x, alone))
        return str(graph.op("Squeeze", output, alone))
    axes = range(len(x.shape) - spatial, len(x.shape))
    shape = (-1, *(1,) * spatial)
    return _scaled(graph, layer, normalized(graph, x, axes, layer.eps), shape)


def group_norm(graph: Graph, layer: Any, x: Value) -> str:
    """Normalize the channels of each group together."""
    groups = graph.op("Reshape", x, np.array([0, layer.num_groups, -1], np.int64))
    flat = normalized(graph, groups, (2,), layer.eps)
    output = graph.reshape(flat, x.shape)
    return _scaled(graph, layer, output, _channels(x))


def layer_norm(graph: Graph, layer: Any, x: Value) -> str:
    """Normalize the last axes of every row."""
    weight = graph.parameter(layer.weight)
    bias = graph.parameter(layer.bias)
    if weight is None:
        weight = np.ones(layer.normalized_shape, np.float32)
    if bias is None:  # onnxruntime 1.32 ends in a segmentation fault without one
        bias = np.zeros(layer.normalized_shape, np.float32)
    return str(
        graph.op(
            "LayerNormalization", x, weight, bias,
            axis=-len(layer.normalized_shape), epsilon=layer.eps,
        )
    )  # fmt: skip


def rms_norm(graph: Graph, layer: Any, x: Value) -> str:
    """``y = w x / sqrt(mean(x^2) + eps)`` over the last axes."""
    eps = float(np.finfo(np.float32).eps) if layer.eps is None else layer.eps
    axes = range(-len(layer.normalized_shape), 0)
    squares = graph.op("ReduceMean", graph.op("Mul", x, x), axes=list(axes))
    output = graph.op("Div", x, graph.op("Sqrt", graph.op("Add", squares, eps)))
    return _scaled(graph, layer, output, layer.normalized_shape)


def local_response_norm(graph: Graph, layer: Any, x: Value) -> str:
    """``y = x (k + alpha / size sum of neighbours x^2)^-beta``; the sum is a product."""
    channels, size = x.shape[1], layer.size
    distance = np.arange(channels)[None] - np.arange(channels)[:, None]  # (to, from)
    near = (distance >= -(size // 2)) & (distance <= (size - 1) // 2)
    flat = graph.op("Reshape", graph.op("Mul", x, x), np.array([0, channels, -1], np.int64))
    sums = graph.reshape(graph.op("MatMul", near.astype(np.float32), flat), x.shape)
    base = graph.op("Add", graph.op("Mul", sums, layer.alpha / size), float(layer.k))
    return str(graph.op("Div", x, graph.op("Pow", base, float(layer.beta))))


def normalized(graph: Graph, x: Operand, axes: Sequence[int], eps: float) -> str:
    """Return ``(x - mean) / sqrt(var + eps)`` over some axes."""
    over = list(axes)
    center = graph.op("Sub", x, graph.op("ReduceMean", x, axes=over))
    variance = graph.op("ReduceMean", graph.op("Mul", center, center), axes=over)
    return str(graph.op("Div", center, graph.op("Sqrt", graph.op("Add", variance, float(eps)))))


def _by_running(graph: Graph, layer: Any, x: Operand) -> str:
    count = layer.num_features
    weight, bias = graph.parameter(layer.weight), graph.parameter(layer.bias)
    return str(
        graph.op(
            "BatchNormalization", x,
            np.ones(count, np.float32) if weight is None else weight,
            np.zeros(count, np.float32) if bias is None else bias,
            graph.parameter(layer.running_mean), graph.parameter(layer.running_var),
            epsilon=layer.eps,
        )
    )  # fmt: skip


def _scaled(graph: Graph, layer: Any, output: str, shape: Sequence[int]) -> str:
    for kind, parameter in (("Mul", layer.weight), ("Add", getattr(layer, "bias", None))):
        if parameter is not None:
            output = graph.op(kind, output, np.reshape(graph.parameter(parameter), shape))
    return output


def _channels(x: Value) -> tuple[int, ...]:
    return (-1, *(1,) * (len(x.shape) - 2))


NORMALIZATION: dict[type[Module], Exporter] = {
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), batch_norm),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), instance_norm),
    nn.GroupNorm: group_norm,
    nn.LayerNorm: layer_norm,
    nn.RMSNorm: rms_norm,
    nn.LocalResponseNorm: local_response_norm,
}
