"""What L-BFGS remembers as plain data, and the checks on its way back."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from xbackprop.backend.array_module import is_array
from xbackprop.backend.device import Device
from xbackprop.backend.transfer import to_device
from xbackprop.optim.state_dict import as_host, host_value

COUNTS = ("func_evals", "n_iter")
NUMBERS = ("t", "H_diag", "prev_loss")
ARRAYS = ("d", "prev_flat_grad")
ARRAY_LISTS = ("old_dirs", "old_stps")


def on_host(memory: Mapping[str, Any]) -> dict[str, Any]:
    """Return copies with all arrays on the host."""
    return {
        name: [_copy(part) for part in value] if isinstance(value, list) else _copy(value)
        for name, value in memory.items()
    }


def _copy(value: Any) -> Any:
    return host_value(value) if is_array(value) else value


def check_memory(state: Mapping[Any, Mapping[str, Any]], size: int) -> dict[str, Any]:
    """Return a loaded state as host arrays and numbers, when it fits ``size`` weights.

    ``al``, in which PyTorch keeps numbers during a step, is passed over.
    """
    numbers = [int(number) for number in state]
    if numbers not in ([], [0]):
        raise ValueError(f"LBFGS expects the state of parameter 0 alone; got {numbers}")
    if not numbers or not next(iter(state.values())):
        return {}
    entry = next(iter(state.values()))
    memory: dict[str, Any] = {name: int(entry.get(name, 0)) for name in COUNTS}
    if not memory["n_iter"]:
        return memory
    missing = [n for n in (*NUMBERS, *ARRAYS, *ARRAY_LISTS, "ro") if entry.get(n) is None]
    if missing:
        raise ValueError(f"LBFGS expects state of the name {', '.join(missing)}; got none")
    memory |= {name: float(entry[name]) for name in NUMBERS}
    memory |= {name: as_host(entry[name]) for name in ARRAYS}
    memory |= {name: [as_host(part) for part in entry[name]] for name in ARRAY_LISTS}
    memory["ro"] = [float(number) for number in entry["ro"]]
    lengths = {len(memory[name]) for name in (*ARRAY_LISTS, "ro")}
    if len(lengths) > 1:
        raise ValueError(f"LBFGS expects old_dirs, old_stps and ro of one length; got {lengths}")
    for name in (*ARRAYS, *ARRAY_LISTS):
        parts = memory[name] if name in ARRAY_LISTS else [memory[name]]
        for part in parts:
            if part.shape != (size,):
                raise ValueError(f"state {name!r} has shape {part.shape}; expected ({size},)")
    return memory


def moved(value: Any, place: Device, dtype: np.dtype) -> Any:
    """Return an array on a device in a dtype; numbers pass through."""
    return to_device(value, place).astype(dtype, copy=False) if is_array(value) else value
