"""Recurrent layers: walks along sequences in both directions, stacked, with dropout between."""

from typing import Any, ClassVar

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.device import Device
from xbackprop.initializers import RandomSource, as_generator
from xbackprop.module import current_frame, describe_layer
from xbackprop.nn.activations import as_number
from xbackprop.nn.dropout import Dropout
from xbackprop.nn.recurrent.base import Recurrent
from xbackprop.nn.recurrent.layout import Layout, read_input
from xbackprop.nn.sizes import as_count


class RecurrentLayer(Recurrent):
    """What RNN, LSTM and GRU share; each names its ops, and its options in the constructor.

    Layer ``k`` in direction ``d`` of ``D`` has the states at ``k D + d``.
    """

    defaults: ClassVar[dict[str, Any]] = {
        "proj_size": 0,
        "num_layers": 1,
        "nonlinearity": "tanh",
        "bias": True,
        "batch_first": False,
        "dropout": 0.0,
        "bidirectional": False,
    }

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        proj_size: int,
        device: str | Device | None,
        dtype: Any,
        rng: RandomSource,
    ) -> None:
        name, generator = type(self).__name__, as_generator(rng)
        self.input_size = as_count(name, "input_size", input_size, 1)
        self.hidden_size = as_count(name, "hidden_size", hidden_size, 1)
        self.num_layers = as_count(name, "num_layers", num_layers, 1)
        self.proj_size = as_count(name, "proj_size", proj_size, 0)
        if self.proj_size >= self.hidden_size:
            raise ValueError(
                f"{name} expects proj_size < hidden_size={hidden_size}; got {proj_size}"
            )
        self.bias = _as_bool(name, "bias", bias)
        self.batch_first = _as_bool(name, "batch_first", batch_first)
        self.bidirectional = _as_bool(name, "bidirectional", bidirectional)
        self.dropout = _check_dropout(name, dropout, self.num_layers)
        self.make_parameters(self._shapes(), generator, dtype, device)
        self.between: Dropout | None = None  # shared by all gaps between layers
        if self.dropout:
            self.between = Dropout(self.dropout, device=device, rng=generator)

    @property
    def output_size(self) -> int:
        """Features of the hidden state."""
        return self.proj_size or self.hidden_size

    @property
    def directions(self) -> int:
        """How many walks a layer does."""
        return 2 if self.bidirectional else 1

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Return names and shapes of all parameters in PyTorch's order."""
        rows = self.gate_count * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for number in range(self.num_layers * self.directions):
            is_first = number < self.directions
            features = self.input_size if is_first else self.output_size * self.directions
            suffix = self._suffix(number)
            shapes[f"weight_ih{suffix}"] = (rows, features)
            shapes[f"weight_hh{suffix}"] = (rows, self.output_size)
            if self.bias:
                shapes[f"bias_ih{suffix}"] = shapes[f"bias_hh{suffix}"] = (rows,)
            if self.proj_size:
                shapes[f"weight_hr{suffix}"] = (self.proj_size, self.hidden_size)
        return shapes

    def _suffix(self, number: int) -> str:
        layer, direction = divmod(number, self.directions)
        return f"_l{layer}" + "_reverse" * direction

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Draw the initial values anew, and the key of the dropout's random stream."""
        generator = as_generator(rng)
        super().reset_parameters(generator)
        if self.between is not None:
            self.between.reset_parameters(generator)

    def forward(self, x: Any, hx: Any = None) -> tuple[tuple[Any, Any], Any]:
        """Return the outputs of the last layer, and the last states of all."""
        weight: Array = self.weight_ih_l0.data
        rows, layout = read_input(self, x, weight, self.input_size, self.batch_first)
        states = self._first_states(hx, layout, weight)
        ends, saved, inference = [], [], current_frame().inference
        for layer in range(self.num_layers):
            outputs, walks, dropped = [], [], None
            for direction in range(self.directions):
                number = layer * self.directions + direction
                (output, *end), walked = self.walk(
                    rows,
                    [state[number] for state in states],
                    self._suffix(number),
                    layout.batch_sizes,
                    direction == 1,
                )
                outputs.append(output)
                ends.append(end)
                walks.append(None if inference else walked)
            rows = _side_by_side(outputs)
            if self.between is not None and layer < self.num_layers - 1:
                rows, dropped = self.between.forward(rows)
            saved.append((walks, dropped))
        last = [layout.from_states(_stacked(states)) for states in zip(*ends, strict=True)]
        return (layout.from_rows(rows), self.nested(last)), (layout, hx is not None, saved)

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        """Walk back through all layers; return the gradient of ``x``, and of ``hx`` if given."""
        layout, has_states, layers = saved
        if current_frame().keep:
            layers = list(layers)
        grad_rows, grad_ends = self._gradients_of_outputs(grad_output, layout)
        grad_states: list[Any] = [None] * (self.num_layers * self.directions)
        for layer in reversed(range(self.num_layers)):
            walks, dropped = layers.pop()
            if self.between is not None and layer < self.num_layers - 1:
                grad_rows = self.between.backward(grad_rows, dropped)
            grads = []
            for direction in range(self.directions):
                number = layer * self.directions + direction
                grad, grad_states[number] = self.walk_back(
                    grad_rows[:, direction * self.output_size : (direction + 1) * self.output_size],
                    walks[direction],
                    [None if end is None else end[number] for end in grad_ends],
                    self._suffix(number),
                    input_grad=input_grad or layer > 0,
                    state_grad=input_grad and has_states,
                )
                grads.append(grad)
            grad_rows = grads[0] if len(grads) == 1 or grads[0] is None else grads[0] + grads[1]
        if not input_grad:
            return None
        grad_x = layout.from_rows(grad_rows)
        if not has_states:
            return grad_x
        first = [layout.from_states(_stacked(grads)) for grads in zip(*grad_states, strict=True)]
        return grad_x, self.nested(first)

    def _first_states(self, hx: Any, layout: Layout, weight: Array) -> list[Array]:
        """Return the states given, checked and in the order of the rows, or zeros."""
        walks = self.num_layers * self.directions
        batch = () if layout.form == "one sequence" else (layout.batch,)
        features = (self.output_size, self.hidden_size)[: len(self.state_names)]
        shapes = [(walks, *batch, size) for size in features]
        if hx is None:
            zeros = get_array_module(weight).zeros
            given = [zeros(shape, dtype=weight.dtype) for shape in shapes]
            return [state[:, None] if not batch else state for state in given]
        return [layout.to_states(state) for state in self.check_states(hx, weight, shapes)]

    def _gradients_of_outputs(
        self, grad_output: Any, layout: Layout
    ) -> tuple[Array, list[Array | None]]:
        """Return the gradients of all rows of the output, zeros if unused, and of the states."""
        if not (isinstance(grad_output, (tuple, list)) and len(grad_output) == 2):
            names = self.nested([f"grad_{name[0]}_n" for name in self.state_names])
            told = names if isinstance(names, str) else f"({', '.join(names)})"
            raise TypeError(
                f"{describe_layer(self)}.backward expects the pair (grad_output, {told}), None for "
                f"what was not used; got {type(grad_output).__name__}"
            )
        grad, grad_states = grad_output
        states = [None if g is None else layout.to_states(g) for g in self.flat(grad_states)]
        if grad is not None:
            return layout.to_rows(grad), states
        weight = self.weight_ih_l0.data
        shape = (sum(layout.batch_sizes), self.directions * self.output_size)
        return get_array_module(weight).zeros(shape, dtype=weight.dtype), states

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        shown = f"{self.input_size}, {self.hidden_size}"
        for name, default in self.defaults.items():
            if getattr(self, name, default) != default:
                shown += f", {name}={getattr(self, name)!r}"
        return shown


def _side_by_side(outputs: list[Array]) -> Array:
    if len(outputs) == 1:
        return outputs[0]
    return get_array_module(outputs[0]).concatenate(outputs, axis=1)


def _stacked(states: Any) -> Array:
    return get_array_module(states[0]).stack(states)


def _as_bool(layer: str, name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{layer} expects {name} to be a bool; got {type(value).__name__}")
    return value


def _check_dropout(layer: str, dropout: Any, num_layers: int) -> float:
    """Return the probability; one layer has no gap for it, of which PyTorch only warns."""
    if isinstance(dropout, bool) or not 0 <= as_number(layer, "dropout", dropout) <= 1:
        raise ValueError(f"{layer} expects dropout between 0 and 1; got {dropout}")
    if dropout and num_layers == 1:
        raise ValueError(
            f"{layer} puts dropout={dropout} between layers, and has one. Take num_layers > 1, or "
            "put Dropout behind it."
        )
    return float(dropout)
