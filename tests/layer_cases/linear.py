"""Rows of linear maps."""

from collections.abc import Callable
from typing import Any

import numpy as np

import xbackprop as xb
from layer_cases.case import Case, Rng, normal
from xbackprop import nn


def frozen(layer: Any, name: str) -> Any:
    """Freeze one parameter; of a PyTorch layer just so."""
    getattr(layer, name).requires_grad = False
    return layer


def two(*lead: int, first: int, second: int) -> Callable[[Rng], tuple[np.ndarray, np.ndarray]]:
    """Two inputs with the same leading axes."""
    return lambda rng: (rng.normal(size=(*lead, first)), rng.normal(size=(*lead, second)))


def lazy(*, bias: bool = True) -> Any:
    """A LazyLinear after its first forward; before it there is nothing to differentiate."""
    layer = nn.LazyLinear(2, bias, rng=0)
    layer(xb.asarray(np.zeros((1, 3), np.float32)))
    return layer


def lazy_torch(torch: Any, *, bias: bool = True) -> Any:
    layer = torch.nn.LazyLinear(2, bias)
    layer(torch.zeros(1, 3))
    return layer


LINEAR = [
    Case("Linear", lambda: nn.Linear(3, 2, rng=0), normal(4, 3), lambda t: t.nn.Linear(3, 2)),
    Case(
        "Linear without bias",
        lambda: nn.Linear(3, 2, bias=False, rng=0),
        normal(4, 3),
        lambda t: t.nn.Linear(3, 2, bias=False),
    ),
    Case(
        "Linear of one 1-D sample",
        lambda: nn.Linear(3, 2, rng=0),
        normal(3),
        lambda t: t.nn.Linear(3, 2),
        has_batch=False,
    ),
    Case(
        "Linear of 3-D input",
        lambda: nn.Linear(3, 2, rng=0),
        normal(4, 2, 3),
        lambda t: t.nn.Linear(3, 2),
    ),
    Case(
        "Linear of 4-D input",
        lambda: nn.Linear(3, 2, rng=0),
        normal(2, 3, 2, 3),
        lambda t: t.nn.Linear(3, 2),
    ),
    Case(
        "Linear with many elements",
        lambda: nn.Linear(30, 20, rng=0),
        normal(16, 30),
        lambda t: t.nn.Linear(30, 20),
    ),
    Case(
        "Linear with frozen weight",
        lambda: frozen(nn.Linear(3, 2, rng=0), "weight"),
        normal(4, 3),
        lambda t: frozen(t.nn.Linear(3, 2), "weight"),
    ),
    Case(
        "Linear with frozen bias",
        lambda: frozen(nn.Linear(3, 2, rng=0), "bias"),
        normal(4, 3),
        lambda t: frozen(t.nn.Linear(3, 2), "bias"),
    ),
    Case("LazyLinear", lazy, normal(4, 3), lazy_torch),
    Case(
        "LazyLinear without bias",
        lambda: lazy(bias=False),
        normal(2, 4, 3),
        lambda t: lazy_torch(t, bias=False),
    ),
    Case(
        "Bilinear",
        lambda: nn.Bilinear(3, 2, 4, rng=0),
        two(4, first=3, second=2),
        lambda t: t.nn.Bilinear(3, 2, 4),
    ),
    Case(
        "Bilinear without bias",
        lambda: nn.Bilinear(3, 2, 4, bias=False, rng=0),
        two(4, first=3, second=2),
        lambda t: t.nn.Bilinear(3, 2, 4, bias=False),
    ),
    Case(
        "Bilinear of 3-D input",
        lambda: nn.Bilinear(3, 2, 4, rng=0),
        two(2, 5, first=3, second=2),
        lambda t: t.nn.Bilinear(3, 2, 4),
    ),
    Case(
        "Bilinear of one pair of samples",
        lambda: nn.Bilinear(3, 2, 4, rng=0),
        two(first=3, second=2),
        lambda t: t.nn.Bilinear(3, 2, 4),
        has_batch=False,
    ),
    Case(
        "Bilinear with frozen weight",
        lambda: frozen(nn.Bilinear(3, 2, 4, rng=0), "weight"),
        two(4, first=3, second=2),
        lambda t: frozen(t.nn.Bilinear(3, 2, 4), "weight"),
    ),
    Case("Identity", nn.Identity, normal(4, 3), lambda t: t.nn.Identity()),
    Case(
        "Identity in place of Linear",
        lambda: nn.Identity(3, out_features=2),
        normal(4, 3),
        lambda t: t.nn.Identity(3, out_features=2),
    ),
]
