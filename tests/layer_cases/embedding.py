"""Rows of embeddings."""

from collections.abc import Callable
from typing import Any

import numpy as np

from layer_cases.case import Case, Rng
from xbackprop import nn
from xbackprop.module import Module


def indices(*shape: int, below: int = 5) -> Callable[[Rng], Any]:
    """With indices that come several times, and some that never come."""
    return lambda rng: rng.integers(0, below, size=shape)


def bags(
    *offsets: int, size: int = 9, has_factors: bool = False, dtype: Any = np.int64
) -> Callable[[Rng], Any]:
    def draw(rng: Rng) -> tuple[np.ndarray, ...]:
        drawn = (rng.integers(0, 5, size=size).astype(dtype), np.array(offsets, dtype))
        return (*drawn, rng.normal(size=size)) if has_factors else drawn

    return draw


def small(name: str, *args: Any, **options: Any) -> Callable[[], Module]:
    """With rows far below max_norm: the differences of the norms' scaling are no gradient here.

    Beside PyTorch the table is PyTorch's, of which rows are scaled.
    """
    values = np.random.default_rng(0).normal(size=(6, 3)) / 20
    return lambda: getattr(nn, name)(6, 3, *args, _weight=values, **options)


def frozen() -> Module:
    return nn.Embedding.from_pretrained(np.random.default_rng(0).normal(size=(6, 3)))


def frozen_bag() -> Module:
    values = np.random.default_rng(0).normal(size=(6, 3))
    return nn.EmbeddingBag.from_pretrained(values, mode="sum")


def frozen_in_torch(torch: Any, name: str, **options: Any) -> Any:
    return getattr(torch.nn, name).from_pretrained(torch.zeros(6, 3), **options)


