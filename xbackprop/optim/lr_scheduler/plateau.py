"""A schedule that watches a metric."""

import math
from collections.abc import Mapping
from typing import Any, SupportsFloat

from xbackprop.optim.lr_scheduler.base import LRScheduler, check_optimizer
from xbackprop.optim.optimizer import Optimizer


class ReduceLROnPlateau(LRScheduler):
    """Multiply the learning rate by ``factor`` when a metric has stopped to improve.

    Parameters
    ----------
    optimizer : Optimizer
        Whose groups' ``lr`` are set.
    mode : {"min", "max"}, default "min"
        Whether the metric shall fall or rise.
    factor : float, default 0.1
        Below 1.
    patience : int, default 10
        Epochs without improvement that are borne.
    threshold : float, default 1e-4
        By how much a metric must be better to count as an improvement.
    threshold_mode : {"rel", "abs"}, default "rel"
        Whether ``threshold`` is a share of the best metric so far, or a difference from it.
    cooldown : int, default 0
        Epochs after a change in which none is counted as bad.
    min_lr : float or list of float, default 0
        The lowest learning rate, of each group.
    eps : float, default 1e-8
        A change that is not larger is not made.

    Notes
    -----
    ``lr = max(lr * factor, min_lr)`` after ``patience`` epochs without improvement. Call
    ``step(metric)`` after each epoch. A metric on a device is downloaded: one number.

    Examples
    --------
    >>> import xbackprop as xb
    >>> optimizer = xb.optim.SGD(xb.nn.Linear(2, 1).parameters(), lr=1.0)
    >>> schedule = xb.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)
    >>> for loss in (3.0, 2.0, 2.0, 2.0):
    ...     schedule.step(loss)
    >>> optimizer.param_groups[0]["lr"]
    0.1
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | list[float] = 0,
        eps: float = 1e-8,
    ) -> None:
        if not factor < 1.0:
            raise ValueError(f"ReduceLROnPlateau expects factor < 1; got {factor}")
        if mode not in ("min", "max"):
            raise ValueError(f"ReduceLROnPlateau expects mode 'min' or 'max'; got {mode!r}")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(
                f"ReduceLROnPlateau expects threshold_mode 'rel' or 'abs'; got {threshold_mode!r}"
            )
        self.optimizer = check_optimizer(optimizer)
        self.factor = factor
        self.default_min_lr: float | None = None
        if isinstance(min_lr, (list, tuple)):
            if len(min_lr) != len(optimizer.param_groups):
                raise ValueError(
                    f"expected {len(optimizer.param_groups)} values of min_lr, one per group; got "
                    f"{len(min_lr)}"
                )
            self.min_lrs = list(min_lr)
        else:
            self.default_min_lr = min_lr
            self.min_lrs = [min_lr] * len(optimizer.param_groups)
        self.patience = patience
        self.cooldown = cooldown
        self.eps = eps
        self.last_epoch = 0
        self._last_lr = self._rates()
        self.mode = mode
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.mode_worse = math.inf if mode == "min" else -math.inf
        self.best = self.mode_worse
        self.cooldown_counter = 0
        self.num_bad_epochs = 0

    def step(self, metrics: SupportsFloat, epoch: int | None = None) -> None:  # type: ignore[override]
        """Look at the metric of an epoch.

        Parameters
        ----------
        metrics : float or array, shape ()
            The metric.
        epoch : int, optional
            Its number; None is the next.
        """
        current = float(metrics)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self._is_better(current):
            self.best = current
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce_lr()
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0
        self._last_lr = self._rates()

    @property
    def in_cooldown(self) -> bool:
        """Whether bad epochs do not count now."""
        return self.cooldown_counter > 0

    def _reduce_lr(self) -> None:
        groups = self.optimizer.param_groups
        if len(groups) != len(self.min_lrs):
            if self.default_min_lr is None:
                raise RuntimeError(
                    f"ReduceLROnPlateau has {len(self.min_lrs)} values of min_lr for {len(groups)} "
                    "groups; append to its min_lrs after adding a group"
                )
            self.min_lrs = [self.default_min_lr] * len(groups)
        for group, lowest in zip(groups, self.min_lrs, strict=True):
            lr = float(group["lr"])
            reduced = max(lr * self.factor, lowest)
            if lr - reduced > self.eps:
                group["lr"] = reduced

    def _is_better(self, metric: float) -> bool:
        sign = -1.0 if self.mode == "min" else 1.0
        if self.threshold_mode == "rel":
            bound = self.best * (1.0 + sign * self.threshold)
        else:
            bound = self.best + sign * self.threshold
        return metric < bound if self.mode == "min" else metric > bound

    def _restore(self, state: Mapping[str, Any]) -> None:
        super()._restore(state)
        self.mode_worse = math.inf if self.mode == "min" else -math.inf
