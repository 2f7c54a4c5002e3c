"""ReLU in one pass; NumPy's ``where`` takes ten times as long for its gradient."""

from typing import Any

import numpy as np

from xbackprop.kernels.loops import is_plain_float, loops
from xbackprop.nn.activations.rectifiers import relu_backward as backward_op
from xbackprop.nn.activations.rectifiers import relu_forward as forward_op


@forward_op.kernel("cpu", when=lambda x: is_plain_float(x), smallest=4096)
def relu_forward(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """Return output and saved, as the op of this name."""
    result = np.empty_like(x)
    loops("elementwise").relu(x.ravel(), result.ravel())
    return result, (result,)


@backward_op.kernel("cpu", when=lambda *specs: is_plain_float(*specs), smallest=4096)
def relu_backward(grad_output: np.ndarray, output: np.ndarray) -> np.ndarray:
    """Return ``g`` where ``y > 0``, else 0."""
    result: Any = np.empty_like(output)
    loops("elementwise").relu_backward(grad_output.ravel(), output.ravel(), result.ravel())
    return result
