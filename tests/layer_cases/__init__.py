"""THE table: one row per layer and loss, and per option that changes what it computes.

`test_layers.py` runs every row on every device and beside PyTorch. A row is a name, how to make the
layer on the default device, how to draw its inputs, and PyTorch's counterpart. One file per family.
"""

from layer_cases.activations import ACTIVATIONS
from layer_cases.attention import ATTENTION
from layer_cases.case import Case
from layer_cases.containers import CONTAINERS, tied, used_twice
from layer_cases.convolution import CONVOLUTIONS
from layer_cases.distances import DISTANCES
from layer_cases.dropout import DROPOUT
from layer_cases.embedding import EMBEDDING
from layer_cases.linear import LINEAR
from layer_cases.losses import LOSSES
from layer_cases.models import MODELS
from layer_cases.normalization import NORMALIZATION
from layer_cases.padding import PADDING
from layer_cases.pooling import POOLING
from layer_cases.positions import POSITIONS
from layer_cases.recurrent import RECURRENT
from layer_cases.shapes import SHAPES
from layer_cases.transformer import TRANSFORMERS

__all__ = ["CASES", "Case", "tied", "used_twice"]

CASES = [
    *LINEAR,
    *CONVOLUTIONS,
    *ACTIVATIONS,
    *ATTENTION,
    *SHAPES,
    *NORMALIZATION,
    *PADDING,
    *POOLING,
    *DROPOUT,
    *EMBEDDING,
    *RECURRENT,
    *DISTANCES,
    *CONTAINERS,
    *MODELS,
    *TRANSFORMERS,
    *POSITIONS,
    *LOSSES,
]
