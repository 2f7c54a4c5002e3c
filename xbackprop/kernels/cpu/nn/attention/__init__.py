"""Kernels for the ops of :mod:`xbackprop.nn.attention`."""

from xbackprop.kernels.cpu.nn.attention import dot_product

__all__ = ["dot_product"]
