"""Kernels that slide over signals, images and volumes."""

from xbackprop.nn.convolution.convolution import Conv1d, Conv2d, Conv3d

__all__ = ["Conv1d", "Conv2d", "Conv3d"]
