"""A chain of linear maps and its loss as one op: all of the lesson in one function."""

from collections.abc import Iterator
from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.dispatch import ArraySpec, op
from xbackprop.nn.activations.rectifiers import ReLU, relu_backward, relu_forward
from xbackprop.nn.activations.smooth import (
    Sigmoid,
    Tanh,
    sigmoid_backward,
    sigmoid_forward,
    tanh_backward,
    tanh_forward,
)
from xbackprop.nn.linear import Identity, linear_backward, linear_forward
from xbackprop.nn.losses.canonical import canonical_loss_backward, canonical_loss_forward
from xbackprop.nn.losses.cross_entropy import cross_entropy_backward, cross_entropy_forward
from xbackprop.nn.losses.squared import (
    half_squared_error_backward,
    half_squared_error_forward,
    mse_loss_backward,
    mse_loss_forward,
)

ACTIVATIONS: dict[str, Any] = {
    "identity": (lambda x: (x, ()), lambda grad: grad),
    "relu": (relu_forward, relu_backward),
    "tanh": (tanh_forward, tanh_backward),
    "sigmoid": (sigmoid_forward, sigmoid_backward),
}
NAMES = {Identity: "identity", ReLU: "relu", Tanh: "tanh", Sigmoid: "sigmoid"}
LOSSES: dict[str, Any] = {
    "half_squared_error": (half_squared_error_forward, half_squared_error_backward),
    "mse_loss": (mse_loss_forward, mse_loss_backward),
    "cross_entropy": (cross_entropy_forward, cross_entropy_backward),
}


def _perceptron_flops(x: ArraySpec, target: ArraySpec, weights: tuple[Array, ...], *_: Any) -> int:
    products = 3 * sum(weight.size for weight in weights) - weights[0].size
    return 2 * x.shape[0] * products


def _canonical_flops(
    x: ArraySpec, target: ArraySpec, weight: Any, mass: float, weights: Any, *_: Any
) -> int:
    return _perceptron_flops(x, target, weights)


@op(flops=_perceptron_flops)
def perceptron_gradients(
    x: Array,
    target: Array,
    weights: tuple[Array, ...],
    biases: tuple[Array, ...],
    grad_weights: tuple[Array, ...],
    grad_biases: tuple[Array, ...],
    activations: tuple[str, ...],
    loss: str,
    is_first: bool,
) -> tuple[Array, Array]:
    """Go through a chain of linear maps and activations to the loss, and back.

    Parameters
    ----------
    x : array, shape (batch, features)
        Inputs.
    target : array, shape (batch, outputs), or (batch,) of int64 for classes
        What the loss compares the output with.
    weights, biases : tuple of array, shapes (outputs, inputs) and (outputs,)
        Of each linear map.
    grad_weights, grad_biases : tuple of array
        Where the gradients go to, in place.
    activations : tuple of {"identity", "relu", "tanh", "sigmoid"}
        What follows each linear map.
    loss : {"half_squared_error", "mse_loss", "cross_entropy"}
        The mean over the batch.
    is_first : bool
        True overwrites what is in the gradients, False adds to it.

    Returns
    -------
    loss : array, shape ()
    output : array, shape (batch, outputs)

    References
    ----------
    Rumelhart, Hinton, Williams, "Learning representations by back-propagating errors", Nature 323
    (1986).
    """
    output, saved = _forward(x, weights, biases, activations)
    loss_forward, loss_backward = LOSSES[loss]
    value, loss_saved = loss_forward(output, target)
    grad = loss_backward(1.0, *loss_saved)
    for k, grad_weight, grad_bias in _backward(grad, saved, activations):
        if not is_first:
            grad_weight, grad_bias = grad_weights[k] + grad_weight, grad_biases[k] + grad_bias
        grad_weights[k][...] = grad_weight
        grad_biases[k][...] = grad_bias
    return value, output


@op(flops=_canonical_flops)
def canonical_gradients(
    x: Array,
    target: Array,
    weight: Array | None,
    mass: float,
    weights: tuple[Array, ...],
    biases: tuple[Array, ...],
    grad_weights: tuple[Array, ...],
    grad_biases: tuple[Array, ...],
    activations: tuple[str, ...],
    output_activation: str,
) -> Array:
    """Do as :func:`perceptron_gradients` for a canonical loss, and overwrite the gradients.

    Parameters
    ----------
    x : array, shape (batch, features)
        Inputs.
    target, weight, mass
        As for :func:`xbackprop.nn.losses.canonical.canonical_loss_forward`.
    weights, biases, grad_weights, grad_biases, activations : tuple
        As for :func:`perceptron_gradients`.
    output_activation : {"softmax", "logistic", "identity", "exp"}
        Which tells the loss.

    Returns
    -------
    loss : array, shape ()
    """
    scores, saved = _forward(x, weights, biases, activations)
    loss, loss_saved = canonical_loss_forward(scores, target, weight, mass, output_activation)
    grad = canonical_loss_backward(1.0, *loss_saved)
    for k, grad_weight, grad_bias in _backward(grad, saved, activations):
        grad_weights[k][...] = grad_weight
        grad_biases[k][...] = grad_bias
    return loss


def _forward(x: Array, weights: Any, biases: Any, activations: Any) -> tuple[Array, Any]:
    """Return the output, and what every layer saved."""
    saved = []
    for weight, bias, name in zip(weights, biases, activations, strict=True):
        x, linear_saved = linear_forward(x, weight, bias)
        x, activation_saved = ACTIVATIONS[name][0](x)
        saved.append((linear_saved, activation_saved))
    return x, saved


def _backward(grad: Array, saved: Any, activations: Any) -> Iterator[tuple[int, Array, Array]]:
    """Go back from the output, and give each layer's number and gradients."""
    for k in reversed(range(len(saved))):
        linear_saved, activation_saved = saved[k]
        grad = ACTIVATIONS[activations[k]][1](grad, *activation_saved)
        grad, grad_weight, grad_bias = linear_backward(grad, *linear_saved, k > 0)
        yield k, grad_weight, grad_bias
