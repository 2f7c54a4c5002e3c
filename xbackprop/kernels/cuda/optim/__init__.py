"""Kernels for the ops in :mod:`xbackprop.optim`, one module for each of theirs."""

from xbackprop.kernels.cuda.optim import adam, sgd

__all__ = ["adam", "sgd"]
