"""Kernels for the ops in :mod:`xbackprop.nn`, one module for each of theirs."""

from xbackprop.kernels.cuda.nn import activations, fusion, linear, losses, normalization

__all__ = ["activations", "fusion", "linear", "losses", "normalization"]
