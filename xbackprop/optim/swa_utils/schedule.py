"""The learning rate while weights are averaged."""

import math

from xbackprop.optim.lr_scheduler.base import LRScheduler, check_optimizer, one_per_group
from xbackprop.optim.optimizer import Optimizer


class SWALR(LRScheduler):
    """Go from the learning rate in force to ``swa_lr``, along half a cosine or a line.

    Parameters
    ----------
    optimizer : Optimizer
        Whose groups' ``lr`` are set.
    swa_lr : float or list of float
        The learning rate to go to, of each group.
    anneal_epochs : int, default 10
        Epochs on the way; may be 0.
    anneal_strategy : {"cos", "linear"}, default "cos"
        The way.
    last_epoch : int, default -1
        Where to continue; -1 starts anew.

    Raises
    ------
    ValueError
        For options out of range.

    Notes
    -----
    ``lr = a swa_lr + (1 - a) lr_start`` with ``a = (1 - cos(pi t)) / 2`` or ``t``, and ``t`` the
    share of the way; ``lr_start`` is worked out from the rate in force.

    References
    ----------
    Izmailov et al., "Averaging weights leads to wider optima and better generalization", UAI 2018.

    Examples
    --------
    >>> import xbackprop as xb
    >>> optimizer = xb.optim.SGD(xb.nn.Linear(2, 1).parameters(), lr=1.0)
    >>> schedule = xb.optim.swa_utils.SWALR(optimizer, 0.2, anneal_epochs=2)
    >>> rates = []
    >>> for _ in range(3):
    ...     rates.append(round(optimizer.param_groups[0]["lr"], 3))
    ...     schedule.step()
    >>> rates
    [1.0, 0.6, 0.2]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: float | list[float],
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ) -> None:
        rates = one_per_group("swa_lr", check_optimizer(optimizer), swa_lr)
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                f"SWALR expects anneal_strategy 'cos' or 'linear'; got {anneal_strategy!r}"
            )
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError(
                f"SWALR expects anneal_epochs to be an integer >= 0; got {anneal_epochs}"
            )
        for rate, group in zip(rates, optimizer.param_groups, strict=True):
            group["swa_lr"] = rate
        self._anneal_strategy = anneal_strategy
        self.anneal_epochs = anneal_epochs
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the learning rate of each group at the current epoch, from those in force."""
        step = self._step_count - 1
        if self.anneal_epochs == 0:
            step = max(1, step)
        before, now = self._share(step - 1), self._share(step)
        return [
            group["swa_lr"] * now + start_of(group["lr"], group["swa_lr"], before) * (1 - now)
            for group in self.optimizer.param_groups
        ]

    def _share(self, step: int) -> float:
        done = max(0, min(1, step / max(1, self.anneal_epochs)))
        return done if self._anneal_strategy == "linear" else (1 - math.cos(math.pi * done)) / 2


def start_of(lr: float, swa_lr: float, share: float) -> float:
    """Return the learning rate from which ``lr`` lies at ``share`` of the way to ``swa_lr``."""
    return swa_lr if share == 1 else (lr - share * swa_lr) / (1 - share)
