"""Nested arguments and results: their arrays one by one, with names; calls of any module."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, is_array
from xbackprop.backend.device import CPU, Device, device_of
from xbackprop.backend.transfer import to_device, to_host
from xbackprop.module import Module, Saved
from xbackprop.nn.utils.rnn import PackedSequence


def leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield every leaf of nested tuples, lists, dicts and ``saved`` with a name for messages."""
    if isinstance(value, Saved):
        yield from leaves(value.content, name)
    elif isinstance(value, PackedSequence):  # its sizes are plain numbers that nothing changes
        yield f"{name}.data", value.data
        yield f"{name}.sorted_indices", value.sorted_indices
        yield f"{name}.unsorted_indices", value.unsorted_indices
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from leaves(part, f"{name}[{key!r}]")
    elif isinstance(value, (tuple, list)):
        fields = getattr(value, "_fields", None)
        for position, part in enumerate(value):
            suffix = f"[{position}]" if fields is None else f".{fields[position]}"
            yield from leaves(part, f"{name}{suffix}")
    else:
        yield name, value


def arrays(value: Any, name: str) -> dict[str, Array]:
    """Return the arrays among the leaves."""
    return {path: leaf for path, leaf in leaves(value, name) if is_array(leaf)}


def transform(value: Any, function: Callable[[Any], Any]) -> Any:
    """Return the same nesting with ``function`` applied to every leaf."""
    if isinstance(value, PackedSequence):
        data, indices = function(value.data), map(function, value[2:])
        return PackedSequence(data, value.batch_sizes, *indices)
    if isinstance(value, (tuple, list)):
        parts = [transform(part, function) for part in value]
        if hasattr(value, "_fields"):
            return type(value)(*parts)
        return type(value)(parts)
    if isinstance(value, Mapping):
        return {key: transform(part, function) for key, part in value.items()}
    return function(value)


def input_names(module: Module, count: int) -> list[str]:
    """Return the names of the first ``count`` arguments of ``forward``."""
    names: list[str] = []
    for parameter in inspect.signature(module.forward).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}[{number}]" for number in range(count - len(names))]
        names.append(parameter.name)
    return names[:count]


def backward_of_all_inputs(
    module: Module, grad_output: Any, saved: Any, count: int, *, keep: bool | None = None
) -> list[Any]:
    """Run backward; return one gradient per input, of a loss's target too."""
    options: dict[str, bool] = {}
    if "all_inputs" in inspect.signature(module.backward).parameters:
        options["all_inputs"] = True
    result = module.backward(grad_output, saved, keep=keep, **options)  # type: ignore[call-arg]
    if count == 1 and type(result) is not tuple:  # a packed sequence is one input
        return [result]
    if not isinstance(result, tuple) or len(result) != count:
        got = f"{len(result)} of them" if isinstance(result, tuple) else type(result).__name__
        raise AssertionError(
            f"backward: expected a tuple of {count} gradients, one per input; got {got}"
        )
    return list(result)


def is_float(value: Any) -> bool:
    """Tell whether a leaf is an array that a gradient can be taken of."""
    return is_array(value) and value.dtype.kind == "f"


def device_among(*values: Any) -> Device:
    """Return the first device other than the CPU among nested arrays, else the CPU."""
    for array in arrays(values, "").values():
        place = device_of(array)
        if place != CPU:
            return place
    return CPU


def random_like(value: Any, rng: np.random.Generator) -> Any:
    """Draw normal numbers on the host, in shapes and dtypes of nested arrays; None for the rest."""

    def draw(leaf: Any) -> Any:
        if not is_float(leaf) and not isinstance(leaf, np.floating):
            return None
        return np.asarray(rng.normal(size=leaf.shape)).astype(leaf.dtype.newbyteorder("="))

    return transform(value, draw)


def moved(value: Any, device: Device) -> Any:
    """Copy nested host arrays to a device; everything else is passed on."""
    return transform(value, lambda leaf: to_device(leaf.copy(), device) if is_array(leaf) else leaf)


class BufferSnapshot:
    """The buffers of a module, to be put back: a random layer then repeats what it drew."""

    def __init__(self, module: Module) -> None:
        self._copies = [
            (part, name, to_host(array).copy())
            for part in module.modules()
            for persistent in (True, False)
            for name, array in part.own_buffers(persistent=persistent)
        ]

    def restore(self) -> None:
        """Write the buffers back."""
        for part, name, values in self._copies:
            place = device_of(part.__dict__["_buffers"][name])
            with place.activate():
                part.commit_buffer(name, to_device(values, place))
