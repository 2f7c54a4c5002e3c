"""What is added around images: constants, reflections, repeated edges, the other end."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from xbackprop import nn
from xbackprop.interop.onnx.graph import Exporter, Graph, Operand, Value
from xbackprop.module import Module

Widths = Sequence[tuple[int, int]]
_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge"}


def pad(graph: Graph, x: Operand, ndim: int, widths: Widths, mode: str, value: float = 0.0) -> str:
    """Pad the last axes; negative widths cut off.

    Parameters
    ----------
    graph : Graph
        Grows.
    x : Value or str
        Of ``ndim`` axes.
    ndim : int
        How many it has.
    widths : sequence of (before, after)
        Of the last axes, in their order.
    mode : str
        As convolutions call it.
    value : float
        What is added with zeros.
    """
    if not any(before or after for before, after in widths):
        return graph.name(x)
    lead = [0] * (ndim - len(widths))
    if mode == "circular":
        return _wrap(graph, x, ndim, widths)
    pads = [*lead, *(before for before, _ in widths), *lead, *(after for _, after in widths)]
    constant = np.float32(value) if mode == "zeros" else None
    return str(graph.op("Pad", x, np.array(pads, np.int64), constant, mode=_MODES[mode]))


def _wrap(graph: Graph, x: Operand, ndim: int, widths: Widths) -> str:
    """Put the end of each axis before its beginning, and its beginning behind its end."""
    for axis, (before, after) in enumerate(widths, start=ndim - len(widths)):
        parts = [x]
        if before > 0:
            parts.insert(0, _slice(graph, x, axis, -before, np.iinfo(np.int64).max))
        if after > 0:
            parts.append(_slice(graph, x, axis, 0, after))
        if len(parts) > 1:
            x = graph.op("Concat", *parts, axis=axis)
    return graph.name(x)


def _slice(graph: Graph, x: Operand, axis: int, start: int, stop: int) -> str:
    numbers = [np.array([number], np.int64) for number in (start, stop, axis)]
    return str(graph.op("Slice", x, *numbers))


def constant_padding(graph: Graph, layer: Any, x: Value) -> str:
    """Add a constant at the ends of the last axes."""
    widths = _in_order(layer.padding, layer.spatial_axes)
    return pad(graph, x, len(x.shape), widths, "zeros", layer.value)


def extension(mode: str) -> Exporter:
    """Return the exporter of a padding with what stands in the image."""

    def export(graph: Graph, layer: Any, x: Value) -> str:
        widths = _in_order(layer.padding, layer.spatial_axes)
        if mode == "circular":  # what is cut off first is not repeated
            cut = [(min(before, 0), min(after, 0)) for before, after in widths]
            kept = pad(graph, x, len(x.shape), cut, "zeros")
            return pad(graph, kept, len(x.shape), widths, mode)
        added = [(max(before, 0), max(after, 0)) for before, after in widths]
        wide = pad(graph, x, len(x.shape), added, mode)
        cut = [(min(before, 0), min(after, 0)) for before, after in widths]
        return pad(graph, wide, len(x.shape), cut, "zeros")

    return export


def _in_order(padding: Any, axes: int) -> list[tuple[int, int]]:
    """Return the widths in the order of the axes; PyTorch begins with the last one."""
    flat = (padding,) * (2 * axes) if isinstance(padding, int) else tuple(padding)
    return [(flat[place], flat[place + 1]) for place in range(0, len(flat), 2)][::-1]


PADDING: dict[type[Module], Exporter] = {
    **dict.fromkeys(
        (
            nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d,
            nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d,
        ),
        constant_padding,
    ),
    **dict.fromkeys(
        (nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d), extension("reflect")
    ),
    **dict.fromkeys(
        (nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d), extension("replicate")
    ),
    **dict.fromkeys((nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d), extension("circular")),
}  # fmt: skip
