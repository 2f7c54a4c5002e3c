"""The gradient of ReLU in one pass; NumPy's ``where`` takes ten times as long."""

from typing import Any

import numpy as np

from xbackprop.kernels.loops import is_plain_float, loops
from xbackprop.nn.activations.rectifiers import relu_backward as op


@op.kernel("cpu", when=lambda *specs: is_plain_float(*specs), smallest=4096)
def relu_backward(grad_output: np.ndarray, output: np.ndarray) -> np.ndarray:
    """Return ``g`` where ``y > 0``, else 0."""
    result: Any = np.empty_like(output)
    loops("elementwise").relu_backward(grad_output.ravel(), output.ravel(), result.ravel())
    return result
