"""Cross-entropy of class indices, row by row while the logits are in the cache."""

from typing import Any

import numpy as np

from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.loops import is_plain, loops
from xbackprop.nn.losses.cross_entropy import cross_entropy_backward as backward_op
from xbackprop.nn.losses.cross_entropy import cross_entropy_forward as forward_op


def can_serve(
    logits: ArraySpec,
    target: ArraySpec,
    weight: ArraySpec | None = None,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> bool:
    """Tell whether there are rows of classes, without weights and smoothing, in float32."""
    return (
        len(logits.shape) == 2
        and weight is None
        and not label_smoothing
        and -(2**63) <= ignore_index < 2**63
        and np.can_cast(target.dtype, np.int64)
        and is_plain(logits)
    )


def can_go_back(
    grad_output: Any,
    logits: ArraySpec,
    target: ArraySpec,
    shift: ArraySpec,
    log_total: ArraySpec,
    weight: ArraySpec | None = None,
    **options: Any,
) -> bool:
    """Tell the same of a backward."""
    given = (grad_output,) if isinstance(grad_output, ArraySpec) else ()
    return can_serve(logits, target, weight, **options) and is_plain(shift, log_total, *given)


@forward_op.kernel("cpu", when=can_serve, smallest=1024)
def cross_entropy_forward(
    logits: np.ndarray,
    target: np.ndarray,
    weight: None = None,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> tuple[Any, Any]:
    """Return loss and saved, as the op of this name; see :func:`can_serve`."""
    rows, classes = logits.shape
    losses, shift, log_total = (
        np.empty(shape, logits.dtype) for shape in ((rows,), (rows, 1), (rows, 1))
    )
    indices, weights = _indices_and_weights(target, classes, ignore_index)
    loops("classes").cross_entropy(
        logits, indices, weights, losses, shift.ravel(), log_total.ravel()
    )
    loss: Any = losses
    if reduction != "none":
        loss = losses.sum()
    if reduction == "mean":
        loss /= weights.sum()
    return loss, (logits, target, shift, log_total, weight)


@backward_op.kernel("cpu", when=can_go_back, smallest=1024)
def cross_entropy_backward(
    grad_output: Any,
    logits: np.ndarray,
    target: np.ndarray,
    shift: np.ndarray,
    log_total: np.ndarray,
    weight: None = None,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> np.ndarray:
    """Return the gradient of the logits, as the op of this name; see :func:`can_serve`."""
    indices, weights = _indices_and_weights(target, logits.shape[1], ignore_index)
    if reduction == "mean":
        total = weights.sum()
        grad_output = 0.0 if total == 0 else grad_output / total
    result = np.empty_like(logits)
    loops("classes").cross_entropy_backward(
        weights * grad_output, logits, indices, shift.ravel(), log_total.ravel(), result
    )
    return result


def _indices_and_weights(
    target: np.ndarray, classes: int, ignore_index: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the targets as int64, and 1, 0 where ignored, NaN where out of range."""
    indices = np.ascontiguousarray(target, np.int64)
    weights = np.empty(target.shape, np.float32)
    loops("classes").target_weights(indices, classes, ignore_index, weights)
    return indices, weights
