"""A perceptron's batch or epoch by one op, where the calls of its layers would cost more."""

from collections.abc import Callable

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.dispatch import may_replace_ops
from xbackprop.nn import Sequential
from xbackprop.nn.perceptron import NAMES, canonical_gradients
from xbackprop.nn.perceptron_epoch import perceptron_epoch
from xbackprop.optim import Optimizer
from xbackprop.optim.flat import FlatGroup
from xbackprop.sklearn.network import linear_layers, weights_and_biases
from xbackprop.sklearn.optimizers import EpsilonHatAdam
from xbackprop.sklearn.rows import TrainingRows


class WholePerceptron:
    """Computes with the arrays that the parameters have when it is made.

    Every method returns None, and has done nothing, where no kernel on the CPU serves.

    Parameters
    ----------
    network : Sequential
        Linear layers with one activation between any two. Its parameters have no gradients, but
        room for them.
    output_activation : str
        As for :func:`xbackprop.nn.perceptron.canonical_gradients`.
    """

    def __init__(self, network: Sequential, output_activation: str) -> None:
        weights, biases = weights_and_biases(network)
        self._parameters = [*weights, *biases]
        places = [p.place_of_gradient(p.dtype) for p in self._parameters]
        self._is_possible = may_replace_ops() and all(place is not None for place in places)
        layers = linear_layers(network)
        self._units = (layers[0].in_features, *(layer.out_features for layer in layers))
        hidden = [NAMES[type(layer)] for layer in list(network)[1::2]]
        self._activations = (*hidden, "identity")
        self._output_activation = output_activation
        self._arguments = (
            tuple(weight.data for weight in weights),
            tuple(bias.data for bias in biases),
            tuple(places[: len(weights)]),
            tuple(places[len(weights) :]),
            self._activations,
            output_activation,
        )
        self._kernels: dict[int, Callable[..., Array] | None] = {}  # by the size of a batch

    def gradients(self, x: Array, target: Array, weight: Array | None, mass: float) -> Array | None:
        """Return the loss without its penalty, and write the gradients."""
        if not self._is_possible or type(x) is not np.ndarray:
            return None
        if len(x) not in self._kernels:
            self._kernels[len(x)] = canonical_gradients.kernel_on_cpu(
                x, target, weight, mass, *self._arguments
            )
        kernel = self._kernels[len(x)]
        if kernel is None:
            return None
        loss = kernel(x, target, weight, mass, *self._arguments)
        for parameter in self._parameters:
            parameter.has_grad = True
            parameter.contributions += 1
        return loss

    def epoch(
        self, rows: TrainingRows, batch_size: int, optimizer: Optimizer, alpha: float
    ) -> Array | None:
        """Update on every batch; return the sum of all losses, each with its penalty."""
        at_hand = rows.at_hand()
        if not self._is_possible or at_hand is None or type(optimizer) is not EpsilonHatAdam:
            return None
        weights, biases = optimizer.packed()
        if not (weights.moves_together and biases.moves_together):
            return None
        group = weights.group
        arguments = (
            *at_hand, batch_size, self._units, self._activations[0], self._output_activation,
            _arrays(weights), _arrays(biases), alpha, (group["lr"], *group["betas"], group["eps"]),
            weights.steps[0],
        )  # fmt: skip
        kernel = perceptron_epoch.kernel_on_cpu(*arguments)
        if kernel is None:
            return None
        total = kernel(*arguments)
        optimizer.count_updates(-(-rows.count // batch_size))
        return total


def _arrays(flat: FlatGroup) -> tuple[Array, ...]:
    return flat.data, flat.grad, flat.state["exp_avg"], flat.state["exp_avg_sq"]
