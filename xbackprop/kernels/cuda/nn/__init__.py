"""Kernels for the ops in :mod:`xbackprop.nn`, one module for each of theirs."""

from xbackprop.kernels.cuda.nn import losses, normalization

__all__ = ["losses", "normalization"]
