"""Kernels for the ops of :mod:`xbackprop.nn.losses`."""

from xbackprop.kernels.cpu.nn.losses import cross_entropy

__all__ = ["cross_entropy"]
