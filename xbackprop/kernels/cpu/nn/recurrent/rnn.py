"""Elman's network with the work between two products in one pass over each row."""

from typing import Any

import numpy as np

from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.cpu.transposes import transposed
from xbackprop.kernels.loops import is_plain, loops
from xbackprop.nn.recurrent.rnn import rnn_backward as backward_op
from xbackprop.nn.recurrent.rnn import rnn_forward as forward_op
from xbackprop.nn.recurrent.steps import (
    EVERYTHING,
    Wanted,
    gradient_at_end,
    input_products,
    products_backward,
    states_before,
    steps,
)

_FEWEST = 8  # steps; a single one takes the reference less


def can_serve(
    x: ArraySpec,
    h0: ArraySpec,
    weight_ih: ArraySpec,
    weight_hh: ArraySpec,
    bias_ih: ArraySpec | None,
    bias_hh: ArraySpec | None,
    batch_sizes: tuple[int, ...],
    *options: Any,
) -> bool:
    """Tell whether it is in float32, and has steps enough to gain from."""
    return len(batch_sizes) >= _FEWEST and is_plain(x, h0, weight_ih, weight_hh)


def can_go_back(
    grad_output: ArraySpec,
    x: ArraySpec,
    h0: ArraySpec,
    weight_ih: ArraySpec,
    weight_hh: ArraySpec,
    batch_sizes: tuple[int, ...],
    is_reverse: bool,
    nonlinearity: str,
    output: ArraySpec,
    *options: Any,
) -> bool:
    """Tell the same of a backward."""
    arrays = (grad_output, x, h0, weight_ih, weight_hh, output)
    return len(batch_sizes) >= _FEWEST and is_plain(*arrays)


@forward_op.kernel("cpu", when=can_serve, smallest=512)
def rnn_forward(
    x: np.ndarray,
    h0: np.ndarray,
    weight_ih: np.ndarray,
    weight_hh: np.ndarray,
    bias_ih: np.ndarray | None,
    bias_hh: np.ndarray | None,
    batch_sizes: tuple[int, ...],
    is_reverse: bool,
    nonlinearity: str,
) -> tuple[tuple[np.ndarray, np.ndarray], Any]:
    """Return output, last states and saved, as the op of this name."""
    step_on, is_tanh = loops("recurrent").rnn_step, nonlinearity == "tanh"
    output = input_products(x, weight_ih, bias_ih, bias_hh)
    products = np.empty_like(h0)
    weight_t = transposed(weight_hh, len(batch_sizes))
    h = h0.copy()
    for start, stop, count in steps(batch_sizes, is_reverse):
        np.dot(h[:count], weight_t, out=products[:count])
        step_on(output[start:stop], products, is_tanh, h)
    saved = (x, h0, weight_ih, weight_hh, batch_sizes, is_reverse, nonlinearity, output)
    return (output, h), saved


@backward_op.kernel("cpu", when=can_go_back, smallest=512)
def rnn_backward(
    grad_output: np.ndarray,
    x: np.ndarray,
    h0: np.ndarray,
    weight_ih: np.ndarray,
    weight_hh: np.ndarray,
    batch_sizes: tuple[int, ...],
    is_reverse: bool,
    nonlinearity: str,
    output: np.ndarray,
    grad_h_n: np.ndarray | None = None,
    wanted: Wanted = EVERYTHING,
) -> tuple[np.ndarray | None, ...]:
    """Return the gradients, as the op of this name."""
    step_back, is_tanh = loops("recurrent").rnn_step_backward, nonlinearity == "tanh"
    grad = np.empty_like(output)
    grad_h = gradient_at_end(grad_h_n, h0)
    for start, stop, count in reversed(steps(batch_sizes, is_reverse)):
        rows = slice(start, stop)
        step_back(grad_output[rows], grad_h, output[rows], is_tanh, grad[rows])
        np.dot(grad[rows], weight_hh, out=grad_h[:count])
    before = states_before(h0, output, batch_sizes, is_reverse)
    grad_x, *grad_weights = products_backward(grad, grad, x, before, weight_ih, wanted)
    return grad_x, grad_h if wanted.states else None, *grad_weights
