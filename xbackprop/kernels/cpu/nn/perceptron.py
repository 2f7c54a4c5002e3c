"""A small network in one call: where NumPy's cost more than the arithmetic that they do."""

import functools
from itertools import pairwise

import numpy as np

from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.loops import is_plain_float, loops
from xbackprop.nn.perceptron import perceptron_gradients as op

# Beyond it BLAS is faster; and each number of layers is compiled for itself.
_MOST_PRODUCTS, _MOST_LAYERS = 100_000, 4


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
    arrays = (*weights, *biases, *grad_weights, *grad_biases)
    sizes = (x.shape[-1], *map(len, biases))
    is_chain = (
        len(x.shape) == 2
        and all(w.shape == pair[::-1] for w, pair in zip(weights, pairwise(sizes), strict=True))
        and all(map(_are_alike, (*weights, *biases), (*grad_weights, *grad_biases)))
        and all(array.flags.carray for array in arrays)
    )
    is_small = (
        len(weights) <= _MOST_LAYERS and x.shape[0] * sum(w.size for w in weights) <= _MOST_PRODUCTS
    )
    if not (is_chain and is_small):
        return False
    specs = [ArraySpec(array.shape, array.dtype) for array in arrays]
    if loss == "cross_entropy":
        is_target = target.dtype == np.int64 and target.is_contiguous
        return is_target and target.shape == x.shape[:1] and is_plain_float(x, *specs)
    return target.shape == (x.shape[0], sizes[-1]) and is_plain_float(x, target, *specs)


def _are_alike(values: np.ndarray, grad: np.ndarray) -> bool:
    return values.shape == grad.shape


@functools.cache
def _kinds(activations: tuple[str, ...]) -> np.ndarray:
    loop = loops("perceptron")
    return np.array([getattr(loop, name.upper()) for name in activations])


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
