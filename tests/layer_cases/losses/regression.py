"""Rows of errors of quantities."""

from typing import Any

import numpy as np

from layer_cases.case import Case, Rng, pair, torch_function
from layer_cases.losses.drawing import away_from, reduced
from xbackprop import nn


def torch_half_squared_error(torch: Any) -> Any:
    def function(output: Any, target: Any) -> Any:
        batch = len(output) if output.ndim > 1 else 1
        return ((output - target) ** 2).sum() / 2 / batch

    return torch_function(torch, function)


def apart(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Pairs whose differences keep off 0 and off the bends used below."""
    target = rng.normal(size=(4, 3))
    return target + away_from((-1.0, -0.5, 0.0, 0.5, 1.0), 1.5 * rng.normal(size=(4, 3))), target


REGRESSION = [
    *reduced("MSELoss", nn.MSELoss, pair(4, 3), lambda t, **o: t.nn.MSELoss(**o)),
    Case(
        "MSELoss of one 1-D sample", nn.MSELoss, pair(3), lambda t: t.nn.MSELoss(), has_batch=False
    ),
    Case("HalfSquaredError", nn.HalfSquaredError, pair(4, 3), torch_half_squared_error),
    Case(
        "HalfSquaredError of one 1-D sample",
        nn.HalfSquaredError,
        pair(1),
        torch_half_squared_error,
        has_batch=False,
    ),
    *reduced("L1Loss", nn.L1Loss, apart, lambda t, **o: t.nn.L1Loss(**o)),
    *reduced("SmoothL1Loss", nn.SmoothL1Loss, apart, lambda t, **o: t.nn.SmoothL1Loss(**o)),
    *reduced(
        "SmoothL1Loss",
        lambda **o: nn.SmoothL1Loss(beta=0.5, **o),
        apart,
        lambda t, **o: t.nn.SmoothL1Loss(beta=0.5, **o),
        suffix="beta 0.5",
    ),
    *reduced(
        "SmoothL1Loss",
        lambda **o: nn.SmoothL1Loss(beta=0, **o),
        apart,
        lambda t, **o: t.nn.SmoothL1Loss(beta=0, **o),
        suffix="beta 0",
    ),
    *reduced("HuberLoss", nn.HuberLoss, apart, lambda t, **o: t.nn.HuberLoss(**o)),
    *reduced(
        "HuberLoss",
        lambda **o: nn.HuberLoss(delta=0.5, **o),
        apart,
        lambda t, **o: t.nn.HuberLoss(delta=0.5, **o),
        suffix="delta 0.5",
    ),
]
