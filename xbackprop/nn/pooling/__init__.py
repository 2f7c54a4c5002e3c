"""Pooling: one number for every window of an image."""

from xbackprop.nn.pooling.maximum import MaxPool1d, MaxPool2d, MaxPool3d

__all__ = ["MaxPool1d", "MaxPool2d", "MaxPool3d"]
