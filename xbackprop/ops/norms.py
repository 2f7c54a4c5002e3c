"""Sums of squares: of gradients, before an update, and of whatever is scaled by its norm."""

import math

from xbackprop.backend.array_module import Array
from xbackprop.dispatch import ArraySpec, op


def _flops(x: ArraySpec) -> int:
    return 2 * math.prod(x.shape)


@op(formula="total = (x * x).sum()", flops=_flops)
def sum_of_squares(x: Array) -> Array:
    """Add up the squares of all elements, ``sum_i x_i^2``.

    Parameters
    ----------
    x : array of float, any shape
        What is squared.

    Returns
    -------
    array, shape ()
        Of the dtype of ``x``.
    """
    flat = x.reshape(-1)
    return flat.dot(flat)
