"""The overlap of a predicted and a true region."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.module import describe_layer
from xbackprop.nn.losses.base import (
    Loss,
    check_at_least_zero,
    check_pair,
    mean_factor,
    reduce_loss,
)


@op(
    formula="loss = (1 - (2 * (output * target).sum(1) + smooth) "
    "/ ((output ** 2 + target ** 2).sum(1) + smooth)).mean()",
)
def dice_loss_forward(
    output: Array, target: Array, *, smooth: float = 1.0, reduction: str = "mean"
) -> tuple[Array, Any]:
    """Compute ``1 - (2 sum(p y) + smooth) / (sum(p^2) + sum(y^2) + smooth)`` per sample."""
    axes = tuple(range(min(1, output.ndim - 1), output.ndim))
    overlap = 2 * (output * target).sum(axis=axes, keepdims=True) + smooth
    sizes = (output * output + target * target).sum(axis=axes, keepdims=True) + smooth
    losses = 1 - (overlap / sizes).reshape(output.shape[: min(1, output.ndim - 1)])
    return reduce_loss(losses, reduction), (output, target, overlap, sizes)


@op(
    formula="grad = 2 * grad_output / len(output) * (overlap / sizes * output - target) / sizes",
)
def dice_loss_backward(
    grad_output: Array,
    output: Array,
    target: Array,
    overlap: Array,
    sizes: Array,
    *,
    reduction: str = "mean",
    all_inputs: bool = False,
) -> Any:
    """Return ``2 (D p - y) / sizes g`` with the coefficient ``D = overlap / sizes``."""
    if reduction == "none":
        grad_output = get_array_module(output).reshape(grad_output, sizes.shape)
    scale = grad_output * (2.0 * mean_factor(sizes.size, reduction)) / sizes
    coefficient = overlap / sizes
    grad = (coefficient * output - target) * scale
    return (grad, (coefficient * target - output) * scale) if all_inputs else grad


class DiceLoss(Loss):
    """Soft Dice loss of probabilities: one minus twice the overlap over both sizes.

    Parameters
    ----------
    smooth : float, default 1.0
        Added to numerator and denominator, so that two empty regions agree. Not negative.
    reduction : {"mean", "sum", "none"}
        Over the samples, the first axis; all further axes belong to one region.

    Notes
    -----
    ``1 - D`` with ``D = (2 sum(p y) + smooth) / (sum(p^2) + sum(y^2) + smooth)``. With ``s`` the
    denominator ``dD/dp = (2 y - 2 p D) / s``, so ``dLoss/dp = 2 (D p - y) / s`` and, the formula
    being symmetric, ``dLoss/dy = 2 (D y - p) / s``. PyTorch has no such loss.

    References
    ----------
    Milletari, Navab and Ahmadi, "V-Net: fully convolutional neural networks for volumetric medical
    image segmentation", 3DV 2016, section 3 (squares in the denominator).
    """

    def __init__(self, smooth: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.smooth = check_at_least_zero(self, "smooth", smooth)

    def forward(self, output: Array, target: Array) -> tuple[Array, Any]:
        """Compare probabilities ``(batch, ...)`` with a region of the same shape, 0 and 1.

        A 1-D input is one sample.
        """
        target = check_pair(self, output, target)
        if output.ndim == 0:
            raise ValueError(f"{describe_layer(self)} expects output of shape (batch, ...); got ()")
        return dice_loss_forward(output, target, smooth=self.smooth, reduction=self.reduction)

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradient of ``output``; with ``all_inputs`` of both."""
        return dice_loss_backward(
            grad_output, *saved, reduction=self.reduction, all_inputs=all_inputs
        )
