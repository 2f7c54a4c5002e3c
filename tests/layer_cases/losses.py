"""Rows of losses."""

from collections.abc import Callable
from typing import Any

import numpy as np

from layer_cases.case import Case, Rng, pair, torch_function
from xbackprop import nn


def probabilities(*shape: int) -> Callable[[Rng], tuple[np.ndarray, np.ndarray]]:
    return lambda rng: (rng.uniform(0.2, 0.8, size=shape), rng.uniform(0.1, 0.9, size=shape))


def logits(*shape: int) -> Callable[[Rng], tuple[np.ndarray, np.ndarray]]:
    return lambda rng: (2 * rng.normal(size=shape), rng.uniform(size=shape))


def classes(
    *shape: int, ignore: int | None = None, dtype: Any = np.int64
) -> Callable[[Rng], tuple[np.ndarray, np.ndarray]]:
    """Logits of `shape`, and class indices; the second sample is ignored where asked for."""

    def draw(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
        axis = 1 if len(shape) > 1 else 0
        count = min(shape[axis], np.iinfo(dtype).max + 1)
        target = np.asarray(rng.integers(count, size=shape[:axis] + shape[axis + 1 :]))
        if ignore is not None:
            target[0] = (ignore + 1) % count
            target[1] = ignore
        return 2 * rng.normal(size=shape), target.astype(dtype)

    return draw


def torch_half_squared_error(torch: Any) -> Any:
    def function(output: Any, target: Any) -> Any:
        batch = len(output) if output.ndim > 1 else 1
        return ((output - target) ** 2).sum() / 2 / batch

    return torch_function(torch, function)


CLASS_WEIGHT = [0.5, 2.0, 1.0]

REGRESSION = [
    *(
        Case(
            f"MSELoss {reduction}",
            lambda reduction=reduction: nn.MSELoss(reduction),
            pair(4, 3),
            lambda t, reduction=reduction: t.nn.MSELoss(reduction=reduction),
        )
        for reduction in ("mean", "sum", "none")
    ),
    Case(
        "MSELoss of one 1-D sample", nn.MSELoss, pair(3), lambda t: t.nn.MSELoss(), has_batch=False
    ),
    Case("HalfSquaredError", nn.HalfSquaredError, pair(4, 3), torch_half_squared_error),
    Case(
        "HalfSquaredError of one 1-D sample",
        nn.HalfSquaredError,
        pair(1),
        torch_half_squared_error,
        has_batch=False,
    ),
]

CROSS_ENTROPY = [
    *(
        Case(
            f"CrossEntropyLoss {reduction}",
            lambda reduction=reduction: nn.CrossEntropyLoss(reduction=reduction),
            classes(4, 3),
            lambda t, reduction=reduction: t.nn.CrossEntropyLoss(reduction=reduction),
        )
        for reduction in ("mean", "sum", "none")
    ),
    *(
        Case(
            f"CrossEntropyLoss {reduction} with class weights",
            lambda reduction=reduction: nn.CrossEntropyLoss(CLASS_WEIGHT, reduction=reduction),
            classes(4, 3),
            lambda t, reduction=reduction: t.nn.CrossEntropyLoss(
                t.tensor(CLASS_WEIGHT), reduction=reduction
            ),
        )
        for reduction in ("mean", "sum", "none")
    ),
    *(
        Case(
            f"CrossEntropyLoss {reduction} with ignored labels",
            lambda reduction=reduction: nn.CrossEntropyLoss(ignore_index=1, reduction=reduction),
            classes(4, 3, ignore=1),
            lambda t, reduction=reduction: t.nn.CrossEntropyLoss(
                ignore_index=1, reduction=reduction
            ),
            has_batch=False,  # nothing but an ignored label has no mean
        )
        for reduction in ("mean", "sum", "none")
    ),
    Case(
        "CrossEntropyLoss with labels of -100",
        nn.CrossEntropyLoss,
        classes(4, 3, ignore=-100),
        lambda t: t.nn.CrossEntropyLoss(),
        is_plain=False,
    ),
    *(
        Case(
            f"CrossEntropyLoss {reduction} with label smoothing",
            lambda reduction=reduction: nn.CrossEntropyLoss(
                label_smoothing=0.1, reduction=reduction
            ),
            classes(4, 3),
            lambda t, reduction=reduction: t.nn.CrossEntropyLoss(
                label_smoothing=0.1, reduction=reduction
            ),
        )
        for reduction in ("mean", "sum", "none")
    ),
    *(
        Case(
            f"CrossEntropyLoss {reduction} with everything",
            lambda reduction=reduction: nn.CrossEntropyLoss(
                CLASS_WEIGHT, ignore_index=2, label_smoothing=0.2, reduction=reduction
            ),
            classes(5, 3, 2, ignore=2),
            lambda t, reduction=reduction: t.nn.CrossEntropyLoss(
                t.tensor(CLASS_WEIGHT), ignore_index=2, label_smoothing=0.2, reduction=reduction
            ),
            has_batch=False,
        )
        for reduction in ("mean", "sum", "none")
    ),
    Case(
        "CrossEntropyLoss of one 1-D sample",
        nn.CrossEntropyLoss,
        classes(3),
        lambda t: t.nn.CrossEntropyLoss(),
        has_batch=False,
        is_plain=False,
    ),
    Case(
        "CrossEntropyLoss of one 1-D sample with everything",
        lambda: nn.CrossEntropyLoss(CLASS_WEIGHT, label_smoothing=0.2),
        classes(3),
        lambda t: t.nn.CrossEntropyLoss(t.tensor(CLASS_WEIGHT), label_smoothing=0.2),
        has_batch=False,
    ),
    Case(
        "CrossEntropyLoss of images",
        nn.CrossEntropyLoss,
        classes(2, 3, 2, 2),
        lambda t: t.nn.CrossEntropyLoss(),
        is_plain=False,
    ),
    Case(
        "CrossEntropyLoss of images with class weights, none",
        lambda: nn.CrossEntropyLoss(CLASS_WEIGHT, reduction="none"),
        classes(2, 3, 2, 2),
        lambda t: t.nn.CrossEntropyLoss(t.tensor(CLASS_WEIGHT), reduction="none"),
    ),
    Case(
        "CrossEntropyLoss of uint8 labels among 300",
        nn.CrossEntropyLoss,
        classes(2, 300, dtype=np.uint8),
        lambda t: t.nn.CrossEntropyLoss(),
    ),
]

BINARY = [
    *(
        Case(
            f"BCELoss {reduction}",
            lambda reduction=reduction: nn.BCELoss(reduction=reduction),
            probabilities(4, 3),
            lambda t, reduction=reduction: t.nn.BCELoss(reduction=reduction),
        )
        for reduction in ("mean", "sum", "none")
    ),
    Case(
        "BCELoss with weight",
        lambda: nn.BCELoss([0.5, 2.0, 1.0]),
        probabilities(4, 3),
        lambda t: t.nn.BCELoss(t.tensor([0.5, 2.0, 1.0])),
    ),
    Case(
        "BCELoss of one 1-D sample",
        nn.BCELoss,
        probabilities(3),
        lambda t: t.nn.BCELoss(),
        has_batch=False,
    ),
    *(
        Case(
            f"BCEWithLogitsLoss {reduction}",
            lambda reduction=reduction: nn.BCEWithLogitsLoss(reduction=reduction),
            logits(4, 3),
            lambda t, reduction=reduction: t.nn.BCEWithLogitsLoss(reduction=reduction),
        )
        for reduction in ("mean", "sum", "none")
    ),
    Case(
        "BCEWithLogitsLoss with weight",
        lambda: nn.BCEWithLogitsLoss([0.5, 2.0, 1.0]),
        logits(4, 3),
        lambda t: t.nn.BCEWithLogitsLoss(t.tensor([0.5, 2.0, 1.0])),
    ),
    Case(
        "BCEWithLogitsLoss with pos_weight",
        lambda: nn.BCEWithLogitsLoss(pos_weight=[3.0, 0.5, 1.0]),
        logits(4, 3),
        lambda t: t.nn.BCEWithLogitsLoss(pos_weight=t.tensor([3.0, 0.5, 1.0])),
    ),
    Case(
        "BCEWithLogitsLoss none with both weights",
        lambda: nn.BCEWithLogitsLoss([0.5, 2.0, 1.0], "none", [3.0, 0.5, 1.0]),
        logits(4, 3),
        lambda t: t.nn.BCEWithLogitsLoss(
            t.tensor([0.5, 2.0, 1.0]), reduction="none", pos_weight=t.tensor([3.0, 0.5, 1.0])
        ),
    ),
]
