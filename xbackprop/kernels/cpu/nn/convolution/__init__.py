"""Kernels for the convolutions of :mod:`xbackprop.nn.convolution`; the last one is asked first."""

from xbackprop.kernels.cpu.nn.convolution import convolution, copied, direct, pointwise

__all__ = ["convolution", "copied", "direct", "pointwise"]
