"""Kernels for the ops of :mod:`xbackprop.nn.recurrent`."""

from xbackprop.kernels.cpu.nn.recurrent import lstm

__all__ = ["lstm"]
