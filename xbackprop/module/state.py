"""Walking the tree, and taking the state of a network out and in."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from xbackprop.backend.array_module import Array, is_array
from xbackprop.backend.device import CPU, device_of
from xbackprop.backend.transfer import to_device, to_host
from xbackprop.initializers import initial, makes_placeholders
from xbackprop.module.lazy import UninitializedParameter, install_parameter
from xbackprop.module.parameter import Parameter

if TYPE_CHECKING:
    from xbackprop.module.base import Module


def walk(module: "Module", prefix: str = "") -> Iterator[tuple[str, "Module"]]:
    """Yield ``module`` and everything below it, shared modules under each of their paths."""
    waiting = [(prefix, module)]  # not by recursion, which is slow where the tree is deep
    while waiting:
        path, current = waiting.pop()
        yield path, current
        start = f"{path}." if path else ""
        below = [(start + name, child) for name, child in current.named_children()]
        waiting.extend(reversed(below))


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
    """Return host copies of parameters and persistent buffers, module by module as in PyTorch."""
    state: dict[str, np.ndarray] = {}
    for path, part in walk(module):
        start = f"{path}." if path else ""
        for name, parameter in part.own_parameters():
            state[start + name] = _host_copy(parameter.data)
        for name, array in part.own_buffers(persistent=True):
            state[start + name] = _host_copy(array)
    return state


def extra_state(module: "Module") -> dict[str, np.ndarray]:
    """Return host copies of the buffers that are not in ``state_dict``."""
    return {path: _host_copy(a) for path, a in walk_buffers(module, persistent=False)}


def load_state_dict(module: "Module", state: dict[str, Any], *, strict: bool) -> None:
    """Check and prepare everything first, then copy; refuse without having changed anything."""
    parameters = dict(walk_parameters(module))
    created = _initialize(parameters, state)
    parameters |= created
    buffers = dict(walk_buffers(module, persistent=True))
    targets = {path: parameter.data for path, parameter in parameters.items()} | buffers
    for path in _load("load_state_dict", targets, state, strict=strict):
        if path in parameters:
            parameters[path].mark_changed()
    install_parameters(module, created)


def install_parameters(module: "Module", created: dict[str, Parameter]) -> None:
    """Put parameters, by their paths, in the place of uninitialized ones."""
    for path, part in walk(module) if created else ():
        for name, _ in list(part.own_parameters()):
            full = f"{path}.{name}" if path else name
            if full in created:
                install_parameter(part, name, created[full])


def initialize_lazy(module: "Module", values: Mapping[str, Any]) -> None:
    """Initialize, without values yet, what is uninitialized and has values of a shape to come."""
    install_parameters(module, _initialize(dict(walk_parameters(module)), values))


def _initialize(parameters: dict[str, Parameter], given: Mapping[str, Any]) -> dict[str, Parameter]:
    """Return a Parameter for every uninitialized one whose values are given."""
    created: dict[int, Parameter] = {}  # one for all holders of the same
    found: dict[str, Parameter] = {}
    for path, parameter in parameters.items():
        if not isinstance(parameter, UninitializedParameter) or path not in given:
            continue
        values = given[path]
        shape = tuple(values.shape if hasattr(values, "shape") else np.shape(values))
        if shape != parameter.shape and parameter.fits(shape):  # else none were saved either
            data = initial(
                shape, parameter.dtype, lambda shape=shape: np.zeros(shape), parameter.device
            )
            fresh = Parameter(data, parameter.requires_grad)
            found[path] = created.setdefault(id(parameter), fresh)
    return found


def load_extra_state(module: "Module", state: dict[str, Any]) -> None:
    """Restore what ``extra_state`` returned."""
    buffers = dict(walk_buffers(module, persistent=False))
    _load("load_extra_state", buffers, state, strict=True)


def check_state(module: "Module", state: dict[str, Array], extra: dict[str, Array]) -> None:
    """Raise what loading the two would raise, without loading them."""
    targets = {path: parameter.data for path, parameter in walk_parameters(module)}
    targets |= dict(walk_buffers(module, persistent=True))
    problems = _compare(targets, state, strict=True)
    problems += _compare(dict(walk_buffers(module, persistent=False)), extra, strict=True)
    if problems:
        raise ValueError("; ".join(problems))


def _load(call: str, targets: dict[str, Array], state: dict[str, Any], *, strict: bool) -> set[str]:
    """Copy values into arrays, all or none; return the paths that were written."""
    problems: list[str] = []
    given = {path: _as_array(path, values, problems) for path, values in state.items()}
    problems += _compare(targets, given, strict=strict)
    if problems:
        raise ValueError(f"{call} changed nothing: " + "; ".join(problems))
    if makes_placeholders():  # who makes them replaces every value later
        return set()
    # Whatever needs memory comes before the first write, and copies of what will be written into.
    written = {id(array) for array in targets.values()}
    ready = {
        path: _beside(targets[path], array, is_written=id(array) in written)
        for path, array in given.items()
        if path in targets
    }
    for path, array in ready.items():
        with device_of(array).activate():
            targets[path][...] = array
    return set(ready)


def _compare(expected: dict[str, Array], given: dict[str, Array], *, strict: bool) -> list[str]:
    problems = []
    missing = [path for path in expected if path not in given]
    unexpected = [path for path in given if path not in expected]
    if strict and missing:
        problems.append(f"missing: {', '.join(missing)}")
    if strict and unexpected:
        problems.append(f"unexpected: {', '.join(map(str, unexpected))}")
    first: dict[int, str] = {}
    for path, array in given.items():
        if path not in expected:
            continue
        target = expected[path]
        if array.dtype.kind not in "biuf":
            problems.append(f"{path} has dtype {array.dtype}, expected real numbers")
        elif not np.can_cast(array.dtype, target.dtype, "same_kind"):
            problems.append(f"{path} has dtype {array.dtype}, expected {target.dtype}")
        if array.shape != target.shape:
            problems.append(f"{path} has shape {array.shape}, expected {target.shape}")
        shared_with = first.setdefault(id(target), path)
        if shared_with != path and not _are_equal(array, given[shared_with]):
            problems.append(f"{path} differs from {shared_with}, with which it shares its values")
    return problems


def _as_array(path: str, values: Any, problems: list[str]) -> Array:
    if hasattr(values, "detach"):  # a PyTorch tensor
        values = values.detach().cpu().numpy()
    if is_array(values):
        return values
    try:
        return np.asarray(values)
    except (TypeError, ValueError) as error:
        problems.append(f"{path} is no array: {error}")
        return np.empty(0)


def _are_equal(array: Array, other: Array) -> bool:
    if array is other:
        return True
    pair = to_host(array), to_host(other)
    return pair[0].dtype.kind not in "biuf" or np.array_equal(
        *pair, equal_nan=pair[0].dtype.kind == pair[1].dtype.kind == "f"
    )


def _beside(target: Array, values: Array, *, is_written: bool) -> Array:
    """Return values in the dtype and on the device of what they will be copied into."""
    place = device_of(target)
    if is_written and values is not target:
        with device_of(values).activate():
            values = values.copy()
    if device_of(values) != place:
        if device_of(values) == CPU:  # cast before: the device then sees one dtype only
            values = values.astype(target.dtype, copy=False)
        values = to_device(values, place)
    with place.activate():
        return values.astype(target.dtype, copy=False)


def _host_copy(array: Array) -> np.ndarray:
    return np.array(to_host(array), order="C", copy=True)
