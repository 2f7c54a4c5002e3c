"""The Kullback-Leibler divergence."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.nn.losses.base import Loss, check_pair, mean_factor, reduce_loss


@op(formula="loss = (target * (log(target) - output)).mean()")
def kl_div_forward(
    output: Array, target: Array, *, log_target: bool = False, reduction: str = "mean"
) -> tuple[Array, Any]:
    """Compute ``y (log y - x)`` per element, ``x`` being the logarithm of a probability."""
    xp = get_array_module(output)
    if log_target:
        losses = xp.exp(target) * (target - output)
    else:
        entropy = xp.where(target == 0, 0, target * xp.log(target))
        losses = entropy - target * output
    if reduction == "batchmean":
        return losses.sum() * _batch_factor(losses, reduction), (output, target)
    return reduce_loss(losses, reduction), (output, target)


@op(formula="grad = -grad_output / output.size * target")
def kl_div_backward(
    grad_output: Array,
    output: Array,
    target: Array,
    *,
    log_target: bool = False,
    reduction: str = "mean",
    all_inputs: bool = False,
) -> Any:
    """Return ``-y g`` and, for the target, ``(log y + 1 - x) g``."""
    xp = get_array_module(output)
    scale = grad_output * _batch_factor(output, reduction)
    probability = xp.exp(target) if log_target else target
    grad = -probability * scale
    if not all_inputs:
        return grad
    if log_target:
        return grad, probability * (target - output + 1) * scale
    return grad, (xp.log(target) + 1 - output) * scale


def _batch_factor(x: Array, reduction: str) -> float:
    if reduction == "batchmean":
        return mean_factor(x.shape[0], "mean") if x.ndim else 1.0
    return mean_factor(x.size, reduction)


class KLDivLoss(Loss):
    """Kullback-Leibler divergence of a target distribution from log-probabilities.

    Parameters
    ----------
    reduction : {"mean", "sum", "none", "batchmean"}
        ``"batchmean"`` divides the sum by the batch size, which is the divergence of mathematics;
        ``"mean"``, PyTorch's default, divides by the number of elements.
    log_target : bool, default False
        Whether the target holds logarithms of probabilities too.

    Notes
    -----
    Per element ``y (log y - x)`` with ``x`` the log-probability and ``0 log 0 = 0``, so
    ``dLoss/dx = -y`` and ``dLoss/dy = log y + 1 - x``; with ``log_target``
    ``e^y (y - x)`` and ``dLoss/dy = e^y (y - x + 1)``.

    References
    ----------
    Kullback and Leibler, "On information and sufficiency", Ann. Math. Statist. 22 (1951), 79-86.
    """

    reductions = ("mean", "sum", "none", "batchmean")

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction)
        self.log_target = log_target

    def forward(self, output: Array, target: Array) -> tuple[Array, Any]:
        """Compare log-probabilities with a target of the same shape and dtype."""
        target = check_pair(self, output, target)
        return kl_div_forward(output, target, log_target=self.log_target, reduction=self.reduction)

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradient of ``output``; with ``all_inputs`` of both."""
        return kl_div_backward(
            grad_output,
            *saved,
            log_target=self.log_target,
            reduction=self.reduction,
            all_inputs=all_inputs,
        )
