"""Schedules that go one way: in steps, along a line, a power or a polynomial."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from xbackprop.optim.lr_scheduler.base import LRScheduler
from xbackprop.optim.optimizer import Optimizer


class StepLR(LRScheduler):
    """Multiply the learning rate by ``gamma`` every ``step_size`` epochs.

    Parameters
    ----------
    optimizer : Optimizer
        Whose groups' ``lr`` are set.
    step_size : int
        Epochs between two changes.
    gamma : float, default 0.1
        Factor.
    last_epoch : int, default -1
        Where to continue; -1 starts anew.

    Notes
    -----
    ``lr = initial_lr * gamma ** (epoch // step_size)``, one factor at a time, so that a learning
    rate set by hand in between stays in force. Call ``step()`` after each epoch.
    """

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        if step_size < 1:
            raise ValueError(f"StepLR expects step_size >= 1; got {step_size}")
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the learning rate of each group at the current epoch, from those in force."""
        if self.last_epoch == 0 or self.last_epoch % self.step_size != 0:
            return self._rates()
        return [lr * self.gamma for lr in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        power = self.last_epoch // self.step_size
        return [base_lr * self.gamma**power for base_lr in self.base_lrs]


class MultiStepLR(LRScheduler):
    """Multiply the learning rate by ``gamma`` at each of ``milestones``.

    Parameters
    ----------
    optimizer : Optimizer
        Whose groups' ``lr`` are set.
    milestones : iterable of int
        Epochs; one that is named twice counts twice.
    gamma : float, default 0.1
        Factor.
    last_epoch : int, default -1
        Where to continue; -1 starts anew.

    Notes
    -----
    ``lr = initial_lr * gamma ** k`` after ``k`` of the milestones.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Iterable[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        self.milestones = Counter(milestones)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the learning rate of each group at the current epoch, from those in force."""
        if self.last_epoch not in self.milestones:
            return self._rates()
        return [lr * self.gamma ** self.milestones[self.last_epoch] for lr in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        power = bisect_right(sorted(self.milestones.elements()), self.last_epoch)
        return [base_lr * self.gamma**power for base_lr in self.base_lrs]

    def _restore(self, state: Mapping[str, Any]) -> None:
        super()._restore(state)  # JSON has made texts of the milestones
        self.milestones = Counter({int(epoch): n for epoch, n in self.milestones.items()})


class ConstantLR(LRScheduler):
    """Multiply the learning rate by ``factor`` until epoch ``total_iters``.

    Parameters
    ----------
    optimizer : Optimizer
        Whose groups' ``lr`` are set.
    factor : float, default 1/3
        In [0, 1]. With 0 the way back divides by zero, as in PyTorch.
    total_iters : int, default 5
        The epoch from which on the learning rate is its own again.
    last_epoch : int, default -1
        Where to continue; -1 starts anew.

    Notes
    -----
    ``lr = initial_lr * factor`` while ``epoch < total_iters``, then ``lr = initial_lr``.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 1.0 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 <= factor <= 1:
            raise ValueError(f"ConstantLR expects factor in [0, 1]; got {factor}")
        self.factor = factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the learning rate of each group at the current epoch, from those in force."""
        if self.last_epoch == 0:
            return [lr * self.factor for lr in self._rates()]
        if self.last_epoch != self.total_iters:
            return self._rates()
        return [lr * (1.0 / self.factor) for lr in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        factor = self.factor + (self.last_epoch >= self.total_iters) * (1 - self.factor)
        return [base_lr * factor for base_lr in self.base_lrs]


class LinearLR(LRScheduler):
    """Change the learning rate's factor along a line, ``start_factor`` to ``end_factor``.

    Parameters
    ----------
    optimizer : Optimizer
        Whose groups' ``lr`` are set.
    start_factor : float, default 1/3
        Factor in the first epoch, in (0, 1].
    end_factor : float, default 1.0
        Factor at epoch ``total_iters`` and after it, in [0, 1].
    total_iters : int, default 5
        Epochs on the way.
    last_epoch : int, default -1
        Where to continue; -1 starts anew.

    Notes
    -----
    ``lr = initial_lr * (start_factor + (end_factor - start_factor) * t)`` with the share
    ``t = min(epoch / total_iters, 1)``.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 < start_factor <= 1:
            raise ValueError(f"LinearLR expects start_factor in (0, 1]; got {start_factor}")
        if not 0 <= end_factor <= 1:
            raise ValueError(f"LinearLR expects end_factor in [0, 1]; got {end_factor}")
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the learning rate of each group at the current epoch, from those in force."""
        if self.last_epoch == 0:
            return [lr * self.start_factor for lr in self._rates()]
        if self._is_initial or self.last_epoch > self.total_iters:
            return self._rates()
        rise = self.end_factor - self.start_factor
        factor = 1.0 + rise / (self.total_iters * self.start_factor + (self.last_epoch - 1) * rise)
        return [lr * factor for lr in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        rise = self.end_factor - self.start_factor
        done = min(self.total_iters, self.last_epoch)
        factor = self.start_factor + rise * done / self.total_iters
        return [base_lr * factor for base_lr in self.base_lrs]


class ExponentialLR(LRScheduler):
    """Multiply the learning rate by ``gamma`` in every epoch.

    Parameters
    ----------
    optimizer : Optimizer
        Whose groups' ``lr`` are set.
    gamma : float
        Factor.
    last_epoch : int, default -1
        Where to continue; -1 starts anew.

    Notes
    -----
    ``lr = initial_lr * gamma ** epoch``.
    """

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the learning rate of each group at the current epoch, from those in force."""
        if self._is_initial:
            return self._rates()
        return [lr * self.gamma for lr in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        return [base_lr * self.gamma**self.last_epoch for base_lr in self.base_lrs]


class PolynomialLR(LRScheduler):
    """Let the learning rate fall to 0 as ``(1 - epoch / total_iters) ** power``.

    Parameters
    ----------
    optimizer : Optimizer
        Whose groups' ``lr`` are set.
    total_iters : int, default 5
        The epoch at which it is 0.
    power : float, default 1.0
        The polynomial's.
    last_epoch : int, default -1
        Where to continue; -1 starts anew.
    """

    def __init__(
        self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1
    ) -> None:
        self.total_iters = total_iters
        self.power = power
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the learning rate of each group at the current epoch, from those in force."""
        if self._is_initial or self.last_epoch > self.total_iters:
            return self._rates()
        left = 1.0 - self.last_epoch / self.total_iters
        before = 1.0 - (self.last_epoch - 1) / self.total_iters
        factor = (left / before) ** self.power
        return [lr * factor for lr in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        left = 1.0 - min(self.total_iters, self.last_epoch) / self.total_iters
        return [base_lr * left**self.power for base_lr in self.base_lrs]
