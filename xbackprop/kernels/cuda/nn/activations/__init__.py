"""Kernels for the ops in :mod:`xbackprop.nn.activations`, one module for each of theirs."""

from xbackprop.kernels.cuda.nn.activations import gates, rectifiers

__all__ = ["gates", "rectifiers"]
