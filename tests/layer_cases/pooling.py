"""Rows of pooling."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from layer_cases.case import Case, Rng, normal
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


def maxima(lead: tuple[int, ...], ndim: int, size: int) -> Callable[[Rng], Any]:
    """Numbers and a place for each of them among ``size``, none twice."""

    def draw(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
        shape = (*lead, *(2, 3, 2)[:ndim])
        count = math.prod(shape[len(lead) :])
        places = [rng.permutation(size)[:count] for _ in range(math.prod(lead))]
        return rng.normal(size=shape), np.reshape(places, shape)

    return draw


def unpool(ndim: int, *arguments: Any, size: int, lead: tuple[int, ...] = (2, 2)) -> Case:
    name = f"MaxUnpool{ndim}d"
    return Case(
        f"{name} {', '.join(map(repr, arguments))}" + " of one sample" * (len(lead) == 1),
        lambda: getattr(nn, name)(*arguments),
        maxima(lead, ndim, size),
        lambda t: getattr(t.nn, name)(*arguments),
        has_batch=len(lead) == 2,
    )


def samples(axes: int) -> list[Any]:
    """Numbers that every float dtype holds, for a batch of two with as many channels as IMAGES."""
    channels = {2: 2, 3: 1}[axes]
    numbers = np.random.default_rng(0).integers(0, 64, size=(2, channels, axes)) / 64
    return numbers.tolist()


def fractional(ndim: int, *arguments: Any, sample: bool = False, **options: Any) -> Case:
    name = f"FractionalMaxPool{ndim}d"
    shown = [*map(repr, arguments), *(f"{key}={value}" for key, value in options.items())]
    return Case(
        f"{name} {', '.join(shown)} at samples" + " of one sample" * sample,
        lambda: getattr(nn, name)(*arguments, **options, _random_samples=samples(ndim), rng=0),
        (SAMPLES if sample else IMAGES)[ndim],
        lambda t: getattr(t.nn, name)(
            *arguments, **options, _random_samples=t.tensor(samples(ndim))
        ),
        has_batch=False,  # each sample has its own numbers
    )


def evenly(ndim: int, *arguments: Any, **options: Any) -> Case:
    """Steps of a whole length, which no random number changes."""
    name = f"FractionalMaxPool{ndim}d"
    return Case(
        f"{name} {', '.join(map(repr, arguments))} evenly{' with indices' if options else ''}",
        lambda: getattr(nn, name)(*arguments, **options, rng=0),
        IMAGES[ndim],
        lambda t: getattr(t.nn, name)(*arguments, **options),
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
    *(unpool(n, 2, size=4 * (1, 6, 24)[n - 1]) for n in (1, 2, 3)),
    *(unpool(n, 3, 2, 1, size=(3, 15, 45)[n - 1]) for n in (1, 2, 3)),
    *(unpool(n, 1, 3, size=(4, 28, 112)[n - 1], lead=(1,)) for n in (1, 2, 3)),
    unpool(2, (2, 3), (1, 2), (0, 1), size=15),
    unpool(3, (1, 3, 2), (2, 1, 1), (0, 1, 0), size=27),
    fractional(2, 2, 3),
    fractional(2, (1, 3), (4, 3), return_indices=True),
    fractional(2, 2, output_ratio=(0.7, 0.5)),
    fractional(2, 3, 3, return_indices=True),
    fractional(2, (5, 1), (1, 5), sample=True),
    fractional(3, (2, 2, 1), 2, return_indices=True),
    fractional(3, (1, 2, 1), (3, 3, 2)),
    fractional(3, 1, output_ratio=0.8, return_indices=True),
    fractional(3, (2, 3, 2), (2, 2, 1), sample=True),
    evenly(2, 3, 2),
    evenly(2, 2, (2, 3)),
    evenly(2, 2, (4, 5), return_indices=True),
    evenly(3, 1, 2),
    evenly(3, (2, 3, 1), (2, 2, 2)),
    evenly(3, 1, 2, return_indices=True),
]
