"""Pooling: one number for every window of an image."""

from xbackprop.nn.pooling.adaptive_average import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
)
from xbackprop.nn.pooling.adaptive_maximum import (
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
)
from xbackprop.nn.pooling.average import AvgPool1d, AvgPool2d, AvgPool3d
from xbackprop.nn.pooling.fractional import FractionalMaxPool2d, FractionalMaxPool3d
from xbackprop.nn.pooling.maximum import MaxPool1d, MaxPool2d, MaxPool3d
from xbackprop.nn.pooling.power import LPPool1d, LPPool2d, LPPool3d
from xbackprop.nn.pooling.unpooling import MaxUnpool1d, MaxUnpool2d, MaxUnpool3d

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "FractionalMaxPool2d",
    "FractionalMaxPool3d",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MaxUnpool1d",
    "MaxUnpool2d",
    "MaxUnpool3d",
]
