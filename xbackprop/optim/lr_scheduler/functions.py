"""Schedules that are a function of the epoch."""

import copy
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

from xbackprop.optim.lr_scheduler.base import LRScheduler, one_per_group
from xbackprop.optim.optimizer import Optimizer

Factor = Callable[[int], float]


class LambdaLR(LRScheduler):
    """Set the learning rate to ``initial_lr * lr_lambda(epoch)``.

    Parameters
    ----------
    optimizer : Optimizer
        Whose groups' ``lr`` are set.
    lr_lambda : callable, or list of callable
        Gives the factor for an epoch; a list has one per group.
    last_epoch : int, default -1
        Where to continue; -1 starts anew.

    Notes
    -----
    As in PyTorch the state has the attributes of callable objects and nothing of functions: give
    the same functions again.

    Examples
    --------
    >>> import xbackprop as xb
    >>> optimizer = xb.optim.SGD(xb.nn.Linear(2, 1).parameters(), lr=1.0)
    >>> schedule = xb.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 / (1 + epoch))
    >>> schedule.step()
    >>> optimizer.param_groups[0]["lr"]
    0.5
    """

    def __init__(
        self, optimizer: Optimizer, lr_lambda: Factor | list[Factor], last_epoch: int = -1
    ) -> None:
        self.lr_lambdas: list[Factor] = one_per_group("lr_lambda", optimizer, lr_lambda)
        for function in self.lr_lambdas:
            if not callable(function):
                raise TypeError(
                    f"{type(self).__name__} expects lr_lambda to be callable; got "
                    f"{type(function).__name__}"
                )
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the learning rate of each group at the current epoch."""
        return [
            base_lr * function(self.last_epoch)
            for function, base_lr in zip(self.lr_lambdas, self.base_lrs, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the optimizer and the functions."""
        functions = [attributes(function) for function in self.lr_lambdas]
        return {**self._dump("lr_lambdas"), "lr_lambdas": functions}

    def _check(self, state: Mapping[str, Any]) -> None:
        super()._check(state)
        if len(state["lr_lambdas"]) != len(self.lr_lambdas):
            raise ValueError(
                f"{type(self).__name__} expects the state of {len(self.lr_lambdas)} lr_lambdas; "
                f"got {len(state['lr_lambdas'])}"
            )

    def _restore(self, state: Mapping[str, Any]) -> None:
        super()._restore({name: part for name, part in state.items() if name != "lr_lambdas"})
        for function, values in zip(self.lr_lambdas, state["lr_lambdas"], strict=True):
            restore_attributes(function, values)


class MultiplicativeLR(LambdaLR):
    """Multiply the learning rate by ``lr_lambda(epoch)`` in every epoch.

    Parameters
    ----------
    optimizer : Optimizer
        Whose groups' ``lr`` are set.
    lr_lambda : callable, or list of callable
        Gives the factor for an epoch; a list has one per group.
    last_epoch : int, default -1
        Where to continue; -1 starts anew.

    Notes
    -----
    ``lr = lr * lr_lambda(epoch)``, from epoch 1 on. The state is that of :class:`LambdaLR`.

    Examples
    --------
    >>> import xbackprop as xb
    >>> optimizer = xb.optim.SGD(xb.nn.Linear(2, 1).parameters(), lr=1.0)
    >>> schedule = xb.optim.lr_scheduler.MultiplicativeLR(optimizer, lambda epoch: 0.5)
    >>> schedule.step()
    >>> schedule.step()
    >>> optimizer.param_groups[0]["lr"]
    0.25
    """

    def get_lr(self) -> list[float]:
        """Return the learning rate of each group at the current epoch, from those in force."""
        if self._is_initial:
            return self._rates()
        return [
            lr * function(self.last_epoch)
            for function, lr in zip(self.lr_lambdas, self._rates(), strict=True)
        ]


def attributes(function: Any) -> dict[str, Any] | None:
    """Return what a callable object remembers; None for a function."""
    if isinstance(function, FunctionType):
        return None
    return copy.deepcopy(getattr(function, "__dict__", None))


def restore_attributes(function: Any, values: Mapping[str, Any] | None) -> None:
    """Give a callable object what it remembered."""
    if values is not None:
        vars(function).update(copy.deepcopy(dict(values)))
