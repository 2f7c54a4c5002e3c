"""Schedules made of schedules: one after the other, or all at once."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from xbackprop.optim.lr_scheduler.base import LRScheduler
from xbackprop.optim.lr_scheduler.plateau import ReduceLROnPlateau
from xbackprop.optim.optimizer import Optimizer


class _Chain(LRScheduler):
    """What holds other schedules, and their states in its own."""

    _sometimes = ("_step_count", "_is_initial")  # where it is itself inside of another
    _schedulers: Sequence[LRScheduler]

    def _take(self, optimizer: Optimizer | None, schedulers: Sequence[LRScheduler]) -> None:
        """Check the schedules and keep them."""
        name = type(self).__name__
        if len(schedulers) < 1:
            raise ValueError(f"{name} expects at least one schedule; got none")
        self.optimizer = optimizer or schedulers[0].optimizer
        for number, scheduler in enumerate(schedulers):
            if not isinstance(scheduler, LRScheduler):
                raise TypeError(
                    f"{name} expects schedules; got {type(scheduler).__name__} at index {number}"
                )
            if isinstance(scheduler, ReduceLROnPlateau):
                raise ValueError(
                    f"{name} cannot hold a ReduceLROnPlateau, whose step needs a metric; got one "
                    f"at index {number}"
                )
            if scheduler.optimizer is not self.optimizer:
                raise ValueError(
                    f"{name} expects schedules of one optimizer; the {type(scheduler).__name__} at "
                    f"index {number} has another"
                )
        self._schedulers = schedulers

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the optimizer, with the states of the schedules inside."""
        states = [scheduler.state_dict() for scheduler in self._schedulers]
        return {**self._dump("_schedulers"), "_schedulers": states}

    def _check(self, state: Mapping[str, Any]) -> None:
        super()._check(state)
        states = state["_schedulers"]
        if len(states) != len(self._schedulers):
            raise ValueError(
                f"{type(self).__name__} expects the states of {len(self._schedulers)} schedules; "
                f"got {len(states)}"
            )
        for scheduler, each in zip(self._schedulers, states, strict=True):
            scheduler._check(each)

    def _restore(self, state: Mapping[str, Any]) -> None:
        super()._restore({name: part for name, part in state.items() if name != "_schedulers"})
        for scheduler, each in zip(self._schedulers, state["_schedulers"], strict=True):
            scheduler._restore(each)


class SequentialLR(_Chain):
    """Follow one schedule after the other, changing at ``milestones``.

    Parameters
    ----------
    optimizer : Optimizer
        That of the schedules.
    schedulers : list of LRScheduler
        In their order; each starts at its epoch 0 when it is its turn.
    milestones : list of int
        Epochs at which the next schedule takes over: one fewer than schedules.
    last_epoch : int, default -1
        Where to continue; -1 starts anew.

    Notes
    -----
    ``lr = schedule_k(epoch - milestone_k)`` from each milestone on. As in PyTorch, a schedule takes
    over at its closed formula for epoch 0, from ``initial_lr``,
    where it has one. A chain of schedules can only come first: PyTorch's fails when it is its turn.
    The chain's first step there is an ordinary one, so that an ExponentialLR in it is a factor
    ahead, as in PyTorch.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: list[LRScheduler],
        milestones: list[int],
        last_epoch: int = -1,
    ) -> None:
        self._take(optimizer, schedulers)
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                f"SequentialLR expects one milestone fewer than schedules; got {len(milestones)} "
                f"for {len(schedulers)}"
            )
        if any(isinstance(scheduler, _Chain) for scheduler in schedulers[1:]):
            raise NotImplementedError("SequentialLR: a chain of schedules that does not come first")
        self._milestones = milestones
        self.last_epoch = last_epoch + 1
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        undo(self)
        current = self._schedulers[bisect_right(milestones, 0)]
        current._initial_step()
        self._last_lr = current.get_last_lr()

    def step(self) -> None:  # type: ignore[override]
        """Go on to the next epoch."""
        self.last_epoch += 1
        number = bisect_right(self._milestones, self.last_epoch)
        current = self._schedulers[number]
        if number > 0 and self._milestones[number - 1] == self.last_epoch:
            current._update_lr(0)
        else:
            current.step()
        self._last_lr = current.get_last_lr()


class ChainedScheduler(_Chain):
    """Let all schedules change the learning rate in every epoch, one on top of the other.

    Parameters
    ----------
    schedulers : sequence of LRScheduler
        In their order; those that work from the rates in force multiply.
    optimizer : Optimizer, optional
        That of the schedules.

    Notes
    -----
    ``lr = lr * factor_1 * factor_2 * ...`` in each epoch, of schedules that give factors.
    """

    def __init__(
        self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None
    ) -> None:
        self._take(optimizer, schedulers)
        self._last_lr = self._rates()

    def step(self) -> None:  # type: ignore[override]
        """Go on to the next epoch."""
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = self._rates()


def undo(scheduler: LRScheduler) -> None:
    """Take back the step that a schedule's constructor made, and those inside it."""
    if isinstance(scheduler, _Chain):
        for each in scheduler._schedulers:
            undo(each)
    else:
        scheduler.last_epoch -= 1
