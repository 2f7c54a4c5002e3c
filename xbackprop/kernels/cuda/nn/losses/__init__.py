"""Kernels for the ops in :mod:`xbackprop.nn.losses`, one module for each of theirs."""

from xbackprop.kernels.cuda.nn.losses import cross_entropy

__all__ = ["cross_entropy"]
