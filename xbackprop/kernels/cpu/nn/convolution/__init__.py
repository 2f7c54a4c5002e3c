"""Kernels for the convolutions of :mod:`xbackprop.nn.convolution`."""

from xbackprop.kernels.cpu.nn.convolution import convolution

__all__ = ["convolution"]
