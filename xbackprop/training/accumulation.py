"""Gradient accumulation: several batches make one update, as if they were one batch."""

from collections.abc import Iterable
from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import device_of
from xbackprop.backend.transfer import to_device
from xbackprop.module import Module, Parameter
from xbackprop.training.metrics import count_weight, plain_number


class Accumulation:
    """The batches since the last update.

    Each batch's gradient is added times the number that its mean loss was divided by (samples, or
    the summed weights of the labels that count), and the sum is divided once, before the update. So
    the gradient is that of the mean over all samples of the group, also when batches differ in
    size or in ignored labels.

    Parameters
    ----------
    loss_fn : Module
        Its ``reduction`` says whether there is a mean to correct.
    every : int
        Batches per update.

    Attributes
    ----------
    batches : int
        Batches since the last update.
    loss : array or 0
        Sum of their losses, so that one that is not finite is seen at the update.
    weight : number or array
        Sum of what their means were divided by.
    """

    def __init__(self, loss_fn: Module, every: int) -> None:
        self.loss_fn = loss_fn
        self.every = every
        self.reset()

    def reset(self) -> None:
        """Begin a group."""
        self.batches = 0
        self.loss: Any = 0.0
        self.weight: Any = 0.0

    @property
    def is_complete(self) -> bool:
        """Whether an update is due."""
        return self.batches >= self.every

    def factor_of(self, target: Array, loss: Array) -> Any:
        """Return the factor of a batch's gradient, and count the batch.

        Parameters
        ----------
        target : array
            The batch's targets.
        loss : array, shape ()
            Its loss.

        Returns
        -------
        float or array, shape ()
            In the loss's dtype.
        """
        self.batches += 1
        self.loss = loss + self.loss
        if getattr(self.loss_fn, "reduction", "mean") != "mean":
            return 1.0
        weight = count_weight(self.loss_fn, target)
        weight = float(weight) if isinstance(weight, int) else weight.astype(loss.dtype)
        self.weight = weight + self.weight
        return weight

    def average(self, parameters: Iterable[Parameter]) -> None:
        """Divide the summed gradients by the summed weights."""
        if isinstance(self.weight, float) and not self.weight:
            return
        for parameter in parameters:
            grad = parameter.grad
            if grad is None:
                continue
            place = device_of(grad)
            with place.activate():
                weight = self.weight
                if not isinstance(weight, float):
                    weight = to_device(weight, place).astype(grad.dtype)
                grad /= weight

    def state(self) -> dict[str, Any]:
        """Return the sums as plain numbers; downloads two of them at most."""
        return {
            "every": self.every,
            "batches": self.batches,
            "loss": plain_number(self.loss),
            "weight": plain_number(self.weight),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with the group that :meth:`state` told of."""
        self.batches = int(state["batches"])
        self.loss, self.weight = float(state["loss"]), float(state["weight"])
