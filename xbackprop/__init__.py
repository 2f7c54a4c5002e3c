"""xbackprop: backpropagation written by hand, on a CPU or a GPU, picked at run time."""

import importlib
from typing import TYPE_CHECKING, Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.device import (
    Device,
    DeviceError,
    DeviceUnavailableError,
    default_device,
    device_of,
    explain_default_device,
    set_device,
    use_device,
)
from xbackprop.backend.threads import get_num_threads, set_num_threads
from xbackprop.backend.transfer import (
    TransferError,
    asarray,
    to_device,
    to_host,
    transfer_guard,
    transfer_log,
)

if TYPE_CHECKING:
    from xbackprop import data, interop, nn, observe, optim, testing
    from xbackprop.backend.heap import reuse_memory
    from xbackprop.dispatch import op
    from xbackprop.initializers import manual_seed
    from xbackprop.module import Module, Parameter, set_precision
    from xbackprop.training import GradScaler, Trainer, load, save, value_and_grad

__version__ = "0.1.0"

__all__ = [
    "Array",
    "Device",
    "DeviceError",
    "DeviceUnavailableError",
    "GradScaler",
    "Module",
    "Parameter",
    "Trainer",
    "TransferError",
    "asarray",
    "data",
    "default_device",
    "device_of",
    "explain_default_device",
    "get_array_module",
    "get_num_threads",
    "interop",
    "load",
    "manual_seed",
    "nn",
    "observe",
    "op",
    "optim",
    "reuse_memory",
    "save",
    "set_device",
    "set_num_threads",
    "set_precision",
    "testing",
    "to_device",
    "to_host",
    "transfer_guard",
    "transfer_log",
    "use_device",
    "use_references",
    "value_and_grad",
]

# The shim above is all that `import xbackprop` loads; the rest comes when it is first used.
_LAZY = {
    "data": "xbackprop.data",
    "interop": "xbackprop.interop",
    "nn": "xbackprop.nn",
    "optim": "xbackprop.optim",
    "testing": "xbackprop.testing",
    "GradScaler": "xbackprop.training:GradScaler",
    "Module": "xbackprop.module:Module",
    "Parameter": "xbackprop.module:Parameter",
    "Trainer": "xbackprop.training:Trainer",
    "load": "xbackprop.training:load",
    "manual_seed": "xbackprop.initializers:manual_seed",
    "observe": "xbackprop.observe",
    "op": "xbackprop.dispatch:op",
    "reuse_memory": "xbackprop.backend.heap:reuse_memory",
    "save": "xbackprop.training:save",
    "set_precision": "xbackprop.module:set_precision",
    "use_references": "xbackprop.dispatch:use_references",
    "value_and_grad": "xbackprop.training:value_and_grad",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'xbackprop' has no attribute {name!r}")
    module_name, _, attribute = _LAZY[name].partition(":")
    module = importlib.import_module(module_name)
    value = getattr(module, attribute) if attribute else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
