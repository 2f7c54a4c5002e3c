"""What a run reports: the loss and, for classes, the share of right answers."""

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.nn import BCELoss, BCEWithLogitsLoss, CrossEntropyLoss, Module


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
    if isinstance(loss_fn, CrossEntropyLoss):
        axis = 1 if output.ndim > 1 else 0
        return (output.argmax(axis=axis) == target).sum()
    if isinstance(loss_fn, (BCELoss, BCEWithLogitsLoss)):
        threshold = 0.5 if isinstance(loss_fn, BCELoss) else 0.0
        return ((output > threshold) == (target > 0.5)).sum()
    return None


def count_answers(target: Array) -> int:
    """Return how many answers a batch of targets holds."""
    return int(np.prod(target.shape, dtype=np.int64))


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
