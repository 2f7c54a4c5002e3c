"""The network of a perceptron: ``coefs_`` and ``intercepts_`` as Linear layers and back."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from xbackprop import initializers
from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device
from xbackprop.backend.transfer import to_device, to_host
from xbackprop.nn import Identity, Linear, Module, ReLU, Sequential, Sigmoid, Tanh

_ACTIVATIONS: dict[str, type[Module]] = {
    "identity": Identity,
    "logistic": Sigmoid,
    "tanh": Tanh,
    "relu": ReLU,
}


def make_network(units: Sequence[int], activation: str, dtype: Any) -> Sequential:
    """Return Linear layers with an activation between any two, still without values."""
    layers: list[Module] = []
    with initializers.placeholders():
        for inputs, outputs in pairwise(units):
            layers += [Linear(inputs, outputs, dtype=dtype), _ACTIVATIONS[activation]()]
        return Sequential(*layers[:-1])


def linear_layers(network: Sequential) -> list[Linear]:
    """Return the layers that have weights, in order."""
    return [layer for layer in network.children() if isinstance(layer, Linear)]


def weights_and_biases(network: Sequential) -> tuple[list[Any], list[Any]]:
    """Return the parameters of the layers, those that are penalized and those that are not."""
    layers = linear_layers(network)
    return [layer.weight for layer in layers], [layer.bias for layer in layers]


def put_values(
    network: Sequential,
    coefs: Sequence[Array],
    intercepts: Sequence[Array],
    device: Device,
) -> None:
    """Give the layers their values, on a device; on the CPU they are views of what is given."""
    dtype = coefs[0].dtype
    weights, biases = weights_and_biases(network)
    for parameter, values in zip(weights, coefs, strict=True):
        parameter.data = to_device(values.T, device)
    for parameter, values in zip(biases, intercepts, strict=True):
        parameter.data = to_device(values.astype(dtype, copy=False), device)


def read_values(network: Sequential) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return ``coefs_`` and ``intercepts_``: fresh host arrays, ``(inputs, outputs)`` each."""
    weights, biases = weights_and_biases(network)
    coefs = [np.array(to_host(parameter.data).T, order="C") for parameter in weights]
    return coefs, [to_host(parameter.data).copy() for parameter in biases]
