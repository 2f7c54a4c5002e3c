"""Kernels for the ops of :mod:`xbackprop.nn.activations`."""

from xbackprop.kernels.cpu.nn.activations import gates, leaky, rectifiers, smooth

__all__ = ["gates", "leaky", "rectifiers", "smooth"]
