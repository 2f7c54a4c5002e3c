"""Kernels for the ops of :mod:`xbackprop.optim`."""

from xbackprop.kernels.cpu.optim import adam

__all__ = ["adam"]
