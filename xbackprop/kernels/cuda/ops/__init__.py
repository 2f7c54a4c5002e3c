"""Kernels for the ops in :mod:`xbackprop.ops`, one module for each of theirs."""

from xbackprop.kernels.cuda.ops import random_bits, scatter

__all__ = ["random_bits", "scatter"]
