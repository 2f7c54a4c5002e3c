"""Attention: what every query takes from the values of the keys that it resembles."""

from xbackprop.nn.attention.multihead import MultiheadAttention
from xbackprop.nn.attention.scaled_dot_product import ScaledDotProductAttention

__all__ = ["MultiheadAttention", "ScaledDotProductAttention"]
