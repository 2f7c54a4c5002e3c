"""Training by SGD or Adam as scikit-learn does it: epochs, early stopping, learning rates."""

from typing import Any

import numpy as np
from sklearn.base import is_classifier

from xbackprop.backend.device import Device
from xbackprop.sklearn.epochs import choose_batch_size
from xbackprop.sklearn.held_out import HeldOut, set_aside
from xbackprop.sklearn.judge import Judge, interruptible
from xbackprop.sklearn.network import put_values, read_values
from xbackprop.sklearn.rows import TrainingRows
from xbackprop.sklearn.schedule import RateSchedule, make_optimizer


class StochasticFit:
    """One call of ``fit`` or ``partial_fit``.

    Parameters
    ----------
    estimator : Perceptron
        Whose parameters are followed and whose attributes are set.
    units : list of int
        Numbers of inputs, hidden units and outputs.
    device : Device
        Where to compute; it is the current one.
    incremental : bool
        One epoch with the solver of the last call, as ``partial_fit`` does.
    """

    def __init__(self, estimator: Any, units: list[int], device: Device, incremental: bool) -> None:
        self.estimator = estimator
        self.incremental = incremental
        self.dtype = estimator.coefs_[0].dtype
        self.device = device
        if incremental and hasattr(estimator, "_optimizer"):
            self.network, optimizer = estimator._network, estimator._optimizer
            put_values(self.network, estimator.coefs_, estimator.intercepts_, self.device)
        else:
            self.network = estimator._make_network(units, self.dtype, self.device)
            optimizer = make_optimizer(estimator, self.network)
            estimator._network, estimator._optimizer = self.network, optimizer
            estimator._rate_schedule = RateSchedule(
                optimizer,
                estimator.learning_rate if estimator.solver == "sgd" else "constant",
                float(estimator.learning_rate_init),
                float(estimator.power_t),
            )
        self.optimizer = optimizer
        self.schedule: RateSchedule = estimator._rate_schedule

    def run(self, X: Any, y: Any, sample_weight: Any) -> None:
        """Train, and give the estimator its new weights."""
        estimator = self.estimator
        if estimator.early_stopping and self.incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        held = None
        if estimator.early_stopping:
            X, y, sample_weight, held = self._set_aside(X, y, sample_weight)
        judge = Judge(estimator, self.network, held)
        rows = TrainingRows(X, y, sample_weight, self.device, self.dtype)
        batch_size = choose_batch_size(estimator.batch_size, rows.count)
        with interruptible():
            self._run_epochs(rows, batch_size, judge)
        self.optimizer.zero_grad()
        judge.restore_best()
        estimator.coefs_, estimator.intercepts_ = read_values(self.network)
        if not self.incremental:
            judge.warn_unless_converged()

    def _run_epochs(self, rows: TrainingRows, batch_size: int, judge: Judge) -> None:
        estimator = self.estimator
        penalized = estimator._penalized(self.network)
        order = np.arange(rows.count, dtype=int)
        for _ in range(1 if self.incremental else estimator.max_iter):
            if estimator.shuffle:
                # What sklearn.utils.shuffle draws, which looks at its arguments for 0.1 ms.
                places = np.arange(rows.count)
                estimator._random_state.shuffle(places)
                order = order[places]
                rows.arrange(order)
            loss = penalized.run_epoch(rows, batch_size, self.optimizer)
            judge.finish_epoch(loss, rows.count)
            self.schedule.finish_epoch(estimator.t_)
            if judge.ends_training:
                if self.schedule.ends_training(judge.reason, estimator.verbose):
                    break
                estimator._no_improvement_count = 0

    def _set_aside(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any, HeldOut]:
        """Keep the samples that judge; return those that train before them."""
        estimator = self.estimator
        training, (X_held, y_held, weight_held) = set_aside(
            X, y, sample_weight,
            fraction=estimator.validation_fraction,
            random=estimator._random_state,
            is_stratified=is_classifier(estimator) and estimator.n_outputs_ == 1,
        )  # fmt: skip
        if is_classifier(estimator):
            y_held = estimator._label_binarizer.inverse_transform(y_held)
        held = HeldOut(estimator, X_held, y_held, weight_held, self.device, self.dtype)
        X, y, sample_weight = training
        return X, y, sample_weight, held
