"""Rows of activations."""

from collections.abc import Callable

import numpy as np

from layer_cases.case import Case, Rng, normal
from xbackprop import nn


def off_zero(*shape: int) -> Callable[[Rng], np.ndarray]:
    """At least 0.2 away from zero, where ReLU has its kink."""
    return lambda rng: rng.choice([-1.0, 1.0], size=shape) * rng.uniform(0.2, 2.0, size=shape)


ACTIVATIONS = [
    Case("ReLU", nn.ReLU, off_zero(4, 3), lambda t: t.nn.ReLU()),
    Case("ReLU of images", nn.ReLU, off_zero(2, 3, 2, 2), lambda t: t.nn.ReLU()),
    Case("ReLU with many elements", nn.ReLU, off_zero(40, 10), lambda t: t.nn.ReLU()),
    Case("Sigmoid", nn.Sigmoid, normal(4, 3), lambda t: t.nn.Sigmoid()),
    Case("Sigmoid of a number", nn.Sigmoid, normal(), lambda t: t.nn.Sigmoid(), has_batch=False),
    Case("Tanh", nn.Tanh, normal(4, 3), lambda t: t.nn.Tanh()),
    Case("Tanh of one 1-D sample", nn.Tanh, normal(5), lambda t: t.nn.Tanh(), has_batch=False),
]
