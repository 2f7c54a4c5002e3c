"""Kernels for the ops of :mod:`xbackprop.nn.pooling`."""

from xbackprop.kernels.cpu.nn.pooling import maximum

__all__ = ["maximum"]
