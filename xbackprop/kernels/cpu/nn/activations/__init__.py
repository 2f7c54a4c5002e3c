"""Kernels for the ops of :mod:`xbackprop.nn.activations`."""

from xbackprop.kernels.cpu.nn.activations import gates, rectifiers

__all__ = ["gates", "rectifiers"]
