"""A chain of modules."""

from typing import Any, Self

import numpy as np

from xbackprop.initializers import RandomSource
from xbackprop.module import Module, current_frame
from xbackprop.nn.containers.sequence import ModuleSequence, has_parameters
from xbackprop.nn.fusion import PairedSaved, backward_in_pairs, forward_in_pairs, may_fuse
from xbackprop.nn.remade import SMALLEST_INPUT, forward_remade, may_remake


class Sequential(ModuleSequence):
    """Apply modules one after the other.

    Parameters
    ----------
    *layers : Module
        In order; or one dict from names to modules.
    rng : Generator, int or None
        When given, the children draw their initial values anew, each from a stream of its own
        spawned from it, so that adding a layer at the end leaves the others as they were.

    Notes
    -----
    Backward runs the chain rule from the last layer to the first and lets go of each layer's
    ``saved`` on the way. ``input_grad=False`` is passed to the first layer that has parameters;
    nothing before it is asked for a gradient.

    Examples
    --------
    >>> import xbackprop as xb
    >>> model = xb.nn.Sequential(xb.nn.Linear(2, 2), xb.nn.ReLU(), xb.nn.Linear(2, 1), rng=0)
    >>> model
    Sequential(
      (0): Linear(2, 2, bias=True)
      (1): ReLU()
      (2): Linear(2, 1, bias=True)
    )
    """

    samples_apart = True

    def __init__(self, *layers: Module | dict[str, Module], rng: RandomSource = None) -> None:
        named: dict[str, Any]
        if len(layers) == 1 and isinstance(layers[0], dict):
            named = dict(layers[0])
        else:
            named = {str(position): layer for position, layer in enumerate(layers)}
        super().__init__(named, rng)

    def forward(self, x: Any) -> tuple[Any, Any]:
        """Pass ``x`` through all layers."""
        return forward_through(self._order, x)

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        """Pass the gradient back through all layers."""
        first = 0 if input_grad else self._first_trainable()
        if first == len(self._order):
            return grad_output if input_grad else None
        return backward_through(self._order[first:], grad_output, saved, input_grad)

    def _first_trainable(self) -> int:
        for position, layer in enumerate(self._order):
            if has_parameters(layer):
                return position
        return len(self._order)

    @property
    def _is_numbered(self) -> bool:
        return list(self._layers) == [str(position) for position in range(len(self))]

    def as_arguments(self) -> tuple[Any, ...]:
        """Return the layers, or the dict of them where they have names."""
        return self._order if self._is_numbered else (dict(self._layers),)

    def insert(self, index: int, module: Module) -> Self:
        """Put a module before a position; layers with names of their own cannot be moved up."""
        if not self._is_numbered:
            raise ValueError(
                "Sequential.insert renumbers the layers, and these have names: "
                f"{', '.join(self._layers)}. Build a new Sequential from a dict."
            )
        return super().insert(index, module)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            names = list(self._layers)[index]
            return Sequential({name: self._layers[name] for name in names})
        return self._order[index]

    def __add__(self, other: Any) -> "Sequential":
        if not isinstance(other, Sequential):
            return NotImplemented
        return Sequential(*self, *other)


def forward_through(layers: tuple[Module, ...], x: Any) -> tuple[Any, list[Any]]:
    """Pass ``x`` through layers, one after the other.

    Parameters
    ----------
    layers : tuple of Module
        In order.
    x : array or structure of arrays
        What the first one takes.

    Returns
    -------
    output : array or structure of arrays
        What the last one gives.
    saved : list
        What each saved.
    """
    if type(x) is np.ndarray:
        if x.size >= SMALLEST_INPUT and may_remake(layers):
            return forward_remade(layers, x)
    elif may_fuse(x):
        return forward_in_pairs(layers, x)
    saved = []
    for layer in layers:
        x, layer_saved = layer.forward(x)
        saved.append(layer_saved)
    return x, saved


def backward_through(
    layers: tuple[Module, ...], grad_output: Any, saved: list[Any], input_grad: bool
) -> Any:
    """Pass a gradient back through layers; ``saved`` may hold more, of layers before them.

    Parameters
    ----------
    layers : tuple of Module
        In the order of the forward; at least one.
    grad_output : array or structure of arrays
        Of the last one's output.
    saved : list
        As :func:`forward_through` returned it; it is emptied from the end, unless it is to be kept.
    input_grad : bool
        Whether the first one is asked for the gradient of its input.

    Returns
    -------
    array or structure of arrays, or None
        Of the first one's input.
    """
    if current_frame().keep:
        saved = type(saved)(saved)
    if saved.__class__ is PairedSaved:
        return backward_in_pairs(layers, grad_output, saved, input_grad)
    # pop lets go of each layer's activations as soon as its backward has used them.
    for layer in layers[:0:-1]:
        grad_output = layer.backward(grad_output, saved.pop())
    return layers[0].backward(grad_output, saved.pop(), input_grad=input_grad)
