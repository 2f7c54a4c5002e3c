"""A schedule that swings between two learning rates."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from xbackprop.optim.lr_scheduler.base import LRScheduler, check_optimizer, one_per_group
from xbackprop.optim.lr_scheduler.functions import attributes, restore_attributes
from xbackprop.optim.lr_scheduler.momentum import set_momentum, start_momentum
from xbackprop.optim.optimizer import Optimizer


class CyclicLR(LRScheduler):
    """Swing between ``base_lr`` and ``max_lr`` along lines, and the momentum the other way.

    Parameters
    ----------
    optimizer : Optimizer
        Whose groups' ``lr`` are set, and ``momentum`` or ``betas[0]``.
    base_lr : float or list of float
        The lowest learning rate, of each group; ``lr`` is set to it.
    max_lr : float or list of float
        The highest learning rate, of each group, before ``scale_fn``.
    step_size_up : int, default 2000
        Steps of the rising half of a cycle.
    step_size_down : int, optional
        Steps of the falling half; None is as many.
    mode : {"triangular", "triangular2", "exp_range"}, default "triangular"
        All cycles as high; each half as high as the one before; ``gamma ** step`` as high.
    gamma : float, default 1.0
        For ``"exp_range"``.
    scale_fn : callable, optional
        Height at a cycle (counted from 1) or step, in the place of ``mode``.
    scale_mode : {"cycle", "iterations"}, default "cycle"
        Whether ``scale_fn`` is given the cycle or the step.
    cycle_momentum : bool, default True
        Let the momentum fall while the learning rate rises.
    base_momentum : float or list of float, default 0.8
        The lowest momentum, of each group.
    max_momentum : float or list of float, default 0.9
        The highest momentum, of each group.
    last_epoch : int, default -1
        Where to continue; -1 starts anew.

    Notes
    -----
    ``lr = base_lr + (max_lr - base_lr) * h * scale`` with the height ``h`` of the wave, from 0 to 1
    and back; ``scale`` is 1, halves in each cycle, or is ``gamma ** step``.

    Call ``step()`` after each batch. As in PyTorch the state has nothing of a ``scale_fn`` that is
    a function: give the same one again.

    References
    ----------
    Smith, "Cyclical learning rates for training neural networks", WACV 2017, section 3.
    """

    _sometimes = ("use_beta1", "base_momentums", "max_momentums")

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | list[float],
        max_lr: float | list[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.8,
        max_momentum: float | list[float] = 0.9,
        last_epoch: int = -1,
    ) -> None:
        base_lrs = one_per_group("base_lr", check_optimizer(optimizer), base_lr)
        self.max_lrs = one_per_group("max_lr", optimizer, max_lr)
        if mode not in ("triangular", "triangular2", "exp_range") and scale_fn is None:
            raise ValueError(
                "CyclicLR expects mode 'triangular', 'triangular2' or 'exp_range', or a scale_fn; "
                f"got {mode!r}"
            )
        up = float(step_size_up)
        self.total_size = up + (up if step_size_down is None else float(step_size_down))
        self.step_ratio = up / self.total_size
        self.mode = mode
        self.gamma = gamma
        self._scale_fn_custom = scale_fn
        self.scale_mode = scale_mode
        self._choose_scale_mode()
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self.base_momentums = one_per_group("base_momentum", optimizer, base_momentum)
            self.max_momentums = one_per_group("max_momentum", optimizer, max_momentum)
            self.use_beta1 = start_momentum(
                optimizer, self.base_momentums, self.max_momentums, is_new=last_epoch == -1
            )
        if last_epoch == -1:
            for lr, group in zip(base_lrs, optimizer.param_groups, strict=True):
                group["lr"] = lr
        super().__init__(optimizer, last_epoch)
        self.base_lrs = base_lrs

    def _choose_scale_mode(self) -> None:
        if self._scale_fn_custom is None:
            self.scale_mode = "iterations" if self.mode == "exp_range" else "cycle"

    def scale_fn(self, x: float) -> float:
        """Return the height at cycle or step ``x``."""
        if self._scale_fn_custom is not None:
            return self._scale_fn_custom(x)
        if self.mode == "exp_range":
            return self.gamma**x
        return 1 / (2.0 ** (x - 1)) if self.mode == "triangular2" else 1.0

    def get_lr(self) -> list[float]:
        """Return the learning rate of each group at the current step, and set the momentum."""
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        x = 1.0 + self.last_epoch / self.total_size - cycle
        height = x / self.step_ratio if x <= self.step_ratio else (x - 1) / (self.step_ratio - 1)
        scale = self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            set_momentum(
                self.optimizer,
                [
                    highest - (highest - lowest) * height * scale
                    for lowest, highest in zip(self.base_momentums, self.max_momentums, strict=True)
                ],
                use_beta1=self.use_beta1,
            )
        return [
            lowest + (highest - lowest) * height * scale
            for lowest, highest in zip(self.base_lrs, self.max_lrs, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the optimizer and a ``scale_fn`` that is a function."""
        function = attributes(self._scale_fn_custom)
        return {**self._dump("_scale_fn_custom"), "_scale_fn_custom": function}

    def _restore(self, state: Mapping[str, Any]) -> None:
        super()._restore({name: part for name, part in state.items() if name != "_scale_fn_custom"})
        restore_attributes(self._scale_fn_custom, state["_scale_fn_custom"])
        self._choose_scale_mode()
