"""An architecture as plain data, and back."""

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from xbackprop.module.state import walk_parameters

if TYPE_CHECKING:
    from xbackprop.module.base import Module

# Where and from which random stream a layer was made is no part of the architecture.
_NOT_ARCHITECTURE = ("device", "rng")

# Keys that mark what a dict of the config stands for; a dict that has one itself is put into
# {"dict": ...}.
_MARKS = frozenset(("type", "shared", "array", "dict"))


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
    module = _rebuild_value(config, types, [])
    for first, second in config.get("tied", ()):
        owner_path, _, name = second.rpartition(".")
        setattr(_find(module, owner_path), name, dict(walk_parameters(module))[first])
    return module


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
            return np.asarray(value["array"], dtype=value["dtype"])
        elif "type" in value:
            return _rebuild_module(value, types, built)
        return {key: _rebuild_value(part, types, built) for key, part in value.items()}
    if isinstance(value, list):
        return [_rebuild_value(part, types, built) for part in value]
    return value


def _rebuild_shared(number: Any, built: list[Any]) -> Any:
    if not isinstance(number, int) or not 0 <= number < len(built) or built[number] is None:
        raise ValueError(f"config: shared names the layer {number!r}, which does not come before")
    return built[number]


def _rebuild_module(config: Mapping[str, Any], types: Mapping[str, type], built: list[Any]) -> Any:
    name = config["type"]
    if name not in types:
        raise ValueError(
            f"config names the unknown layer {name!r}; known: {', '.join(sorted(types))}. "
            "Pass your own classes as from_config(config, types=[...])."
        )
    cls = types[name]
    built.append(None)  # numbered before its children, as describe does
    number = len(built) - 1
    arguments = config.get("args", {})
    parameters = inspect.signature(cls).parameters
    for key in arguments:
        if key not in parameters:
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
