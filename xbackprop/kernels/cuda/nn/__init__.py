"""Kernels for the ops in :mod:`xbackprop.nn`, one module for each of theirs."""

from xbackprop.kernels.cuda.nn import activations, linear, losses, normalization

__all__ = ["activations", "linear", "losses", "normalization"]
