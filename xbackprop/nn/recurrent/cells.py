"""Recurrent cells: one step, for loops that do something of their own between steps."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.device import Device
from xbackprop.initializers import RandomSource, as_generator
from xbackprop.module import Parameter, describe_layer
from xbackprop.nn.recurrent.base import Recurrent
from xbackprop.nn.sizes import as_count
from xbackprop.ops.matmul import flatten_rows


class RecurrentCell(Recurrent):
    """What RNNCell, LSTMCell and GRUCell share: a walk of one step."""

    bias_ih: Parameter | None = None
    bias_hh: Parameter | None = None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        device: str | Device | None,
        dtype: Any,
        rng: RandomSource,
    ) -> None:
        name = type(self).__name__
        self.input_size = as_count(name, "input_size", input_size, 0)
        self.hidden_size = as_count(name, "hidden_size", hidden_size, 0)
        self.bias = bias
        rows = self.gate_count * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (rows, self.input_size),
            "weight_hh": (rows, self.hidden_size),
        }
        if bias:
            shapes["bias_ih"] = shapes["bias_hh"] = (rows,)
        self.make_parameters(shapes, as_generator(rng), dtype, device)

    def forward(self, x: Array, hx: Any = None) -> tuple[Any, Any]:
        """Return the states after a step."""
        weight: Array = self.weight_ih.data
        x = self.check_input("x", x, weight)
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise ValueError(
                f"{describe_layer(self)} expects x of shape (batch, {self.input_size}) or "
                f"({self.input_size},); got {x.shape}"
            )
        shape = (*x.shape[:-1], self.hidden_size)
        if hx is None:
            states = [get_array_module(x).zeros(shape, dtype=x.dtype)] * len(self.state_names)
        else:
            states = self.check_states(hx, weight, [shape] * len(self.state_names))
        rows, *states = (flatten_rows(array) for array in (x, *states))
        (_, *ends), saved = self.walk(rows, states, "", (len(rows),))
        return self.nested([end.reshape(shape) for end in ends]), (x.shape, hx is not None, saved)

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        """Step back; return the gradient of ``x``, and of ``hx`` if given."""
        shape, has_states, walked = saved
        grads = [None if grad is None else flatten_rows(grad) for grad in self.flat(grad_output)]
        grad_h, *grad_rest = grads
        if grad_h is None:
            weight = self.weight_ih.data
            rows = 1 if len(shape) == 1 else shape[0]
            grad_h = get_array_module(weight).zeros((rows, self.hidden_size), dtype=weight.dtype)
        # The state after the step is the output too; its gradient counts once.
        grad_x, grad_states = self.walk_back(
            grad_h,
            walked,
            (None, *grad_rest),
            "",
            input_grad=input_grad,
            state_grad=input_grad and has_states,
        )
        if grad_x is None:
            return None
        if not has_states:
            return grad_x.reshape(shape)
        state_shape = (*shape[:-1], self.hidden_size)
        first = [None if grad is None else grad.reshape(state_shape) for grad in grad_states]
        return grad_x.reshape(shape), self.nested(first)

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        shown = f"{self.input_size}, {self.hidden_size}"
        if not self.bias:
            shown += f", bias={self.bias}"
        for name in self.options:
            shown += f", {name}={getattr(self, name)!r}"
        return shown
