"""Normalizations over the last axes, LayerNorm above all, with one block for each row.

Not yet measured on a GPU. The tests run the source beside this file on the CPU and compare it with
the reference.
"""

from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.cuda import row_norm
from xbackprop.kernels.cuda.sources import Source, is_float
from xbackprop.nn.normalization.normalize import normalize_backward as backward_op
from xbackprop.nn.normalization.normalize import normalize_forward as forward_op

SOURCE = Source(__file__, row_norm.instances(centered=True))


def can_serve(
    x: ArraySpec,
    weight: ArraySpec | None,
    bias: ArraySpec | None,
    axes: tuple[int, ...],
    eps: float,
) -> bool:
    """Tell whether the rows that are normalized stand side by side."""
    return row_norm.is_row_norm(x, (weight, bias), axes) and row_norm.is_eps(eps)


def can_serve_backward(
    grad_output: ArraySpec,
    x_hat: ArraySpec,
    rstd: ArraySpec,
    weight: ArraySpec | None,
    axes: tuple[int, ...],
    *_: bool,
) -> bool:
    """Tell whether the rows that were normalized stand side by side."""
    return row_norm.is_row_norm(x_hat, (weight,), axes) and is_float(x_hat, rstd, grad_output)


def count_launches(
    grad_output: Any,
    x_hat: Any,
    rstd: Any,
    weight: Any,
    axes: Any,
    input_grad: bool = True,
    weight_grad: bool = True,
    bias_grad: bool = True,
) -> int:
    """Return one launch for the input's gradient, one or two for those of weight and bias."""
    return row_norm.launches_backward(x_hat, weight, axes, (input_grad, weight_grad, bias_grad))


def count_bytes(
    x: ArraySpec, weight: ArraySpec | None, bias: ArraySpec | None, axes: tuple[int, ...], eps: Any
) -> int:
    """Return the bytes of input and output, ``x_hat``, moments, weight and bias."""
    return row_norm.bytes_forward(x, weight, bias, axes, centered=True)


def count_bytes_backward(
    grad_output: ArraySpec,
    x_hat: ArraySpec,
    rstd: ArraySpec,
    weight: ArraySpec | None,
    axes: tuple[int, ...],
    input_grad: bool = True,
    weight_grad: bool = True,
    bias_grad: bool = True,
) -> int:
    """Return the bytes of both inputs and of the gradients that are wanted."""
    return row_norm.bytes_backward(x_hat, weight, axes, (input_grad, weight_grad, bias_grad))


@forward_op.kernel("cuda", when=can_serve, launches=1, bytes_moved=count_bytes)
def normalize_forward(
    x: Array, weight: Array | None, bias: Array | None, axes: tuple[int, ...], eps: float
) -> tuple[Any, Any]:
    """Compute ``y = (x - mean) / sqrt(var + eps) * weight + bias``, as the reference."""
    output, x_hat, (rstd, mean, var) = row_norm.run_forward(
        SOURCE, x, weight, bias, axes, eps, centered=True
    )
    x_hat = output if x_hat is None else x_hat
    return (output, mean, var), (x_hat, rstd, weight, axes)


@backward_op.kernel(
    "cuda", when=can_serve_backward, launches=count_launches, bytes_moved=count_bytes_backward
)
def normalize_backward(
    grad_output: Array,
    x_hat: Array,
    rstd: Array,
    weight: Array | None,
    axes: tuple[int, ...],
    input_grad: bool = True,
    weight_grad: bool = True,
    bias_grad: bool = True,
) -> tuple[Array | None, Array | None, Array | None]:
    """Return ``rstd (h - mean(h) - x_hat mean(h x_hat))``, and sums of ``g x_hat`` and ``g``."""
    wanted = (input_grad, weight_grad, bias_grad)
    return row_norm.run_backward(
        SOURCE, grad_output, x_hat, rstd, weight, axes, wanted, centered=True
    )
