"""Kernels for the ops in :mod:`xbackprop.ops`, one module for each of theirs."""

from xbackprop.kernels.cpu.ops import scatter

__all__ = ["scatter"]
