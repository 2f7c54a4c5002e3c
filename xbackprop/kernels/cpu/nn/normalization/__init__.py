"""Kernels for the ops of :mod:`xbackprop.nn.normalization`."""

from xbackprop.kernels.cpu.nn.normalization import normalize, rms_norm

__all__ = ["normalize", "rms_norm"]
