"""An architecture as plain data, and back."""

import difflib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from xbackprop.module.lazy import UninitializedParameter
from xbackprop.module.parameter import Parameter
from xbackprop.module.state import walk, walk_parameters

if TYPE_CHECKING:
    from xbackprop.module.base import Module

# Where and from which random stream a layer was made is no part of the architecture.
_NOT_ARCHITECTURE = ("device", "rng")

# Keys that mark what a dict of the config stands for; a dict that has one itself is put into
# {"dict": ...}.
_MARKS = frozenset(("type", "shared", "array", "dict"))

# A module shared at each of n levels is met on 2^n paths: as many as a walk may take, and as long
# as all of them together may be.
_MOST_PATHS, _LONGEST_PATHS = 100_000, 20_000_000


def describe(module: "Module") -> dict[str, Any]:
    """Return ``{"type", "args"}`` for a module, nested for its children.

    A module met a second time becomes ``{"shared": k}``, the k-th module described; parameters
    tied by assignment are listed as ``"tied"`` pairs of paths at the top.
    """
    config = _describe_value(module, {})
    tied = _tied_parameters(module)
    if tied:
        config["tied"] = tied
    return config


def rebuild(config: Mapping[str, Any], types: Mapping[str, type]) -> "Module":
    """Build the module that ``config`` describes, out of the classes in ``types`` only."""
    try:
        module = _rebuild_value(config, types, [])
        if not hasattr(module, "named_children"):
            raise ValueError(f"config describes no module, but {type(module).__name__}")
        check_paths(module)
    except RecursionError:
        raise ValueError("config is nested too deeply") from None
    modules = dict(walk(module))
    for first, second in config.get("tied", ()):
        _tie(modules, first, second)
    return module


def check_paths(module: "Module") -> None:
    """Refuse a network with more paths through shared modules than could be walked."""
    paths, length = _measure_paths(module, {})
    if paths > _MOST_PATHS or length > _LONGEST_PATHS:
        raise ValueError(
            f"config: more than {_MOST_PATHS} paths lead through the network's shared modules, or "
            f"their names have more than {_LONGEST_PATHS} letters together"
        )


