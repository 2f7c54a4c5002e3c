"""RMSNorm, row by row while the row is in the cache; mean squares in float64 as the reference's."""

import math
from typing import Any

import numpy as np

from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.cpu import row_norm
from xbackprop.kernels.loops import is_plain, loops
from xbackprop.nn.normalization.rms_norm import rms_norm_backward as backward_op
from xbackprop.nn.normalization.rms_norm import rms_norm_forward as forward_op


def can_serve(x: ArraySpec, weight: ArraySpec | None, axes: tuple[int, ...], eps: float) -> bool:
    """Tell whether the mean is along the last axes, and there is a weight of one row."""
    return weight is not None and row_norm.is_row_norm(x, weight, axes) and is_plain(x, weight)


@forward_op.kernel("cpu", when=can_serve, smallest=4096)
def rms_norm_forward(
    x: np.ndarray, weight: np.ndarray, axes: tuple[int, ...], eps: float
) -> tuple[np.ndarray, Any]:
    """Return output and saved, as the op of this name."""
    rows = x.reshape(-1, math.prod(weight.shape))
    output = np.empty_like(x)
    rstd = np.empty((*x.shape[: x.ndim - len(axes)], *(1,) * len(axes)), x.dtype)
    loops("rows").rms_normalize(rows, weight.ravel(), eps, output.reshape(rows.shape), rstd.ravel())
    return output, (x, rstd, weight, axes)


@backward_op.kernel("cpu", when=row_norm.can_go_back, smallest=4096)
def rms_norm_backward(
    grad_output: np.ndarray,
    x: np.ndarray,
    rstd: np.ndarray,
    weight: np.ndarray,
    axes: tuple[int, ...],
    input_grad: bool = True,
    weight_grad: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients, as the op of this name."""
    rows = (-1, math.prod(weight.shape))
    grad_input, grad_weight = np.empty_like(x), np.zeros(weight.size)
    loops("rows").rms_normalize_backward(
        grad_output.reshape(rows), x.reshape(rows), rstd.ravel(), weight.ravel(),
        grad_input.reshape(rows), grad_weight,
    )  # fmt: skip
    return grad_input, row_norm.as_like(grad_weight, weight)
