"""Parameter, Module, the call frame and the tree walk: the protocol every layer follows."""

from xbackprop.module.base import Module
from xbackprop.module.frame import (
    Saved,
    as_one_call,
    current_frame,
    describe_layer,
    inference,
    layer_path,
    replay,
    saving,
    withhold_updates,
)
from xbackprop.module.parameter import Parameter

__all__ = [
    "Module",
    "Parameter",
    "Saved",
    "as_one_call",
    "current_frame",
    "describe_layer",
    "inference",
    "layer_path",
    "replay",
    "saving",
    "withhold_updates",
]
