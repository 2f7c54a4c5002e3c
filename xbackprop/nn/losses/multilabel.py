"""Logistic losses of several labels: each class is its own yes or no."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.initializers import given
from xbackprop.module import describe_layer
from xbackprop.nn.losses.base import (
    Loss,
    as_factor,
    check_at_least_zero,
    check_number,
    check_pair,
    factors_beside,
    mean_factor,
    reduce_loss,
)
from xbackprop.ops.special import sigmoid, softplus


@op(
    formula="loss = (target * log(1 + exp(-output)) + (1 - target) * log(1 + exp(output)))"
    ".mean(-1).mean()",
)
def multilabel_soft_margin_forward(
    output: Array, target: Array, weight: Array | None = None, *, reduction: str = "mean"
) -> tuple[Array, Any]:
    """Compute ``-(y log s(x) + (1 - y) log s(-x))``, averaged over the classes."""
    y = as_factor(target, output)
    losses = y * softplus(-output) + (1 - y) * softplus(output)
    if weight is not None:
        losses = losses * weight
    losses = losses.sum(axis=-1) * mean_factor(output.shape[-1], "mean")
    return reduce_loss(losses, reduction), (output, target, weight)


@op(formula="grad = grad_output / output.size * (1 / (1 + exp(-output)) - target)")
def multilabel_soft_margin_backward(
    grad_output: Array,
    output: Array,
    target: Array,
    weight: Array | None = None,
    *,
    reduction: str = "mean",
    all_inputs: bool = False,
) -> Any:
    """Return ``(s(x) - y) g`` and, for the target, ``-x g``, over the number of classes."""
    xp = get_array_module(output)
    y = as_factor(target, output)
    classes = output.shape[-1]
    scale = grad_output * mean_factor(classes, "mean")
    if reduction == "none":
        scale = xp.expand_dims(scale, -1)
    elif reduction == "mean":
        scale = scale * mean_factor(output.size // classes if classes else 0, "mean")
    if weight is not None:
        scale = weight * scale
    # Two terms, not s(x) - y, which loses a small s(-x) in 1.
    grad = ((1 - y) * sigmoid(output) - y * sigmoid(-output)) * scale
    if not all_inputs:
        return grad
    return grad, -output * scale if target.dtype.kind == "f" else None


@op(
    formula="loss = ((alpha * target + (1 - alpha) * (1 - target)) * (target / (1 + exp(output)) "
    "+ (1 - target) / (1 + exp(-output))) ** gamma * ((1 - target) * output "
    "+ log(1 + exp(-output)))).mean()",
)
def focal_loss_forward(
    output: Array,
    target: Array,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    reduction: str = "mean",
) -> tuple[Array, Any]:
    """Compute ``a (1 - p_t)^gamma`` times the binary cross-entropy of logits."""
    xp = get_array_module(output)
    y = as_factor(target, output)
    losses = (1 - y) * output + softplus(-output)
    if gamma:
        losses = losses * _power(xp, _miss(output, y), gamma)
    if alpha >= 0:
        losses = losses * (alpha * y + (1 - alpha) * (1 - y))
    return reduce_loss(losses, reduction), (output, target)


@op(
    formula="grad = grad_output / output.size * (alpha * target + (1 - alpha) * (1 - target)) "
    "* (target / (1 + exp(output)) + (1 - target) / (1 + exp(-output))) ** gamma "
    "* (1 / (1 + exp(-output)) - target + gamma * (1 - 2 * target) / (target * (1 + exp(-output)) "
    "+ (1 - target) * (1 + exp(output))) * ((1 - target) * output + log(1 + exp(-output))))",
)
def focal_loss_backward(
    grad_output: Array,
    output: Array,
    target: Array,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    reduction: str = "mean",
    all_inputs: bool = False,
) -> Any:
    """Return ``a (m^gamma (p - y) + gamma m^(gamma-1) m' ce) g`` with ``m = 1 - p_t``."""
    xp = get_array_module(output)
    y = as_factor(target, output)
    p, q = sigmoid(output), sigmoid(-output)
    entropy = (1 - y) * output + softplus(-output)
    miss = p * (1 - y) + q * y
    focus = _power(xp, miss, gamma) if gamma else 1.0
    # The power of m comes with p q, which is 0 where m is 0: so its own infinity does not count.
    steep = gamma * xp.where(miss > 0, _power(xp, miss, gamma - 1), 0) if gamma else 0.0
    balance = alpha * y + (1 - alpha) * (1 - y) if alpha >= 0 else 1.0
    scale = grad_output * mean_factor(output.size, reduction)
    slope = focus * (p * (1 - y) - q * y) + steep * (1 - 2 * y) * (p * q) * entropy
    grad = balance * slope * scale
    if not all_inputs:
        return grad
    if target.dtype.kind != "f":
        return grad, None
    slope = steep * (q - p) * entropy - focus * output
    grad_target = balance * slope
    if alpha >= 0:
        grad_target = grad_target + (2 * alpha - 1) * focus * entropy
    return grad, grad_target * scale


def _miss(output: Array, target: Array) -> Array:
    """Return ``1 - p_t``, the probability given to the wrong answer."""
    return sigmoid(output) * (1 - target) + sigmoid(-output) * target


def _power(xp: Any, base: Array, exponent: float) -> Any:
    """Return ``base ** exponent``; the usual ones by multiplication, which is faster."""
    if exponent == 1:
        return base
    if exponent == 2:
        return base * base
    return xp.ones_like(base) if exponent == 0 else xp.power(base, exponent)


class MultiLabelSoftMarginLoss(Loss):
    """Binary cross-entropy of logits, averaged over the classes and then over the batch.

    Parameters
    ----------
    weight : array_like, optional
        Factor of each class; broadcasts against the output.
    reduction : {"mean", "sum", "none"}
        Over the samples; a sample's loss is the mean over its classes, the last axis.

    Notes
    -----
    ``dLoss/dx = (s(x) - y) / classes`` with ``s`` the sigmoid, ``dLoss/dy = -x / classes``. The
    target may be of an integer dtype.
    """

    def __init__(self, weight: Any = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        if weight is not None:
            self.register_buffer("weight", given(weight))

    def forward(self, output: Array, target: Array) -> tuple[Array, Any]:
        """Compare logits ``(..., classes)`` with 0 and 1, or probabilities, of the same shape."""
        target = check_pair(self, output, target, integers=True)
        if output.ndim == 0:
            raise ValueError(f"{describe_layer(self)} expects output of shape (..., classes)")
        weight = factors_beside(self, "weight", output)
        return multilabel_soft_margin_forward(output, target, weight, reduction=self.reduction)

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradient of ``output``; with ``all_inputs`` of both."""
        return multilabel_soft_margin_backward(
            grad_output, *saved, reduction=self.reduction, all_inputs=all_inputs
        )


class FocalLoss(Loss):
    """Binary cross-entropy of logits that lets easy elements count little.

    Parameters
    ----------
    alpha : float, default 0.25
        Weight of label 1, ``1 - alpha`` being that of label 0; up to 1. Negative: no weights.
    gamma : float, default 2.0
        How much less easy elements count; 0 gives the cross-entropy. Not negative.
    reduction : {"mean", "sum", "none"}
        The mean is over all elements.

    Notes
    -----
    With ``p = s(x)``, ``p_t = p y + (1 - p)(1 - y)``, ``m = 1 - p_t`` and the cross-entropy
    ``ce = -log p_t`` of BCEWithLogitsLoss, an element costs ``a m^gamma ce`` with
    ``a = alpha y + (1 - alpha)(1 - y)``. From ``dm/dx = (1 - 2y) p (1 - p)`` and
    ``d ce/dx = p - y``: ``dLoss/dx = a (m^gamma (p - y) + gamma m^(gamma-1) (1 - 2y) p (1-p) ce)``.
    As torchvision's ``sigmoid_focal_loss``, but for the mean as default. The target may be of an
    integer dtype.

    References
    ----------
    Lin et al., "Focal loss for dense object detection", ICCV 2017, equation 5.
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        if check_number(self, "alpha", alpha) > 1:
            raise ValueError(
                f"FocalLoss expects alpha from 0 to 1, or negative for none; got {alpha}"
            )
        self.alpha = alpha
        self.gamma = check_at_least_zero(self, "gamma", gamma)

    def forward(self, output: Array, target: Array) -> tuple[Array, Any]:
        """Compare logits with 0 and 1, or probabilities, of the same shape."""
        target = check_pair(self, output, target, integers=True)
        return focal_loss_forward(output, target, **self._options())

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradient of ``output``; with ``all_inputs`` of both."""
        return focal_loss_backward(grad_output, *saved, **self._options(), all_inputs=all_inputs)

    def _options(self) -> dict[str, Any]:
        return {"alpha": self.alpha, "gamma": self.gamma, "reduction": self.reduction}
