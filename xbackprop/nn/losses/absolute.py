"""Absolute errors, and their smooth relatives."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.nn.losses.base import (
    Loss,
    check_at_least_zero,
    check_number,
    check_pair,
    mean_factor,
    reduce_loss,
)


@op(formula="loss = abs(output - target).mean()")
def l1_loss_forward(output: Array, target: Array, *, reduction: str = "mean") -> tuple[Array, Any]:
    """Compute ``|y_hat - y|`` per element; saves the difference."""
    difference = output - target
    xp = get_array_module(difference)
    return reduce_loss(xp.abs(difference), reduction), (difference,)


@op(formula="grad = grad_output / difference.size * sign(difference)")
def l1_loss_backward(grad_output: Array, difference: Array, *, reduction: str = "mean") -> Array:
    """Return ``sign(y_hat - y) g``: 0 where both are equal."""
    # Not xp.sign, which keeps NaN: PyTorch's is 0 there.
    positive, negative = (difference > 0), (difference < 0)
    sign = positive.astype(difference.dtype) - negative.astype(difference.dtype)
    return sign * (grad_output * mean_factor(difference.size, reduction))


@op(
    formula="loss = where(abs(output - target) < beta, (output - target) ** 2 / (2 * beta), "
    "abs(output - target) - beta / 2).mean()",
)
def smooth_l1_loss_forward(
    output: Array, target: Array, *, beta: float = 1.0, reduction: str = "mean"
) -> tuple[Array, Any]:
    """Compute ``d^2 / (2 beta)`` where ``|d| < beta``, else ``|d| - beta / 2``."""
    difference = output - target
    xp = get_array_module(difference)
    size = xp.abs(difference)
    losses = xp.where(size < beta, 0.5 * size * size / beta, size - 0.5 * beta)
    return reduce_loss(losses, reduction), (difference,)


@op(formula="grad = grad_output / difference.size * clip(difference / beta, -1, 1)")
def smooth_l1_loss_backward(
    grad_output: Array, difference: Array, *, beta: float = 1.0, reduction: str = "mean"
) -> Array:
    """Return ``d / beta`` cut to -1 and 1, times g."""
    xp = get_array_module(difference)
    scale = grad_output * mean_factor(difference.size, reduction)
    return xp.clip(difference / beta, -1.0, 1.0) * scale


@op(
    formula="loss = where(abs(output - target) < delta, (output - target) ** 2 / 2, "
    "delta * (abs(output - target) - delta / 2)).mean()",
)
def huber_loss_forward(
    output: Array, target: Array, *, delta: float = 1.0, reduction: str = "mean"
) -> tuple[Array, Any]:
    """Compute ``d^2 / 2`` where ``|d| < delta``, else ``delta (|d| - delta / 2)``."""
    difference = output - target
    xp = get_array_module(difference)
    size = xp.abs(difference)
    losses = xp.where(size < delta, 0.5 * size * size, delta * (size - 0.5 * delta))
    return reduce_loss(losses, reduction), (difference,)


@op(formula="grad = grad_output / difference.size * clip(difference, -delta, delta)")
def huber_loss_backward(
    grad_output: Array, difference: Array, *, delta: float = 1.0, reduction: str = "mean"
) -> Array:
    """Return ``d`` cut to -delta and delta, times g."""
    xp = get_array_module(difference)
    scale = grad_output * mean_factor(difference.size, reduction)
    return xp.clip(difference, -delta, delta) * scale


class L1Loss(Loss):
    """Mean absolute error, ``|y_hat - y|``.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        The mean is over all elements.

    Notes
    -----
    ``dLoss/dy_hat = sign(y_hat - y) / n``, 0 at the kink. Shapes must be equal; nothing is
    broadcast.
    """

    def forward(self, output: Array, target: Array) -> tuple[Array, Any]:
        """Compare ``output`` with ``target`` of the same shape and dtype."""
        target = check_pair(self, output, target)
        return l1_loss_forward(output, target, reduction=self.reduction)

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradient of ``output``; with ``all_inputs`` of both."""
        grad = l1_loss_backward(grad_output, *saved, reduction=self.reduction)
        return (grad, -grad) if all_inputs else grad


class SmoothL1Loss(Loss):
    """Squared error near 0, absolute error beyond ``beta``.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        The mean is over all elements.
    beta : float, default 1.0
        Where the square ends; 0 gives :class:`L1Loss`.

    Notes
    -----
    With ``d = y_hat - y``: ``d^2 / (2 beta)`` for ``|d| < beta``, else ``|d| - beta / 2``; so
    ``dLoss/dy_hat = clip(d / beta, -1, 1) / n``. It is :class:`HuberLoss` divided by ``beta``.

    References
    ----------
    Girshick, "Fast R-CNN", ICCV 2015, equation 3.
    """

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        self.beta = check_at_least_zero(self, "beta", beta)

    def forward(self, output: Array, target: Array) -> tuple[Array, Any]:
        """Compare ``output`` with ``target`` of the same shape and dtype."""
        target = check_pair(self, output, target)
        if self.beta == 0:
            return l1_loss_forward(output, target, reduction=self.reduction)
        return smooth_l1_loss_forward(output, target, beta=self.beta, reduction=self.reduction)

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradient of ``output``; with ``all_inputs`` of both."""
        if self.beta == 0:
            grad = l1_loss_backward(grad_output, *saved, reduction=self.reduction)
        else:
            options: dict[str, Any] = {"beta": self.beta, "reduction": self.reduction}
            grad = smooth_l1_loss_backward(grad_output, *saved, **options)
        return (grad, -grad) if all_inputs else grad


class HuberLoss(Loss):
    """Half the squared error near 0, a straight line of slope ``delta`` beyond ``delta``.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        The mean is over all elements.
    delta : float, default 1.0
        Where the square ends; greater than 0.

    Notes
    -----
    With ``d = y_hat - y``: ``d^2 / 2`` for ``|d| < delta``, else ``delta (|d| - delta / 2)``; so
    ``dLoss/dy_hat = clip(d, -delta, delta) / n``.

    References
    ----------
    Huber, "Robust estimation of a location parameter", Ann. Math. Statist. 35 (1964), 73-101.
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = check_number(self, "delta", delta, above=0)

    def forward(self, output: Array, target: Array) -> tuple[Array, Any]:
        """Compare ``output`` with ``target`` of the same shape and dtype."""
        target = check_pair(self, output, target)
        return huber_loss_forward(output, target, delta=self.delta, reduction=self.reduction)

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradient of ``output``; with ``all_inputs`` of both."""
        options: dict[str, Any] = {"delta": self.delta, "reduction": self.reduction}
        grad = huber_loss_backward(grad_output, *saved, **options)
        return (grad, -grad) if all_inputs else grad
