"""Kernels for the ops of :mod:`xbackprop.nn`, one module for each of theirs."""

from xbackprop.kernels.cpu.nn import convolution

__all__ = ["convolution"]
