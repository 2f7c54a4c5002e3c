"""Rows of cross-entropy of tokens."""

from collections.abc import Callable
from typing import Any

import numpy as np

from layer_cases.case import Case, Rng
from layer_cases.losses.drawing import CLASS_WEIGHT, reduced
from xbackprop import nn


def tokens(
    *shape: int, ignore: int | None = None, dtype: Any = np.int64
) -> Callable[[Rng], tuple[np.ndarray, np.ndarray]]:
    """Logits of `shape`, classes last; the last token of the batch is ignored where asked for."""

    def draw(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
        count = min(shape[-1], np.iinfo(dtype).max + 1)
        target = np.asarray(rng.integers(count, size=shape[:-1]))
        if ignore is not None:
            target.reshape(-1)[0] = (ignore + 1) % count
            target.reshape(-1)[-1] = ignore
        return 2 * rng.normal(size=shape), target.astype(dtype)

    return draw


def flattened(t: Any, *args: Any, **options: Any) -> Any:
    """PyTorch's loss of the rows, in the target's shape where there is no reduction."""

    class Flattened(t.nn.CrossEntropyLoss):
        def forward(self, logits: Any, target: Any) -> Any:
            losses = super().forward(logits.reshape(-1, logits.shape[-1]), target.reshape(-1))
            return losses.reshape(target.shape) if self.reduction == "none" else losses

    return Flattened(*args, **options)


TOKENS = [
    *reduced("TokenCrossEntropyLoss", nn.TokenCrossEntropyLoss, tokens(2, 4, 3), flattened),
    *reduced(
        "TokenCrossEntropyLoss",
        lambda **o: nn.TokenCrossEntropyLoss(CLASS_WEIGHT, **o),
        tokens(2, 4, 3),
        lambda t, **o: flattened(t, t.tensor(CLASS_WEIGHT), **o),
        suffix="with class weights",
    ),
    *reduced(
        "TokenCrossEntropyLoss",
        lambda **o: nn.TokenCrossEntropyLoss(label_smoothing=0.1, **o),
        tokens(2, 4, 3),
        lambda t, **o: flattened(t, label_smoothing=0.1, **o),
        suffix="with label smoothing",
    ),
    *reduced(
        "TokenCrossEntropyLoss",
        lambda **o: nn.TokenCrossEntropyLoss(CLASS_WEIGHT, 2, label_smoothing=0.2, **o),
        tokens(2, 3, 2, 3, ignore=2),
        lambda t, **o: flattened(
            t, t.tensor(CLASS_WEIGHT), ignore_index=2, label_smoothing=0.2, **o
        ),
        suffix="with everything",
        has_batch=False,  # nothing but an ignored label has no mean
    ),
    Case(
        "TokenCrossEntropyLoss with labels of -100",
        nn.TokenCrossEntropyLoss,
        tokens(3, 2, 3, ignore=-100),
        flattened,
        is_plain=False,
    ),
    Case("TokenCrossEntropyLoss of rows", nn.TokenCrossEntropyLoss, tokens(4, 3), flattened),
    Case(
        "TokenCrossEntropyLoss of one 1-D sample",
        lambda: nn.TokenCrossEntropyLoss(reduction="none"),
        tokens(3),
        lambda t: flattened(t, reduction="none"),
        has_batch=False,
    ),
    Case(
        "TokenCrossEntropyLoss of uint8 labels among 300",
        nn.TokenCrossEntropyLoss,
        tokens(2, 2, 300, dtype=np.uint8),
        flattened,
    ),
]
