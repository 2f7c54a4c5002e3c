"""Kernels for one op pair, by what is multiplied; the last one that can serve a call does."""

from xbackprop.kernels.cpu.nn.convolution.convolution import blocks, copied, direct, pointwise

__all__ = ["blocks", "copied", "direct", "pointwise"]
