"""Losses: a number that says how wrong the output is, and its gradient."""

from xbackprop.nn.losses.base import Loss
from xbackprop.nn.losses.binary import BCELoss, BCEWithLogitsLoss
from xbackprop.nn.losses.cross_entropy import CrossEntropyLoss, check_class_indices
from xbackprop.nn.losses.squared import HalfSquaredError, MSELoss

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "HalfSquaredError",
    "Loss",
    "MSELoss",
    "check_class_indices",
]
