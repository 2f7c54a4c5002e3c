"""An optimizer's state as plain data in PyTorch's layout, and the checks on its way back."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from xbackprop.backend.transfer import to_host
from xbackprop.module import Parameter

if TYPE_CHECKING:
    from xbackprop.optim.optimizer import Optimizer

Groups = list[dict[str, Any]]
State = dict[Parameter, dict[str, Any]]

# Options that files of earlier versions, here and in PyTorch, do not have.
LATER_OPTIONS = frozenset(
    "maximize foreach capturable differentiable fused decoupled_weight_decay".split()
)
# What schedules write into groups beside the optimizer's own options.
SCHEDULE_OPTIONS = (
    "initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum", "swa_lr"
)  # fmt: skip


def dump(optimizer: "Optimizer") -> dict[str, Any]:
    """Return ``{"state": {number: arrays and step}, "param_groups": [options]}`` on the host."""
    groups = optimizer.param_groups
    numbers = {p: i for i, p in enumerate(p for group in groups for p in group["params"])}
    dumped = {}
    for parameter, entry in optimizer.state.items():
        values = host_entry(optimizer, entry)
        if not values["step"]:  # all its updates were skipped
            continue
        del values["count"]
        if not optimizer.saves_step:
            del values["step"]
        if values:
            dumped[numbers[parameter]] = values
    options = [{**group, "params": [numbers[p] for p in group["params"]]} for group in groups]
    return {"state": dict(sorted(dumped.items())), "param_groups": options}


def check_groups(optimizer: "Optimizer", groups: list[Mapping[str, Any]]) -> Groups:
    """Return the options of loaded groups, when they fit those that the optimizer has."""
    expected = [len(group["params"]) for group in optimizer.param_groups]
    received = [len(group["params"]) for group in groups]
    if expected != received:
        raise ValueError(f"expected groups of {expected} parameters; got {received}")
    return [_check_options(optimizer, group) for group in groups]


def _check_options(optimizer: "Optimizer", group: Mapping[str, Any]) -> dict[str, Any]:
    # As PyTorch reads files from before it had these options.
    group = {
        name: optimizer.defaults[name] for name in LATER_OPTIONS & optimizer.defaults.keys()
    } | {**group}
    missing = [name for name in optimizer.defaults if name not in group]
    if missing:
        raise ValueError(
            f"{type(optimizer).__name__} expects groups with {', '.join(optimizer.defaults)}; got "
            f"one without {', '.join(missing)}. It seems to come from another optimizer."
        )
    known = (*optimizer.defaults, *SCHEDULE_OPTIONS)
    options = {name: group[name] for name in known if name in group}
    for name, value in options.items():
        if isinstance(value, list):  # a tuple, as JSON writes it
            options[name] = tuple(value)
    optimizer.check_options(options)
    return options


def check_state(
    optimizer: "Optimizer", state: Mapping[Any, Mapping[str, Any]], options: Groups
) -> State:
    """Return the loaded state of every parameter as host arrays, when it fits."""
    owners = [
        (parameter, optimizer.state_shapes(loaded, parameter))
        for group, loaded in zip(optimizer.param_groups, options, strict=True)
        for parameter in group["params"]
    ]
    checked: State = {}
    for number, entry in state.items():
        if not 0 <= int(number) < len(owners):
            raise ValueError(f"state of parameter {number}; there are {len(owners)}")
        parameter, shapes = owners[int(number)]
        shapes |= dict.fromkeys(optimizer.number_names, ())
        values = {name: as_host(value) for name, value in entry.items() if value is not None}
        missing = [name for name in shapes if name not in values]
        if missing:
            raise ValueError(
                f"{type(optimizer).__name__} expects state {', '.join(shapes)} of parameter "
                f"{number}; got none of the name {', '.join(missing)}"
            )
        for name, shape in shapes.items():
            if values[name].shape != shape:
                raise ValueError(
                    f"state {name!r} of parameter {number} has shape {values[name].shape}; "
                    f"expected {shape}"
                )
        step = int(values.get("step", 1))  # PyTorch's SGD saves none, and asks only for the first
        checked[parameter] = {
            name: float(values[name]) if name in optimizer.number_names else values[name]
            for name in shapes
        }
        checked[parameter] |= {"step": step, "count": step}
    return checked


def host_entry(optimizer: "Optimizer", entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a parameter's state on the host: arrays as copies, numbers and counts as numbers."""
    return {
        name: float(to_host(value)) if name in optimizer.number_names else host_value(value)
        for name, value in entry.items()
    }


def host_value(value: Any) -> Any:
    """Return a copy of an array on the host; a count becomes an int."""
    if isinstance(value, (int, float)):
        return value
    host = to_host(value)
    return int(host) if host.ndim == 0 and host.dtype.kind in "iu" else np.array(host, copy=True)


def as_host(value: Any) -> np.ndarray:
    """Return a copy of an array of any library on the host."""
    if hasattr(value, "detach"):  # a PyTorch tensor
        value = value.detach().cpu().numpy()
    return np.array(to_host(value), copy=True)
