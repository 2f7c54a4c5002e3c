"""Mean and variance along axes, to the last digit of float32 also where the mean is large.

Sums are float64: float32's own loses digits with every sample added along a leading axis, and the
sum of float32 in float64 takes NumPy two to three times as long as in float32, which is less than
the pass that a correction for the lost digits would take.
"""

import math

from xbackprop.backend.array_module import Array


def mean(x: Array, axes: tuple[int, ...]) -> Array:
    """Return the mean of ``x`` along ``axes``, which are kept with length 1; 0 of nothing."""
    return float64_mean(x, axes).astype(x.dtype)


def moments(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Return ``x - mean``, the mean and the variance (divided by the count) along ``axes``.

    Parameters
    ----------
    x : array of float
        Any shape.
    axes : tuple of int
        Kept with length 1.

    Returns
    -------
    centered : array
        Shape and dtype of ``x``.
    mean, var : array of float64

    Notes
    -----
    In two passes, about the mean rounded to the dtype of ``x``: that difference is exact where the
    mean is large beside the spread, and what the rounding lost (half a unit in the last place, 4 at
    1e8 in float32) is then taken off. ``mean(x * x) - mean(x) ** 2`` would lose every digit there.

    References
    ----------
    Chan, Golub, LeVeque, "Algorithms for computing the sample variance", The American Statistician
    37 (1983), section 3.
    """
    center = float64_mean(x, axes)
    shift = center.astype(x.dtype)
    centered = x - shift
    centered -= (center - shift).astype(x.dtype)
    return centered, center, mean_square(centered, axes)


def float64_mean(x: Array, axes: tuple[int, ...]) -> Array:
    """Return the mean along ``axes`` in float64, before it is rounded to the dtype of ``x``."""
    count = math.prod(x.shape[axis] for axis in axes)
    return x.sum(axis=axes, dtype="float64", keepdims=True) / max(count, 1)


def mean_square(x: Array, axes: tuple[int, ...]) -> Array:
    """Return the mean of ``x * x`` along ``axes`` in float64.

    The squares are float64 as well: in float32 those of 2e19 are infinite, and a normalization
    would give 0 for such numbers. It takes a temporary of twice the size, and a tenth more time.
    """
    squares = x.astype("float64")
    squares *= squares
    return float64_mean(squares, axes)
