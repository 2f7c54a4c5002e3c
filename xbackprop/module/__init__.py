"""Parameter, Module, the call frame and the tree walk: the protocol every layer follows."""

from xbackprop.module.base import Module
from xbackprop.module.frame import (
    Saved,
    as_one_call,
    as_shard,
    current_frame,
    describe_layer,
    inference,
    layer_path,
    replay,
    saving,
    settle_parameters,
    update_parameter,
)
from xbackprop.module.lazy import UninitializedParameter, create_parameter, read_parameter
from xbackprop.module.parameter import Parameter, collect_gradients, is_collecting
from xbackprop.module.precision import precision_of, set_precision
from xbackprop.module.updates import updates_stay_finite, withhold_updates

__all__ = [
    "Module",
    "Parameter",
    "Saved",
    "UninitializedParameter",
    "as_one_call",
    "as_shard",
    "collect_gradients",
    "create_parameter",
    "current_frame",
    "describe_layer",
    "inference",
    "is_collecting",
    "layer_path",
    "precision_of",
    "read_parameter",
    "replay",
    "saving",
    "set_precision",
    "settle_parameters",
    "update_parameter",
    "updates_stay_finite",
    "withhold_updates",
]
