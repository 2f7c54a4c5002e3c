"""How training goes, as scikit-learn's MLPs tell it: counted, printed, and judged."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from xbackprop.backend.array_module import Array
from xbackprop.module.state import walk_buffers, walk_parameters
from xbackprop.nn import Module
from xbackprop.sklearn.held_out import HeldOut


def begin_records(estimator: Any) -> None:
    """Give an estimator the records of a training that has not begun."""
    estimator.n_iter_ = 0
    estimator.t_ = 0
    estimator.loss_curve_ = []
    _begin_judging(estimator, bool(estimator.early_stopping))


def _begin_judging(estimator: Any, stops_early: bool) -> None:
    estimator._no_improvement_count = 0
    estimator.validation_scores_ = [] if stops_early else None
    estimator.best_validation_score_ = -np.inf if stops_early else None
    estimator.best_loss_ = None if stops_early else np.inf


class Judge:
    """Judges the epochs of one fit by their loss, or by the score of samples that are held out.

    Parameters
    ----------
    estimator : object
        Its parameters are followed. Its attributes are the records, so that they go on from fit to
        fit where training does.
    network : Module
        What is trained.
    held : HeldOut, optional
        With early stopping: what judges. Where the fit before was judged otherwise, its records of
        what is best are forgotten.
    """

    def __init__(self, estimator: Any, network: Module, held: HeldOut | None = None) -> None:
        self.estimator, self.network, self.held = estimator, network, held
        self.best = None if held is None else _copy_state(network)
        stops_early = held is not None
        if (estimator.validation_scores_ is not None) is not stops_early:
            _begin_judging(estimator, stops_early)
        estimator.n_iter_ = 0

    @property
    def ends_training(self) -> bool:
        """Whether too many epochs have passed without an improvement."""
        return bool(self.estimator._no_improvement_count > self.estimator.n_iter_no_change)

    @property
    def reason(self) -> str:
        """Why training ends, in scikit-learn's words."""
        what = "Training loss" if self.held is None else "Validation score"
        return (
            f"{what} did not improve more than tol={self.estimator.tol:f} for "
            f"{self.estimator.n_iter_no_change:d} consecutive epochs."
        )

    def finish_epoch(self, loss: float, samples: int) -> None:
        """Record an epoch over so many samples."""
        estimator = self.estimator
        estimator.loss_ = loss
        estimator.n_iter_ += 1
        estimator.t_ += samples
        estimator.loss_curve_.append(loss)
        if estimator.verbose:
            print(f"Iteration {estimator.n_iter_}, loss = {loss:.8f}")
        is_better = self._judge_loss(loss) if self.held is None else self._judge_score(self.held)
        estimator._no_improvement_count = 0 if is_better else estimator._no_improvement_count + 1

    def restore_best(self) -> None:
        """Give the network the weights of the best score, or its first where none is a number."""
        if self.best is not None:
            self.network.load_state_dict(self.best)

    def warn_unless_converged(self) -> None:
        """Warn where all epochs were used up."""
        limit = self.estimator.max_iter
        if self.estimator.n_iter_ == limit and not self.ends_training:
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({limit:d}) "
                "reached and the optimization hasn't converged yet.",
                ConvergenceWarning,
                stacklevel=2,
            )

    def _judge_loss(self, loss: float) -> bool:
        estimator = self.estimator
        is_better = not loss > estimator.best_loss_ - estimator.tol
        if loss < estimator.best_loss_:
            estimator.best_loss_ = loss
        return is_better

    def _judge_score(self, held: HeldOut) -> bool:
        estimator = self.estimator
        score = held.score(self.network)
        estimator.validation_scores_.append(score)
        if estimator.verbose:
            print(f"Validation score: {score:f}")
        is_better = not score < estimator.best_validation_score_ + estimator.tol
        if score > estimator.best_validation_score_:
            estimator.best_validation_score_ = score
            self.best = _copy_state(self.network)
        return is_better


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C end the training and not the fit: what was learned so far is kept."""
    try:
        yield
    except KeyboardInterrupt:
        warnings.warn("Training interrupted by user.", stacklevel=3)


def _copy_state(network: Module) -> dict[str, Array]:
    """Return copies of weights and running statistics, where they are; a shared one is one."""
    state = {path: parameter.data for path, parameter in walk_parameters(network)}
    state |= dict(walk_buffers(network, persistent=True))
    copies: dict[int, Array] = {}
    for array in state.values():
        if id(array) not in copies:
            copies[id(array)] = array.copy()
    return {path: copies[id(array)] for path, array in state.items()}
