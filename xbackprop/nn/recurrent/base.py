"""What recurrent layers and cells share: their parameters, and how they call their pair of ops."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device
from xbackprop.dispatch import Op
from xbackprop.initializers import RandomSource, as_generator, uniform
from xbackprop.module import Module, Parameter, describe_layer
from xbackprop.nn.recurrent.steps import Wanted


class Recurrent(Module):
    """A pair of ops that walks along sequences, and the names of what it takes.

    The forward op is called with rows, states, weights, the rows' ``batch_sizes``, the direction
    and the values of the attributes in ``options``; the backward op with the gradient, what was
    saved, the gradients of the last states and what is :class:`Wanted`.
    """

    in_half = "products"
    forward_op: ClassVar[Op]
    backward_op: ClassVar[Op]
    gate_count: ClassVar[int]  # blocks of hidden_size rows in a weight
    state_names: ClassVar[tuple[str, ...]] = ("h_0",)
    weight_names: ClassVar[tuple[str, ...]] = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    options: ClassVar[tuple[str, ...]] = ()

    hidden_size: int

    def make_parameters(
        self,
        shapes: dict[str, tuple[int, ...]],
        rng: RandomSource,
        dtype: Any,
        device: str | Device | None,
    ) -> None:
        """Make parameters of these names, in this order."""
        for name, shape in shapes.items():
            values = uniform(shape, self._bound(), rng=rng, dtype=dtype, device=device)
            setattr(self, name, Parameter(values))

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Draw the initial values anew."""
        generator = as_generator(rng)
        self.load_state_dict(
            {
                name: uniform(p.shape, self._bound(), rng=generator, dtype=p.dtype, device=p.device)
                for name, p in self.own_parameters()
            }
        )

    def _bound(self) -> float:
        return 1 / math.sqrt(self.hidden_size) if self.hidden_size else 0.0

    def weights(self, suffix: str) -> list[Parameter | None]:
        """Return the parameters of one walk; what the layer has not is None."""
        return [getattr(self, name + suffix, None) for name in self.weight_names]

    def walk(
        self,
        rows: Array,
        states: Sequence[Array],
        suffix: str,
        batch_sizes: tuple[int, ...],
        is_reverse: bool = False,
    ) -> Any:
        """Call the forward op with the parameters of this suffix."""
        # A bias is added to float32 sums, so in half precision it is read as the master has it.
        weights = [
            None if p is None else p.value if len(p.shape) > 1 else p.data
            for p in self.weights(suffix)
        ]
        options = [getattr(self, name) for name in self.options]
        return self.forward_op(rows, *states, *weights, batch_sizes, is_reverse, *options)

    def walk_back(
        self,
        grad_output: Array,
        saved: Any,
        grad_states: Sequence[Array | None],
        suffix: str,
        *,
        input_grad: bool,
        state_grad: bool,
    ) -> tuple[Array | None, list[Array | None]]:
        """Add the gradients of this suffix; return those of the rows and of the first states."""
        weights, count = self.weights(suffix), len(self.state_names)
        needed = (p is not None and p.requires_grad for p in weights)
        wanted = Wanted(input_grad, state_grad, *needed)
        grad_rows, *grads = self.backward_op(grad_output, *saved, *grad_states, wanted)
        for parameter, grad in zip(weights, grads[count:], strict=True):
            if parameter is not None and grad is not None:
                parameter.accumulate(grad)
        return grad_rows, grads[:count]

    def check_states(self, hx: Any, like: Array, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
        """Return the states given as a list, each checked to be of its shape."""
        names = self.state_names
        if len(names) > 1 and not (isinstance(hx, (tuple, list)) and len(hx) == len(names)):
            raise TypeError(
                f"{describe_layer(self)} expects hx to be a pair ({', '.join(names)}); got "
                f"{type(hx).__name__}"
            )
        checked = []
        given = hx if len(names) > 1 else (hx,)
        for name, state, shape in zip(names, given, shapes, strict=True):
            array = self.check_input(name, state, like)
            if array.shape != shape:
                raise ValueError(
                    f"{describe_layer(self)} expects {name} of shape {shape}; got {array.shape}"
                )
            checked.append(array)
        return checked

    def nested(self, arrays: Sequence[Any]) -> Any:
        """Return states, or their gradients, as PyTorch nests them: one alone or a pair."""
        return arrays[0] if len(self.state_names) == 1 else tuple(arrays)

    def flat(self, nested: Any) -> list[Any]:
        """Undo :meth:`nested`; None stands for all of them."""
        if nested is None:
            return [None] * len(self.state_names)
        return [nested] if len(self.state_names) == 1 else list(nested)
