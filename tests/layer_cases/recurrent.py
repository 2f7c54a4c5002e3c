"""Rows of recurrent layers and cells.

The table takes and gives plain arrays; what is nested or packed goes through `Flat`, and is checked
as it is in `test_recurrent.py`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from layer_cases.case import Case, Rng, torch_function
from layer_cases.linear import frozen
from xbackprop import initializers, nn
from xbackprop.backend.array_module import get_array_module
from xbackprop.module import Module
from xbackprop.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from xbackprop.testing.structures import leaves, transform

TIME, BATCH, FEATURES, HIDDEN = 4, 3, 2, 3


class Flat(Module):
    """A recurrent layer or cell that takes its states as arguments and gives them as outputs.

    With lengths it sees its input packed; the output is padded again, by one step more.
    """

    def __init__(self, module: Any, lengths: Any = None, enforce_sorted: bool = True) -> None:
        self.module = module
        self.lengths = lengths
        if not enforce_sorted:
            order = np.argsort(-np.array(lengths), kind="stable")
            self.register_buffer("order", initializers.given(order), persistent=False)
            self.host_order = order.tolist()
        self.enforce_sorted = enforce_sorted

    def pack(self, x: Any) -> Any:
        """What `pack_padded_sequence` gives, without uploading the order at every call."""
        batch_first = self.module.batch_first
        if self.enforce_sorted:
            return pack_padded_sequence(x, self.lengths, batch_first)
        order = self.read_buffer("order")
        x = get_array_module(x).take(x, order, axis=0 if batch_first else 1)
        lengths = [self.lengths[number] for number in self.host_order]
        packed = pack_padded_sequence(x, lengths, batch_first)
        packed.batch_sizes.order = tuple(self.host_order)
        return PackedSequence(packed.data, packed.batch_sizes, order)

    def pad(self, packed: Any, total_length: int) -> Any:
        return pad_packed_sequence(packed, self.module.batch_first, total_length=total_length)[0]

    def forward(self, x: Any, *states: Any) -> tuple[Any, Any]:
        hx = self.module.nested(states) if states else None
        time = x.shape[1 if getattr(self.module, "batch_first", False) else 0]
        if self.lengths:
            x = self.pack(x)
        output, saved = self.module.forward(x, hx)
        if self.lengths:
            output = self.pad(output[0], max(self.lengths) + 1), output[1]
        nesting = transform(output, lambda leaf: None)
        return tuple(leaf for _, leaf in leaves(output, "")), (saved, nesting, time, bool(states))

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        inner, nesting, time, has_states = saved
        grads = iter(grad_output)
        grad = transform(nesting, lambda _: next(grads))
        if self.lengths:
            grad = self.pack(grad[0]), grad[1]
        result = self.module.backward(grad, inner, input_grad=input_grad)
        if result is None:
            return None
        grad_x, grad_states = result if has_states else (result, None)
        if self.lengths:
            grad_x = self.pad(grad_x, time)
        return (grad_x, *self.module.flat(grad_states)) if has_states else grad_x


def flat_torch(torch: Any, module: Any, lengths: Any, enforce_sorted: bool) -> Any:
    utils = torch.nn.utils.rnn

    def call(module: Any, x: Any, *states: Any) -> Any:
        hx = (states if len(states) > 1 else states[0]) if states else None
        if lengths:
            x = utils.pack_padded_sequence(
                x, lengths, module.batch_first, enforce_sorted=enforce_sorted
            )
        output = module(x, hx)
        if lengths:
            padded = utils.pad_packed_sequence(
                output[0], module.batch_first, total_length=max(lengths) + 1
            )
            output = padded[0], output[1]
        return tuple(leaf for _, leaf in leaves(output, ""))

    return torch_function(torch, call, module)


def drawn(
    kind: str, shape: tuple[int, ...], states: bool, options: dict[str, Any]
) -> Callable[[Rng], Any]:
    """The input, and initial states of the shapes that belong to it."""
    if not states:
        return lambda rng: rng.normal(size=shape)
    batch = shape[-2:-1] if "Cell" in kind else shape[:-2][-1:] and shape[1:2]
    if options.get("batch_first") and len(shape) == 3:
        batch = shape[:1]
    walks = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
    lead = batch if "Cell" in kind else (walks, *batch)
    widths = [options.get("proj_size", HIDDEN)] + [HIDDEN] * kind.startswith("LSTM")
    return lambda rng: (rng.normal(size=shape), *(rng.normal(size=(*lead, w)) for w in widths))


def row(
    kind: str,
    told: str = "",
    shape: tuple[int, ...] = (TIME, BATCH, FEATURES),
    *,
    states: bool = False,
    lengths: Any = None,
    enforce_sorted: bool = True,
    is_flat: bool = False,
    freeze: str = "",
    has_batch: bool = False,
    is_random: bool = False,
    **options: Any,
) -> Case:
    """A row of one kind of layer; `told` is what the name says of its options."""
    is_flat = is_flat or bool(lengths) or (states and kind.startswith("LSTM"))

    def make() -> Module:
        layer = getattr(nn, kind)(FEATURES, HIDDEN, rng=0, **options)
        layer = frozen(layer, freeze) if freeze else layer
        return Flat(layer, lengths, enforce_sorted) if is_flat else layer

    def make_torch(torch: Any) -> Any:
        layer = getattr(torch.nn, kind)(FEATURES, HIDDEN, **options)
        layer = frozen(layer, freeze) if freeze else layer
        return flat_torch(torch, layer, lengths, enforce_sorted) if is_flat else layer

    return Case(
        f"{kind} {told}".strip(),
        make,
        drawn(kind, shape, states, options),
        make_torch,
        has_batch=has_batch,
        is_random=is_random,
    )


KINDS: list[tuple[str, str, dict[str, Any]]] = [
    ("RNN", "", {}),
    ("GRU", "", {}),
    ("LSTM", "", {}),
    ("LSTM", "with projection ", {"proj_size": 2}),
]
STACKED = {"num_layers": 2, "bidirectional": True}
FIRST = {"batch_first": True}

LAYERS = [
    made
    for kind, told, options in KINDS
    for made in (
        row(kind, f"{told}of a batch", **options),
        row(kind, f"{told}of one sequence", (TIME, FEATURES), **options),
        row(kind, f"{told}of one step", (1, BATCH, FEATURES), **options),
        row(kind, f"{told}without bias", bias=False, **options),
        row(kind, f"{told}with initial states", states=True, **options),
        row(
            kind, f"{told}batch first", (BATCH, TIME, FEATURES), is_flat=True, has_batch=True,
            **FIRST, **options,
        ),
        row(
            kind, f"{told}in two layers, both directions, of one sequence with initial states",
            (TIME, FEATURES), states=True, **STACKED, **options,
        ),
        row(
            kind, f"{told}in two layers, both directions, batch first, with initial states",
            (BATCH, TIME, FEATURES), states=True, **STACKED, **FIRST, **options,
        ),
        row(
            kind, f"{told}in two layers with dropout", num_layers=2, dropout=0.4, is_random=True,
            **options,
        ),
        row(kind, f"{told}of packed sequences shorter than the input", lengths=[3, 2, 1],
            **options),
        row(
            kind, f"{told}in both directions, of packed sequences in any order with initial states",
            lengths=[1, 4, 2], enforce_sorted=False, states=True, bidirectional=True, **options,
        ),
        row(
            kind, f"{told}in two layers, batch first, of packed sequences, without bias",
            (BATCH, TIME, FEATURES), lengths=[4, 4, 1], bias=False, num_layers=2, **FIRST,
            **options,
        ),
    )
]  # fmt: skip

RELU = {"nonlinearity": "relu"}
LAYERS += [
    row("RNN", "with relu", **RELU),
    row(
        "RNN", "with relu in two layers, both directions, with initial states", states=True,
        **STACKED, **RELU,
    ),
    row(
        "RNN", "with relu in both directions, of packed sequences in any order",
        lengths=[1, 4, 2], enforce_sorted=False, bidirectional=True, **RELU,
    ),
]  # fmt: skip

FROZEN = [
    row(kind, f"with frozen {name}", freeze=f"{name}_l0", **options)
    for kind, options, names in (
        ("RNN", {}, ("weight_ih", "weight_hh", "bias_ih", "bias_hh")),
        ("GRU", {}, ("weight_ih", "weight_hh", "bias_ih", "bias_hh")),
        ("LSTM", {"proj_size": 2}, ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")),
    )
    for name in names
]

CELLS = [
    made
    for kind, told, options in (
        ("RNNCell", "", {}),
        ("RNNCell", "with relu ", {"nonlinearity": "relu"}),
        ("GRUCell", "", {}),
        ("LSTMCell", "", {}),
    )
    for made in (
        row(kind, f"{told}of a batch", (BATCH, FEATURES), has_batch=True, **options),
        row(kind, f"{told}of one sample", (FEATURES,), **options),
        row(
            kind, f"{told}without bias", (BATCH, FEATURES), has_batch=True, bias=False, **options
        ),
        row(
            kind, f"{told}with states", (BATCH, FEATURES), states=True, has_batch=True, **options
        ),
        row(kind, f"{told}of one sample with states", (FEATURES,), states=True, **options),
        row(
            kind, f"{told}with states, without bias", (BATCH, FEATURES), states=True,
            has_batch=True, bias=False, **options,
        ),
        row(
            kind, f"{told}with frozen weight", (BATCH, FEATURES), has_batch=True,
            freeze="weight_hh", **options,
        ),
    )
]  # fmt: skip

RECURRENT = [*LAYERS, *FROZEN, *CELLS]
