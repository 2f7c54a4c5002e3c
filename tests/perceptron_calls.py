"""Calls of the ops that compute with a whole perceptron."""

from itertools import pairwise
from typing import Any

import numpy as np

OUTPUTS = ("softmax", "logistic", "identity")


def data(samples: int, units: tuple[int, ...], output: str, dtype: Any) -> tuple[Any, Any]:
    """Inputs, and targets of the kind that an output activation is compared with."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((samples, units[0])).astype(dtype)
    if output == "softmax":
        return x, np.eye(units[-1], dtype=bool)[rng.integers(0, units[-1], samples)]
    numbers = rng.standard_normal((samples, units[-1]))
    return x, numbers > 0 if output == "logistic" else numbers.astype(dtype)


def batch(
    units: tuple[int, ...],
    activation: str,
    output: str,
    dtype: Any = np.float32,
    *,
    is_weighted: bool = False,
    samples: int = 11,
) -> tuple[Any, ...]:
    """Arguments of ``canonical_gradients``."""
    rng = np.random.default_rng(0)
    weights = tuple(rng.standard_normal(pair[::-1]).astype(dtype) for pair in pairwise(units))
    biases = tuple(rng.standard_normal(number).astype(dtype) for number in units[1:])
    grads = tuple(map(np.ones_like, weights)), tuple(map(np.ones_like, biases))
    weight = rng.random(samples).astype(dtype) if is_weighted else None
    mass = float(samples) if weight is None else float(weight.sum())
    activations = (activation,) * (len(weights) - 1) + ("identity",)
    x, target = data(samples, units, output, dtype)
    return x, target, weight, mass, weights, biases, *grads, activations, output


def epoch(
    units: tuple[int, ...],
    activation: str,
    output: str,
    dtype: Any = np.float32,
    *,
    batch_size: int = 7,
    alpha: float = 0.3,
    samples: int = 24,
) -> tuple[Any, ...]:
    """Arguments of ``perceptron_epoch``, in the middle of a training."""
    rng = np.random.default_rng(0)

    def state(size: int) -> tuple[np.ndarray, ...]:
        values, mean, square = 0.5 * rng.standard_normal((3, size))
        return tuple(a.astype(dtype) for a in (values, np.full(size, 9.0), mean, square * square))

    x, target = data(samples, units, output, dtype)
    order = rng.permutation(samples)[: samples - 1]
    weights = state(sum(inputs * outputs for inputs, outputs in pairwise(units)))
    return (
        x, target, order, batch_size, units, activation, output, weights, state(sum(units[1:])),
        alpha, (0.01, 0.9, 0.99, 1e-7), 5,
    )  # fmt: skip
