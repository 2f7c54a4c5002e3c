"""Binary cross-entropy, of probabilities and of logits."""

from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.initializers import given
from xbackprop.module import describe_layer
from xbackprop.nn.losses.base import Loss, check_pair, factors_beside, mean_factor, reduce_loss
from xbackprop.ops.special import sigmoid, softplus


@op(
    formula="loss = -(target * maximum(log(output), -100) "
    "+ (1 - target) * maximum(log(1 - output), -100)).mean()",
)
def bce_loss_forward(
    output: Array, target: Array, weight: Array | None = None, *, reduction: str = "mean"
) -> tuple[Array, Any]:
    """Compute ``-(y log p + (1 - y) log(1 - p))``, logarithms not below -100 as in PyTorch."""
    log_p, log_q = _clamped_logs(output)
    losses = -(target * log_p + (1 - target) * log_q)
    if weight is not None:
        losses = losses * weight
    return reduce_loss(losses, reduction), (output, target, weight)


@op(
    formula="grad = grad_output / output.size * (output - target) / (output * (1 - output))",
)
def bce_loss_backward(
    grad_output: Array,
    output: Array,
    target: Array,
    weight: Array | None = None,
    *,
    reduction: str = "mean",
    all_inputs: bool = False,
) -> Any:
    """Return ``(p - y) / (p (1 - p)) g``, the denominator not below 1e-12 as in PyTorch."""
    xp = get_array_module(output)
    scale = grad_output * mean_factor(output.size, reduction)
    if weight is not None:
        scale = weight * scale
    grad = (output - target) / xp.maximum((1 - output) * output, 1e-12) * scale
    if not all_inputs:
        return grad
    log_p, log_q = _clamped_logs(output)
    return grad, (log_q - log_p) * scale


def _clamped_logs(p: Array) -> tuple[Array, Array]:
    xp = get_array_module(p)
    return xp.maximum(xp.log(p), -100), xp.maximum(xp.log1p(-p), -100)


@op(formula="loss = ((1 - target) * output + log1p(exp(-output))).mean()")
def bce_with_logits_forward(
    output: Array,
    target: Array,
    weight: Array | None = None,
    pos_weight: Array | None = None,
    *,
    reduction: str = "mean",
) -> tuple[Array, Any]:
    """Compute ``-(w y log s(x) + (1 - y) log(1 - s(x)))`` with ``s`` the sigmoid, from logits."""
    negative_log = softplus(-output)
    if pos_weight is not None:
        negative_log = negative_log * (1 + (pos_weight - 1) * target)
    losses = (1 - target) * output + negative_log
    if weight is not None:
        losses = losses * weight
    return reduce_loss(losses, reduction), (output, target, weight, pos_weight)


@op(formula="grad = grad_output / output.size * (1 / (1 + exp(-output)) - target)")
def bce_with_logits_backward(
    grad_output: Array,
    output: Array,
    target: Array,
    weight: Array | None = None,
    pos_weight: Array | None = None,
    *,
    reduction: str = "mean",
    all_inputs: bool = False,
) -> Any:
    """Return ``(s(x) - y) g``; with ``w = pos_weight``, ``((1 - y) - (1 + (w-1) y) s(-x)) g``."""
    scale = grad_output * mean_factor(output.size, reduction)
    if weight is not None:
        scale = weight * scale
    if pos_weight is None:
        grad = (sigmoid(output) - target) * scale
    else:
        log_weight = 1 + (pos_weight - 1) * target
        grad = ((1 - target) - log_weight * sigmoid(-output)) * scale
    if not all_inputs:
        return grad
    grad_target = -output
    if pos_weight is not None:
        grad_target = grad_target + (pos_weight - 1) * softplus(-output)
    return grad, grad_target * scale


def _check_probabilities(loss: Loss, name: str, values: Array) -> None:
    """Refuse what is outside of 0 to 1; on the host, where looking costs nothing."""
    if get_array_module(values) is not np or not values.size:
        return
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"{describe_layer(loss)} expects {name} from 0 to 1; got {low:g} to {high:g}. "
            "Put Sigmoid before it, or use BCEWithLogitsLoss."
        )


class BCELoss(Loss):
    """Binary cross-entropy of probabilities, ``-(y log p + (1 - y) log(1 - p))``.

    Parameters
    ----------
    weight : array_like, optional
        Factor of each element; broadcasts against the output.
    reduction : {"mean", "sum", "none"}
        The mean is over all elements.

    Notes
    -----
    ``dLoss/dp = (p - y) / (p (1 - p))``. Logarithms are not taken below -100, as in PyTorch.
    """

    def __init__(self, weight: Any = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        if weight is not None:
            self.register_buffer("weight", given(weight))

    def forward(self, output: Array, target: Array) -> tuple[Array, Any]:
        """Compare probabilities with targets of the same shape, both from 0 to 1."""
        target = check_pair(self, output, target)
        for name, values in (("probabilities", output), ("target", target)):
            _check_probabilities(self, name, values)
        weight = factors_beside(self, "weight", output)
        return bce_loss_forward(output, target, weight, reduction=self.reduction)

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradient of ``output``; with ``all_inputs`` of both."""
        return bce_loss_backward(
            grad_output, *saved, reduction=self.reduction, all_inputs=all_inputs
        )


class BCEWithLogitsLoss(Loss):
    """Binary cross-entropy of the sigmoid of logits, computed without overflow.

    Parameters
    ----------
    weight : array_like, optional
        Factor of each element; broadcasts against the output.
    reduction : {"mean", "sum", "none"}
        The mean is over all elements.
    pos_weight : array_like, optional
        Factor of the positive class; broadcasts against the output.

    Notes
    -----
    ``dLoss/dx = s(x) - y`` with ``s`` the sigmoid: the ``(y_hat - y)`` of the squared error.
    """

    samples_apart = True

    def __init__(self, weight: Any = None, reduction: str = "mean", pos_weight: Any = None) -> None:
        super().__init__(reduction)
        for name, values in (("weight", weight), ("pos_weight", pos_weight)):
            if values is not None:
                self.register_buffer(name, given(values))

    def forward(self, output: Array, target: Array) -> tuple[Array, Any]:
        """Compare logits with targets of the same shape."""
        target = check_pair(self, output, target)
        return bce_with_logits_forward(
            output,
            target,
            factors_beside(self, "weight", output),
            factors_beside(self, "pos_weight", output),
            reduction=self.reduction,
        )

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradient of ``output``; with ``all_inputs`` of both."""
        return bce_with_logits_backward(
            grad_output, *saved, reduction=self.reduction, all_inputs=all_inputs
        )
