"""What a run reports: the loss and, for classes, the share of right answers."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.device import device_of
from xbackprop.backend.transfer import to_host
from xbackprop.nn import (
    GELU,
    BCELoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    Identity,
    Linear,
    LogSoftmax,
    Module,
    MultiMarginLoss,
    NLLLoss,
    PReLU,
    Recompute,
    Residual,
    Sequential,
    Softmax,
    Softmax2d,
    Softmin,
    TokenCrossEntropyLoss,
)
from xbackprop.nn.activations import Elementwise
from xbackprop.nn.randomness import RandomLayer

_KEEPS_FEATURES = (
    Elementwise, GELU, Identity, LogSoftmax, PReLU, RandomLayer, Softmax, Softmax2d, Softmin,
)  # fmt: skip
_OF_CLASSES = (CrossEntropyLoss, MultiMarginLoss, NLLLoss)  # the largest score is the answer


class RunningMeans:
    """Adds up losses and right answers where they are, and reads them back once.

    The mean loss is that of all samples together, whatever the batches: a batch's mean counts as
    often as the number it was divided by. Labels that the loss ignores count nowhere.

    Parameters
    ----------
    loss_fn : Module
        Says how to read the output: class scores, probabilities or logits.
    count : callable, optional
        ``count(output, target)`` returns how many samples are right; None is :func:`count_correct`.
    skip_nonfinite : bool, default False
        Leave out batches whose loss is NaN or infinite.

    Attributes
    ----------
    samples : int
        Seen so far, ignored and left out ones included.
    """

    def __init__(
        self,
        loss_fn: Module,
        count: Callable[[Array, Array], Array] | None = None,
        *,
        skip_nonfinite: bool = False,
    ) -> None:
        self.loss_fn = loss_fn
        self.count = count
        self.skip_nonfinite = skip_nonfinite
        self.samples = 0
        self._loss: Any = 0.0
        self._weight: Any = 0
        self._correct: Any = None
        self._answers: Any = 0

    def add(self, loss: Array, output: Array, target: Array) -> None:
        """Add one batch."""
        samples = len(target) if target.ndim else 1
        self.samples += samples
        with device_of(loss).activate():
            weight, answers = _count(self.loss_fn, target)
            loss = loss.astype(np.float64)
            if getattr(self.loss_fn, "reduction", "mean") == "sum":
                weight = samples
            else:
                if not isinstance(weight, int):  # nothing but ignored labels: the mean is NaN
                    loss = get_array_module(loss).where(weight > 0, loss, 0)
                loss = loss * weight
            if self.count is None:
                correct = count_correct(self.loss_fn, output, target)
            else:
                correct, answers = self.count(output, target), samples
            if self.skip_nonfinite:  # by masks: nobody waits for the device
                where = get_array_module(loss).where
                counts = get_array_module(loss).isfinite(loss)
                loss, weight, answers = (where(counts, n, 0) for n in (loss, weight, answers))
                correct = None if correct is None else where(counts, correct, 0)
            self._loss = loss + self._loss
            self._weight = weight + self._weight
            if correct is not None:
                self._correct = correct if self._correct is None else correct + self._correct
                self._answers = answers + self._answers

    def state(self) -> dict[str, Any]:
        """Return the sums as plain data; downloads a few scalars."""
        return {"samples": self.samples, "sums": self._plain_sums()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from the sums that :meth:`state` returned."""
        self.samples = state["samples"]
        self._loss, self._weight, self._correct, self._answers = state["sums"]

    def _plain_sums(self) -> list[Any]:
        sums = (self._loss, self._weight, self._correct, self._answers)
        return [None if value is None else plain_number(value) for value in sums]

    def read(self) -> tuple[float, float | None]:
        """Return mean loss and share of right answers; downloads a few scalars."""
        loss, weight, correct, answers = self._plain_sums()
        mean = loss / weight if weight else math.nan
        if correct is None:
            return mean, None
        return mean, correct / answers if answers else math.nan


def count_weight(loss_fn: Module, target: Array) -> Any:
    """Return what a batch's mean loss was divided by, or a number in proportion to it.

    Parameters
    ----------
    loss_fn : Module
        The loss.
    target : array
        The batch's targets.

    Returns
    -------
    int, or array of shape () where labels decide
    """
    return _count(loss_fn, target)[0]


