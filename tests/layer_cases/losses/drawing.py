"""What rows of several themes draw and build."""

from collections.abc import Callable
from typing import Any

import numpy as np

from layer_cases.case import Case, Rng

REDUCTIONS = ("mean", "sum", "none")
CLASS_WEIGHT = [0.5, 2.0, 1.0]


def reduced(
    name: str,
    make: Callable[..., Any],
    inputs: Callable[[Rng], Any],
    torch: Callable[..., Any],
    *,
    reductions: tuple[str, ...] = REDUCTIONS,
    suffix: str = "",
    **options: Any,
) -> list[Case]:
    """A row per reduction: `make(reduction=...)` beside `torch(module torch, reduction=...)`."""
    return [
        Case(
            f"{name} {reduction}{suffix and ' '}{suffix}",
            lambda reduction=reduction: make(reduction=reduction),
            inputs,
            lambda t, reduction=reduction: torch(t, reduction=reduction),
            **options,
        )
        for reduction in reductions
    ]


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


def away_from(points: tuple[float, ...], values: np.ndarray, distance: float = 0.05) -> np.ndarray:
    """Move values that lie near a kink by twice `distance`."""
    for point in points:
        values = np.where(np.abs(values - point) < distance, values + 2 * distance, values)
    return values


def signs(rng: Rng, *shape: int, dtype: Any = np.int64) -> np.ndarray:
    """Labels 1 and -1."""
    return np.asarray(2 * rng.integers(2, size=shape) - 1).astype(dtype)
