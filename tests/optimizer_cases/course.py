"""One course of training for every optimizer."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import xbackprop as xb
from optimizer_cases.case import OptimizerCase

STEPS = 20
WITHOUT_GRADIENT = {1: {4, 5, 6}, 4: {1, 2, 15}, 2: {20}}  # parameter: steps
FROZEN = {0: range(9, 13)}
RATES = {7: (0, 0.01), 14: (1, 0.08)}  # step: group, learning rate from then on


def initial(case: OptimizerCase, dtype: Any) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.asarray(rng.normal(size=shape)).astype(dtype) for shape in case.shapes]


def gradients(case: OptimizerCase, step: int, dtype: Any) -> list[np.ndarray | None]:
    """What backward leaves in each parameter; None for one that it did not reach."""
    rng = np.random.default_rng([1, step])
    grads = [np.asarray(rng.normal(size=shape)).astype(dtype) for shape in case.shapes]
    return [
        None if step in WITHOUT_GRADIENT.get(i, ()) or step in FROZEN.get(i, ()) else grad
        for i, grad in enumerate(grads)
    ]


def course(
    case: OptimizerCase,
    optimizer: Any,
    parameters: list[Any],
    give_gradient: Callable[[Any, np.ndarray | None], None],
    dtype: Any,
) -> Iterable[int]:
    """Run the course on any optimizer of PyTorch's interface; yields after every step."""
    for step in range(1, STEPS + 1):
        if step in RATES:
            group, rate = RATES[step]
            optimizer.param_groups[group]["lr"] = rate
        for i, parameter in enumerate(parameters):
            parameter.requires_grad = step not in FROZEN.get(i, ())
        for parameter, grad in zip(parameters, gradients(case, step, dtype), strict=True):
            give_gradient(parameter, grad)
        optimizer.step()
        yield step


def run_ours(case: OptimizerCase, dtype: Any) -> tuple[list[list[np.ndarray]], Any]:
    """Return the values after every step, on the default device, and the optimizer."""
    parameters = [xb.Parameter(xb.asarray(values, dtype=dtype)) for values in initial(case, dtype)]
    optimizer = case.make(case.grouped(parameters))

    def give_gradient(parameter: Any, grad: np.ndarray | None) -> None:
        parameter.grad = None if grad is None else xb.asarray(grad, dtype=dtype)

    history = [
        [xb.to_host(parameter.data).copy() for parameter in parameters]
        for _ in course(case, optimizer, parameters, give_gradient, dtype)
    ]
    return history, optimizer
