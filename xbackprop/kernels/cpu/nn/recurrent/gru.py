"""GRU with the work between two products in one pass over each row."""

from typing import Any

import numpy as np

from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.cpu.transposes import transposed
from xbackprop.kernels.loops import is_plain, loops
from xbackprop.nn.recurrent.gru import gru_backward as backward_op
from xbackprop.nn.recurrent.gru import gru_forward as forward_op
from xbackprop.nn.recurrent.steps import (
    EVERYTHING,
    Wanted,
    gradient_at_end,
    input_products,
    products_backward,
    states_before,
    steps,
)


def can_serve(
    x: ArraySpec,
    h0: ArraySpec,
    weight_ih: ArraySpec,
    weight_hh: ArraySpec,
    bias_ih: ArraySpec | None,
    bias_hh: ArraySpec | None,
    batch_sizes: tuple[int, ...],
    is_reverse: bool,
) -> bool:
    """Tell whether it is in float32."""
    biases = () if bias_hh is None else (bias_hh,)
    return is_plain(x, h0, weight_ih, weight_hh, *biases)


def can_go_back(
    grad_output: ArraySpec,
    x: ArraySpec,
    h0: ArraySpec,
    weight_ih: ArraySpec,
    weight_hh: ArraySpec,
    batch_sizes: tuple[int, ...],
    is_reverse: bool,
    *saved: Any,
) -> bool:
    """Tell the same of a backward."""
    return is_plain(grad_output, x, h0, weight_ih, weight_hh, *saved[:3])


@forward_op.kernel("cpu", when=can_serve, smallest=512)
def gru_forward(
    x: np.ndarray,
    h0: np.ndarray,
    weight_ih: np.ndarray,
    weight_hh: np.ndarray,
    bias_ih: np.ndarray | None,
    bias_hh: np.ndarray | None,
    batch_sizes: tuple[int, ...],
    is_reverse: bool,
) -> tuple[tuple[np.ndarray, np.ndarray], Any]:
    """Return output, last states and saved, as the op of this name."""
    step_on = loops("recurrent").gru_step
    gates = input_products(x, weight_ih, bias_ih, None)
    hidden_n, output = (np.empty((len(x), h0.shape[1]), x.dtype) for _ in range(2))
    products = np.empty((len(h0), gates.shape[1]), x.dtype)
    weight_t = transposed(weight_hh, len(batch_sizes))
    bias = np.zeros(gates.shape[1], x.dtype) if bias_hh is None else bias_hh
    h = h0.copy()
    for start, stop, count in steps(batch_sizes, is_reverse):
        np.dot(h[:count], weight_t, out=products[:count])
        rows = slice(start, stop)
        step_on(gates[rows], products, bias, h, hidden_n[rows], output[rows])
    saved = (x, h0, weight_ih, weight_hh, batch_sizes, is_reverse)
    return (output, h), (*saved, gates, hidden_n, output)


@backward_op.kernel("cpu", when=can_go_back, smallest=512)
def gru_backward(
    grad_output: np.ndarray,
    x: np.ndarray,
    h0: np.ndarray,
    weight_ih: np.ndarray,
    weight_hh: np.ndarray,
    batch_sizes: tuple[int, ...],
    is_reverse: bool,
    gates: np.ndarray,
    hidden_n: np.ndarray,
    output: np.ndarray,
    grad_h_n: np.ndarray | None = None,
    wanted: Wanted = EVERYTHING,
) -> tuple[np.ndarray | None, ...]:
    """Return the gradients, as the op of this name."""
    step_back = loops("recurrent").gru_step_backward
    grad_input, grad_hidden = np.empty_like(gates), np.empty_like(gates)
    before = states_before(h0, output, batch_sizes, is_reverse)
    grad_h = gradient_at_end(grad_h_n, h0)
    products = np.empty_like(h0)
    for start, stop, count in reversed(steps(batch_sizes, is_reverse)):
        rows = slice(start, stop)
        step_back(
            grad_output[rows], grad_h, gates[rows], before[rows], hidden_n[rows],
            grad_input[rows], grad_hidden[rows],
        )  # fmt: skip
        grad_h[:count] += np.dot(grad_hidden[rows], weight_hh, out=products[:count])
    grad_x, *grad_weights = products_backward(grad_input, grad_hidden, x, before, weight_ih, wanted)
    return grad_x, grad_h if wanted.states else None, *grad_weights
