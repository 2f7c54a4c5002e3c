"""Rows of distances."""

from collections.abc import Callable
from typing import Any

import numpy as np

from layer_cases.case import Case, Rng, pair, torch_function
from xbackprop import nn


def two(first: tuple[int, ...], second: tuple[int, ...]) -> Callable[[Rng], Any]:
    """Inputs of two shapes that broadcast."""
    return lambda rng: (rng.normal(size=first), rng.normal(size=second))


def far_apart(*shape: int) -> Callable[[Rng], Any]:
    """Differences of 0.5 and more, no two alike: off the kinks of the norms 0, 1 and infinity."""

    def draw(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
        steps = 0.5 + 0.25 * rng.permuted(np.broadcast_to(np.arange(shape[-1]), shape), axis=-1)
        x = rng.normal(size=shape)
        return x, x + steps * rng.choice([-1.0, 1.0], size=shape)

    return draw


DISTANCES = [
    Case("CosineSimilarity", nn.CosineSimilarity, pair(4, 3), lambda t: t.nn.CosineSimilarity()),
    Case(
        "CosineSimilarity of channels",
        lambda: nn.CosineSimilarity(1),
        pair(2, 3, 4),
        lambda t: t.nn.CosineSimilarity(1),
    ),
    Case(
        "CosineSimilarity of one pair",
        lambda: nn.CosineSimilarity(0),
        pair(3),
        lambda t: t.nn.CosineSimilarity(0),
        has_batch=False,
    ),
    Case(
        "CosineSimilarity of broadcast inputs",
        lambda: nn.CosineSimilarity(2),
        two((4, 1, 3), (2, 1)),
        lambda t: t.nn.CosineSimilarity(2),
        has_batch=False,
    ),
    *(
        Case(
            f"PairwiseDistance p={p}",
            lambda p=p: nn.PairwiseDistance(p),
            far_apart(4, 3),
            lambda t, p=p: t.nn.PairwiseDistance(p),
            is_plain=abs(p) != np.inf,
        )
        for p in (0.5, 1, 1.5, 2, 3, -1, np.inf, -np.inf)
    ),
    Case(
        "PairwiseDistance p=0",
        lambda: nn.PairwiseDistance(0),
        far_apart(4, 3),
        # PyTorch gives no gradient at all, and None is not what zeros are compared with.
        lambda t: torch_function(
            t, lambda x1, x2: t.nn.PairwiseDistance(0)(x1, x2) + 0 * (x1 + x2).sum(-1)
        ),
        is_plain=False,
    ),
    Case(
        "PairwiseDistance eps and keepdim",
        lambda: nn.PairwiseDistance(2, 0.3, keepdim=True),
        pair(2, 4, 3),
        lambda t: t.nn.PairwiseDistance(2, 0.3, keepdim=True),
    ),
    Case(
        "PairwiseDistance of one pair",
        nn.PairwiseDistance,
        pair(3),
        lambda t: t.nn.PairwiseDistance(),
        has_batch=False,
    ),
    Case(
        "PairwiseDistance of numbers",
        nn.PairwiseDistance,
        pair(),
        lambda t: t.nn.PairwiseDistance(),
        has_batch=False,
        is_plain=False,
    ),
    Case(
        "PairwiseDistance of broadcast inputs",
        nn.PairwiseDistance,
        two((4, 1, 3), (2, 1)),
        lambda t: t.nn.PairwiseDistance(),
        has_batch=False,
        is_plain=False,
    ),
]
