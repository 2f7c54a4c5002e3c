"""Containers: networks made of other modules."""

from collections.abc import Iterator
from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.initializers import RandomSource, as_generator
from xbackprop.module import (
    Module,
    Parameter,
    current_frame,
    describe_layer,
    inference,
    replay,
    saving,
)


class Sequential(Module):
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

    def __init__(self, *layers: Module | dict[str, Module], rng: RandomSource = None) -> None:
        named: dict[str, Any]
        if len(layers) == 1 and isinstance(layers[0], dict):
            named = dict(layers[0])
        else:
            named = {str(position): layer for position, layer in enumerate(layers)}
        for name, layer in named.items():
            if not isinstance(name, str) or not name or "." in name:  # dots join names to paths
                raise ValueError(f"Sequential expects names without dots; got {name!r}")
            if not isinstance(layer, Module):
                hint = "; call it to make a layer" if isinstance(layer, type) else ""
                raise TypeError(
                    f"Sequential expects modules; argument {name} is {type(layer).__name__}{hint}"
                )
        self._layers: dict[str, Module] = named
        self._order: tuple[Module, ...] = tuple(named.values())
        if rng is not None:
            self.reset_parameters(rng)

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Draw the children's initial values anew, each from its own stream."""
        streams = as_generator(rng).spawn(len(self._order))
        for layer, stream in zip(self._order, streams, strict=True):
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters(stream)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield the layers with their names."""
        yield from self._layers.items()

    def forward(self, x: Any) -> tuple[Any, Any]:
        """Pass ``x`` through all layers."""
        saved = []
        for layer in self._order:
            x, layer_saved = layer.forward(x)
            saved.append(layer_saved)
        return x, saved

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        """Pass the gradient back through all layers."""
        first = 0 if input_grad else self._first_trainable()
        if first == len(self._order):
            return grad_output if input_grad else None
        if current_frame().keep:
            saved = list(saved)
        # pop lets go of each layer's activations as soon as its backward has used them.
        for position in range(len(self._order) - 1, first, -1):
            grad_output = self._order[position].backward(grad_output, saved.pop())
        return self._order[first].backward(grad_output, saved.pop(), input_grad=input_grad)

    def _first_trainable(self) -> int:
        for position, layer in enumerate(self._order):
            if has_parameters(layer):
                return position
        return len(self._order)

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._order)

    def __getitem__(self, index: int | slice) -> Module:
        if isinstance(index, slice):
            names = list(self._layers)[index]
            return Sequential({name: self._layers[name] for name in names})
        return self._order[index]


def has_parameters(module: Module) -> bool:
    """Tell whether a module or anything below it has parameters; asked in every step."""
    for value in vars(module).values():
        if value.__class__ is Parameter:
            return True
    return any(has_parameters(child) for child in module.children())


class Residual(Module):
    """Add what a module makes of its input to the input, ``y = x + f(x)``.

    Parameters
    ----------
    module : Module
        ``f``; its output has the shape of its input.

    Notes
    -----
    ``dLoss/dx = g + f.backward(g)``: the gradient has a way around ``f``.

    References
    ----------
    He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016.
    """

    def __init__(self, module: Module) -> None:
        self.module = module

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Draw the inner module's initial values anew."""
        if hasattr(self.module, "reset_parameters"):
            self.module.reset_parameters(rng)

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Return ``x + f(x)``."""
        branch, saved = self.module.forward(x)
        if branch.shape != x.shape:
            raise ValueError(
                f"{describe_layer(self)} adds x of shape {x.shape} and f(x) of shape "
                f"{branch.shape}. Make the inner module keep the shape."
            )
        return x + branch, saved

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Return ``g + f.backward(g)``."""
        grad_branch = self.module.backward(grad_output, saved, input_grad=input_grad)
        return grad_output + grad_branch if input_grad else None


class Recompute(Module):
    """Run a module without saving, and run it again in the backward: less memory, more time.

    Parameters
    ----------
    module : Module
        The part of a network whose activations are not kept.

    Notes
    -----
    The second run sees the random counters of the first, so dropout masks agree; the updates of
    running state that it makes are discarded.

    References
    ----------
    Chen, Xu, Zhang, Guestrin, "Training deep nets with sublinear memory cost", 2016.
    """

    def __init__(self, module: Module) -> None:
        self.module = module

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Draw the inner module's initial values anew."""
        if hasattr(self.module, "reset_parameters"):
            self.module.reset_parameters(rng)

    def forward(self, *inputs: Any, **options: Any) -> tuple[Any, Any]:
        """Return the module's output; save its inputs only."""
        state = {} if current_frame().inference else self._state_before()
        with inference():
            output, _ = self.module.forward(*inputs, **options)
        return output, (inputs, options, state)

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        """Run forward again, then backward."""
        inputs, options, state = saved
        with replay(state), saving():
            _, inner = self.module.forward(*inputs, **options)
        return self.module.backward(grad_output, inner, input_grad=input_grad)

    def _state_before(self) -> dict[tuple[int, str], tuple[Module, str, Array]]:
        """Copy the buffers that this forward will read, as this call sees them."""
        state = {}
        for module in self.module.modules():
            for persistent in (True, False):
                for name, _ in module.own_buffers(persistent=persistent):
                    array = module.read_buffer(name).copy()
                    state[id(module), name] = (module, name, array)
        return state
