"""The loss of a perceptron as a module."""

from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.nn import Module
from xbackprop.nn.losses.canonical import canonical_loss_backward, canonical_loss_forward


class CanonicalLoss(Module):
    """Loss of an output activation, with the gradient ``(prediction - target) / mass``.

    Parameters
    ----------
    activation : {"softmax", "logistic", "identity", "exp"}
        See :func:`xbackprop.nn.losses.canonical.canonical_loss_forward`.

    References
    ----------
    Bishop, "Pattern Recognition and Machine Learning", 2006, section 4.3.6 (canonical links).
    """

    def __init__(self, activation: str) -> None:
        self.activation = activation

    def forward(
        self, scores: Array, target: Array, weight: Array | None, mass: float
    ) -> tuple[Array, Any]:
        """Compare the scores' activation with the targets."""
        return canonical_loss_forward(scores, target, weight, mass, self.activation)

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Return the gradient of the scores."""
        return canonical_loss_backward(grad_output, *saved) if input_grad else None
