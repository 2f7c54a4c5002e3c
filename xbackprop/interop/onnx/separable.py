"""Layers that are a linear map along each axis of an image: one matrix an axis, exact for all."""

from typing import Any

import numpy as np

from xbackprop.interop.onnx.graph import Graph, Value


def separable(graph: Graph, layer: Any, x: Value) -> str:
    """Multiply each axis after the channels with the matrix that the layer is along it."""
    axes = getattr(layer, "spatial_axes", len(x.shape) - 2)
    spatial, ndim = x.shape[-axes:], len(x.shape)
    name = x.name
    for place in range(axes):
        matrix = _matrix(layer, spatial, place)
        axis = ndim - axes + place
        order = [*range(ndim)]
        order[axis], order[-1] = order[-1], order[axis]
        is_last = axis == ndim - 1
        moved = name if is_last else graph.op("Transpose", name, perm=order)
        product = graph.op("MatMul", moved, matrix)
        name = product if is_last else graph.op("Transpose", product, perm=order)
    return name


def _matrix(layer: Any, spatial: tuple[int, ...], place: int) -> np.ndarray:
    """Return the weights ``(length, outputs)`` along an axis.

    An image that is 1 at one position of the axis and does not change along the others becomes one
    that does not change along them either, since all weights of an output sum to 1.
    """
    length = spatial[place]
    shape = [1] * len(spatial)
    shape[place] = length
    rows = np.eye(length, dtype=np.float32).reshape(length, 1, *shape)
    made = np.asarray(layer(np.ascontiguousarray(np.broadcast_to(rows, (length, 1, *spatial)))))
    first = tuple(slice(None) if axis == place else 0 for axis in range(len(spatial)))
    return np.ascontiguousarray(made[(slice(None), 0, *first)])
