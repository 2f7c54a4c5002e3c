"""Training by SGD or Adam as scikit-learn does it: epochs, early stopping, and its warnings."""

import warnings
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.utils import shuffle

from xbackprop.backend.device import Device
from xbackprop.backend.transfer import to_host
from xbackprop.sklearn.losses import activate_output
from xbackprop.sklearn.network import copy_values, put_values, read_values
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
        self.best: list[Any] | None = None
        if estimator.early_stopping:
            X, y, sample_weight = self._set_aside(X, y, sample_weight)
            self.best = copy_values(self.network)
        rows = TrainingRows(X, y, sample_weight, self.device, self.dtype)
        batch_size = self._batch_size(rows.count)
        try:
            self._run_epochs(rows, batch_size)
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=2)
        self.optimizer.zero_grad()
        if self.best is not None:
            for parameter, values in zip(self.network.parameters(), self.best, strict=True):
                parameter.data = values
        estimator.coefs_, estimator.intercepts_ = read_values(self.network)

    def _run_epochs(self, rows: TrainingRows, batch_size: int) -> None:
        estimator = self.estimator
        penalized = estimator._penalized(self.network)
        order = np.arange(rows.count, dtype=int)
        estimator.n_iter_ = 0
        for _ in range(estimator.max_iter):
            if estimator.shuffle:
                order = shuffle(order, random_state=estimator._random_state)
                rows.arrange(order)
            estimator.loss_ = penalized.run_epoch(rows, batch_size, self.optimizer)
            if self._finish_epoch(rows.count) or self.incremental:
                break
            if estimator.n_iter_ == estimator.max_iter:
                warnings.warn(
                    f"Stochastic Optimizer: Maximum iterations ({estimator.max_iter}) "
                    "reached and the optimization hasn't converged yet.",
                    ConvergenceWarning,
                    stacklevel=2,
                )

    def _finish_epoch(self, samples: int) -> bool:
        """Count and judge an epoch; return whether training ends."""
        estimator = self.estimator
        estimator.n_iter_ += 1
        estimator.t_ += samples
        estimator.loss_curve_.append(estimator.loss_)
        if estimator.verbose:
            print(f"Iteration {estimator.n_iter_}, loss = {estimator.loss_:.8f}")
        if estimator.early_stopping:
            self._judge_score()
            what = "Validation score did not improve more than"
        else:
            self._judge_loss()
            what = "Training loss did not improve more than"
        self.schedule.finish_epoch(estimator.t_)
        if estimator._no_improvement_count <= estimator.n_iter_no_change:
            return False
        message = (
            f"{what} tol={estimator.tol:f} for {estimator.n_iter_no_change} consecutive epochs."
        )
        if self.schedule.ends_training(message, estimator.verbose):
            return True
        estimator._no_improvement_count = 0
        return False

    # --- is it still getting better? ------------------------------------------------------

    def _judge_loss(self) -> None:
        estimator = self.estimator
        is_better = not estimator.loss_ > estimator.best_loss_ - estimator.tol
        estimator._no_improvement_count = 0 if is_better else estimator._no_improvement_count + 1
        if estimator.loss_ < estimator.best_loss_:
            estimator.best_loss_ = estimator.loss_

    def _judge_score(self) -> None:
        estimator = self.estimator
        score = self._score()
        estimator.validation_scores_.append(score)
        if estimator.verbose:
            print(f"Validation score: {score:f}")
        is_better = not score < estimator.best_validation_score_ + estimator.tol
        estimator._no_improvement_count = 0 if is_better else estimator._no_improvement_count + 1
        if score > estimator.best_validation_score_:
            estimator.best_validation_score_ = score
            self.best = copy_values(self.network)

    def _set_aside(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
        """Keep the samples that judge; return those that train."""
        estimator = self.estimator
        is_stratified = is_classifier(estimator) and estimator.n_outputs_ == 1
        arrays = [X, y] if sample_weight is None else [X, y, sample_weight]
        parts = train_test_split(
            *arrays,
            random_state=estimator._random_state,
            test_size=estimator.validation_fraction,
            stratify=y if is_stratified else None,
        )
        X, X_held, y, y_held = parts[:4]
        if X_held.shape[0] < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' "
                "or the size of your dataset."
            )
        self.held_weight: Any = None if sample_weight is None else parts[5]
        self.held = TrainingRows(X_held, y_held, None, self.device, self.dtype)
        if is_classifier(estimator):
            y_held = estimator._label_binarizer.inverse_transform(y_held)
        self.held_target = y_held
        return X, y, None if sample_weight is None else parts[4]

    def _score(self) -> float:
        """Return accuracy or R² on what was set aside; NaN where predictions are not finite."""
        estimator = self.estimator
        x, *_ = self.held.take(slice(0, self.held.count))
        with np.errstate(all="ignore"):
            scores = activate_output(self.network(x), estimator.out_activation_)
        predicted = estimator._decode(to_host(scores))
        if np.issubdtype(predicted.dtype, np.floating) and not np.isfinite(predicted).all():
            return float("nan")
        measure = accuracy_score if is_classifier(estimator) else r2_score
        return float(measure(self.held_target, predicted, sample_weight=self.held_weight))

    def _batch_size(self, samples: int) -> int:
        asked = self.estimator.batch_size
        if asked == "auto":
            return min(200, samples)
        if asked > samples:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than "
                "sample size. It is going to be clipped",
                stacklevel=2,
            )
        return int(np.clip(asked, 1, samples))
