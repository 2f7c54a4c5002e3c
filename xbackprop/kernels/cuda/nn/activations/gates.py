"""GELU and its derivative in one launch each; the references take dozens for the error function.

Not yet measured on a GPU. The tests run the source beside this file on the CPU and compare it with
the reference.
"""

from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.kernels.cuda import elementwise
from xbackprop.kernels.cuda.sources import Source
from xbackprop.nn.activations import gates as ops

SOURCE = Source(
    __file__,
    elementwise.instances(("Gelu", "GeluTanh"), ("GeluGradient", "GeluTanhGradient")),
)


@ops.gelu_forward.kernel(
    "cuda", when=elementwise.can_serve, launches=1, bytes_moved=elementwise.bytes_moved
)
def gelu_forward(x: Array) -> tuple[Array, Any]:
    """Compute ``y = x Phi(x)``, as the reference."""
    return elementwise.launch(SOURCE, "Gelu", x), (x,)


@ops.gelu_backward.kernel(
    "cuda", when=elementwise.can_serve, launches=1, bytes_moved=elementwise.bytes_moved
)
def gelu_backward(grad_output: Array, x: Array) -> Array:
    """Return ``g (Phi(x) + x phi(x))``, as the reference."""
    return elementwise.launch(SOURCE, "GeluGradient", grad_output, x)


@ops.gelu_tanh_forward.kernel(
    "cuda", when=elementwise.can_serve, launches=1, bytes_moved=elementwise.bytes_moved
)
def gelu_tanh_forward(x: Array) -> tuple[Array, Any]:
    """Compute ``y = x sigmoid(2 u)``, as the reference."""
    return elementwise.launch(SOURCE, "GeluTanh", x), (x,)


@ops.gelu_tanh_backward.kernel(
    "cuda", when=elementwise.can_serve, launches=1, bytes_moved=elementwise.bytes_moved
)
def gelu_tanh_backward(grad_output: Array, x: Array) -> Array:
    """Return ``g (s + x s (1 - s) 2 du/dx)``, as the reference."""
    return elementwise.launch(SOURCE, "GeluTanhGradient", grad_output, x)
