"""What the kernels ask about the arrays they are given."""

import numpy as np

from xbackprop.dispatch import ArraySpec

FLOATS = {np.dtype(np.float32)}, {np.dtype(np.float64)}


def are_of_one_float(*specs: ArraySpec | None) -> bool:
    """Tell whether arrays are of the same float in native order; None is none."""
    return {spec.dtype for spec in specs if spec is not None} in FLOATS
