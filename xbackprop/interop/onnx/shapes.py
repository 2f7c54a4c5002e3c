"""Layers that move elements, and images of another size."""

from typing import Any

import numpy as np

from xbackprop import nn
from xbackprop.interop.onnx.graph import Exporter, Graph, Value
from xbackprop.interop.onnx.separable import separable
from xbackprop.module import Module


def reshaped(graph: Graph, layer: Any, x: Value) -> str:
    """Give ``x`` the shape that the layer gives it."""
    return graph.reshape(x, np.asarray(layer(x.sample)).shape)


def pixel_shuffle(graph: Graph, layer: Any, x: Value) -> str:
    """Channels become pixels."""
    factor = layer.upscale_factor
    *lead, channels, height, width = x.shape
    batch = 0 if lead else None
    apart = graph.reshape(x, (*lead, channels // factor**2, factor, factor, height, width), batch)
    n = len(lead)
    moved = graph.op("Transpose", apart, perm=[*range(n + 1), n + 3, n + 1, n + 4, n + 2])
    return graph.reshape(
        moved, (*lead, channels // factor**2, height * factor, width * factor), batch
    )


def pixel_unshuffle(graph: Graph, layer: Any, x: Value) -> str:
    """Pixels become channels."""
    factor = layer.downscale_factor
    *lead, channels, height, width = x.shape
    batch = 0 if lead else None
    sizes = (channels, height // factor, factor, width // factor, factor)
    apart = graph.reshape(x, (*lead, *sizes), batch)
    n = len(lead)
    moved = graph.op("Transpose", apart, perm=[*range(n + 1), n + 2, n + 4, n + 1, n + 3])
    return graph.reshape(
        moved, (*lead, channels * factor**2, height // factor, width // factor), batch
    )


def channel_shuffle(graph: Graph, layer: Any, x: Value) -> str:
    """Channels of all groups take turns."""
    batch, channels, *spatial = x.shape
    apart = graph.reshape(x, (batch, layer.groups, channels // layer.groups, *spatial))
    order = [0, 2, 1, *range(3, 3 + len(spatial))]
    return graph.reshape(graph.op("Transpose", apart, perm=order), x.shape)


SHAPES: dict[type[Module], Exporter] = {
    nn.Flatten: reshaped,
    nn.Unflatten: reshaped,
    nn.PixelShuffle: pixel_shuffle,
    nn.PixelUnshuffle: pixel_unshuffle,
    nn.ChannelShuffle: channel_shuffle,
    **dict.fromkeys((nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d), separable),
}
