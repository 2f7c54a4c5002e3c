"""A schedule of one rise and one fall."""

import math
from typing import Any

from xbackprop.optim.lr_scheduler.base import LRScheduler, check_optimizer, one_per_group
from xbackprop.optim.lr_scheduler.momentum import set_momentum, start_momentum
from xbackprop.optim.optimizer import Optimizer


class OneCycleLR(LRScheduler):
    """Rise from ``max_lr / div_factor`` to ``max_lr`` and fall far below, momentum the other way.

    Parameters
    ----------
    optimizer : Optimizer
        Whose groups' ``lr`` are set, and ``momentum`` or ``betas[0]``.
    max_lr : float or list of float
        The highest learning rate, of each group.
    total_steps : int, optional
        Steps of the cycle; or give the next two.
    epochs, steps_per_epoch : int, optional
        Their product is ``total_steps``.
    pct_start : float, default 0.3
        Share of the steps that rise.
    anneal_strategy : {"cos", "linear"}, default "cos"
        Along half a cosine or a line.
    cycle_momentum : bool, default True
        Let the momentum fall while the learning rate rises.
    base_momentum : float or list of float, default 0.85
        The lowest momentum, of each group.
    max_momentum : float or list of float, default 0.95
        The highest momentum, of each group.
    div_factor : float, default 25.0
        The first learning rate is ``max_lr / div_factor``.
    final_div_factor : float, default 1e4
        The last learning rate is the first one divided by this.
    three_phase : bool, default False
        Fall back to the first learning rate, as fast as it rose, before falling below.
    last_epoch : int, default -1
        Where to continue; -1 starts anew.

    Notes
    -----
    Call ``step()`` after each batch; a step beyond ``total_steps`` is a ValueError.

    References
    ----------
    Smith and Topin, "Super-convergence: very fast training of neural networks using large learning
    rates", arXiv:1708.07120.
    """

    _sometimes = ("use_beta1",)

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        check_optimizer(optimizer)
        if not isinstance(pct_start, float) or not 0 <= pct_start <= 1:
            raise ValueError(
                f"OneCycleLR expects pct_start to be a float in [0, 1]; got {pct_start}"
            )
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                f"OneCycleLR expects anneal_strategy 'cos' or 'linear'; got {anneal_strategy!r}"
            )
        self.total_steps = count_steps(total_steps, epochs, steps_per_epoch)
        self._schedule_phases = phases(self.total_steps, pct_start, three_phase=three_phase)
        self._anneal_func_type = anneal_strategy
        max_lrs = one_per_group("max_lr", optimizer, max_lr)
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self.use_beta1 = start_momentum(
                optimizer,
                one_per_group("base_momentum", optimizer, base_momentum),
                one_per_group("max_momentum", optimizer, max_momentum),
                is_new=last_epoch == -1,
            )
        if last_epoch == -1:
            for highest, group in zip(max_lrs, optimizer.param_groups, strict=True):
                group["initial_lr"] = highest / div_factor
                group["max_lr"] = highest
                group["min_lr"] = group["initial_lr"] / final_div_factor
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the learning rate of each group at the current step, and set the momentum."""
        if self.last_epoch > self.total_steps:
            raise ValueError(
                f"OneCycleLR has {self.total_steps} steps; step {self.last_epoch} was asked for"
            )
        phase, share = self._find_phase()
        groups = self.optimizer.param_groups
        if self.cycle_momentum:
            momentums = [
                self._anneal(group[phase["start_momentum"]], group[phase["end_momentum"]], share)
                for group in groups
            ]
            set_momentum(self.optimizer, momentums, use_beta1=self.use_beta1)
        return [
            self._anneal(group[phase["start_lr"]], group[phase["end_lr"]], share)
            for group in groups
        ]

    def _find_phase(self) -> tuple[dict[str, Any], float]:
        """Return the current phase, and which share of it is done."""
        start = 0.0
        for phase in self._schedule_phases[:-1]:
            if self.last_epoch <= phase["end_step"]:
                break
            start = phase["end_step"]
        else:
            phase = self._schedule_phases[-1]
        return phase, (self.last_epoch - start) / (phase["end_step"] - start)

    def _anneal(self, start: float, end: float, share: float) -> float:
        if self._anneal_func_type == "linear":
            return (end - start) * share + start
        return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)


def count_steps(total_steps: int | None, epochs: int | None, steps_per_epoch: int | None) -> int:
    """Return how many steps the cycle has."""
    if total_steps is None and (epochs is None or steps_per_epoch is None):
        raise ValueError("OneCycleLR expects total_steps, or epochs and steps_per_epoch")
    parts = {"total_steps": total_steps}
    if total_steps is None:
        parts = {"epochs": epochs, "steps_per_epoch": steps_per_epoch}
    count = 1
    for name, value in parts.items():
        if not isinstance(value, int) or value <= 0:
            raise ValueError(f"OneCycleLR expects {name} to be an integer >= 1; got {value}")
        count *= value
    return count


def phases(total_steps: int, pct_start: float, *, three_phase: bool) -> list[dict[str, Any]]:
    """Return the last step of each phase, and the names of what it moves between in a group."""
    up = ("initial_lr", "max_lr", "max_momentum", "base_momentum")
    back = ("max_lr", "initial_lr", "base_momentum", "max_momentum")
    first_end = float(pct_start * total_steps) - 1
    if three_phase:
        ways = [
            (first_end, *up),
            (float(2 * pct_start * total_steps) - 2, *back),
            (total_steps - 1, "initial_lr", "min_lr", "max_momentum", "max_momentum"),
        ]
    else:
        ways = [
            (first_end, *up),
            (total_steps - 1, "max_lr", "min_lr", "base_momentum", "max_momentum"),
        ]
    names = ("end_step", "start_lr", "end_lr", "start_momentum", "end_momentum")
    return [dict(zip(names, way, strict=True)) for way in ways]
