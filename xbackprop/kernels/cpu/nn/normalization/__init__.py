"""Kernels for the ops of :mod:`xbackprop.nn.normalization`."""

from xbackprop.kernels.cpu.nn.normalization import normalize

__all__ = ["normalize"]