def plain_number(value: Any) -> Any:
    """Return a number on the host for one that may be an array of shape ()."""
    return value if isinstance(value, (int, float)) else to_host(value).item()


def label_weights(loss_fn: Module, target: Array) -> Array | None:
    """Return how much each label counts in the mean; None where all samples count alike.

    Parameters
    ----------
    loss_fn : Module
        The loss.
    target : array
        The batch's targets.

    Returns
    -------
    array of the target's shape, or None
        The weight of its class; without class weights, whether it is not ignored.
    """
    if not isinstance(loss_fn, (CrossEntropyLoss, NLLLoss)) or target.dtype.kind == "f":
        return None
    counted = target != loss_fn.ignore_index
    weight = dict(loss_fn.own_buffers(persistent=True)).get("weight")
    if weight is None:
        return counted
    xp = get_array_module(target)
    one_hot = xp.expand_dims(target, -1) == xp.arange(len(weight))
    return xp.where(one_hot & xp.expand_dims(counted, -1), weight, 0).sum(axis=-1)


def _count(loss_fn: Module, target: Array) -> tuple[Any, Any]:
    """Return what a batch's mean loss was divided by, or in proportion to it, and the answers."""
    if not isinstance(loss_fn, (CrossEntropyLoss, NLLLoss)):
        return (len(target) if target.ndim else 1), target.size
    weights = label_weights(loss_fn, target)
    if weights is None:  # probabilities of the classes
        return (len(target) if target.ndim > 1 else 1), target.size // target.shape[
            _axis(loss_fn, target)
        ]
    total = weights.sum()
    is_count = weights.dtype.kind == "b"
    return total, total if is_count else (target != loss_fn.ignore_index).sum()


def _axis(loss_fn: Module, scores: Array) -> int:
    """Return the axis along which the classes lie."""
    if isinstance(loss_fn, TokenCrossEntropyLoss):
        return -1
    return 1 if scores.ndim > 1 else 0


def count_correct(loss_fn: Module, output: Array, target: Array) -> Array | None:
    """Return how many samples of a batch are classified rightly; None where that has no meaning.

    Parameters
    ----------
    loss_fn : Module
        Says how to read the output: class scores, probabilities or logits.
    output, target : array
        A batch, on any device; the count stays there.

    Returns
    -------
    array of int64, shape (), or None
    """
    if isinstance(loss_fn, _OF_CLASSES):
        axis = _axis(loss_fn, output)
        if target.dtype.kind == "f":  # probabilities: the likeliest class is the right one
            return (output.argmax(axis=axis) == target.argmax(axis=axis)).sum()
        is_right = output.argmax(axis=axis) == target
        if isinstance(loss_fn, (CrossEntropyLoss, NLLLoss)):
            is_right = is_right & (target != loss_fn.ignore_index)
        return is_right.sum()
    if isinstance(loss_fn, (BCELoss, BCEWithLogitsLoss)):
        threshold = 0.5 if isinstance(loss_fn, BCELoss) else 0.0
        return ((output > threshold) == (target > 0.5)).sum()
    return None


def count_classes(model: Module) -> int | None:
    """Return how many classes the last layer tells apart; None where the layers do not say."""
    if isinstance(model, Linear):
        return model.out_features
    if isinstance(model, (Recompute, Residual)):
        return count_classes(model.module)
    if isinstance(model, Sequential):
        last = next((part for part in reversed(list(model)) if not _keeps_features(part)), None)
        return None if last is None else count_classes(last)
    return None


def _keeps_features(layer: Module) -> bool:
    return isinstance(layer, _KEEPS_FEATURES)


def confusion_matrix(target: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count how often each class was taken for each other.

    Parameters
    ----------
    target, predicted : numpy.ndarray of int, shape (samples,)
        True and predicted class indices.
    classes : int
        Number of classes.

    Returns
    -------
    numpy.ndarray of int64, shape (classes, classes)
        Rows are true classes, columns predicted ones.
    """
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (target, predicted), 1)
    return matrix
