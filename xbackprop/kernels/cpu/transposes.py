"""Transposed weights for products that are made again and again."""

import numpy as np


def transposed(weight: np.ndarray, times: int) -> np.ndarray:
    """Return ``weight.T``, in C order where so many products of a few rows pay for the copy."""
    return np.ascontiguousarray(weight.T) if times >= 8 else weight.T