def _measure_paths(module: "Module", known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Count the paths to everything below, and their letters, without walking them."""
    if id(module) not in known:
        paths, length = 1, 0
        for name, child in module.named_children():
            child_paths, child_length = _measure_paths(child, known)
            paths += child_paths
            length += child_length + child_paths * (len(name) + 1)
        # No more digits than it takes to refuse: 2^n would fill the memory itself.
        known[id(module)] = min(paths, _MOST_PATHS + 1), min(length, _LONGEST_PATHS + 1)
    return known[id(module)]


def _tie(modules: Mapping[str, "Module"], first: str, second: str) -> None:
    """Let the parameter under one path be the one under another, of one shape."""
    found = []
    for path in (first, second):
        owner, _, name = path.rpartition(".")
        parameter = vars(modules[owner]).get(name) if owner in modules else None
        if not isinstance(parameter, (Parameter, UninitializedParameter)):
            raise ValueError(f"config ties {path!r}, which is no parameter")
        found.append((modules[owner], name, parameter))
    (_, _, kept), (place, name, replaced) = found
    is_open = isinstance(replaced, UninitializedParameter) and replaced.fits(kept.shape)
    if kept.shape != replaced.shape and not is_open:
        raise ValueError(f"config ties {first!r} to {second!r}, which has another shape")
    setattr(place, name, kept)


def _describe_value(value: Any, seen: dict[int, int]) -> Any:
    from xbackprop.module.base import Module

    if isinstance(value, Module):
        if id(value) in seen:
            return {"shared": seen[id(value)]}
        seen[id(value)] = len(seen)
        return {"type": type(value).__name__, "args": _describe_arguments(value, seen)}
    if isinstance(value, (list, tuple)):
        return [_describe_value(part, seen) for part in value]
    if isinstance(value, dict):
        described = {str(key): _describe_value(part, seen) for key, part in value.items()}
        return {"dict": described} if _MARKS & described.keys() else described
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return np.dtype(value).name
    if hasattr(value, "tolist"):  # class weights and the like
        from xbackprop.backend.transfer import to_host

        return {"array": to_host(value).tolist(), "dtype": str(value.dtype)}
    raise TypeError(f"config: cannot write {type(value).__name__} as plain data: {value!r}")


def _describe_arguments(module: "Module", seen: dict[int, int]) -> dict[str, Any]:
    args, kwargs = module.__dict__["_constructor_arguments"]
    signature = inspect.signature(type(module).__init__)
    bound = signature.bind(module, *args, **kwargs)
    described = {}
    for position, (name, value) in enumerate(bound.arguments.items()):
        if position == 0 or name in _NOT_ARCHITECTURE:
            continue
        described[name] = _describe_value(value, seen)
    return described


def _rebuild_value(value: Any, types: Mapping[str, type], built: list[Any]) -> Any:
    if isinstance(value, Mapping):
        if "dict" in value:
            value = value["dict"]
        elif "shared" in value:
            return _rebuild_shared(value["shared"], built)
        elif "array" in value:
            return _rebuild_array(value["array"], value["dtype"])
        elif "type" in value:
            return _rebuild_module(value, types, built)
        return {key: _rebuild_value(part, types, built) for key, part in value.items()}
    if isinstance(value, list):
        return [_rebuild_value(part, types, built) for part in value]
    return value


def _rebuild_array(values: Any, name: Any) -> np.ndarray:
    dtype = np.dtype(name) if isinstance(name, str) else np.dtype(object)
    if dtype.kind not in "biuf":
        raise ValueError(f"config: an array of dtype {name!r}; expected numbers")
    try:
        with np.errstate(over="raise"):
            return np.asarray(values, dtype=dtype)
    except (FloatingPointError, OverflowError) as error:
        raise ValueError(f"config: an array of dtype {name!r} with other numbers") from error


def _rebuild_shared(number: Any, built: list[Any]) -> Any:
    if not isinstance(number, int) or not 0 <= number < len(built) or built[number] is None:
        raise ValueError(f"config: shared names the layer {number!r}, which does not come before")
    return built[number]


def _suggestion(name: Any, types: Mapping[str, type]) -> str:
    close = difflib.get_close_matches(str(name), types, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _rebuild_module(config: Mapping[str, Any], types: Mapping[str, type], built: list[Any]) -> Any:
    name = config["type"]
    if name not in types:
        raise ValueError(
            f"config names the unknown layer {name!r}.{_suggestion(name, types)} Pass your own "
            "classes as from_config(config, types=[...]); xbackprop.nn.__all__ lists those known."
        )
    cls = types[name]
    built.append(None)  # numbered before its children, as describe does
    number = len(built) - 1
    arguments = config.get("args", {})
    parameters = inspect.signature(cls).parameters
    for key in arguments:
        if key not in parameters or key in _NOT_ARCHITECTURE:
            raise ValueError(f"config: {name} has no argument {key!r}")
    # In the signature's order, in which `describe` numbered what is shared.
    given = [parameter for key, parameter in parameters.items() if key in arguments]
    by_position = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in given)
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    for parameter in given:
        rebuilt = _rebuild_value(arguments[parameter.name], types, built)
        if parameter.kind is parameter.VAR_POSITIONAL:
            positional.extend(rebuilt)
        elif parameter.kind is parameter.VAR_KEYWORD:
            keywords |= rebuilt
        elif by_position and parameter.kind is not parameter.KEYWORD_ONLY:
            positional.append(rebuilt)
        else:
            keywords[parameter.name] = rebuilt
    built[number] = cls(*positional, **keywords)
    return built[number]


def _tied_parameters(module: "Module") -> list[list[str]]:
    """Find parameters shared by assignment; those of shared modules are shared already."""
    first_path: dict[int, str] = {}
    tied = []
    owners: dict[int, set[int]] = {}
    for path, parameter in walk_parameters(module):
        owner = id(_find(module, path.rpartition(".")[0]))
        if id(parameter) not in first_path:
            first_path[id(parameter)] = path
            owners[id(parameter)] = {owner}
        elif owner not in owners[id(parameter)]:
            owners[id(parameter)].add(owner)
            tied.append([first_path[id(parameter)], path])
    return tied


def _find(module: "Module", path: str) -> "Module":
    for name in path.split(".") if path else ():
        module = dict(module.named_children())[name]
    return module
