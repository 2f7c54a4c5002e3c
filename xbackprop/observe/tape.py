"""Every op of a forward and a backward, with copies on the host of what it was given and made."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from xbackprop.backend.array_module import is_array
from xbackprop.backend.device import Device
from xbackprop.backend.transfer import to_host
from xbackprop.dispatch import Op, OpCall, observe
from xbackprop.module import Module, as_one_call
from xbackprop.module.frame import layer_path
from xbackprop.observe.finiteness import floats, named_results, named_saved
from xbackprop.testing.structures import backward_of_all_inputs, moved, transform


@dataclass(frozen=True, eq=False)
class Taped:
    """One call of an op.

    Attributes
    ----------
    op : Op
        What was called.
    layer : str
        Path of the layer that called it.
    args, options : tuple, dict
        What it was given, on the host.
    results : list of (str, numpy.ndarray)
        Float arrays that it made or saved, with their names, or all arrays where it was given no
        floats.
    depth : int
        0 where a layer called it, more inside of another op.
    """

    op: Op
    layer: str
    args: tuple[Any, ...]
    options: dict[str, Any]
    results: list[tuple[str, np.ndarray]]
    depth: int


class Tape:
    """An observer that keeps every call, in the order in which the calls end.

    Attributes
    ----------
    calls : list of Taped
        So far.
    """

    def __init__(self) -> None:
        self.calls: list[Taped] = []
        self._given: dict[int, tuple[Any, ...]] = {}

    def before(self, call: OpCall) -> None:
        """Copy the arguments: an op around this one may write into what it made itself."""
        self._given[call.depth] = on_host(call.args)

    def after(self, call: OpCall, result: Any) -> None:
        """Keep a call."""
        args = self._given.pop(call.depth)
        options = {key: on_host(value) for key, value in call.options.items()}
        made = results_of(call, result)
        self.calls.append(Taped(call.op, layer_path(), args, options, made, call.depth))

    def groups(self) -> list[list[Taped]]:
        """Return the calls of layers, each behind the calls that it made itself."""
        groups: list[list[Taped]] = [[]]
        for call in self.calls:
            groups[-1].append(call)
            if call.depth == 0:
                groups.append([])
        return groups[:-1]


def results_of(call: OpCall, result: Any) -> list[tuple[str, np.ndarray]]:
    """Return the arrays of a result that are compared, on the host."""
    named = named_results(call, result) + named_saved(call, result)
    if not floats((str(place), value) for place, value in enumerate(call.args)):
        return [(name, np.array(to_host(value))) for name, value in named if is_array(value)]
    return [
        (name, np.array(to_host(value) if is_array(value) else value))
        for name, value in floats(named)
    ]


def on_host(value: Any) -> Any:
    """Return nested arguments with copies of their arrays on the host."""
    return transform(value, lambda leaf: np.array(to_host(leaf)) if is_array(leaf) else leaf)


def run_taped(
    model: Module, inputs: tuple[Any, ...], factors: Any, device: Device, dtype: Any
) -> Tape:
    """Run a network forward and backward, and keep every op.

    Parameters
    ----------
    model : Module
        On that device, in that dtype; gets gradients.
    inputs : tuple of nested numpy.ndarray
        Floats are cast.
    factors : nested numpy.ndarray
        Gradients of the outputs.
    device : Device
        Where to run.
    dtype : dtype
        Of all floats.

    Returns
    -------
    Tape
    """
    tape = Tape()
    values = moved(cast(inputs, dtype), device)
    with as_one_call(*values), observe(tape):
        _, saved = model.forward(*values)
        backward_of_all_inputs(model, moved(cast(factors, dtype), device), saved, len(values))
    return tape


def cast(value: Any, dtype: Any) -> Any:
    """Return nested host arrays with their floats in another dtype."""
    return transform(
        value,
        lambda leaf: (
            leaf.astype(dtype) if isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f" else leaf
        ),
    )