EMBEDDING = [
    Case(
        "Embedding",
        lambda: nn.Embedding(6, 3, rng=0),
        indices(4, 5),
        lambda t: t.nn.Embedding(6, 3),
    ),
    Case(
        "Embedding of one index",
        lambda: nn.Embedding(6, 3, rng=0),
        indices(),
        lambda t: t.nn.Embedding(6, 3),
        has_batch=False,
    ),
    Case(
        "Embedding of many equal indices",
        lambda: nn.Embedding(2, 3, rng=0),
        indices(37, below=2),
        lambda t: t.nn.Embedding(2, 3),
    ),
    Case(
        "Embedding of int32 and three axes",
        lambda: nn.Embedding(6, 2, rng=0),
        lambda rng: rng.integers(0, 6, size=(3, 2, 2)).astype(np.int32),
        lambda t: t.nn.Embedding(6, 2),
    ),
    *(
        Case(
            f"Embedding padding_idx={padding_idx}",
            lambda padding_idx=padding_idx: nn.Embedding(6, 3, padding_idx, rng=0),
            indices(4, 5),
            lambda t, padding_idx=padding_idx: t.nn.Embedding(6, 3, padding_idx),
            is_plain=False,
        )
        for padding_idx in (5, -1)  # never read: no gradient is not what differences are
    ),
    Case(
        "Embedding _freeze",
        lambda: nn.Embedding(6, 3, _freeze=True, rng=0),
        indices(4),
        lambda t: t.nn.Embedding(6, 3, _freeze=True),
    ),
    Case(
        "Embedding from_pretrained",
        frozen,
        indices(4),
        lambda t: frozen_in_torch(t, "Embedding"),
    ),
    *(
        Case(
            f"Embedding max_norm of norm {norm_type}",
            small("Embedding", None, 1.1, norm_type),
            indices(4, 5),
            lambda t, norm_type=norm_type: t.nn.Embedding(6, 3, None, 1.1, norm_type),
        )
        for norm_type in (2.0, 1.0, 3.0, 0.5, np.inf)
    ),
    Case(
        "Embedding max_norm and padding_idx",
        small("Embedding", 5, 1.1),
        indices(4, 5),
        lambda t: t.nn.Embedding(6, 3, 5, 1.1),
        is_plain=False,
    ),
    Case(
        "Embedding without columns",
        lambda: nn.Embedding(6, 0, max_norm=1.0, norm_type=np.inf, rng=0),
        indices(4),
        lambda t: t.nn.Embedding(6, 0),
    ),
    *(
        Case(
            f"EmbeddingBag {mode}",
            lambda mode=mode: nn.EmbeddingBag(6, 3, mode=mode, rng=0),
            indices(4, 5),
            lambda t, mode=mode: t.nn.EmbeddingBag(6, 3, mode=mode),
        )
        for mode in ("sum", "mean", "max")
    ),
    *(
        Case(
            f"EmbeddingBag {mode} with offsets",
            lambda mode=mode: nn.EmbeddingBag(6, 3, mode=mode, rng=0),
            bags(0, 2, 2, 7, 9),
            lambda t, mode=mode: t.nn.EmbeddingBag(6, 3, mode=mode),
            has_batch=False,
        )
        for mode in ("sum", "mean", "max")
    ),
    *(
        Case(
            f"EmbeddingBag {mode} include_last_offset",
            lambda mode=mode: nn.EmbeddingBag(6, 3, mode=mode, include_last_offset=True, rng=0),
            bags(0, 2, 2, 7, 9),
            lambda t, mode=mode: t.nn.EmbeddingBag(6, 3, mode=mode, include_last_offset=True),
            has_batch=False,
        )
        for mode in ("sum", "mean", "max")
    ),
    *(
        Case(
            f"EmbeddingBag {mode} padding_idx={padding_idx}",
            lambda mode=mode, padding_idx=padding_idx: nn.EmbeddingBag(
                6, 3, mode=mode, padding_idx=padding_idx, rng=0
            ),
            bags(0, 1, 2, 6),
            lambda t, mode=mode, padding_idx=padding_idx: t.nn.EmbeddingBag(
                6, 3, mode=mode, padding_idx=padding_idx
            ),
            has_batch=False,
        )
        for mode in ("sum", "mean", "max")
        for padding_idx in (2, -3)
    ),
    *(
        Case(
            f"EmbeddingBag {mode} max_norm",
            small("EmbeddingBag", 1.1, mode=mode),
            indices(4, 5),
            lambda t, mode=mode: t.nn.EmbeddingBag(6, 3, 1.1, mode=mode),
        )
        for mode in ("sum", "mean", "max")
    ),
    Case(
        "EmbeddingBag per_sample_weights",
        lambda: nn.EmbeddingBag(6, 3, mode="sum", rng=0),
        bags(0, 2, 2, 7, has_factors=True),
        lambda t: t.nn.EmbeddingBag(6, 3, mode="sum"),
        has_batch=False,
        is_plain=False,
    ),
    Case(
        "EmbeddingBag per_sample_weights, padding_idx, include_last_offset",
        lambda: nn.EmbeddingBag(6, 3, mode="sum", padding_idx=1, include_last_offset=True, rng=0),
        bags(0, 2, 2, 9, has_factors=True),
        lambda t: t.nn.EmbeddingBag(6, 3, mode="sum", padding_idx=1, include_last_offset=True),
        has_batch=False,
        is_plain=False,
    ),
    Case(
        "EmbeddingBag per_sample_weights, max_norm",
        small("EmbeddingBag", 1.1, mode="sum"),
        bags(0, 4, has_factors=True),
        lambda t: t.nn.EmbeddingBag(6, 3, 1.1, mode="sum"),
        has_batch=False,
        is_plain=False,
    ),
    Case(
        "EmbeddingBag of int32",
        lambda: nn.EmbeddingBag(6, 3, rng=0),
        bags(0, 4, dtype=np.int32),
        lambda t: t.nn.EmbeddingBag(6, 3),
        has_batch=False,
    ),
    Case(
        "EmbeddingBag from_pretrained",
        frozen_bag,
        bags(0, 4, has_factors=True),
        lambda t: frozen_in_torch(t, "EmbeddingBag", mode="sum"),
        has_batch=False,
        is_plain=False,
    ),
]
