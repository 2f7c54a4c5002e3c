"""What a loss makes of a data set: targets, outputs of the network, and right answers."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from xbackprop import nn
from xbackprop.backend.array_module import Array
from xbackprop.cli.datasets import TextSplit
from xbackprop.cli.errors import CommandError
from xbackprop.data import Split

LOSSES: dict[str, Callable[[], nn.Module]] = {
    "cross-entropy": nn.CrossEntropyLoss,
    "mse": nn.MSELoss,
    "half-squared-error": nn.HalfSquaredError,
    "bce-with-logits": nn.BCEWithLogitsLoss,
    "bce": nn.BCELoss,
}
LOSSES_OF_QUANTITIES = ("mse", "half-squared-error")


@dataclass(frozen=True)
class Task:
    """A loss, set up for the targets of a data set.

    Classes are given to ``cross-entropy`` as indices. The other losses compare outputs with targets
    of their own shape: a column of 0 and 1 for the two classes of a binary cross-entropy, and
    else one column per class, 1 for the right one. Quantities stay as they are.

    Attributes
    ----------
    loss_name : str
        One of :data:`LOSSES`.
    num_classes : int or None
        None for quantities.
    outputs : int
        Width of the network's last layer.
    """

    loss_name: str
    num_classes: int | None
    outputs: int

    @property
    def has_probabilities(self) -> bool:
        """Whether the network ends in a sigmoid, because the loss expects probabilities."""
        return self.loss_name == "bce"

    def make_loss(self) -> nn.Module:
        """Return the loss."""
        return LOSSES[self.loss_name]()

    def encode(self, y: np.ndarray) -> np.ndarray:
        """Turn class indices into the loss's targets."""
        if self.num_classes is None or self.loss_name == "cross-entropy":
            return y
        if self.outputs == 1:
            return y.astype(np.float32)[:, np.newaxis]
        return np.eye(self.outputs, dtype=np.float32)[y]

    def decode(self, output: Array) -> Array:
        """Return the class that each row of outputs stands for, on its device."""
        if self.outputs > 1:
            return output.argmax(axis=1)
        return (output[:, 0] > (0.5 if self.has_probabilities else 0.0)).astype(np.int64)

    def count_correct(self, output: Array, target: Array) -> Array:
        """Count the rows whose class is right, on their device."""
        if self.loss_name == "cross-entropy":
            truth = target
        elif self.outputs > 1:
            truth = target.argmax(axis=1)
        else:
            truth = target[:, 0] > 0.5
        return (self.decode(output) == truth).sum()


class TokenTask(Task):
    """The token that follows, at every place of a text."""

    def make_loss(self) -> nn.Module:
        """Return the loss."""
        return nn.TokenCrossEntropyLoss()

    def encode(self, y: np.ndarray) -> np.ndarray:
        """Return the token ids as they are."""
        return y

    def decode(self, output: Array) -> Array:
        """Return the likeliest token of each place, on its device."""
        return output.argmax(axis=-1)

    def count_correct(self, output: Array, target: Array) -> Array:
        """Count windows by the share of places whose token is right, on their device."""
        return (self.decode(output) == target).mean(axis=-1).sum()


def make_task(split: Split, loss_name: str | None) -> Task:
    """Set up a loss for a data set.

    Parameters
    ----------
    split : Split
        The data.
    loss_name : str or None
        One of :data:`LOSSES`; None is ``cross-entropy`` for classes and ``mse`` for quantities.

    Returns
    -------
    Task

    Raises
    ------
    CommandError
        When the loss is one of classes, and the target a quantity.
    """
    if isinstance(split, TextSplit):
        size = split.tokenizer.vocab_size
        return TokenTask("cross-entropy", size, size)
    if split.num_classes is None:
        loss_name = loss_name or "mse"
        if loss_name not in LOSSES_OF_QUANTITIES:
            raise CommandError(
                f"--loss {loss_name} needs classes, and the target is read as a quantity. "
                f"Expected one of {', '.join(LOSSES_OF_QUANTITIES)}, or no --regression, or for a "
                "table --task classification"
            )
        return Task(loss_name, None, split.y_train.shape[1])
    loss_name = loss_name or "cross-entropy"
    is_binary = split.num_classes == 2 and loss_name in ("bce", "bce-with-logits")
    return Task(loss_name, split.num_classes, 1 if is_binary else split.num_classes)
