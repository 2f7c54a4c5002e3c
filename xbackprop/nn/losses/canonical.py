"""The losses whose gradient an output activation makes simple: prediction minus target."""

from collections.abc import Callable
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.ops.softmax import softmax
from xbackprop.ops.special import sigmoid


def activate_output(scores: Array, activation: str) -> Array:
    """Return softmax, logistic function, exponential or identity of ``(rows, outputs)``."""
    if activation == "softmax":
        return softmax(scores)
    if activation == "logistic":
        return sigmoid(scores)
    return get_array_module(scores).exp(scores) if activation == "exp" else scores


@op
def canonical_loss_forward(
    scores: Array, target: Array, weight: Array | None, mass: float, activation: str
) -> tuple[Array, Any]:
    """Compute the weighted mean over rows of the loss that belongs to an output activation.

    Parameters
    ----------
    scores : array, shape (rows, outputs)
        What the last layer gives, before the output activation.
    target : array, shape (rows, outputs)
        Of bool for "softmax" and "logistic", else of the scores' dtype.
    weight : array, shape (rows,), or None
        Factor of each row.
    mass : float
        Sum of the weights, known on the host; the number of rows without weights.
    activation : {"softmax", "logistic", "identity", "exp"}
        Cross-entropy of classes, of each label apart, half the squared error (its mean over the
        outputs), half the Poisson deviance.

    Returns
    -------
    loss : array, shape ()
    saved : (prediction, target, weight, mass)

    Notes
    -----
    All four have ``dLoss/dscores = (activation(scores) - target) * weight / mass``. As in
    scikit-learn the squared error is not divided by the number of outputs there, although its
    value is, and probabilities are clipped by one rounding error in the loss alone.

    References
    ----------
    Bishop, "Pattern Recognition and Machine Learning", 2006, section 4.3.6 (canonical links).
    """
    prediction = activate_output(scores, activation)
    rows = _ROW_LOSSES[activation](prediction, target)
    total = rows.sum() if weight is None else rows.dot(weight)
    return total / mass, (prediction, target, weight, mass)


@op
def canonical_loss_backward(
    grad_output: Any, prediction: Array, target: Array, weight: Array | None, mass: float
) -> Array:
    """Return ``g (prediction - target) * weight / mass``."""
    grad = prediction - target
    if weight is not None:
        grad *= weight[:, None]
    grad *= grad_output / mass
    return grad


def _classes(prediction: Array, target: Array) -> Array:
    return -_log_where(target, prediction, 1).sum(axis=1)


def _labels(prediction: Array, target: Array) -> Array:
    return -_log_where(target, prediction, 1 - _clipped(prediction)).sum(axis=1)


def _log_where(target: Array, prediction: Array, other: Any) -> Array:
    xp = get_array_module(prediction)
    return xp.log(xp.where(target, _clipped(prediction), other))


def _clipped(prediction: Array) -> Array:
    eps = float(np.finfo(prediction.dtype).eps)
    return get_array_module(prediction).clip(prediction, eps, 1 - eps)


def _squares(prediction: Array, target: Array) -> Array:
    error = target - prediction
    return (error * error).sum(axis=1) * (0.5 / target.shape[1])


def _deviance(prediction: Array, target: Array) -> Array:
    xp = get_array_module(prediction)
    ratio = target / prediction
    # Of a prediction that underflowed 0 / 0 is NaN, as in scikit-learn: L-BFGS steps back from it.
    logarithm = target * xp.log(xp.where((target == 0) & (ratio == 0), 1, ratio))
    return (logarithm - target + prediction).sum(axis=1)


_ROW_LOSSES: dict[str, Callable[[Array, Array], Array]] = {
    "softmax": _classes,
    "logistic": _labels,
    "identity": _squares,
    "exp": _deviance,
}
