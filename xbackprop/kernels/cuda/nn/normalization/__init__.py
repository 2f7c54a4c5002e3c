"""Kernels for the ops in :mod:`xbackprop.nn.normalization`, one module for each of theirs."""

from xbackprop.kernels.cuda.nn.normalization import normalize, rms_norm

__all__ = ["normalize", "rms_norm"]
