"""LSTM with the work between two products in one pass over each row."""

from typing import Any

import numpy as np

from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.cpu.transposes import transposed
from xbackprop.kernels.loops import is_plain, loops
from xbackprop.nn.recurrent.lstm import lstm_backward as backward_op
from xbackprop.nn.recurrent.lstm import lstm_forward as forward_op
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
    c0: ArraySpec,
    weight_ih: ArraySpec,
    weight_hh: ArraySpec,
    bias_ih: ArraySpec | None,
    bias_hh: ArraySpec | None,
    weight_hr: ArraySpec | None,
    batch_sizes: tuple[int, ...],
    is_reverse: bool,
) -> bool:
    """Tell whether it has no projection, and is in float32."""
    return weight_hr is None and is_plain(x, h0, c0, weight_ih, weight_hh)


def can_go_back(
    grad_output: ArraySpec,
    x: ArraySpec,
    h0: ArraySpec,
    c0: ArraySpec,
    weight_ih: ArraySpec,
    weight_hh: ArraySpec,
    weight_hr: ArraySpec | None,
    batch_sizes: tuple[int, ...],
    is_reverse: bool,
    *saved: Any,
) -> bool:
    """Tell the same of a backward."""
    arrays = (grad_output, x, h0, c0, weight_ih, weight_hh, *saved[:2])
    return weight_hr is None and is_plain(*arrays)


@forward_op.kernel("cpu", when=can_serve, smallest=512)
def lstm_forward(
    x: np.ndarray,
    h0: np.ndarray,
    c0: np.ndarray,
    weight_ih: np.ndarray,
    weight_hh: np.ndarray,
    bias_ih: np.ndarray | None,
    bias_hh: np.ndarray | None,
    weight_hr: None,
    batch_sizes: tuple[int, ...],
    is_reverse: bool,
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], Any]:
    """Return output, last states and saved, as the op of this name."""
    step_on = loops("recurrent").lstm_step
    gates = input_products(x, weight_ih, bias_ih, bias_hh)
    cells, output = (
        np.empty((len(x), c0.shape[1]), x.dtype),
        np.empty((len(x), h0.shape[1]), x.dtype),
    )
    products = np.empty((len(h0), gates.shape[1]), x.dtype)
    weight_t = transposed(weight_hh, len(batch_sizes))
    h, c = h0.copy(), c0.copy()
    for start, stop, count in steps(batch_sizes, is_reverse):
        np.dot(h[:count], weight_t, out=products[:count])
        hidden = output[start:stop]
        step_on(gates[start:stop], products, c, cells[start:stop], hidden)
        h[:count] = hidden
    saved = (x, h0, c0, weight_ih, weight_hh, weight_hr, batch_sizes, is_reverse)
    return (output, h, c), (*saved, gates, cells, output)


@backward_op.kernel("cpu", when=can_go_back, smallest=512)
def lstm_backward(
    grad_output: np.ndarray,
    x: np.ndarray,
    h0: np.ndarray,
    c0: np.ndarray,
    weight_ih: np.ndarray,
    weight_hh: np.ndarray,
    weight_hr: None,
    batch_sizes: tuple[int, ...],
    is_reverse: bool,
    gates: np.ndarray,
    cells: np.ndarray,
    output: np.ndarray,
    grad_h_n: np.ndarray | None = None,
    grad_c_n: np.ndarray | None = None,
    wanted: Wanted = EVERYTHING,
) -> tuple[np.ndarray | None, ...]:
    """Return the gradients, as the op of this name."""
    step_back = loops("recurrent").lstm_step_backward
    grad_gates = np.empty_like(gates)
    before = states_before(c0, cells, batch_sizes, is_reverse)
    grad_h, grad_c = gradient_at_end(grad_h_n, h0), gradient_at_end(grad_c_n, c0)
    for start, stop, count in reversed(steps(batch_sizes, is_reverse)):
        rows = slice(start, stop)
        step_back(
            grad_output[rows], grad_h, grad_c, gates[rows], before[rows], cells[rows],
            grad_gates[rows],
        )  # fmt: skip
        np.dot(grad_gates[rows], weight_hh, out=grad_h[:count])
    hidden_before = states_before(h0, output, batch_sizes, is_reverse)
    grad_x, *grad_weights = products_backward(
        grad_gates, grad_gates, x, hidden_before, weight_ih, wanted
    )
    states = (grad_h, grad_c) if wanted.states else (None, None)
    return grad_x, *states, *grad_weights, None
