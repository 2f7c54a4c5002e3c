"""Kernels for the ops in :mod:`xbackprop.ops`, one module for each of theirs."""

from xbackprop.kernels.cuda.ops import matmul, norms, random_bits

__all__ = ["matmul", "norms", "random_bits"]
