"""Kernels for the ops of :mod:`xbackprop.optim`."""

from xbackprop.kernels.cpu.optim import adam, sgd

__all__ = ["adam", "sgd"]
