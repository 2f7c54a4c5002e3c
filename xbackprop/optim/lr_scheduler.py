"""Schedules: the learning rate as a function of the epoch."""

from typing import Any

from xbackprop.optim.optimizer import Optimizer


class StepLR:
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
        self.optimizer = optimizer
        self.step_size = step_size
        self.gamma = gamma
        self.last_epoch = last_epoch
        for group in optimizer.param_groups:
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError("StepLR continues at last_epoch only where groups have initial_lr")
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self._last_lr: list[float] = []
        self.step()

    def get_lr(self) -> list[float]:
        """Return the learning rate of each group at the current epoch, from those in force."""
        is_due = self.last_epoch > 0 and self.last_epoch % self.step_size == 0
        factor = self.gamma if is_due else 1.0
        return [group["lr"] * factor for group in self.optimizer.param_groups]

    def get_last_lr(self) -> list[float]:
        """Return the learning rates that the last :meth:`step` set."""
        return list(self._last_lr)

    def step(self) -> None:
        """Go on to the next epoch."""
        self.last_epoch += 1
        for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = lr
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the optimizer."""
        return {name: value for name, value in vars(self).items() if name != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        unknown = set(state_dict) - set(vars(self))
        if unknown:
            raise ValueError(f"StepLR has no {', '.join(sorted(unknown))}")
        vars(self).update(state_dict)
