"""Samples that are set aside for early stopping, and the score of a network on them."""

from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split

from xbackprop.backend.device import Device
from xbackprop.nn import Module
from xbackprop.sklearn.outputs import outputs_of
from xbackprop.sklearn.rows import place_rows


def set_aside(
    X: Any, y: Any, sample_weight: Any, *, fraction: float, random: Any, is_stratified: bool
) -> tuple[tuple[Any, Any, Any], tuple[Any, Any, Any]]:
    """Split the samples as scikit-learn's MLPs do.

    Parameters
    ----------
    X, y : array
        Inputs and targets on the host; inputs may be sparse.
    sample_weight : array, shape (samples,), or None
        Factors of the samples.
    fraction : float
        Share of the samples that are set aside.
    random : RandomState
        Draws them.
    is_stratified : bool
        Take that share of each class.

    Returns
    -------
    training, held : tuple of three
        Inputs, targets and weights of those that train, and of those that judge.

    Raises
    ------
    ValueError
        When fewer than two would judge; with strata, when one has a single member.
    """
    arrays = [X, y] if sample_weight is None else [X, y, sample_weight]
    stratify = y if is_stratified else None
    X, X_held, y, y_held, *weights = train_test_split(
        *arrays, random_state=random, test_size=fraction, stratify=stratify
    )
    if X_held.shape[0] < 2:
        raise ValueError(
            "The validation set is too small. Increase 'validation_fraction' "
            "or the size of your dataset."
        )
    weight, weight_held = weights or (None, None)
    return (X, y, weight), (X_held, y_held, weight_held)


class HeldOut:
    """Samples that judge: moved once, and scored after every epoch.

    Parameters
    ----------
    estimator : object
        Its ``_activate`` and ``_decode`` make predictions of outputs.
    X, target : array
        Inputs, and what ``predict`` should give for them, on the host.
    weight : array, shape (samples,), or None
        Factors of the samples.
    device : Device
        Where to compute.
    dtype : dtype
        Of the network.
    """

    def __init__(
        self, estimator: Any, X: Any, target: Any, weight: Any, device: Device, dtype: Any
    ) -> None:
        self.estimator = estimator
        self.rows = place_rows(X, device, dtype)
        self.target, self.weight = target, weight
        self.count = X.shape[0]  # targets of several labels may be sparse, and have no length
        self.device = device

    def score(self, network: Module) -> float:
        """Return accuracy or R²; NaN where predictions are not finite.

        The network is left in evaluation mode: whoever trains it sets its mode for each epoch.
        """
        estimator = self.estimator
        outputs = outputs_of(
            network.eval(), estimator._activate, self.rows, self.count, self.device
        )
        predicted = estimator._decode(outputs)
        if np.issubdtype(predicted.dtype, np.floating) and not np.isfinite(predicted).all():
            return float("nan")
        measure = accuracy_score if is_classifier(estimator) else r2_score
        return float(measure(self.target, predicted, sample_weight=self.weight))
