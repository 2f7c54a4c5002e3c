"""Walking along sequences: which rows make a step, and what all steps do at once.

The rows of all sequences lie one step after the other, ``batch_sizes[t]`` of them at step ``t``:
those of the sequences that are that long, which come longest first. So the sequences of a step are
always the first ones, and one loop serves padded and packed input in both directions: it keeps a
state for every sequence and changes the first ``batch_sizes[t]``. Forward in time, the others have
ended and keep what they ended with; backward in time they have not begun and keep their initial
state.
"""

import math
from typing import Any, NamedTuple

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import ArraySpec
from xbackprop.ops.matmul import mixed_product


class Wanted(NamedTuple):
    """Which gradients a backward computes; the others are None."""

    x: bool = True
    states: bool = True
    weight_ih: bool = True
    weight_hh: bool = True
    bias_ih: bool = True
    bias_hh: bool = True
    weight_hr: bool = True


EVERYTHING = Wanted()


def steps(batch_sizes: tuple[int, ...], is_reverse: bool) -> list[tuple[int, int, int]]:
    """Return first row, end and number of rows of every step, in the order of computation."""
    walk, start = [], 0
    for count in batch_sizes:
        walk.append((start, start + count, count))
        start += count
    return walk[::-1] if is_reverse else walk


def states_before(
    initial: Array, states: Array, batch_sizes: tuple[int, ...], is_reverse: bool
) -> Array:
    """Return, row by row, the state that a step found; ``states`` are those that it left."""
    before, state = get_array_module(states).empty_like(states), initial.copy()
    for start, stop, count in steps(batch_sizes, is_reverse):
        before[start:stop] = state[:count]
        state[:count] = states[start:stop]
    return before


def gradient_at_end(grad_state: Array | None, like: Array) -> Array:
    """Return the gradient of the last states in an array of its own; an unused one is zeros."""
    if grad_state is None:
        return get_array_module(like).zeros_like(like)
    return grad_state.astype(like.dtype)  # a copy, in this machine's byte order


def input_products(
    x: Array, weight_ih: Array, bias_ih: Array | None, bias_hh: Array | None
) -> Array:
    """Return ``x W_ih^T + b_ih + b_hh`` of all steps as one product."""
    products = mixed_product(x, weight_ih.T)
    if bias_ih is not None:
        products += bias_ih if bias_hh is None else bias_ih + bias_hh
    return products


def forward_flops(
    x: ArraySpec, weight_ih: ArraySpec, weight_hh: ArraySpec, weight_hr: ArraySpec | None = None
) -> int:
    """Return the operations of the products of a forward: every row meets every weight once."""
    weights = (weight for weight in (weight_ih, weight_hh, weight_hr) if weight is not None)
    return 2 * x.shape[0] * sum(math.prod(weight.shape) for weight in weights)


def call_flops(
    x: ArraySpec, h0: ArraySpec, weight_ih: ArraySpec, weight_hh: ArraySpec, *_: Any
) -> int:
    """Return those of a forward that begins with these arguments."""
    return forward_flops(x, weight_ih, weight_hh)


def backward_flops(
    wanted: Wanted,
    x: ArraySpec,
    weight_ih: ArraySpec,
    weight_hh: ArraySpec,
    weight_hr: ArraySpec | None = None,
) -> int:
    """Return those of a backward: the walk needs ``da W_hh`` and ``dh W_hr`` in any case."""
    ih, hh = math.prod(weight_ih.shape), math.prod(weight_hh.shape)
    hr = 0 if weight_hr is None else math.prod(weight_hr.shape)
    products = ih * (wanted.x + wanted.weight_ih) + hh * (1 + wanted.weight_hh)
    return 2 * x.shape[0] * (products + hr * (1 + wanted.weight_hr))


def sigmoid_in_place(values: Array) -> None:
    """Replace numbers by ``1 / (1 + exp(-x))``; where ``exp`` overflows, that is 0."""
    xp = get_array_module(values)
    xp.negative(values, out=values)
    xp.exp(values, out=values)
    values += 1
    xp.reciprocal(values, out=values)


def products_backward(
    grad_input_side: Array,
    grad_hidden_side: Array,
    x: Array,
    hidden_before: Array,
    weight_ih: Array,
    wanted: Wanted,
) -> tuple[Array | None, Array | None, Array | None, Array | None, Array | None]:
    """Return the gradients of ``x``, both weights and both biases, each one product over all steps.

    The first two arguments are the gradients of ``W_ih x + b_ih`` and of ``W_hh h + b_hh``.
    """
    half = weight_ih.dtype
    return (
        mixed_product(grad_input_side, weight_ih) if wanted.x else None,
        mixed_product(grad_input_side.T, x, half=half) if wanted.weight_ih else None,
        mixed_product(grad_hidden_side.T, hidden_before, half=half) if wanted.weight_hh else None,
        grad_input_side.sum(axis=0) if wanted.bias_ih else None,
        grad_hidden_side.sum(axis=0) if wanted.bias_hh else None,
    )
