"""Parameter, Module, the call frame and the tree walk: the protocol every layer follows."""

from xbackprop.module.base import Module
from xbackprop.module.frame import (
    Saved,
    describe_layer,
    frame,
    inference,
    layer_path,
    replay,
    saving,
    unwind,
)
from xbackprop.module.parameter import Parameter

__all__ = [
    "Module",
    "Parameter",
    "Saved",
    "describe_layer",
    "frame",
    "inference",
    "layer_path",
    "replay",
    "saving",
    "unwind",
]
