"""Rows of cross-entropy."""

import numpy as np

from layer_cases.case import Case, Rng
from layer_cases.losses.drawing import CLASS_WEIGHT, classes, reduced
from xbackprop import nn


def soft(*shape: int) -> object:
    """Logits of `shape`, and probabilities that sum up to one, but for the first sample."""

    def draw(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
        target = rng.uniform(0.1, 1, size=shape)
        axis = 1 if len(shape) > 1 else 0
        target[1:] /= target[1:].sum(axis=axis, keepdims=True) if axis else 1
        return 2 * rng.normal(size=shape), target

    return draw


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
    *reduced(
        "CrossEntropyLoss",
        nn.CrossEntropyLoss,
        soft(4, 3),
        lambda t, **o: t.nn.CrossEntropyLoss(**o),
        suffix="of probabilities",
    ),
    *reduced(
        "CrossEntropyLoss",
        lambda **o: nn.CrossEntropyLoss(CLASS_WEIGHT, label_smoothing=0.2, **o),
        soft(4, 3, 2),
        lambda t, **o: t.nn.CrossEntropyLoss(t.tensor(CLASS_WEIGHT), label_smoothing=0.2, **o),
        suffix="of probabilities with weights and label smoothing",
    ),
    Case(
        "CrossEntropyLoss of one 1-D sample of probabilities",
        nn.CrossEntropyLoss,
        soft(3),
        lambda t: t.nn.CrossEntropyLoss(),
        has_batch=False,
        is_plain=False,
    ),
]
