"""Pooling: windows as ONNX has them, with what stands out at the end padded explicitly."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from xbackprop import nn
from xbackprop.interop.onnx.graph import Exporter, Graph, Operand, Value
from xbackprop.interop.onnx.padding import pad
from xbackprop.interop.onnx.separable import separable
from xbackprop.module import Module
from xbackprop.nn.pooling.windows import Window, windows_of

_FIRST = np.array([0], np.int64)


def max_pool(graph: Graph, layer: Any, x: Value) -> Any:
    """The largest element of every window; indices count the places of one channel."""
    axes = layer.spatial_axes
    windows = windows_of(
        layer, x.shape, axes, layer.kernel_size, layer.stride, layer.padding, layer.dilation,
        layer.ceil_mode,
    )  # fmt: skip
    batch = _as_batch(graph, x, axes)
    made = graph.op(
        "MaxPool", batch, outputs=2 if layer.return_indices else 1,
        kernel_shape=[w.kernel_size for w in windows], strides=[w.stride for w in windows],
        dilations=[w.dilation for w in windows],
        pads=_flat(_widths(windows, x.shape[-axes:])),
    )  # fmt: skip
    if not layer.return_indices:
        return _as_given(graph, x, axes, made)
    places = np.array(math.prod(x.shape[-axes:]), np.int64)
    indices = graph.op("Mod", made[1], places)
    return tuple(_as_given(graph, x, axes, name) for name in (made[0], indices))


def avg_pool(graph: Graph, layer: Any, x: Value) -> str:
    """The sums of the windows, divided by what the layer divides them by at every place."""
    axes = layer.spatial_axes
    windows = windows_of(
        layer, x.shape, axes, layer.kernel_size, layer.stride, layer.padding,
        ceil_mode=layer.ceil_mode,
    )  # fmt: skip
    sums = window_sums(graph, x, x.shape, windows)
    ones = np.ones((1, 1, *x.shape[-axes:]), np.float32)
    means = np.asarray(layer(ones))
    counts = _count_elements(x.shape[-axes:], windows)
    return str(graph.op("Mul", sums, (means[0, 0] / counts).astype(np.float32)))


def lp_pool(graph: Graph, layer: Any, x: Value) -> str:
    """``(sum of x^p)^(1 / p)``; a window that stands out counts as a whole one."""
    axes, p = layer.spatial_axes, float(layer.norm_type)
    stride = layer.kernel_size if layer.stride is None else layer.stride
    windows = windows_of(layer, x.shape, axes, layer.kernel_size, stride, ceil_mode=layer.ceil_mode)
    sums = window_sums(graph, graph.op("Pow", x, p), x.shape, windows)
    whole = math.prod(window.kernel_size for window in windows)
    scale = (whole / _count_elements(x.shape[-axes:], windows)).astype(np.float32)
    return str(graph.op("Pow", graph.op("Mul", sums, scale), 1 / p))


def window_sums(graph: Graph, x: Operand, shape: Sequence[int], windows: Sequence[Window]) -> str:
    """Return the sums of the windows, where padding counts as zeros."""
    axes = len(windows)
    padded = pad(graph, x, len(shape), _widths(windows, shape[-axes:]), "zeros")
    is_batch = len(shape) == axes + 2
    batch = padded if is_batch else graph.op("Unsqueeze", padded, _FIRST)
    means = graph.op(
        "AveragePool", batch, kernel_shape=[w.kernel_size for w in windows],
        strides=[w.stride for w in windows],
    )  # fmt: skip
    sums = graph.op("Mul", means, float(math.prod(w.kernel_size for w in windows)))
    return sums if is_batch else str(graph.op("Squeeze", sums, _FIRST))


def adaptive_max_pool(graph: Graph, layer: Any, x: Value) -> str:
    """The largest element of every window, axis by axis."""
    if layer.return_indices:
        raise graph.refuse(layer, "return_indices=True")
    name, axes = x.name, layer.spatial_axes
    outputs = _adaptive_sizes(layer, x.shape)
    for axis, count in zip(range(len(x.shape) - axes, len(x.shape)), outputs, strict=True):
        length = x.shape[axis]
        parts = []
        for place in range(count):
            start, stop = place * length // count, -((place + 1) * length // -count)
            bounds = [np.array([number], np.int64) for number in (start, stop, axis)]
            part = graph.op("Slice", name, *bounds)
            parts.append(graph.op("ReduceMax", part, axes=[axis]))
        name = graph.op("Concat", *parts, axis=axis)
    return name


def _adaptive_sizes(layer: Any, shape: Sequence[int]) -> tuple[int, ...]:
    axes, size = layer.spatial_axes, layer.output_size
    sizes = tuple(size) if isinstance(size, (tuple, list)) else (size,)
    sizes = sizes * axes if len(sizes) == 1 else sizes
    return tuple(
        length if wanted is None else wanted
        for wanted, length in zip(sizes, shape[-axes:], strict=True)
    )


def _widths(windows: Sequence[Window], spatial: Sequence[int]) -> list[tuple[int, int]]:
    """Return what is padded, so that the last window has all its elements."""
    return [
        (
            w.padding,
            max(
                0,
                (w.outputs - 1) * w.stride + (w.kernel_size - 1) * w.dilation + 1
                - length - w.padding,
            ),
        )
        for w, length in zip(windows, spatial, strict=True)
    ]  # fmt: skip


def _count_elements(spatial: Sequence[int], windows: Sequence[Window]) -> np.ndarray:
    """Return how many elements of the input each window has."""
    counts: np.ndarray = np.ones(())
    for w, length in zip(windows, spatial, strict=True):
        first = np.arange(w.outputs) * w.stride - w.padding
        along = np.minimum(first + w.kernel_size, length) - np.maximum(first, 0)
        counts = counts[..., None] * along
    return counts


def _flat(widths: Sequence[tuple[int, int]]) -> list[int]:
    return [*(before for before, _ in widths), *(after for _, after in widths)]


def _as_batch(graph: Graph, x: Value, axes: int) -> str:
    return x.name if len(x.shape) == axes + 2 else str(graph.op("Unsqueeze", x, _FIRST))


def _as_given(graph: Graph, x: Value, axes: int, output: str) -> str:
    return output if len(x.shape) == axes + 2 else str(graph.op("Squeeze", output, _FIRST))


POOLING: dict[type[Module], Exporter] = {
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), max_pool),
    **dict.fromkeys((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), avg_pool),
    **dict.fromkeys((nn.LPPool1d, nn.LPPool2d, nn.LPPool3d), lp_pool),
    **dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), separable),
    **dict.fromkeys(
        (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d), adaptive_max_pool
    ),
}
