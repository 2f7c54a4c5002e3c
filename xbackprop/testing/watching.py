"""What each layer of a network is called with, where it stands."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from xbackprop.module import Module


@dataclass(frozen=True, eq=False)
class LayerCall:
    """One call of a layer's ``forward``.

    Attributes
    ----------
    path : str
        Of the layer inside the network; empty for the network itself.
    module : Module
        The layer.
    inputs, options : tuple, dict
        What it was given.
    """

    path: str
    module: Module
    inputs: tuple[Any, ...]
    options: dict[str, Any]


@contextlib.contextmanager
def watching_layers(model: Module) -> Iterator[list[LayerCall]]:
    """Note every call of a layer's ``forward``, in the order in which the calls end.

    Parameters
    ----------
    model : Module
        Used by nobody else meanwhile.

    Yields
    ------
    list of LayerCall
        Filled while the block runs.
    """
    calls: list[LayerCall] = []

    def forward(path: str, module: Module, *inputs: Any, **options: Any) -> Any:
        result = type(module).forward(module, *inputs, **options)
        calls.append(LayerCall(path, module, inputs, options))
        return result

    with replacing_forwards(model, forward):
        yield calls


@contextlib.contextmanager
def replacing_forwards(model: Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let every layer call ``forward(path, layer, *inputs, **options)`` in the place of its own.

    Parameters
    ----------
    model : Module
        Used by nobody else meanwhile.
    forward : callable
        Calls ``type(layer).forward(layer, *inputs, **options)``.

    Yields
    ------
    None
    """
    watched = list(model.named_modules())
    for path, module in watched:
        module.__dict__["forward"] = functools.partial(forward, path, module)
    try:
        yield
    finally:
        for _, module in watched:
            del module.__dict__["forward"]
