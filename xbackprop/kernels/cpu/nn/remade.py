"""GELU by tanh and the Linear after it: GELU's output and its derivative in one pass."""

from typing import Any

import numpy as np

from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.loops import is_plain, loops
from xbackprop.nn.activations.gates import gelu_tanh_backward
from xbackprop.nn.linear import linear_forward
from xbackprop.nn.remade import SMALLEST
from xbackprop.nn.remade import gelu_tanh_linear_backward as backward_op
from xbackprop.nn.remade import gelu_tanh_linear_forward as forward_op
from xbackprop.ops.matmul import direct_product, direct_sum_rows, dot_rows, flatten_rows


def can_serve(x: ArraySpec, weight: ArraySpec, bias: ArraySpec | None = None) -> bool:
    """Tell whether GELU's input is what the loops are compiled for, and so is the weight."""
    return is_plain(x) and is_plain(weight)


def can_go_back(grad_output: ArraySpec, x: ArraySpec, weight: ArraySpec, *wanted: Any) -> bool:
    """Tell the same of a backward."""
    return can_serve(x, weight) and grad_output.dtype == np.float32 and grad_output.dtype.isnative


@forward_op.kernel("cpu", when=can_serve, smallest=SMALLEST)
def gelu_tanh_linear_forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None
) -> tuple[np.ndarray, Any]:
    """Return output and saved, as the op of this name."""
    hidden = np.empty_like(x)
    loops("elementwise").gelu_tanh(x.ravel(), hidden.ravel())
    output, _ = linear_forward(hidden, weight, bias)
    return output, (x, weight)


@backward_op.kernel("cpu", when=can_go_back)
def gelu_tanh_linear_backward(
    grad_output: np.ndarray,
    x: np.ndarray,
    weight: np.ndarray,
    input_grad: bool = True,
    weight_grad: bool = True,
    bias_grad: bool = True,
    out: np.ndarray | None = None,
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Return the gradients, as the op of this name."""
    rows = flatten_rows(grad_output)
    hidden = np.empty_like(x) if weight_grad else None
    grad = dot_rows(grad_output, weight) if input_grad else None  # of h, and then of x
    if hidden is not None and grad is not None:
        loops("elementwise").gelu_tanh_twice(grad.ravel(), x.ravel(), hidden.ravel())
    elif hidden is not None:
        loops("elementwise").gelu_tanh(x.ravel(), hidden.ravel())
    elif grad is not None:
        grad = gelu_tanh_backward(grad, x)
    grad_weight = None if hidden is None else direct_product(rows.T, flatten_rows(hidden), out)
    return grad, grad_weight, direct_sum_rows(rows) if bias_grad else None
