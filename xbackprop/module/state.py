"""Walking the tree, and taking the state of a network out and in."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from xbackprop.backend.array_module import Array, is_array
from xbackprop.backend.device import CPU, device_of
from xbackprop.backend.transfer import to_device, to_host
from xbackprop.module.lazy import UninitializedParameter, install_parameter
from xbackprop.module.parameter import Parameter

if TYPE_CHECKING:
    from xbackprop.module.base import Module


def walk(module: "Module", prefix: str = "") -> Iterator[tuple[str, "Module"]]:
    """Yield ``module`` and everything below it, shared modules under each of their paths."""
    yield prefix, module
    for name, child in module.named_children():
        yield from walk(child, f"{prefix}.{name}" if prefix else name)


def walk_parameters(module: "Module") -> Iterator[tuple[str, Parameter]]:
    """Yield every parameter under each of its paths."""
    for path, part in walk(module):
        for name, parameter in part.own_parameters():
            yield f"{path}.{name}" if path else name, parameter


def walk_buffers(module: "Module", *, persistent: bool) -> Iterator[tuple[str, Array]]:
    """Yield every buffer of one kind under each of its paths."""
    for path, part in walk(module):
        for name, array in part.own_buffers(persistent=persistent):
            yield f"{path}.{name}" if path else name, array


def state_dict(module: "Module") -> dict[str, np.ndarray]:
    """Return host copies of parameters and persistent buffers."""
    state = {path: _host_copy(parameter.data) for path, parameter in walk_parameters(module)}
    for path, array in walk_buffers(module, persistent=True):
        state[path] = _host_copy(array)
    return state


def extra_state(module: "Module") -> dict[str, np.ndarray]:
    """Return host copies of the buffers that are not in ``state_dict``."""
    return {path: _host_copy(a) for path, a in walk_buffers(module, persistent=False)}


def load_state_dict(module: "Module", state: dict[str, Any], *, strict: bool) -> None:
    """Check everything first, then copy; refuse without having changed anything."""
    given = {path: _as_array(values) for path, values in state.items()}
    parameters = dict(walk_parameters(module))
    created = _initialize(parameters, given)
    parameters |= created
    buffers = dict(walk_buffers(module, persistent=True))
    targets = {path: parameter.data for path, parameter in parameters.items()} | buffers
    _check("load_state_dict", targets, given, strict=strict)
    for path, array in given.items():
        if path in targets:
            _copy_into(targets[path], array)
            if path in parameters:
                parameters[path].mark_changed()
    for path, part in walk(module) if created else ():
        for name, _ in list(part.own_parameters()):
            full = f"{path}.{name}" if path else name
            if full in created:
                install_parameter(part, name, created[full])


def _initialize(parameters: dict[str, Parameter], given: dict[str, Array]) -> dict[str, Parameter]:
    """Return a Parameter for every uninitialized one whose values are given."""
    created: dict[int, Parameter] = {}  # one for all holders of the same
    found: dict[str, Parameter] = {}
    for path, parameter in parameters.items():
        if not isinstance(parameter, UninitializedParameter) or path not in given:
            continue
        shape = given[path].shape
        if shape != parameter.shape and parameter.fits(shape):  # else none were saved either
            with parameter.device.activate():
                data = parameter.device.xp.zeros(shape, dtype=parameter.dtype)
            fresh = Parameter(data, parameter.requires_grad)
            found[path] = created.setdefault(id(parameter), fresh)
    return found


def load_extra_state(module: "Module", state: dict[str, Any]) -> None:
    """Restore what ``extra_state`` returned."""
    buffers = dict(walk_buffers(module, persistent=False))
    given = {path: _as_array(values) for path, values in state.items()}
    _check("load_extra_state", buffers, given, strict=True)
    for path, array in given.items():
        _copy_into(buffers[path], array)


def _check(call: str, expected: dict[str, Array], given: dict[str, Array], *, strict: bool) -> None:
    problems = []
    missing = [path for path in expected if path not in given]
    unexpected = [path for path in given if path not in expected]
    if strict and missing:
        problems.append(f"missing: {', '.join(missing)}")
    if strict and unexpected:
        problems.append(f"unexpected: {', '.join(unexpected)}")
    for path, array in given.items():
        if path not in expected:
            continue
        if array.shape != expected[path].shape:
            problems.append(f"{path} has shape {array.shape}, expected {expected[path].shape}")
        if array.dtype.kind not in "biuf":
            problems.append(f"{path} has dtype {array.dtype}, expected real numbers")
    if problems:
        raise ValueError(f"{call} changed nothing: " + "; ".join(problems))


def _as_array(values: Any) -> Array:
    if hasattr(values, "detach"):  # a PyTorch tensor
        values = values.detach().cpu().numpy()
    return values if is_array(values) else np.asarray(values)


def _copy_into(target: Array, values: Array) -> None:
    place = device_of(target)
    if device_of(values) != place:
        if device_of(values) == CPU:  # cast before: the device then sees one dtype only
            values = values.astype(target.dtype, copy=False)
        values = to_device(values, place)
    with place.activate():
        target[...] = values.astype(target.dtype, copy=False)


def _host_copy(array: Array) -> np.ndarray:
    return np.array(to_host(array), order="C", copy=True)
