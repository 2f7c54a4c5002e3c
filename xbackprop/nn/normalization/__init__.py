"""Normalizations: one file per idea; `normalize.py` has what most of them are."""

from xbackprop.nn.normalization.batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from xbackprop.nn.normalization.group_norm import GroupNorm
from xbackprop.nn.normalization.instance_norm import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from xbackprop.nn.normalization.layer_norm import LayerNorm
from xbackprop.nn.normalization.local_response_norm import LocalResponseNorm
from xbackprop.nn.normalization.rms_norm import RMSNorm

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LocalResponseNorm",
    "RMSNorm",
]
