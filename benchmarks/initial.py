"""Initial weights that every contestant gets, in PyTorch's names and shapes."""

import math
from collections.abc import Mapping

import numpy as np


def uniform(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    """Draw each array from U(-b, b) with b = 1/sqrt(inputs of its layer); norms are ones, zeros."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, shape in shapes.items():
        layer, _, kind = name.rpartition(".")
        inputs = math.prod(shapes.get(f"{layer}.weight", shape)[1:]) or 1
        bound = 1 / math.sqrt(inputs)
        arrays[name] = rng.uniform(-bound, bound, shape).astype(np.float32)
        if len(shapes.get(f"{layer}.weight", (0, 0))) == 1:  # a normalization
            arrays[name] = np.full(shape, float(kind == "weight"), np.float32)
    return arrays


def figure_of_output(output: object) -> float:
    """Return one number that tells whether two outputs are equal."""
    array = np.asarray(output, dtype=np.float64)
    return float((array * np.cos(np.arange(array.size)).reshape(array.shape)).sum())
