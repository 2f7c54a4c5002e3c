"""Rows of dropout."""

from layer_cases.case import Case, normal
from xbackprop import nn

DROPOUT = [
    Case("Dropout p=0", lambda: nn.Dropout(0.0, rng=0), normal(4, 3), lambda t: t.nn.Dropout(0.0)),
    Case(
        "Dropout p=0.3",
        lambda: nn.Dropout(0.3, rng=0),
        normal(4, 3),
        lambda t: t.nn.Dropout(0.3),
        is_random=True,
    ),
    Case("Dropout p=1", lambda: nn.Dropout(1.0, rng=0), normal(4, 3), lambda t: t.nn.Dropout(1.0)),
]
