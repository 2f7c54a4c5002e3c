"""Kernels for the CPU; imported by dispatch at the first op there."""

from xbackprop.kernels.cpu import nn, ops, optim

__all__ = ["nn", "ops", "optim"]
