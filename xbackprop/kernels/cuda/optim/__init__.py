"""Kernels for the ops in :mod:`xbackprop.optim`, one module for each of theirs."""

from xbackprop.kernels.cuda.optim import adam, norms, sgd

__all__ = ["adam", "norms", "sgd"]
