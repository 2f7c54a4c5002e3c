"""A data set in two parts, and the random split that makes it."""

import heapq
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from xbackprop.data.arrays import as_host_array, as_inputs, check_same_length
from xbackprop.data.generators import as_generator


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """A data set in a training and a test part, as host arrays.

    Parameters
    ----------
    x_train, x_test : numpy.ndarray
        Float features, one sample per row: (samples, features), or (samples, channels, height,
        width) for images.
    y_train, y_test : numpy.ndarray
        int64 class indices of shape (samples,), or float targets for a regression.
    classes : tuple of str or int, or None
        What class index ``i`` stands for; None for a regression.
    feature_names : tuple of str
        One name per column of a two-dimensional ``x``; empty for images.
    name : str
        The data set's name, or its file's.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str | int, ...] | None
    feature_names: tuple[str, ...]
    name: str

    @property
    def num_classes(self) -> int | None:
        """Number of classes; None for a regression."""
        return None if self.classes is None else len(self.classes)

    def __repr__(self) -> str:
        kind = "regression" if self.classes is None else f"{len(self.classes)} classes"
        return (
            f"Split({self.name!r}, {kind}, x_train {self.x_train.shape}, "
            f"x_test {self.x_test.shape}, {self.x_train.dtype})"
        )


def train_test_split(
    X: Any,
    y: Any,
    *,
    test_size: float = 0.2,
    stratify: bool = False,
    rng: int | np.random.Generator,
) -> tuple[Any, Any, Any, Any]:
    """Split samples at random into a training and a test part.

    Parameters
    ----------
    X : array_like of shape (samples, ...), or tuple of such
        Inputs; a tuple is several inputs per sample and comes back as tuples.
    y : array_like of shape (samples, ...)
        Targets.
    test_size : float or int, default 0.2
        A fraction between 0 and 1, rounded up to whole samples, or a number of samples.
    stratify : bool, default False
        Keep the proportions of the classes in ``y`` equal in both parts, each class at least
        once in either.
    rng : int or numpy.random.Generator
        Seed or generator of the one permutation that is drawn.

    Returns
    -------
    x_train, x_test, y_train, y_test : numpy.ndarray
        In scikit-learn's order; copies, in permuted order.

    Raises
    ------
    ValueError
        When a part would be empty, or when ``stratify`` cannot put a class into both parts.

    Examples
    --------
    >>> x_train, x_test, y_train, y_test = train_test_split(
    ...     [[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1], test_size=0.5, stratify=True, rng=0
    ... )
    >>> sorted(y_test.tolist())
    [0, 1]
    """
    inputs = as_inputs(X)
    target = as_host_array(y, "y")
    length = check_same_length(**inputs, y=target)
    train, test = split_indices(length, test_size, target if stratify else None, rng)
    x_train = tuple(array[train] for array in inputs.values())
    x_test = tuple(array[test] for array in inputs.values())
    if isinstance(X, tuple):
        return x_train, x_test, target[train], target[test]
    return x_train[0], x_test[0], target[train], target[test]


def split_indices(
    length: int,
    test_size: float,
    labels: np.ndarray | None,
    rng: int | np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sample indices of the training and the test part, in permuted order.

    Parameters
    ----------
    length : int
        Number of samples.
    test_size : float or int
        As for :func:`train_test_split`.
    labels : numpy.ndarray of shape (length,), optional
        Classes whose proportions are kept.
    rng : int or numpy.random.Generator
        Seed or generator.

    Returns
    -------
    train, test : numpy.ndarray of int64
    """
    num_test = _count_test_samples(length, test_size)
    permutation = as_generator(rng).permutation(length)
    is_test = np.zeros(length, dtype=bool)  # by position in the permutation
    if labels is None:
        is_test[:num_test] = True
    else:
        if labels.ndim != 1 or labels.dtype.kind == "f":
            raise ValueError(
                "stratify=True expects y to hold one class per sample; "
                f"got shape {labels.shape} and dtype {labels.dtype}. Leave stratify out."
            )
        classes, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
        shares = _share_among_classes(classes, counts, num_test)
        # In permuted order within each class, the first ones go to the test part.
        by_class = np.argsort(codes[permutation], kind="stable")
        rank = np.arange(length) - np.repeat(np.cumsum(counts) - counts, counts)
        is_test[by_class[rank < np.repeat(shares, counts)]] = True
    return permutation[~is_test], permutation[is_test]


def _count_test_samples(length: int, test_size: float) -> int:
    if isinstance(test_size, bool) or not isinstance(test_size, int | float | np.number):
        raise TypeError(f"test_size expects a number; got {type(test_size).__name__}.")
    if isinstance(test_size, int | np.integer):
        count = int(test_size)
    elif 0.0 < test_size < 1.0:
        count = math.ceil(test_size * length - 1e-9)  # 0.07 * 100 is 7.000000000000001
    else:
        raise ValueError(
            "test_size expects a fraction between 0 and 1 or a whole number of samples; "
            f"got {test_size}."
        )
    if not 1 <= count < length:
        raise ValueError(
            f"test_size={test_size} of {length} samples leaves {length - count} for training and "
            f"{count} for testing. Expected at least one in each."
        )
    return count


def _share_among_classes(classes: np.ndarray, counts: np.ndarray, num_test: int) -> np.ndarray:
    """Return how many test samples each class gives: its quota, rounded by largest remainder."""
    if counts.min() < 2:
        lonely = classes[int(np.argmin(counts))]
        raise ValueError(
            f"stratify=True expects two or more samples of each class; class {lonely} has one."
        )
    total = int(counts.sum())
    if not len(classes) <= num_test <= total - len(classes):
        raise ValueError(
            f"stratify=True expects room for each of the {len(classes)} classes in both parts; "
            f"got {total - num_test} training and {num_test} test samples. Change test_size."
        )
    quota = counts * (num_test / total)
    shares: np.ndarray = np.clip(np.floor(quota), 1, counts - 1).astype(np.int64)
    step = 1 if shares.sum() < num_test else -1
    limit = counts - 1 if step > 0 else np.ones_like(counts)
    # The class that is furthest from its quota comes first, and the first of those.
    queue = [(step * (shares[i] - quota[i]), i) for i in np.flatnonzero(shares != limit).tolist()]
    heapq.heapify(queue)
    for _ in range(abs(num_test - int(shares.sum()))):
        _, i = heapq.heappop(queue)
        shares[i] += step
        if shares[i] != limit[i]:
            heapq.heappush(queue, (step * (shares[i] - quota[i]), i))
    return shares
