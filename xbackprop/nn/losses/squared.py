"""Squared errors."""

import math
from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.dispatch import op
from xbackprop.module import Module
from xbackprop.nn.losses.base import Loss, check_pair, mean_factor, reduce_loss


@op(formula="loss = ((output - target) ** 2).mean()")
def mse_loss_forward(output: Array, target: Array, *, reduction: str = "mean") -> tuple[Array, Any]:
    """Compute ``(y_hat - y)^2`` per element; saves the difference."""
    difference = output - target
    return reduce_loss(difference * difference, reduction), (difference,)


@op(formula="grad_output_of_layer = grad_output * 2 / difference.size * difference")
def mse_loss_backward(grad_output: Array, difference: Array, *, reduction: str = "mean") -> Array:
    """Return ``2 (y_hat - y) g``, divided by the number of elements for a mean."""
    return difference * (grad_output * (2.0 * mean_factor(difference.size, reduction)))


@op(formula="loss = ((output - target) ** 2).sum() / 2 / (len(output) if output.ndim > 1 else 1)")
def half_squared_error_forward(output: Array, target: Array) -> tuple[Array, Any]:
    """Compute ``1/2 (y_hat - y)^2``, summed over outputs, averaged over the batch."""
    difference = output - target
    total = (difference * difference).sum()
    return total * (0.5 * _batch_factor(difference)), (difference,)


@op(formula="grad = grad_output * difference / (len(difference) if difference.ndim > 1 else 1)")
def half_squared_error_backward(grad_output: Array, difference: Array) -> Array:
    """Return ``(y_hat - y) g``, divided by the batch size."""
    return difference * (grad_output * _batch_factor(difference))


def _batch_factor(difference: Array) -> float:
    if difference.ndim < 2:
        return 1.0
    return 1.0 / len(difference) if len(difference) else math.nan


class MSELoss(Loss):
    """Mean squared error, ``(y_hat - y)^2``.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        The mean is over all elements.

    Notes
    -----
    ``dLoss/dy_hat = 2 (y_hat - y) / n``. Shapes must be equal; nothing is broadcast.
    """

    samples_apart = True

    def forward(self, output: Array, target: Array) -> tuple[Array, Any]:
        """Compare ``output`` with ``target`` of the same shape and dtype."""
        target = check_pair(self, output, target)
        return mse_loss_forward(output, target, reduction=self.reduction)

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradient of ``output``; with ``all_inputs`` of both."""
        grad = mse_loss_backward(grad_output, *saved, reduction=self.reduction)
        return (grad, -grad) if all_inputs else grad


class HalfSquaredError(Module):
    """The lesson's loss, ``1/2 (y_hat - y)^2``: summed over outputs, averaged over the batch.

    Notes
    -----
    ``dLoss/dy_hat = (y_hat - y) / batch``; a 1-D sample is a batch of one.

    References
    ----------
    Rumelhart, Hinton, Williams, "Learning representations by back-propagating errors", Nature 323
    (1986), equation 3.
    """

    in_half = "float32"
    samples_apart = True

    def forward(self, output: Array, target: Array) -> tuple[Array, Any]:
        """Compare ``output`` with ``target`` of the same shape and dtype."""
        target = check_pair(self, output, target)
        return half_squared_error_forward(output, target)

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradient of ``output``; with ``all_inputs`` of both."""
        grad = half_squared_error_backward(grad_output, *saved)
        return (grad, -grad) if all_inputs else grad
