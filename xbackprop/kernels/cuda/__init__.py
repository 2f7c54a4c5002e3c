"""Kernels for CUDA; imported by dispatch at the first op there, and importable without CuPy."""

from xbackprop.kernels.cuda import nn, ops, optim

__all__ = ["nn", "ops", "optim"]
