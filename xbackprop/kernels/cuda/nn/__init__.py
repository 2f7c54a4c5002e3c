"""Kernels for the ops in :mod:`xbackprop.nn`, one module for each of theirs."""

from xbackprop.kernels.cuda.nn import activations, fusion, losses, normalization

__all__ = ["activations", "fusion", "losses", "normalization"]
