"""How sequences lie in an input, and the way to the rows that the ops walk along, and back."""

from itertools import pairwise
from typing import Any, Literal, NamedTuple

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.module import Module, describe_layer
from xbackprop.nn.utils.rnn import PackedSequence
from xbackprop.ops.matmul import flatten_rows

Form = Literal["packed", "batch first", "time first", "one sequence"]


class Layout(NamedTuple):
    """The form of an input. What enters goes ``to`` rows and states, what leaves comes ``from``.

    Gradients of what left enter and leave in the same way: each of these only moves elements.
    """

    form: Form
    batch_sizes: tuple[int, ...]
    batch: int
    sorted_indices: Array | None = None
    unsorted_indices: Array | None = None

    def to_rows(self, x: Any) -> Array:
        """Return the rows of all steps, one step after the other."""
        if self.form == "packed":
            return x.data
        if self.form == "batch first":
            return flatten_rows(x.transpose(1, 0, 2))
        return flatten_rows(x)

    def from_rows(self, rows: Array) -> Any:
        """Return rows in the form of the input."""
        if self.form == "packed":
            indices = (self.sorted_indices, self.unsorted_indices)
            return PackedSequence(rows, self.batch_sizes, *indices)
        if self.form == "one sequence":
            return rows
        x = rows.reshape(len(self.batch_sizes), self.batch, rows.shape[1])
        return x.transpose(1, 0, 2) if self.form == "batch first" else x

    def to_states(self, states: Array) -> Array:
        """Return ``(layers, batch, features)``, the batch in the order of the rows."""
        if self.form == "one sequence":
            return states[:, None]
        return _taken(states, self.sorted_indices)

    def from_states(self, states: Array) -> Array:
        """Return ``(layers, batch, features)`` in the form of the input."""
        if self.form == "one sequence":
            return states[:, 0]
        return _taken(states, self.unsorted_indices)


def _taken(states: Array, indices: Array | None) -> Array:
    if indices is None:
        return states
    return get_array_module(states).take(states, indices, axis=1)


def read_input(
    layer: Module, x: Any, weight: Array, features: int, batch_first: bool
) -> tuple[Array, Layout]:
    """Check an input; return its rows and its layout."""
    if isinstance(x, PackedSequence):
        data = layer.check_input("x.data", x.data, weight)
        _check_packed(layer, data.shape, x.batch_sizes, features)
        indices = (x.sorted_indices, x.unsorted_indices)
        return data, Layout("packed", x.batch_sizes, x.batch_sizes[0], *indices)
    x = layer.check_input("x", x, weight)
    if x.ndim not in (2, 3) or x.shape[-1] != features:
        order = "batch, time" if batch_first else "time, batch"
        raise ValueError(
            f"{describe_layer(layer)} expects x of shape ({order}, {features}) or (time, "
            f"{features}), or a PackedSequence; got {x.shape}"
        )
    form: Form = "one sequence" if x.ndim == 2 else "batch first" if batch_first else "time first"
    time, batch = (x.shape[0], 1) if x.ndim == 2 else x.shape[:2]
    if form == "batch first":
        time, batch = batch, time
    if time == 0:
        raise ValueError(
            f"{describe_layer(layer)} expects at least one step; got x of shape {x.shape}"
        )
    layout = Layout(form, (batch,) * time, batch)
    return layout.to_rows(x), layout


def _check_packed(
    layer: Module, shape: tuple[int, ...], batch_sizes: tuple[int, ...], features: int
) -> None:
    """Refuse a packed sequence whose parts do not fit each other or the layer."""
    if len(shape) != 2 or shape[1] != features:
        raise ValueError(
            f"{describe_layer(layer)} expects x.data of shape (rows, {features}); got {shape}"
        )
    rises = any(now < after for now, after in pairwise(batch_sizes))
    if not batch_sizes or batch_sizes[-1] < 1 or rises:
        raise ValueError(
            f"{describe_layer(layer)} expects x.batch_sizes of positive numbers, none larger than "
            f"the one before it; got {batch_sizes}. Make it by pack_padded_sequence."
        )
    if sum(batch_sizes) != shape[0]:
        raise ValueError(
            f"{describe_layer(layer)} expects x.data of {sum(batch_sizes)} rows, the sum of "
            f"x.batch_sizes; got {shape[0]}"
        )
