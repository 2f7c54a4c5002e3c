"""Convolutions, transposed ones, and the windows of images."""

import math
from typing import Any

import numpy as np

from xbackprop import nn
from xbackprop.interop.onnx.graph import Exporter, Graph, Operand, Value
from xbackprop.interop.onnx.padding import pad
from xbackprop.module import Module

_FIRST = np.array([0], np.int64)


def convolution(graph: Graph, layer: Any, x: Value) -> str:
    """``Conv`` of a batch, or of one sample, padded before where it is not with zeros."""
    batch = _as_batch(graph, layer, x)
    widths = layer._widths
    if layer.padding_mode != "zeros":
        batch = pad(graph, batch, layer.spatial_axes + 2, widths, layer.padding_mode)
        widths = ((0, 0),) * layer.spatial_axes
    output = graph.op(
        "Conv", batch, graph.parameter(layer.weight), graph.parameter(layer.bias),
        strides=layer.stride, dilations=layer.dilation, group=layer.groups,
        pads=[*(before for before, _ in widths), *(after for _, after in widths)],
    )  # fmt: skip
    return _as_given(graph, layer, x, output)


def transposed(graph: Graph, layer: Any, x: Value) -> str:
    """``ConvTranspose`` of a batch, or of one sample."""
    if any(more >= step for more, step in zip(layer.output_padding, layer.stride, strict=True)):
        # onnxruntime refuses it, though ONNX does not.
        raise graph.refuse(layer, f"output_padding={layer.output_padding}, stride={layer.stride}")
    batch = _as_batch(graph, layer, x)
    output = graph.op(
        "ConvTranspose", batch, graph.parameter(layer.weight), graph.parameter(layer.bias),
        strides=layer.stride, dilations=layer.dilation, group=layer.groups,
        pads=[*layer.padding, *layer.padding], output_padding=layer.output_padding,
    )  # fmt: skip
    return _as_given(graph, layer, x, output)


def unfold(graph: Graph, layer: Any, x: Value) -> str:
    """The windows of an image are a convolution with kernels that pick one element each."""
    batch = _expanded(graph, x) if len(x.shape) == 3 else x
    channels = x.shape[-3]
    output = graph.op(
        "Conv", batch, np.tile(_pickers(layer._kernel), (channels, 1, 1, 1)), group=channels,
        **_window(layer),
    )  # fmt: skip
    rows = channels * math.prod(layer._kernel)
    positions = math.prod(layer._count(x.shape[-2:]))
    if len(x.shape) == 3:
        return graph.reshape(output, (rows, positions), batch=None)
    return graph.reshape(output, (x.shape[0], rows, positions))


def fold(graph: Graph, layer: Any, x: Value) -> str:
    """The sum of windows is the transposed convolution with the kernels of :func:`unfold`."""
    lead = x.shape[:-2] or (1,)
    counts, elements = layer._count(layer._lengths), math.prod(layer._kernel)
    channels = x.shape[-2] // elements
    images = graph.reshape(x, (*lead, x.shape[-2], *counts), batch=0 if len(x.shape) == 3 else None)
    window = _window(layer)
    covered = [
        (count - 1) * step + (size - 1) * apart + 1 - 2 * cut
        for count, step, size, apart, cut in zip(
            counts, window["strides"], layer._kernel, window["dilations"], window["pads"][:2],
            strict=True,
        )
    ]  # fmt: skip
    added = [n - m for n, m in zip(layer._lengths, covered, strict=True)]
    output = graph.op(
        "ConvTranspose", images, np.tile(_pickers(layer._kernel), (channels, 1, 1, 1)),
        group=channels, output_padding=added, **window,
    )  # fmt: skip
    return graph.op("Squeeze", output, _FIRST) if len(x.shape) == 2 else output


def _pickers(kernel: tuple[int, ...]) -> np.ndarray:
    elements = math.prod(kernel)
    return np.eye(elements, dtype=np.float32).reshape(elements, 1, *kernel)


def _window(layer: Any) -> dict[str, Any]:
    pair = {
        name: [getattr(layer, name)] * 2
        if isinstance(getattr(layer, name), int)
        else list(getattr(layer, name))
        for name in ("stride", "dilation", "padding")
    }
    return {"strides": pair["stride"], "dilations": pair["dilation"], "pads": pair["padding"] * 2}


def _expanded(graph: Graph, x: Operand) -> str:
    return str(graph.op("Unsqueeze", x, _FIRST))


def _as_batch(graph: Graph, layer: Any, x: Value) -> str:
    return x.name if len(x.shape) == layer.spatial_axes + 2 else _expanded(graph, x)


def _as_given(graph: Graph, layer: Any, x: Value, output: str) -> str:
    is_batch = len(x.shape) == layer.spatial_axes + 2
    return output if is_batch else str(graph.op("Squeeze", output, _FIRST))


CONVOLUTIONS: dict[type[Module], Exporter] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), convolution),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), transposed),
    nn.Unfold: unfold,
    nn.Fold: fold,
}
