"""Which function writes which layer: one table per family."""

from xbackprop.interop.onnx.activations import ACTIVATIONS
from xbackprop.interop.onnx.attention import ATTENTION
from xbackprop.interop.onnx.containers import CONTAINERS
from xbackprop.interop.onnx.convolution import CONVOLUTIONS
from xbackprop.interop.onnx.distances import DISTANCES
from xbackprop.interop.onnx.embedding import EMBEDDINGS
from xbackprop.interop.onnx.graph import Exporter
from xbackprop.interop.onnx.linear import LINEAR
from xbackprop.interop.onnx.models import MODELS
from xbackprop.interop.onnx.normalization import NORMALIZATION
from xbackprop.interop.onnx.padding import PADDING
from xbackprop.interop.onnx.pooling import POOLING
from xbackprop.interop.onnx.recurrent import RECURRENT
from xbackprop.interop.onnx.shapes import SHAPES
from xbackprop.interop.onnx.transformer import TRANSFORMERS
from xbackprop.module import Module


def exporters() -> dict[type[Module], Exporter]:
    """Return the exporters of all families by the layer's class."""
    return {
        **LINEAR,
        **CONVOLUTIONS,
        **ACTIVATIONS,
        **ATTENTION,
        **TRANSFORMERS,
        **SHAPES,
        **NORMALIZATION,
        **PADDING,
        **POOLING,
        **EMBEDDINGS,
        **RECURRENT,
        **DISTANCES,
        **CONTAINERS,
        **MODELS,
    }
