"""Kernels for the ops in :mod:`xbackprop.nn`, one module for each of theirs."""

from xbackprop.kernels.cuda.nn import linear

__all__ = ["linear"]
