"""What the kernels ask about the arrays they are given."""

from collections.abc import Callable
from typing import Any

import numpy as np

from xbackprop.dispatch import ArraySpec

FLOATS = {np.dtype(np.float32)}, {np.dtype(np.float64)}


def are_of_one_float(*specs: ArraySpec | None) -> bool:
    """Tell whether arrays are of the same float in native order; None is none."""
    return {spec.dtype for spec in specs if spec is not None} in FLOATS


def as_for_forward(can_serve: Callable[..., bool]) -> Callable[..., bool]:
    """Return a backward's ``when`` that tells the same as a forward's."""

    def can_go_back(grad_output: ArraySpec, x: ArraySpec, weight: ArraySpec, *options: Any) -> bool:
        return can_serve(x, weight, grad_output, *options[:5])

    return can_go_back
