"""An epoch of a small perceptron without a call of Python's between its updates."""

from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np

from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.cpu.nn.perceptron import OUTPUTS, kind_of
from xbackprop.kernels.loops import is_plain_float, loops
from xbackprop.nn.perceptron_epoch import perceptron_epoch as op

_HAS_SCIPY = find_spec("scipy") is not None  # whose BLAS numba calls
# Beyond the first, calls from Python cost little beside the products; and nothing can interrupt
# what takes all of the second, a fifth of a second.
_MOST_PRODUCTS_OF_BATCH, _MOST_PRODUCTS = 4_000_000, 2_000_000_000


def can_serve(
    x: ArraySpec,
    target: ArraySpec,
    order: ArraySpec,
    batch_size: int,
    units: tuple[int, ...],
    activation: str,
    output_activation: str,
    weights: tuple[np.ndarray, ...],
    biases: tuple[np.ndarray, ...],
    *numbers: Any,
) -> bool:
    """Tell whether it is small, of what vectorizes, and of one float dtype; ``x`` as it lies."""
    products = sum(inputs * outputs for inputs, outputs in pairwise(units))
    fits = (
        x.shape[1:] == units[:1]
        and target.shape == (*x.shape[:1], units[-1])
        and all(array.shape == (products,) for array in weights)
        and all(array.shape == (sum(units[1:]),) for array in biases)
    )
    is_small = (
        min(batch_size, order.shape[0]) * products <= _MOST_PRODUCTS_OF_BATCH
        and order.shape[0] * products <= _MOST_PRODUCTS
    )
    is_known = activation in ("identity", "relu") and output_activation in OUTPUTS
    dtype = x.dtype if output_activation == "identity" else np.dtype(bool)
    return (
        _HAS_SCIPY
        and fits
        and is_small
        and is_known
        and is_plain_float(x._replace(is_contiguous=True))
        and order.dtype == np.int64
        and all(spec.is_contiguous and 0 not in spec.shape for spec in (target, order))
        and target.dtype == dtype
        and all(array.dtype == x.dtype and array.flags.carray for array in (*weights, *biases))
    )


@op.kernel("cpu", when=can_serve)
def perceptron_epoch(
    x: np.ndarray,
    target: np.ndarray,
    order: np.ndarray,
    batch_size: int,
    units: tuple[int, ...],
    activation: str,
    output_activation: str,
    weights: tuple[np.ndarray, ...],
    biases: tuple[np.ndarray, ...],
    alpha: float,
    adam: tuple[float, float, float, float],
    step: int,
) -> Any:
    """Return the loss and write the updates, as the op of this name."""
    if order.min() < 0 or order.max() >= len(x):  # the loops do not look
        return op.reference(
            x, target, order, batch_size, units, activation, output_activation, weights, biases,
            alpha, adam, step,
        )  # fmt: skip
    total = loops("epochs").perceptron_epoch(
        x, target, order, batch_size, np.array(units), kind_of(activation),
        kind_of(output_activation), weights, biases, alpha, adam, step,
    )  # fmt: skip
    return np.float64(total)
