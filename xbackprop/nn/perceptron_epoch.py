"""A whole epoch of a small perceptron as one op: batches, gradients, and Adam's steps."""

from itertools import pairwise
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import ArraySpec, op
from xbackprop.nn.perceptron import canonical_gradients

Adam = tuple[float, float, float, float]  # learning rate, both betas, epsilon
State = tuple[Array, Array, Array, Array]  # values, gradients, their means and those of squares


def _epoch_flops(x: ArraySpec, target: ArraySpec, order: ArraySpec, *others: Any) -> int:
    units = others[1]
    products = sum(inputs * outputs for inputs, outputs in pairwise(units))
    return 2 * order.shape[0] * (3 * products - units[0] * units[1])


@op(flops=_epoch_flops)
def perceptron_epoch(
    x: Array,
    target: Array,
    order: Array,
    batch_size: int,
    units: tuple[int, ...],
    activation: str,
    output_activation: str,
    weights: State,
    biases: State,
    alpha: float,
    adam: Adam,
    step: int,
) -> Array:
    """Update a perceptron on one batch after the other, in place.

    Parameters
    ----------
    x : array, shape (samples, features)
        Inputs.
    target : array, shape (samples, outputs)
        As for :func:`xbackprop.nn.losses.canonical.canonical_loss_forward`.
    order : array of int64, shape (rows,)
        Which sample comes when.
    batch_size : int
        Samples of an update; the last one gets what is left.
    units : tuple of int
        Numbers of inputs, hidden units and outputs.
    activation : {"identity", "relu", "tanh", "sigmoid"}
        Of the hidden units.
    output_activation : {"softmax", "logistic", "identity", "exp"}
        Which tells the loss.
    weights, biases : tuple of four arrays, shapes (size,)
        Values, gradients, running means of gradients and of their squares: those of all layers one
        after the other, each matrix ``(outputs, inputs)`` in C order.
    alpha : float
        Factor of the penalty ``|w|^2 / 2``, divided by the samples of a batch.
    adam : tuple of float
        ``(lr, beta1, beta2, eps)``; ``eps`` stands beside the uncorrected root.
    step : int
        Updates before this epoch.

    Returns
    -------
    array of float64, shape ()
        The sum of the losses of all samples, with the penalty of their updates.

    References
    ----------
    Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, section 2, last
    paragraph.
    """
    lr, beta1, beta2, eps = adam
    depth = len(units) - 1
    layers = tuple(_matrices(kind, units) for kind in weights[:2])
    vectors = tuple(_vectors(kind, units) for kind in biases[:2])
    activations = (activation,) * (depth - 1) + ("identity",)
    total = 0.0
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        samples = float(len(chosen))
        loss = canonical_gradients(
            x.take(chosen, axis=0), target.take(chosen, axis=0), None, samples,
            layers[0], vectors[0], layers[1], vectors[1], activations, output_activation,
        )  # fmt: skip
        step += 1
        size = lr * (1 - beta2**step) ** 0.5 / (1 - beta1**step)
        decay = alpha / samples
        loss = loss + weights[0].dot(weights[0]) * (0.5 * decay)
        _descend(weights, decay, beta1, beta2, size, eps)
        _descend(biases, 0.0, beta1, beta2, size, eps)
        total = total + loss.astype(np.float64) * samples
    return total


def _descend(
    state: State, decay: float, beta1: float, beta2: float, size: float, eps: float
) -> None:
    """Make a step of Adam in place; :func:`xbackprop.optim.adam.coupled_adam_update` is the op."""
    data, grad, exp_avg, exp_avg_sq = state
    grad = grad + data * decay
    exp_avg *= beta1
    exp_avg += grad * (1 - beta1)
    exp_avg_sq *= beta2
    exp_avg_sq += grad * grad * (1 - beta2)
    data -= exp_avg / (get_array_module(data).sqrt(exp_avg_sq) + eps) * size


def _matrices(flat: Array, units: tuple[int, ...]) -> tuple[Array, ...]:
    """View a flat array as the matrices of the layers."""
    matrices, start = [], 0
    for inputs, outputs in pairwise(units):
        matrices.append(flat[start : start + outputs * inputs].reshape(outputs, inputs))
        start += outputs * inputs
    return tuple(matrices)


def _vectors(flat: Array, units: tuple[int, ...]) -> tuple[Array, ...]:
    """View a flat array as the biases of the layers."""
    vectors, start = [], 0
    for outputs in units[1:]:
        vectors.append(flat[start : start + outputs])
        start += outputs
    return tuple(vectors)
