"""LayerNorm, row by row while the row is in the cache; moments in float64 as the reference's."""

import math
from typing import Any

import numpy as np

from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.cpu import row_norm
from xbackprop.kernels.loops import is_plain, loops
from xbackprop.nn.normalization.normalize import normalize_backward as backward_op
from xbackprop.nn.normalization.normalize import normalize_forward as forward_op


def can_serve(
    x: ArraySpec,
    weight: ArraySpec | None,
    bias: ArraySpec | None,
    axes: tuple[int, ...],
    eps: float,
) -> bool:
    """Tell whether the moments are along the last axes, and a weight is of one row."""
    return weight is not None and row_norm.is_row_norm(x, weight, axes) and is_plain(
        *(spec for spec in (x, weight, bias) if spec is not None)
    )  # fmt: skip


@forward_op.kernel("cpu", when=can_serve, smallest=4096)
def normalize_forward(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    axes: tuple[int, ...],
    eps: float,
) -> tuple[Any, Any]:
    """Return output, moments and saved, as the op of this name."""
    rows = x.reshape(-1, math.prod(weight.shape))
    output, x_hat = np.empty_like(x), np.empty_like(x)
    kept = (*x.shape[: x.ndim - len(axes)], *(1,) * len(axes))
    rstd, mean, var = (np.empty(kept, x.dtype) for _ in range(3))
    offsets = np.zeros(rows.shape[1], x.dtype) if bias is None else bias.ravel()
    loops("rows").normalize(
        rows, weight.ravel(), offsets, eps, output.reshape(rows.shape), x_hat.reshape(rows.shape),
        rstd.ravel(), mean.ravel(), var.ravel(),
    )  # fmt: skip
    return (output, mean, var), (x_hat, rstd, weight, axes)


@backward_op.kernel("cpu", when=row_norm.can_go_back, smallest=4096)
def normalize_backward(
    grad_output: np.ndarray,
    x_hat: np.ndarray,
    rstd: np.ndarray,
    weight: np.ndarray,
    axes: tuple[int, ...],
    input_grad: bool = True,
    weight_grad: bool = True,
    bias_grad: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients, as the op of this name."""
    rows = (-1, math.prod(weight.shape))
    grad_input = np.empty_like(x_hat)
    grad_weight, grad_bias = np.zeros(weight.size), np.zeros(weight.size)
    loops("rows").normalize_backward(
        grad_output.reshape(rows), x_hat.reshape(rows), rstd.ravel(), weight.ravel(),
        grad_input.reshape(rows), grad_weight, grad_bias,
    )  # fmt: skip
    return grad_input, row_norm.as_like(grad_weight, weight), row_norm.as_like(grad_bias, weight)
