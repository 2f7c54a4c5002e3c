"""Rows of containers."""

from typing import Any

from layer_cases.case import Case, normal, torch_function
from xbackprop import nn
from xbackprop.module import Module


def tied() -> Module:
    network = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), rng=1)
    network[2].weight = network[0].weight
    return network


def tied_torch(torch: Any) -> Any:
    network = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh(), torch.nn.Linear(3, 3))
    network[2].weight = network[0].weight
    return network


def used_twice() -> Module:
    layer = nn.Linear(3, 3, rng=1)
    return nn.Sequential(layer, nn.Sigmoid(), layer)


def used_twice_torch(torch: Any) -> Any:
    layer = torch.nn.Linear(3, 3)
    return torch.nn.Sequential(layer, torch.nn.Sigmoid(), layer)


CONTAINERS = [
    Case(
        "Sequential",
        lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), rng=0),
        normal(4, 3),
        lambda t: t.nn.Sequential(t.nn.Linear(3, 4), t.nn.Tanh(), t.nn.Linear(4, 2)),
    ),
    Case("Sequential of nothing", nn.Sequential, normal(4, 3), lambda t: t.nn.Sequential()),
    Case(
        "Sequential with names",
        lambda: nn.Sequential({"first": nn.Linear(3, 2), "act": nn.Sigmoid()}, rng=0),
        normal(4, 3),
        lambda t: t.nn.ModuleDict({"first": t.nn.Linear(3, 2), "act": t.nn.Sigmoid()}),
    ),
    Case(
        "Sequential in Sequential",
        lambda: nn.Sequential(
            nn.Flatten(),
            nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.Tanh(), nn.Linear(3, 3))),
            nn.Sigmoid(),
            rng=0,
        ),
        normal(3, 2, 2),
        lambda t: t.nn.Sequential(
            t.nn.Flatten(),
            t.nn.Sequential(t.nn.Linear(4, 3), t.nn.Sequential(t.nn.Tanh(), t.nn.Linear(3, 3))),
            t.nn.Sigmoid(),
        ),
    ),
    Case(
        "Sequential with Dropout",
        lambda: nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 2), rng=0),
        normal(4, 3),
        lambda t: t.nn.Sequential(t.nn.Linear(3, 8), t.nn.Dropout(0.5), t.nn.Linear(8, 2)),
        is_random=True,
    ),
    Case("Sequential with a layer used twice", used_twice, normal(4, 3), used_twice_torch),
    Case("Sequential with tied weights", tied, normal(4, 3), tied_torch),
    Case(
        "Residual",
        lambda: nn.Residual(nn.Sequential(nn.Linear(3, 3), nn.Tanh(), rng=0)),
        normal(4, 3),
        lambda t: torch_function(
            t,
            lambda module, x: x + module(x),
            t.nn.Sequential(t.nn.Linear(3, 3), t.nn.Tanh()),
        ),
    ),
    Case(
        "Recompute",
        lambda: nn.Recompute(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), rng=0)),
        normal(4, 3),
        lambda t: torch_function(
            t,
            lambda module, x: module(x),
            t.nn.Sequential(t.nn.Linear(3, 4), t.nn.Tanh(), t.nn.Linear(4, 2)),
        ),
    ),
    Case(
        "Recompute with Dropout inside",
        lambda: nn.Recompute(nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.4), rng=0)),
        normal(4, 3),
        lambda t: torch_function(
            t,
            lambda module, x: module(x),
            t.nn.Sequential(t.nn.Linear(3, 8), t.nn.Dropout(0.4)),
        ),
        is_random=True,
    ),
]
