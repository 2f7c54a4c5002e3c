"""Negative log-likelihood of classes."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.initializers import given
from xbackprop.nn.losses.base import Loss, check_floats, check_index
from xbackprop.nn.losses.class_indices import (
    check_class_target,
    class_axis,
    class_weight_beside,
    one_hot_and_weight,
    over_classes,
)


@op(formula="loss = -log_probs[arange(len(target)), target].mean()")
def nll_loss_forward(
    log_probs: Array,
    target: Array,
    weight: Array | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> tuple[Array, Any]:
    """Compute ``-x[target]`` times the target's weight; the mean divides by those weights."""
    axis = class_axis(log_probs)
    xp = get_array_module(log_probs)
    one_hot, sample_weight = one_hot_and_weight(log_probs, target, weight, ignore_index)
    losses = -xp.where(one_hot, log_probs, 0).sum(axis=axis) * sample_weight
    losses = xp.where(target != ignore_index, losses, 0)  # -inf * 0 would be NaN
    if reduction != "none":
        losses = losses.sum()
    if reduction == "mean":
        losses = losses / sample_weight.sum()
    return losses, (log_probs, target, weight)


@op(formula="grad = -grad_output / len(target) * (target[:, None] == arange(log_probs.shape[1]))")
def nll_loss_backward(
    grad_output: Array,
    log_probs: Array,
    target: Array,
    weight: Array | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Array:
    """Return ``-weight[target] g`` at the target and 0 elsewhere."""
    axis = class_axis(log_probs)
    xp = get_array_module(log_probs)
    one_hot, sample_weight = one_hot_and_weight(log_probs, target, weight, ignore_index)
    slope = -sample_weight * grad_output
    if reduction == "mean":
        slope = slope / sample_weight.sum()
    # A label out of range names no entry, so its NaN goes to all of the sample.
    valid = (target >= 0) & (target < log_probs.shape[axis])
    touched = (one_hot | over_classes(~valid, axis)) & over_classes(target != ignore_index, axis)
    return xp.where(touched, over_classes(slope, axis), 0).astype(log_probs.dtype)


class NLLLoss(Loss):
    """Negative log-likelihood of class indices, of log-probabilities.

    Parameters
    ----------
    weight : array_like, shape (classes,), optional
        Factor of each class.
    ignore_index : int, default -100
        Targets of this value count nothing.
    reduction : {"mean", "sum", "none"}
        The mean divides by the sum of the targets' weights.

    Notes
    -----
    ``-x[target]``, so ``dLoss/dx = -one_hot(target) / batch``. After LogSoftmax it is
    :class:`CrossEntropyLoss`. Labels out of range are refused where looking costs nothing (host
    arrays); on a device they make the loss NaN.
    """

    def __init__(
        self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        self.ignore_index = check_index(self, "ignore_index", ignore_index)
        if weight is not None:
            self.register_buffer("weight", given(weight))

    def forward(self, log_probs: Array, target: Array) -> tuple[Array, Any]:
        """Compare log-probabilities ``(batch, classes, ...)`` with classes ``(batch, ...)``."""
        log_probs = check_floats(self, "log_probs", log_probs, log_probs)
        self.check_device("target", target, log_probs)
        check_class_target(self, log_probs, target, self.ignore_index)
        weight = class_weight_beside(self, log_probs)
        return nll_loss_forward(log_probs, target, weight, **self._options())

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradient of the log-probabilities; the integer target has none."""
        grad = nll_loss_backward(grad_output, *saved, **self._options())
        return (grad, None) if all_inputs else grad

    def _options(self) -> dict[str, Any]:
        return {"ignore_index": self.ignore_index, "reduction": self.reduction}
