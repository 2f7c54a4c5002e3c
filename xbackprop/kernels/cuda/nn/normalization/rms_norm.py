"""RMSNorm over the last axes, with one block for each row.

Not yet measured on a GPU. The tests run the source beside this file on the CPU and compare it with
the reference.
"""

from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.cuda import row_norm
from xbackprop.kernels.cuda.sources import Source, is_float
from xbackprop.nn.normalization.rms_norm import rms_norm_backward as backward_op
from xbackprop.nn.normalization.rms_norm import rms_norm_forward as forward_op

SOURCE = Source(__file__, row_norm.instances(centered=False))


def can_serve(x: ArraySpec, weight: ArraySpec | None, axes: tuple[int, ...], eps: float) -> bool:
    """Tell whether the rows that are normalized stand side by side."""
    return row_norm.is_row_norm(x, (weight,), axes) and row_norm.is_eps(eps)


def can_serve_backward(
    grad_output: ArraySpec,
    x: ArraySpec,
    rstd: ArraySpec,
    weight: ArraySpec | None,
    axes: tuple[int, ...],
    *_: bool,
) -> bool:
    """Tell whether the rows that were normalized stand side by side."""
    return row_norm.is_row_norm(x, (weight,), axes) and is_float(x, rstd, grad_output)


def count_launches(
    grad_output: Any,
    x: Any,
    rstd: Any,
    weight: Any,
    axes: Any,
    input_grad: bool = True,
    weight_grad: bool = True,
) -> int:
    """Return one launch for the input's gradient, one or two for the weight's."""
    return row_norm.launches_backward(x, weight, axes, (input_grad, weight_grad, False))


def count_bytes(x: ArraySpec, weight: ArraySpec | None, axes: tuple[int, ...], eps: Any) -> int:
    """Return the bytes of input, output, ``rstd`` and weight."""
    return row_norm.bytes_forward(x, weight, None, axes, centered=False)


def count_bytes_backward(
    grad_output: ArraySpec,
    x: ArraySpec,
    rstd: ArraySpec,
    weight: ArraySpec | None,
    axes: tuple[int, ...],
    input_grad: bool = True,
    weight_grad: bool = True,
) -> int:
    """Return the bytes of both inputs and of the gradients that are wanted."""
    return row_norm.bytes_backward(x, weight, axes, (input_grad, weight_grad, False))


@forward_op.kernel("cuda", when=can_serve, launches=1, bytes_moved=count_bytes)
def rms_norm_forward(
    x: Array, weight: Array | None, axes: tuple[int, ...], eps: float
) -> tuple[Array, Any]:
    """Compute ``y = x / sqrt(mean(x^2) + eps) * weight``, as the reference."""
    output, _, (rstd,) = row_norm.run_forward(SOURCE, x, weight, None, axes, eps, centered=False)
    return output, (x, rstd, weight, axes)


@backward_op.kernel(
    "cuda", when=can_serve_backward, launches=count_launches, bytes_moved=count_bytes_backward
)
def rms_norm_backward(
    grad_output: Array,
    x: Array,
    rstd: Array,
    weight: Array | None,
    axes: tuple[int, ...],
    input_grad: bool = True,
    weight_grad: bool = True,
) -> tuple[Array | None, Array | None]:
    """Return ``rstd (h - x_hat mean(h x_hat))`` and the sum of ``g x_hat``."""
    wanted = (input_grad, weight_grad, False)
    return row_norm.run_backward(
        SOURCE, grad_output, x, rstd, weight, axes, wanted, centered=False
    )[:2]
