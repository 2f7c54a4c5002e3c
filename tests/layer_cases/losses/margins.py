"""Rows of margin losses of labels 1 and -1."""

from typing import Any

import numpy as np

from layer_cases.case import Case, Rng, torch_function
from layer_cases.losses.drawing import REDUCTIONS, away_from, reduced, signs
from xbackprop import nn


def torch_soft_margin_of_floats(torch: Any) -> Any:
    """PyTorch's own has no gradient of the target."""

    def function(output: Any, target: Any) -> Any:
        return torch.nn.functional.softplus(-target * output).mean()

    return torch_function(torch, function)


def distances(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    return away_from((0.5, 1.0), rng.uniform(0.0, 2.0, size=(4, 3))), signs(rng, 4, 3)


def ranked(*shapes: tuple[int, ...], margin: float = 0.0, dtype: Any = np.int64) -> Any:
    def draw(rng: Rng) -> tuple[np.ndarray, ...]:
        second = rng.normal(size=shapes[1])
        gap = away_from((-margin, margin), rng.normal(size=shapes[0]), 0.1)
        return second + gap, second, signs(rng, *shapes[2], dtype=dtype)

    return draw


def broadcast(rng: Rng) -> tuple[np.ndarray, ...]:
    first = np.array([[0.1, 0.8, 1.5], [2.0, -0.3, 0.4]]) + 0.02 * rng.normal(size=(2, 3))
    return first, np.array([[0.6], [0.1]]), np.array([[1.0, -1.0, 1.0]])


def directions(*shape: int, broadcasts: bool = False) -> Any:
    def draw(rng: Rng) -> tuple[np.ndarray, ...]:
        labels = signs(rng, *shape[:-1])
        first = rng.normal(size=shape)
        second = rng.normal(size=shape)
        cosine = (first * second).sum(-1, keepdims=True) / np.sqrt(
            (first**2).sum(-1, keepdims=True) * (second**2).sum(-1, keepdims=True)
        )
        second = np.where(np.abs(cosine - 0.2) < 0.3, second + first, second)  # off the margin
        return first, second[:1] if broadcasts else second, labels

    return draw


MARGINS = [
    *reduced(
        "SoftMarginLoss",
        nn.SoftMarginLoss,
        lambda rng: (2 * rng.normal(size=(4, 3)), signs(rng, 4, 3)),
        lambda t, **o: t.nn.SoftMarginLoss(**o),
    ),
    Case(
        "SoftMarginLoss of float labels",
        nn.SoftMarginLoss,
        lambda rng: (2 * rng.normal(size=(4, 3)), rng.normal(size=(4, 3))),
        torch_soft_margin_of_floats,
    ),
    *reduced(
        "HingeEmbeddingLoss",
        nn.HingeEmbeddingLoss,
        distances,
        lambda t, **o: t.nn.HingeEmbeddingLoss(**o),
    ),
    *reduced(
        "HingeEmbeddingLoss",
        lambda **o: nn.HingeEmbeddingLoss(0.5, **o),
        lambda rng: (distances(rng)[0], rng.integers(-1, 2, size=(4, 3))),
        lambda t, **o: t.nn.HingeEmbeddingLoss(0.5, **o),
        suffix="margin 0.5, labels of 0 too",
    ),
    *reduced(
        "MarginRankingLoss",
        nn.MarginRankingLoss,
        ranked((4,), (4,), (4,)),
        lambda t, **o: t.nn.MarginRankingLoss(**o),
    ),
    *reduced(
        "MarginRankingLoss",
        lambda **o: nn.MarginRankingLoss(0.5, **o),
        ranked((4, 3), (4, 3), (4, 3), margin=0.5, dtype=np.float64),
        lambda t, **o: t.nn.MarginRankingLoss(0.5, **o),
        suffix="margin 0.5, float labels",
    ),
    *reduced(
        "MarginRankingLoss",
        nn.MarginRankingLoss,
        broadcast,
        lambda t, **o: t.nn.MarginRankingLoss(**o),
        suffix="broadcast",
        has_batch=False,
        is_plain=False,
    ),
    *reduced(
        "CosineEmbeddingLoss",
        nn.CosineEmbeddingLoss,
        directions(4, 3),
        lambda t, **o: t.nn.CosineEmbeddingLoss(**o),
    ),
    *reduced(
        "CosineEmbeddingLoss",
        lambda **o: nn.CosineEmbeddingLoss(0.2, **o),
        directions(4, 3),
        lambda t, **o: t.nn.CosineEmbeddingLoss(0.2, **o),
        suffix="margin 0.2",
    ),
    *reduced(
        "CosineEmbeddingLoss",
        nn.CosineEmbeddingLoss,
        lambda rng: (np.array([1.0, 2.0]) + 0.1 * rng.normal(size=2), np.array([1.0, -0.3]),
                     np.array(1)),
        lambda t, **o: t.nn.CosineEmbeddingLoss(**o),
        suffix="of one 1-D sample",
        reductions=REDUCTIONS[:1],
        has_batch=False,
        is_plain=False,
    ),
    Case(
        "CosineEmbeddingLoss broadcast, a label of neither kind",
        nn.CosineEmbeddingLoss,
        lambda rng: (
            np.array([[1.0, 2.0], [0.5, -0.2], [2.0, 0.3]]) + 0.05 * rng.normal(size=(3, 2)),
            np.array([[1.0, 0.5]]),
            np.array([1, 0, -1]),
        ),
        lambda t: t.nn.CosineEmbeddingLoss(),
        has_batch=False,
        is_plain=False,
    ),
]  # fmt: skip
