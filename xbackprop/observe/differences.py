"""The derivatives of a loss by central differences, in float64."""

import copy
from typing import Any

import numpy as np

from xbackprop.backend.transfer import to_device, to_host
from xbackprop.module import Module

_STEP = 1e-5  # rounding and curvature are about equally small there, for values of size one


class Differences:
    """Moves one weight after the other in a copy of a model.

    Parameters
    ----------
    model, loss_fn : Module
        Stay as they are.
    x, y : array
        The sample.
    """

    def __init__(self, model: Module, loss_fn: Module, x: Any, y: Any) -> None:
        self._model = copy.deepcopy(model).to(dtype=np.float64)
        self._loss_fn = copy.deepcopy(loss_fn).to(dtype=np.float64)
        self._x, self._y = _widened(x), _widened(y)

    def of(self, name: str) -> np.ndarray:
        """Return ``(Loss(w + h) - Loss(w - h)) / (2 h)`` for every element of a parameter.

        Parameters
        ----------
        name : str
            Of the parameter, as in ``state_dict``.

        Returns
        -------
        numpy.ndarray
        """
        parameter = dict(self._model.named_parameters())[name]
        values = np.array(to_host(parameter.data))
        result = np.empty_like(values)
        for index in np.ndindex(values.shape):
            step = _STEP * max(1.0, abs(float(values[index])))
            losses = []
            for sign in (1, -1):
                moved = values.copy()
                moved[index] += sign * step
                parameter.data = to_device(moved, parameter.device)
                losses.append(self._loss())
            with np.errstate(all="ignore"):
                result[index] = (losses[0] - losses[1]) / (2 * step)
        parameter.data = to_device(values, parameter.device)
        return result

    def _loss(self) -> np.float64:
        loss, _ = self._loss_fn.forward(self._model(self._x), self._y)
        return np.float64(to_host(loss))


def relative_difference(first: float, second: float) -> float:
    """Return how far two numbers are apart, as a share of the larger one; 0 when they are equal."""
    if first == second:
        return 0.0
    with np.errstate(all="ignore"):
        return float(np.abs(np.float64(first) - second) / max(abs(first), abs(second)))


def _widened(array: Any) -> Any:
    return array.astype(np.float64) if array.dtype.kind == "f" else array
