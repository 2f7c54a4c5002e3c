"""Normalizations: one file per idea; `normalize.py` has what most of them are."""

from xbackprop.nn.normalization.group_norm import GroupNorm
from xbackprop.nn.normalization.layer_norm import LayerNorm
from xbackprop.nn.normalization.rms_norm import RMSNorm

__all__ = ["GroupNorm", "LayerNorm", "RMSNorm"]
