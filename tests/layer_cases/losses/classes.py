"""Rows of losses of class indices, but for cross-entropy."""

import numpy as np

from layer_cases.case import Case, Rng
from layer_cases.losses.drawing import CLASS_WEIGHT, classes, reduced
from xbackprop import nn


def apart(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Scores in steps of 0.3, so that no hinge of margin 1 or 0.5 is at its kink."""
    scores = np.stack([rng.permutation(np.arange(3)) * 0.3 for _ in range(4)])
    return scores + 0.02 * rng.normal(size=(4, 3)), rng.integers(3, size=4)


def label_lists(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """One label, three, none; labels after the first -1 do not count."""
    scores = np.stack([rng.permutation(np.arange(4)) * 0.7 for _ in range(3)])
    target = np.array([[2, -1, 0, 1], [3, 0, 1, -1], [-1, 2, 2, 2]])
    return scores + 0.02 * rng.normal(size=(3, 4)), target


def only_labels(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """As the formula shows it: lists without a gap."""
    scores, target = label_lists(rng)
    return scores[:2], np.sort(target[:2])[:, ::-1]


CLASSES = [
    *reduced("NLLLoss", nn.NLLLoss, classes(4, 3), lambda t, **o: t.nn.NLLLoss(**o)),
    *reduced(
        "NLLLoss",
        lambda **o: nn.NLLLoss(CLASS_WEIGHT, 2, **o),
        classes(5, 3, 2, ignore=2),
        lambda t, **o: t.nn.NLLLoss(t.tensor(CLASS_WEIGHT), ignore_index=2, **o),
        suffix="with weights and ignored labels",
        has_batch=False,  # nothing but an ignored label has no mean
    ),
    Case(
        "NLLLoss with labels of -100",
        nn.NLLLoss,
        classes(4, 3, ignore=-100),
        lambda t: t.nn.NLLLoss(),
        is_plain=False,
    ),
    Case(
        "NLLLoss of one 1-D sample",
        nn.NLLLoss,
        classes(3),
        lambda t: t.nn.NLLLoss(),
        has_batch=False,
        is_plain=False,
    ),
    Case(
        "NLLLoss of uint8 labels among 300",
        nn.NLLLoss,
        classes(2, 300, dtype=np.uint8),
        lambda t: t.nn.NLLLoss(),
    ),
    *reduced(
        "MultiMarginLoss", nn.MultiMarginLoss, apart, lambda t, **o: t.nn.MultiMarginLoss(**o)
    ),
    *reduced(
        "MultiMarginLoss",
        lambda **o: nn.MultiMarginLoss(2, 0.5, CLASS_WEIGHT, **o),
        apart,
        lambda t, **o: t.nn.MultiMarginLoss(2, 0.5, t.tensor(CLASS_WEIGHT), **o),
        suffix="p 2 margin 0.5 with weights",
    ),
    Case(
        "MultiMarginLoss of one 1-D sample",
        lambda: nn.MultiMarginLoss(margin=0.7),
        lambda rng: (np.array([0.1, 0.4, 0.3]) + 0.02 * rng.normal(size=3), np.array(1)),
        lambda t: t.nn.MultiMarginLoss(margin=0.7),
        has_batch=False,
        is_plain=False,
    ),
    *reduced(
        "MultiLabelMarginLoss",
        nn.MultiLabelMarginLoss,
        label_lists,
        lambda t, **o: t.nn.MultiLabelMarginLoss(**o),
        is_plain=False,
    ),
    Case(
        "MultiLabelMarginLoss of plain lists",
        nn.MultiLabelMarginLoss,
        only_labels,
        lambda t: t.nn.MultiLabelMarginLoss(),
    ),
    Case(
        "MultiLabelMarginLoss of a label given twice, one 1-D sample",
        nn.MultiLabelMarginLoss,
        lambda rng: (np.array([0.0, 0.3, 0.7, 1.6]) + 0.02 * rng.normal(size=4),
                     np.array([2, 2, 0, -1])),
        lambda t: t.nn.MultiLabelMarginLoss(),
        has_batch=False,
        is_plain=False,
    ),
]  # fmt: skip
