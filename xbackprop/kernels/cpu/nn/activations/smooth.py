"""The sigmoid in one pass, its exponential in plain arithmetic."""

from typing import Any

import numpy as np

from xbackprop.kernels.loops import is_plain, loops
from xbackprop.nn.activations.smooth import sigmoid_backward as backward_op
from xbackprop.nn.activations.smooth import sigmoid_forward as forward_op


@forward_op.kernel("cpu", when=lambda x: is_plain(x), smallest=4096)
def sigmoid_forward(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """Return output and saved, as the op of this name."""
    result = np.empty_like(x)
    loops("elementwise").sigmoid_forward(x.ravel(), result.ravel())
    return result, (result,)


@backward_op.kernel("cpu", when=lambda *specs: is_plain(*specs), smallest=4096)
def sigmoid_backward(grad_output: np.ndarray, output: np.ndarray) -> np.ndarray:
    """Return the gradient, as the op of this name."""
    result = np.empty_like(output)
    loop = loops("elementwise").sigmoid_backward
    loop(grad_output.ravel(), output.ravel(), result.ravel())
    return result
