"""Building a model out of a file: compare first, take memory afterwards."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xbackprop import nn
from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device
from xbackprop.backend.transfer import to_device
from xbackprop.initializers import placeholders
from xbackprop.module.state import walk
from xbackprop.training.header import TensorEntry
from xbackprop.training.sections import EXTRA, Sections

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


@dataclass
class Slot:
    """A parameter or buffer, and the keys of the tensors that hold it; several where shared."""

    array: Array
    is_parameter: bool
    put: Callable[[Array], object]
    keys: list[str] = field(default_factory=list)


def assemble(sections: Sections, types: Iterable[type[nn.Module]], place: Device) -> nn.Module:
    """Build the model of a file on a device.

    Parameters
    ----------
    sections : Sections
        Of an open file.
    types : iterable of Module subclasses
        May be named by the architecture beside those of the catalogue.
    place : Device
        Where the model shall live.

    Returns
    -------
    Module

    Raises
    ------
    CheckpointError
        When the architecture cannot be built, or the tensors are not those it needs.
    """
    file = sections.file
    try:
        with placeholders():
            model = nn.from_config(sections.architecture, types=types)
        slots = compare(model, sections)
        parameters = dict(model.named_parameters())
        for path in sections.frozen:
            if not isinstance(path, str) or path not in parameters:
                raise ValueError(f"the frozen parameter {path!r} is not there")
            parameters[path].requires_grad = False
    except MemoryError:
        raise
    except Exception as error:  # constructors raise anything on arguments out of a bad file
        raise file.refusal(f"does not describe a model: {error or type(error).__name__}") from error
    for slot in slots:
        array = file.read(slot.keys[0])
        for key in slot.keys[1:]:
            if file.read(key).tobytes() != array.tobytes():
                raise file.refusal(f"{key} differs from {slot.keys[0]}, which it shall be")
        slot.put(to_device(array, place))
    return model


def _find_slots(model: nn.Module) -> list[Slot]:
    slots: dict[Any, Slot] = {}
    for path, module in walk(model):
        start = f"{path}." if path else ""
        for name, parameter in module.own_parameters():
            into = functools.partial(setattr, parameter, "data")
            slot = slots.setdefault(id(parameter), Slot(parameter.data, True, into))
            slot.keys.append(start + name)
        for persistent, prefix in ((True, ""), (False, EXTRA)):
            for name, buffer in module.own_buffers(persistent=persistent):
                into = functools.partial(module.register_buffer, name, persistent=persistent)
                slot = slots.setdefault((id(module), name), Slot(buffer, False, into))
                slot.keys.append(prefix + start + name)
    return list(slots.values())


def compare(model: nn.Module, sections: Sections) -> list[Slot]:
    """Return a model's slots where the file's table has what they need; else ValueError."""
    slots = _find_slots(model)
    table = sections.file.table
    wanted = {key: slot for slot in slots for key in slot.keys}
    problems = []
    missing = [key for key in wanted if key not in table]
    unexpected = [key for key in sections.keys[""] + sections.keys[EXTRA] if key not in wanted]
    if missing:
        problems.append(f"missing: {', '.join(missing)}")
    if unexpected:
        problems.append(f"unexpected: {', '.join(unexpected)}")
    for key, slot in wanted.items():
        if key in table:
            problems += _compare_entry(key, table[key], slot)
    if problems:
        raise ValueError("; ".join(problems))
    return slots


def _compare_entry(key: str, entry: TensorEntry, slot: Slot) -> list[str]:
    problems = []
    if entry.shape != slot.array.shape:
        problems.append(f"{key} has shape {entry.shape}, expected {slot.array.shape}")
    if slot.is_parameter and entry.dtype not in _FLOATS:
        problems.append(f"{key}: expected float32 or float64; got {entry.dtype}")
    both_floats = entry.dtype.kind == slot.array.dtype.kind == "f"  # each keeps its own
    if not slot.is_parameter and not both_floats and entry.dtype != slot.array.dtype:
        problems.append(f"{key}: expected {slot.array.dtype}; got {entry.dtype}")
    return problems
