"""What normalizations of rows share: which calls are of rows, and sums shaped as a weight."""

import numpy as np

from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.loops import is_plain


def is_row_norm(x: ArraySpec, weight: ArraySpec, axes: tuple[int, ...]) -> bool:
    """Tell whether ``axes`` are the last ones, and a weight is of one row."""
    ndim = len(x.shape)
    last = tuple(range(ndim - len(axes), ndim))
    one_row = (1,) * (ndim - len(axes)) + x.shape[ndim - len(axes) :]
    return tuple(sorted(axis % ndim for axis in axes)) == last and weight.shape == one_row


def can_go_back(
    grad_output: ArraySpec,
    x: ArraySpec,
    rstd: ArraySpec,
    weight: ArraySpec | None,
    axes: tuple[int, ...],
    *wanted: bool,
) -> bool:
    """Tell whether a backward is of rows, has a weight, and gives all gradients."""
    return (
        weight is not None
        and all(wanted)
        and is_row_norm(x, weight, axes)
        and is_plain(grad_output, x, rstd, weight)
    )


def as_like(total: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return a flat sum in the dtype and shape of the weight whose gradient it is."""
    return total.astype(weight.dtype).reshape(weight.shape)
