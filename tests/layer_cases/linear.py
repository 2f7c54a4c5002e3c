"""Rows of linear maps."""

from typing import Any

from layer_cases.case import Case, normal
from xbackprop import nn


def frozen(layer: Any, name: str) -> Any:
    """Freeze one parameter; of a PyTorch layer just so."""
    getattr(layer, name).requires_grad = False
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
    Case("Identity", nn.Identity, normal(4, 3), lambda t: t.nn.Identity()),
    Case(
        "Identity in place of Linear",
        lambda: nn.Identity(3, out_features=2),
        normal(4, 3),
        lambda t: t.nn.Identity(3, out_features=2),
    ),
]
