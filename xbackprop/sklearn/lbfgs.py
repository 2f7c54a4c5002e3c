"""L-BFGS by SciPy, whose steps are decided on the host; loss and gradients come from the device."""

from typing import Any

import numpy as np
import scipy.optimize
from sklearn.utils.optimize import _check_optimize_result

from xbackprop.backend.array_module import get_array_module
from xbackprop.backend.transfer import to_device, to_host
from xbackprop.module import Parameter, as_one_call
from xbackprop.sklearn.network import weights_and_biases
from xbackprop.sklearn.rows import TrainingRows
from xbackprop.sklearn.steps import PenalizedNetwork


def minimize(
    penalized: PenalizedNetwork, rows: TrainingRows, *, tol: float, max_iter: int, max_fun: int
) -> tuple[int, float]:
    """Minimize the loss over all rows, in float64; return the iterations and the loss.

    Each evaluation uploads one vector of values, and downloads one of loss and gradients.
    """
    weights, biases = weights_and_biases(penalized.network)
    x, target, weight, mass = rows.take(slice(0, rows.count))

    def loss_and_gradient(vector: np.ndarray) -> tuple[float, np.ndarray]:
        _put_vector(weights, biases, to_device(vector.copy(), rows.device))
        with as_one_call(x):
            for parameter in (*weights, *biases):
                parameter.zero_grad()
            loss = penalized.loss_and_gradients(x, target, weight, mass)
            loss = loss + penalized.penalty(penalized.squares(), mass)
            factor = penalized.alpha / mass
            parts = [(p.grad + p.data * factor).T.reshape(-1) for p in weights]
            parts += [p.grad for p in biases]
            joined = get_array_module(x).concatenate([*parts, loss.reshape(1)])
        numbers = to_host(joined)
        return float(numbers[-1]), numbers[:-1]

    start = np.concatenate(
        [to_host(p.data).T.ravel() for p in weights] + [to_host(p.data) for p in biases]
    )
    result = scipy.optimize.minimize(
        loss_and_gradient,
        start,
        method="L-BFGS-B",
        jac=True,
        options={"maxfun": max_fun, "maxiter": max_iter, "gtol": tol},
    )
    iterations: int = _check_optimize_result("lbfgs", result, max_iter)
    _put_vector(weights, biases, to_device(np.array(result.x), rows.device))
    return iterations, float(result.fun)


def _put_vector(weights: list[Parameter], biases: list[Parameter], vector: Any) -> None:
    """Make the parameters views of a vector: weights as ``(inputs, outputs)``, then biases."""
    start = 0
    for parameter in weights:
        part = vector[start : start + parameter.size]
        parameter.data = part.reshape(parameter.shape[::-1]).T
        start += parameter.size
    for parameter in biases:
        parameter.data = vector[start : start + parameter.size]
        start += parameter.size
