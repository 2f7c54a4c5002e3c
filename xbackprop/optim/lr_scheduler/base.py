"""The base of all schedules: epochs, the rates in force, the state."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from xbackprop.optim.optimizer import Optimizer


class LRScheduler:
    """Base class of schedules, with the interface of ``torch.optim.lr_scheduler.LRScheduler``.

    A subclass writes :meth:`get_lr`, most from the rates in force, so that a learning rate set by
    hand in between stays in force. Call ``step()`` after each epoch (or each batch).

    Parameters
    ----------
    optimizer : Optimizer
        Whose groups' ``lr`` are set.
    last_epoch : int, default -1
        Where to continue; -1 starts anew. The groups then have ``initial_lr``, and the constructor
        makes one step, as PyTorch's does.

    Attributes
    ----------
    base_lrs : list of float
        The learning rates at the start.
    last_epoch : int
        The current epoch, counted from 0.

    Raises
    ------
    TypeError
        When ``optimizer`` is none.
    KeyError
        When it continues and a group has no ``initial_lr``.
    """

    # In the state only where the schedule was made so; PyTorch's own mark, which has no use here.
    _sometimes: ClassVar[tuple[str, ...]] = ()
    _ignored: ClassVar[tuple[str, ...]] = ("_get_lr_called_within_step",)

    base_lrs: list[float]
    last_epoch: int

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = check_optimizer(optimizer)
        for number, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(
                    f"{type(self).__name__} continues at last_epoch={last_epoch} only where groups "
                    f"have initial_lr; param_groups[{number}] has none. Load the optimizer's state."
                )
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._last_lr: list[float] = []
        self._is_initial = False
        self._initial_step()

    def _initial_step(self) -> None:
        """Make the step into the first epoch, which changes no rate in most schedules."""
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    def get_lr(self) -> list[float]:
        """Return the learning rate of each group at the current epoch, from those in force."""
        raise NotImplementedError(f"{type(self).__name__} has no get_lr")

    def get_last_lr(self) -> list[float]:
        """Return the learning rates that the last :meth:`step` set."""
        return list(self._last_lr)

    def step(self, epoch: int | None = None) -> None:
        """Go on to the next epoch.

        Parameters
        ----------
        epoch : int, optional
            Go to this one instead, by the closed formula where the schedule has one.
        """
        self._step_count += 1
        self._update_lr(epoch)

    def _update_lr(self, epoch: int | None = None) -> None:
        if epoch is None:
            self.last_epoch += 1
            rates = self.get_lr()
        else:
            self.last_epoch = epoch
            rates = self._get_closed_form_lr()
        self._set(rates)

    def _get_closed_form_lr(self) -> list[float]:
        """Return the learning rates from those at the start."""
        return self.get_lr()

    def _set(self, rates: Sequence[float]) -> None:
        for group, lr in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = lr
        self._last_lr = self._rates()

    def _rates(self) -> list[float]:
        """Return the learning rates in force."""
        return [group["lr"] for group in self.optimizer.param_groups]

    # --- saving ---------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the optimizer as plain data, under PyTorch's names."""
        return self._dump()

    def _dump(self, *left_out: str) -> dict[str, Any]:
        """Return copies of all attributes but the optimizer and those named."""
        return {
            name: copy.deepcopy(value)
            for name, value in vars(self).items()
            if name not in ("optimizer", *left_out)
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned, here or in PyTorch.

        The optimizer's own state holds the learning rates in force; load it as well.

        Parameters
        ----------
        state_dict : mapping
            The state.

        Raises
        ------
        ValueError
            When it names what this schedule does not have; nothing was changed then.
        """
        self._check(state_dict)
        self._restore(state_dict)

    def _check(self, state: Mapping[str, Any]) -> None:
        """Refuse a state that does not fit."""
        unknown = state.keys() - vars(self).keys() - {*self._sometimes, *self._ignored}
        if unknown:
            raise ValueError(f"{type(self).__name__} has no {', '.join(sorted(unknown))}")

    def _restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state that fits."""
        vars(self).update(
            {
                name: copy.deepcopy(value)
                for name, value in state.items()
                if name not in self._ignored
            }
        )


def check_optimizer(optimizer: Any) -> Optimizer:
    """Return ``optimizer`` when it is one."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"a schedule expects an Optimizer; got {type(optimizer).__name__}")
    return optimizer


def one_per_group(name: str, optimizer: Optimizer, value: Any) -> list[Any]:
    """Return a value for each group: those given, or the one given."""
    number = len(optimizer.param_groups)
    if not isinstance(value, (list, tuple)):
        return [value] * number
    if len(value) != number:
        raise ValueError(f"expected {number} values of {name}, one per group; got {len(value)}")
    return list(value)
