"""Bring columns to mean 0 and deviation 1, and back."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Scaling:
    """``scaled = (values - mean) / scale``, for each position of a sample.

    Attributes
    ----------
    mean, scale : numpy.ndarray of float64, shape of a sample
        What was measured on the training part.
    """

    mean: np.ndarray
    scale: np.ndarray

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Return scaled values as float32."""
        return ((values - self.mean) / self.scale).astype(np.float32)

    def undo(self, scaled: np.ndarray) -> np.ndarray:
        """Return float64 values in their own units."""
        return scaled * self.scale + self.mean

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {"mean": self.mean.tolist(), "scale": self.scale.tolist()}

    @classmethod
    def from_dict(cls, plain: dict[str, Any] | None) -> "Scaling | None":
        """Return what :meth:`as_dict` made plain data of; None of None."""
        if plain is None:
            return None
        return cls(np.array(plain["mean"], np.float64), np.array(plain["scale"], np.float64))


def measure_scaling(values: np.ndarray) -> Scaling:
    """Return the scaling that standardizes samples; what is constant keeps its scale.

    Parameters
    ----------
    values : numpy.ndarray, shape (samples, ...)
        The training part.

    Returns
    -------
    Scaling
    """
    wide = values.astype(np.float64)
    deviation = wide.std(axis=0)
    return Scaling(wide.mean(axis=0), np.where(deviation > 0, deviation, 1.0))


def reaches_too_far(values: np.ndarray) -> float | None:
    """Return the largest magnitude where it is far from 1, which makes training hard; else None.

    Parameters
    ----------
    values : numpy.ndarray, shape (samples, ...)
        The training part.

    Returns
    -------
    float or None
    """
    largest = float(np.abs(values).max())
    return None if largest == 0 or 0.05 <= largest <= 20 else largest
