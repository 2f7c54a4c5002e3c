"""Rows of layers that rearrange."""

from layer_cases.case import Case, normal
from xbackprop import nn

SHAPES = [
    Case("Flatten", nn.Flatten, normal(3, 2, 2, 2), lambda t: t.nn.Flatten()),
    Case("Flatten of all axes", lambda: nn.Flatten(0), normal(3, 2, 2), lambda t: t.nn.Flatten(0)),
    Case(
        "Flatten of middle axes",
        lambda: nn.Flatten(1, 2),
        normal(3, 2, 2, 4),
        lambda t: t.nn.Flatten(1, 2),
    ),
    Case(
        "Flatten of last axes",
        lambda: nn.Flatten(-2),
        normal(3, 2, 2, 4),
        lambda t: t.nn.Flatten(-2),
    ),
    Case("Flatten of a flat batch", nn.Flatten, normal(3, 4), lambda t: t.nn.Flatten()),
]
