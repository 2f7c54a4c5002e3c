"""Schedules along a cosine, once or again and again."""

import math

from xbackprop.optim.lr_scheduler.base import LRScheduler
from xbackprop.optim.optimizer import Optimizer


class CosineAnnealingLR(LRScheduler):
    """Follow ``eta_min + (initial_lr - eta_min) (1 + cos(pi epoch / T_max)) / 2``.

    Parameters
    ----------
    optimizer : Optimizer
        Whose groups' ``lr`` are set.
    T_max : int
        The epoch of the lowest learning rate; after it the cosine rises again.
    eta_min : float, default 0.0
        The lowest learning rate.
    last_epoch : int, default -1
        Where to continue; -1 starts anew.

    References
    ----------
    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017,
    equation 5, without the restarts.
    """

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the learning rate of each group at the current epoch, from those in force."""
        if self._is_initial:
            return self._rates()
        if (self.last_epoch - 1 - self.T_max) % (2 * self.T_max) == 0:  # up from the lowest point
            height = 1 - math.cos(math.pi / self.T_max)
            return [
                lr + (base_lr - self.eta_min) * height / 2
                for base_lr, lr in zip(self.base_lrs, self._rates(), strict=True)
            ]
        now = 1 + math.cos(math.pi * self.last_epoch / self.T_max)
        before = 1 + math.cos(math.pi * (self.last_epoch - 1) / self.T_max)
        return [now / before * (lr - self.eta_min) + self.eta_min for lr in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        height = 1 + math.cos(math.pi * self.last_epoch / self.T_max)
        return [self.eta_min + (lr - self.eta_min) * height / 2 for lr in self.base_lrs]


class CosineAnnealingWarmRestarts(LRScheduler):
    """Follow ``eta_min + (initial_lr - eta_min) (1 + cos(pi T_cur / T_i)) / 2``, with restarts.

    Parameters
    ----------
    optimizer : Optimizer
        Whose groups' ``lr`` are set.
    T_0 : int
        Epochs until the first restart.
    T_mult : int, default 1
        Each round is so many times as long as the one before.
    eta_min : float, default 0.0
        The lowest learning rate.
    last_epoch : int, default -1
        Where to continue; -1 starts anew.

    Attributes
    ----------
    T_cur : float
        Epochs since the last restart.
    T_i : int
        Length of the current round.

    Notes
    -----
    ``step(epoch)`` takes fractions: ``step(epoch + batch / batches)`` after each batch.

    References
    ----------
    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017,
    equation 5.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        T_0: int,
        T_mult: int = 1,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        for name, value in (("T_0", T_0), ("T_mult", T_mult)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"CosineAnnealingWarmRestarts expects {name} to be an integer >= 1; got {value}"
                )
        if not isinstance(eta_min, (int, float)):
            raise ValueError(
                f"CosineAnnealingWarmRestarts expects eta_min to be a number; got {eta_min!r}"
            )
        self.T_0 = T_0
        self.T_i = T_0
        self.T_mult = T_mult
        self.eta_min = eta_min
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the learning rate of each group at the current epoch."""
        return [
            self.eta_min
            + (base_lr - self.eta_min) * (1 + math.cos(math.pi * self.T_cur / self.T_i)) / 2
            for base_lr in self.base_lrs
        ]

    def step(self, epoch: float | None = None) -> None:
        """Go on to the next epoch, or to ``epoch``, which may be a fraction.

        Parameters
        ----------
        epoch : float, optional
            Not negative.
        """
        if epoch is None and self.last_epoch < 0:
            epoch = 0
        if epoch is None:
            epoch = self.last_epoch + 1
            self.T_cur = self.T_cur + 1
            if self.T_cur >= self.T_i:
                self.T_cur = self.T_cur % self.T_i
                self.T_i = self.T_i * self.T_mult
        else:
            self._go_to(epoch)
        self.last_epoch = math.floor(epoch)
        self._set(self.get_lr())

    def _go_to(self, epoch: float) -> None:
        if epoch < 0:
            raise ValueError(f"CosineAnnealingWarmRestarts expects epoch >= 0; got {epoch}")
        if epoch < self.T_0:
            self.T_cur, self.T_i = epoch, self.T_0
        elif self.T_mult == 1:
            self.T_cur = epoch % self.T_0
        else:
            done = int(math.log(epoch / self.T_0 * (self.T_mult - 1) + 1, self.T_mult))
            power = self.T_mult**done
            self.T_cur = epoch - self.T_0 * (power - 1) / (self.T_mult - 1)
            self.T_i = self.T_0 * power
