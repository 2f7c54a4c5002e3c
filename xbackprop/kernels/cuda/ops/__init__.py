"""Kernels for the ops in :mod:`xbackprop.ops`, one module for each of theirs."""

from xbackprop.kernels.cuda.ops import matmul, random_bits, scatter

__all__ = ["matmul", "random_bits", "scatter"]
