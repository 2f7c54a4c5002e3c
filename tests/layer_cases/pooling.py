"""Rows of pooling."""

from typing import Any

from layer_cases.case import Case, normal
from xbackprop import nn

IMAGES = {1: normal(3, 2, 7), 2: normal(2, 2, 5, 6), 3: normal(2, 1, 4, 5, 3)}
SAMPLES = {1: normal(2, 7), 2: normal(2, 5, 6), 3: normal(1, 4, 5, 3)}


def row(name: str, *arguments: Any, sample: bool = False, **options: Any) -> Case:
    shown = [*map(repr, arguments), *(f"{key}={value}" for key, value in options.items())]
    return Case(
        f"{name} {', '.join(shown)}" + " of one sample" * sample,
        lambda: getattr(nn, name)(*arguments, **options),
        (SAMPLES if sample else IMAGES)[int(name[-2])],
        lambda t: getattr(t.nn, name)(*arguments, **options),
        has_batch=not sample,
    )


POOLING = [
    *(row(f"MaxPool{n}d", 2) for n in (1, 2, 3)),
    *(row(f"MaxPool{n}d", 3, 2, 1, return_indices=True) for n in (1, 2, 3)),
    *(row(f"MaxPool{n}d", 2, 1, 1, 2) for n in (1, 2, 3)),
    *(row(f"MaxPool{n}d", 2, 3, 1, ceil_mode=True, return_indices=True) for n in (1, 2, 3)),
    *(row(f"MaxPool{n}d", 2, 1, sample=True, return_indices=True) for n in (1, 2, 3)),
    row("MaxPool2d", (2, 3), (3, 1), (1, 0), (1, 2)),
    row("MaxPool3d", (1, 3, 2), (2, 1, 1), (0, 1, 1), (1, 2, 2), ceil_mode=True),
    *(row(f"AvgPool{n}d", 2) for n in (1, 2, 3)),
    *(row(f"AvgPool{n}d", 3, 2, 1) for n in (1, 2, 3)),
    *(row(f"AvgPool{n}d", 3, 2, 1, True) for n in (1, 2, 3)),
    *(row(f"AvgPool{n}d", 3, 2, 1, True, False) for n in (1, 2, 3)),
    *(row(f"AvgPool{n}d", 2, 1, sample=True) for n in (1, 2, 3)),
    row("AvgPool2d", (2, 3), (3, 1), (1, 0), count_include_pad=False),
    row("AvgPool2d", 2, divisor_override=-3),
    row("AvgPool3d", (1, 3, 2), (2, 1, 1), (0, 1, 1), divisor_override=3),
    *(row(f"LPPool{n}d", 2, 2) for n in (1, 2, 3)),
    *(row(f"LPPool{n}d", 4, 3, 2, True) for n in (1, 2, 3)),
    row("LPPool1d", 1, 2, 1, sample=True),
    row("LPPool2d", 2, (2, 3), (1, 2), sample=True),
    *(row(f"Adaptive{kind}Pool{n}d", 2) for kind in ("Avg", "Max") for n in (1, 2, 3)),
    *(row(f"Adaptive{kind}Pool{n}d", 4) for kind in ("Avg", "Max") for n in (1, 2, 3)),
    *(row(f"Adaptive{kind}Pool2d", (None, 8)) for kind in ("Avg", "Max")),
    *(row(f"Adaptive{kind}Pool3d", (7, 1, None), sample=True) for kind in ("Avg", "Max")),
    *(row(f"AdaptiveMaxPool{n}d", 3, return_indices=True) for n in (1, 2, 3)),
]
