"""Several layers of one architecture, made as copies of one."""

import copy
from typing import Any

from xbackprop.initializers import RandomSource, as_generator
from xbackprop.module import Module, current_frame
from xbackprop.nn.containers import ModuleList
from xbackprop.nn.containers.sequence import check_module, reset_children
from xbackprop.nn.randomness import RandomLayer
from xbackprop.nn.sizes import as_count


class Stack(Module):
    """Copies of a layer one after the other, and a last normalization.

    Parameters
    ----------
    layer : Module
        Copied ``num_layers`` times with its values; it stays as it is itself.
    num_layers : int
        1 or more.
    norm : Module or None
        After the last layer.
    rng : Generator, int or None
        Draws the keys of the copies' random streams.
    """

    def __init__(self, layer: Module, num_layers: int, norm: Module | None, rng: Any) -> None:
        name = type(self).__name__
        check_module(name, "0", layer)
        if norm is not None:
            check_module(name, "norm", norm)
        generator = as_generator(rng)
        self.num_layers = as_count(name, "num_layers", num_layers, 1)
        copies = [copy.deepcopy(layer) for _ in range(self.num_layers)]
        for part in (part for copied in copies for part in copied.modules()):
            if isinstance(part, RandomLayer):  # copies with one key would drop the same
                part.renew_key(generator)
        self.layers = ModuleList(copies)
        self.norm = norm
        self._describe_by(copies[0])

    def _describe_by(self, layer: Module) -> None:
        """Let ``config`` describe a copy: what was copied is not held, nor shared with anything."""
        if not type(self).__init__.__module__.startswith(__package__):
            return  # a subclass is described by what its own constructor was called with
        args, options = self.__dict__["_constructor_arguments"]
        kept = {key: value for key, value in options.items() if not key.endswith("coder_layer")}
        self.__dict__["_constructor_arguments"] = ((layer, *args[1:]), kept)

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Draw the initial values anew: every layer its own, as PyTorch recommends."""
        parts = [*self.layers, *(() if self.norm is None else (self.norm,))]
        reset_children(tuple(parts), rng)

    def last_forward(self, x: Any, saved: list[Any]) -> tuple[Any, list[Any]]:
        """Apply the last normalization, if there is one."""
        if self.norm is not None:
            x, norm_saved = self.norm.forward(x)
            saved.append(norm_saved)
        return x, saved

    def last_backward(self, grad: Any, saved: list[Any]) -> tuple[Any, list[Any]]:
        """Undo it, and return what was saved before, from which layers may take theirs."""
        if current_frame().keep:
            saved = list(saved)
        if self.norm is not None:
            grad = self.norm.backward(grad, saved.pop())
        return grad, saved
