"""GELU, by both formulas, and SiLU in one pass: what is exponential in plain arithmetic."""

from typing import Any

import numpy as np

from xbackprop.kernels.loops import is_plain, loops
from xbackprop.nn.activations import gates as ops


@ops.gelu_forward.kernel("cpu", when=lambda x: is_plain(x), smallest=4096)
def gelu_forward(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """Return output and saved, as the op of this name."""
    result = np.empty_like(x)
    loops("elementwise").gelu(x.ravel(), result.ravel())
    return result, (x,)


@ops.gelu_backward.kernel("cpu", when=lambda *specs: is_plain(*specs), smallest=4096)
def gelu_backward(grad_output: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the gradient, as the op of this name."""
    result = np.empty_like(x)
    loops("elementwise").gelu_backward(grad_output.ravel(), x.ravel(), result.ravel())
    return result


@ops.gelu_tanh_forward.kernel("cpu", when=lambda x: is_plain(x), smallest=4096)
def gelu_tanh_forward(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """Return output and saved, as the op of this name."""
    result = np.empty_like(x)
    loops("elementwise").gelu_tanh(x.ravel(), result.ravel())
    return result, (x,)


@ops.gelu_tanh_backward.kernel("cpu", when=lambda *specs: is_plain(*specs), smallest=4096)
def gelu_tanh_backward(grad_output: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the gradient, as the op of this name."""
    result = np.empty_like(x)
    loops("elementwise").gelu_tanh_backward(grad_output.ravel(), x.ravel(), result.ravel())
    return result


@ops.silu_forward.kernel("cpu", when=lambda x: is_plain(x), smallest=4096)
def silu_forward(x: np.ndarray) -> tuple[np.ndarray, Any]:
    """Return output and saved, as the op of this name."""
    result = np.empty_like(x)
    loops("elementwise").silu(x.ravel(), result.ravel())
    return result, (x,)


@ops.silu_backward.kernel("cpu", when=lambda *specs: is_plain(*specs), smallest=4096)
def silu_backward(grad_output: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the gradient, as the op of this name."""
    result = np.empty_like(x)
    loops("elementwise").silu_backward(grad_output.ravel(), x.ravel(), result.ravel())
    return result
