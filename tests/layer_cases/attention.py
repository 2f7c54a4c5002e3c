"""Rows of attention."""

from collections.abc import Callable
from typing import Any

import numpy as np

from layer_cases.case import Case, Rng, torch_function
from xbackprop import nn

QUERY, KEY = (2, 3, 4, 5), (2, 3, 6, 5)


def shaped(*shapes: tuple[int, ...]) -> Callable[[Rng], Any]:
    return lambda rng: tuple(rng.normal(size=shape) for shape in shapes)


QKV = shaped(QUERY, KEY, (2, 3, 6, 7))


def with_mask(
    inputs: Callable[[Rng], Any], *shape: int, of: type = bool
) -> Callable[[Rng], tuple[np.ndarray, ...]]:
    """A mask after the inputs: of bool half hides, or one to add."""

    def draw(rng: Rng) -> tuple[np.ndarray, ...]:
        mask = rng.normal(size=shape)
        return (*inputs(rng), mask > 0 if of is bool else mask)

    return draw


def attention(is_causal: bool = False, **options: Any) -> Callable[[Any], Any]:
    """PyTorch's function as a module; a mask that is bool here comes as numbers."""

    def make(torch: Any) -> Any:
        def function(q: Any, k: Any, v: Any, mask: Any = None) -> Any:
            if mask is not None and not mask.is_floating_point():
                mask = mask.bool()
            if mask is not None and is_causal:  # PyTorch wants both in one
                hidden = torch.ones(q.shape[-2], k.shape[-2]).tril() == 0
                mask = mask.masked_fill(hidden, -np.inf if mask.is_floating_point() else False)
            causal = is_causal and mask is None
            attend = torch.nn.functional.scaled_dot_product_attention
            return attend(q, k, v, mask, is_causal=causal, **options)

        return torch_function(torch, function)

    return make


def row(
    name: str, inputs: Callable[[Rng], Any] = QKV, has_batch: bool = True, **options: Any
) -> Case:
    """The layer with these options; what PyTorch has not is left out there."""
    theirs = {key: value for key, value in options.items() if key != "block_size"}
    theirs.pop("dropout_p", None)  # compared in evaluation
    return Case(
        f"ScaledDotProductAttention{name}",
        lambda: nn.ScaledDotProductAttention(**options, rng=0),
        inputs,
        attention(**theirs),
        has_batch=has_batch,
        is_random="dropout_p" in options,
        is_plain="broadcast" not in name and not options.get("enable_gqa"),
    )


GROUPED = shaped((2, 6, 4, 5), (2, 3, 7, 5), (2, 3, 7, 2))

ATTENTION = [
    row(""),
    row(" scale", scale=-0.3),
    row(" scale=0", scale=0.0),
    row(" causal", is_causal=True),
    row(" causal of more queries", shaped((2, 5, 3), (2, 2, 3), (2, 2, 3)), is_causal=True),
    row(" of one sample", shaped((4, 3), (5, 3), (5, 2)), has_batch=False),
    row(" of one token", shaped((2, 1, 3), (2, 1, 3), (2, 1, 3))),
    row(" of one feature", shaped((2, 4, 1), (2, 3, 1), (2, 3, 1))),
    row(" of broadcast keys", shaped(QUERY, (1, 6, 5), (2, 1, 6, 5)), has_batch=False),
    row(" of broadcast queries", shaped((4, 5), KEY, KEY), has_batch=False),
    row(" bool mask", with_mask(QKV, 4, 6), has_batch=False),
    row(" bool mask of samples", with_mask(QKV, 2, 1, 4, 6)),
    row(" bool mask of keys", with_mask(QKV, 2, 1, 1, 6)),
    row(" bool mask of queries", with_mask(QKV, 2, 3, 4, 1)),
    row(" float mask", with_mask(QKV, 4, 6, of=float), has_batch=False),
    row(" float mask of heads", with_mask(QKV, 3, 4, 6, of=float), has_batch=False),
    row(" float mask of samples", with_mask(QKV, 2, 3, 1, 6, of=float)),
    row(" float mask, causal", with_mask(QKV, 4, 6, of=float), has_batch=False, is_causal=True),
    row(" bool mask, causal", with_mask(QKV, 4, 6), has_batch=False, is_causal=True),
    row(" dropout", dropout_p=0.4),
    row(" dropout_p=1", dropout_p=1.0),
    row(" dropout, blocks, mask", with_mask(QKV, 2, 1, 4, 6), dropout_p=0.4, block_size=3),
    row(" groups", GROUPED, enable_gqa=True),
    row(" groups, blocks, causal", GROUPED, enable_gqa=True, block_size=3, is_causal=True),
    row(" groups, bool mask", with_mask(GROUPED, 4, 7), has_batch=False, enable_gqa=True),
    row(" groups, mask of heads", with_mask(GROUPED, 2, 6, 4, 7, of=float), enable_gqa=True),
    row(" groups, mask of samples", with_mask(GROUPED, 2, 1, 4, 7, of=float), enable_gqa=True),
    row(" groups, dropout", GROUPED, enable_gqa=True, dropout_p=0.4),
    *(row(f" block_size={size}", block_size=size) for size in (1, 3, 99)),
    row(" blocks, causal", block_size=3, is_causal=True),
    row(" blocks, causal, more queries", shaped((2, 7, 3), (2, 3, 3), (2, 3, 3)), block_size=2,
        is_causal=True),
    row(" blocks, float mask", with_mask(QKV, 4, 6, of=float), has_batch=False, block_size=3,
        is_causal=True),
    row(" blocks, mask of keys", with_mask(QKV, 2, 1, 1, 6, of=float), block_size=3),
]  # fmt: skip
