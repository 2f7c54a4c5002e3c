"""Perceptrons in one call: small ones in loops, others with nothing between their products."""

import functools
from itertools import pairwise

import numpy as np

from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.loops import is_plain_float, loops
from xbackprop.nn.perceptron import ACTIVATIONS
from xbackprop.nn.perceptron import canonical_gradients as canonical_op
from xbackprop.nn.perceptron import perceptron_gradients as op

# Beyond it BLAS is faster; and each number of layers is compiled for itself.
_MOST_PRODUCTS, _MOST_LAYERS = 100_000, 4
# Activations of the output whose loss has a loop.
OUTPUTS = ("softmax", "logistic", "identity")


def can_serve(
    x: ArraySpec,
    target: ArraySpec,
    weights: tuple[np.ndarray, ...],
    biases: tuple[np.ndarray, ...],
    grad_weights: tuple[np.ndarray, ...],
    grad_biases: tuple[np.ndarray, ...],
    activations: tuple[str, ...],
    loss: str,
    is_first: bool,
) -> bool:
    """Tell whether it is small, and plain arrays of one float dtype."""
    is_small = (
        len(weights) <= _MOST_LAYERS and x.shape[0] * sum(w.size for w in weights) <= _MOST_PRODUCTS
    )
    if not (is_small and _is_chain(x, weights, biases, grad_weights, grad_biases)):
        return False
    if loss == "cross_entropy":
        is_target = target.dtype == np.int64 and target.is_contiguous
        return is_target and target.shape == x.shape[:1]
    return target.shape == (x.shape[0], len(biases[-1])) and is_plain_float(x, target)


def _is_chain(
    x: ArraySpec,
    weights: tuple[np.ndarray, ...],
    biases: tuple[np.ndarray, ...],
    grad_weights: tuple[np.ndarray, ...],
    grad_biases: tuple[np.ndarray, ...],
) -> bool:
    """Tell whether shapes fit one to the next, and all are plain arrays of one float dtype."""
    sizes = (x.shape[-1], *map(len, biases))
    arrays = (*weights, *biases, *grad_weights, *grad_biases)
    return (
        len(x.shape) == 2
        and is_plain_float(x)
        and all(w.shape == pair[::-1] for w, pair in zip(weights, pairwise(sizes), strict=True))
        and all(map(_are_alike, (*weights, *biases), (*grad_weights, *grad_biases)))
        and all(a.dtype == x.dtype and a.flags.carray and a.size > 0 for a in arrays)
    )


def _are_alike(values: np.ndarray, grad: np.ndarray) -> bool:
    return values.shape == grad.shape


@functools.cache
def _kinds(activations: tuple[str, ...]) -> np.ndarray:
    return np.array([kind_of(name) for name in activations])


@op.kernel("cpu", when=can_serve)
def perceptron_gradients(
    x: np.ndarray,
    target: np.ndarray,
    weights: tuple[np.ndarray, ...],
    biases: tuple[np.ndarray, ...],
    grad_weights: tuple[np.ndarray, ...],
    grad_biases: tuple[np.ndarray, ...],
    activations: tuple[str, ...],
    loss: str,
    is_first: bool,
) -> tuple[np.floating, np.ndarray]:
    """Return loss and output, and write the gradients, as the op of this name."""
    number = x.dtype.type
    output = np.empty((len(x), biases[-1].size), x.dtype)
    loop, factor = loops("perceptron").squared, 1.0 / len(x)
    if loss == "cross_entropy":
        loop = loops("perceptron").cross_entropy
    elif loss == "half_squared_error":
        factor *= 0.5
    else:
        factor /= output.shape[1]
    value = loop(
        x, target, weights, biases, grad_weights, grad_biases, _kinds(activations), number(factor),
        is_first, output,
    )  # fmt: skip
    return number(value), output


def kind_of(activation: str) -> int:
    """Return the number by which the loops know an activation."""
    name = "sigmoid" if activation == "logistic" else activation
    kind: int = getattr(loops("columns"), name.upper())
    return kind


def can_serve_canonical(
    x: ArraySpec,
    target: ArraySpec,
    weight: ArraySpec | None,
    mass: float,
    weights: tuple[np.ndarray, ...],
    biases: tuple[np.ndarray, ...],
    grad_weights: tuple[np.ndarray, ...],
    grad_biases: tuple[np.ndarray, ...],
    activations: tuple[str, ...],
    output_activation: str,
) -> bool:
    """Tell whether it is a loss that has a loop, and plain arrays of one float dtype."""
    return (
        output_activation in OUTPUTS
        and _is_chain(x, weights, biases, grad_weights, grad_biases)
        and activations[-1] == "identity"
        and target.shape == (x.shape[0], len(biases[-1]))
        and target.dtype == (x.dtype if output_activation == "identity" else bool)
        and target.is_contiguous
        and (weight is None or (weight.shape == x.shape[:1] and is_plain_float(x, weight)))
    )


@canonical_op.kernel("cpu", when=can_serve_canonical)
def canonical_gradients(
    x: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None,
    mass: float,
    weights: tuple[np.ndarray, ...],
    biases: tuple[np.ndarray, ...],
    grad_weights: tuple[np.ndarray, ...],
    grad_biases: tuple[np.ndarray, ...],
    activations: tuple[str, ...],
    output_activation: str,
) -> np.floating:
    """Return the loss and write the gradients, as the op of this name.

    Samples lie side by side: so products take the weights as they are stored, and their results
    are read along rows.
    """
    loop, samples, dtype = loops("columns"), len(x), x.dtype
    values = [x.T]
    for weight_of_layer, bias, activation in zip(weights, biases, activations, strict=True):
        value = np.empty((len(bias), samples), dtype)
        np.dot(weight_of_layer, values[-1], out=value)
        loop.add_bias(value, bias, activation == "relu")
        if activation in ("tanh", "sigmoid"):
            value = ACTIVATIONS[activation][0](value)[0]
        values.append(value)
    factors = np.full(samples, 1 / mass, dtype) if weight is None else weight / dtype.type(mass)
    grad = values.pop()
    kind = kind_of(output_activation)
    loss = loop.loss_of_output(grad, target, kind, factors, grad_biases[-1])
    for k in range(len(weights) - 1, -1, -1):
        value = values.pop()
        np.dot(grad, value.T, out=grad_weights[k])
        if k > 0:
            before = np.empty_like(value)
            np.dot(weights[k].T, grad, out=before)
            kind = kind_of(activations[k - 1])
            loop.activation_backward(before, value, kind, grad_biases[k - 1])
            grad = before
    return dtype.type(loss)
