"""GELU by its tanh formula in one pass, the sigmoid in plain arithmetic."""

from typing import Any

import numpy as np

from xbackprop.kernels.loops import is_plain, loops
from xbackprop.nn.activations.gates import gelu_tanh_backward as backward_op
from xbackprop.nn.activations.gates import gelu_tanh_forward as forward_op


@forward_op.kernel("cpu", when=lambda x: is_plain(x), smallest=4096)
def gelu_tanh_forward(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """Return output and saved, as the op of this name."""
    result = np.empty_like(x)
    loops("elementwise").gelu_tanh(x.ravel(), result.ravel())
    return result, (x,)


@backward_op.kernel("cpu", when=lambda *specs: is_plain(*specs), smallest=4096)
def gelu_tanh_backward(grad_output: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the gradient, as the op of this name."""
    result = np.empty_like(x)
    loops("elementwise").gelu_tanh_backward(grad_output.ravel(), x.ravel(), result.ravel())
    return result
