"""What belongs to layers and is none, at the places that PyTorch gives it."""

from xbackprop.nn.utils import rnn

__all__ = ["rnn"]
