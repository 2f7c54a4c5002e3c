"""Kernels that slide over signals, images and volumes."""

from xbackprop.nn.convolution.convolution import Conv1d, Conv2d, Conv3d
from xbackprop.nn.convolution.patches import Fold, Unfold
from xbackprop.nn.convolution.transposed import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Fold",
    "Unfold",
]
