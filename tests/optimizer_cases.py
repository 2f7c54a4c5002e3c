"""THE table of optimizers: one row per optimizer, and per option that changes what it computes.

`test_optim.py` runs every row on every device and beside the textbook's formulas in plain NumPy,
`test_optim_parity.py` beside PyTorch.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

import xbackprop as xb


@dataclass(frozen=True)
class OptimizerCase:
    name: str
    cls: str  # the same name here and in PyTorch
    options: dict[str, Any]
    rate: float = 0.1  # a learning rate that minimises the functions of test_optim.py
    steps: int = 300  # so many of them

    def make(self, params: Any, **options: Any) -> Any:
        return getattr(xb.optim, self.cls)(params, **{"lr": 0.05, **self.options, **options})

    def make_torch(self, torch: Any, params: Any, **options: Any) -> Any:
        return getattr(torch.optim, self.cls)(params, **{"lr": 0.05, **self.options, **options})


OPTIMIZERS = [
    OptimizerCase("SGD", "SGD", {}),
    OptimizerCase("SGD with weight decay", "SGD", {"weight_decay": 0.02}),
    OptimizerCase("SGD maximizing", "SGD", {"maximize": True, "weight_decay": 0.02}),
    OptimizerCase("SGD with momentum", "SGD", {"momentum": 0.9}, rate=0.02),
    OptimizerCase(
        "SGD with dampening",
        "SGD",
        {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01},
        rate=0.02,
    ),
    OptimizerCase(
        "SGD with dampening, maximizing",
        "SGD",
        {"momentum": 0.8, "dampening": 0.5, "maximize": True},
        rate=0.1,
    ),
    OptimizerCase("SGD with Nesterov momentum", "SGD", {"momentum": 0.9, "nesterov": True}, 0.02),
    OptimizerCase(
        "SGD with everything",
        "SGD",
        {"momentum": 0.5, "nesterov": True, "weight_decay": 0.1, "maximize": True},
        rate=0.05,
    ),
    OptimizerCase("Adam", "Adam", {}),
    OptimizerCase("Adam with other betas", "Adam", {"betas": (0.7, 0.9), "eps": 1e-3}),
    OptimizerCase("Adam with weight decay", "Adam", {"weight_decay": 0.1}),
    OptimizerCase("Adam with AMSGrad", "Adam", {"amsgrad": True, "betas": (0.9, 0.9)}),
    OptimizerCase(
        "Adam with everything",
        "Adam",
        {"amsgrad": True, "weight_decay": 0.1, "maximize": True, "betas": (0.5, 0.8)},
    ),
    OptimizerCase("Adam without running means", "Adam", {"betas": (0.0, 0.0), "eps": 0.1}),
    OptimizerCase("AdamW", "AdamW", {}),
    OptimizerCase("AdamW with AMSGrad", "AdamW", {"amsgrad": True, "weight_decay": 0.5}),
    OptimizerCase("AdamW maximizing", "AdamW", {"maximize": True, "weight_decay": 0.3}),
    OptimizerCase("AdamW without weight decay", "AdamW", {"weight_decay": 0.0}),
]


# --- one course of training for every optimizer -------------------------------------------

SHAPES = [(3, 4), (4,), (), (0, 5), (2, 2, 2)]
GROUPS = [[0, 1, 2], [3, 4]]
SECOND_GROUP = {"lr": 0.02, "weight_decay": 0.3}
STEPS = 20
WITHOUT_GRADIENT = {1: {4, 5, 6}, 4: {1, 2, 15}, 2: {20}}  # parameter: steps
FROZEN = {0: range(9, 13)}
RATES = {7: (0, 0.01), 14: (1, 0.08)}  # step: group, learning rate from then on


def initial(dtype: Any) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.asarray(rng.normal(size=shape)).astype(dtype) for shape in SHAPES]


def gradients(step: int, dtype: Any) -> list[np.ndarray | None]:
    """What backward leaves in each parameter; None for one that it did not reach."""
    rng = np.random.default_rng([1, step])
    grads = [np.asarray(rng.normal(size=shape)).astype(dtype) for shape in SHAPES]
    return [
        None if step in WITHOUT_GRADIENT.get(i, ()) or step in FROZEN.get(i, ()) else grad
        for i, grad in enumerate(grads)
    ]


def course(
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
        for parameter, grad in zip(parameters, gradients(step, dtype), strict=True):
            give_gradient(parameter, grad)
        optimizer.step()
        yield step


def run_ours(case: OptimizerCase, dtype: Any) -> tuple[list[list[np.ndarray]], Any]:
    """Return the values after every step, on the default device, and the optimizer."""
    parameters = [xb.Parameter(xb.asarray(values, dtype=dtype)) for values in initial(dtype)]
    optimizer = case.make(grouped(parameters))

    def give_gradient(parameter: Any, grad: np.ndarray | None) -> None:
        parameter.grad = None if grad is None else xb.asarray(grad, dtype=dtype)

    history = [
        [xb.to_host(parameter.data).copy() for parameter in parameters]
        for _ in course(optimizer, parameters, give_gradient, dtype)
    ]
    return history, optimizer


def grouped(parameters: list[Any]) -> list[dict[str, Any]]:
    first, second = ([parameters[i] for i in numbers] for numbers in GROUPS)
    return [{"params": first}, {"params": second, **SECOND_GROUP}]


# --- the textbook --------------------------------------------------------------------------


class Value:
    """A number or array that the textbook trains, with what its optimizer remembers of it."""

    def __init__(self, data: np.ndarray) -> None:
        self.data = data.astype(np.float64)
        self.grad: np.ndarray | None = None
        self.requires_grad = True
        self.steps = 0
        self.momentum: Any = 0.0
        self.mean: Any = 0.0
        self.square: Any = 0.0
        self.largest: Any = 0.0


class Textbook:
    """The formulas of the papers as PyTorch documents them, one parameter at a time, in float64."""

    def __init__(self, case: OptimizerCase, values: list[Value]) -> None:
        signature = getattr(xb.optim, case.cls)([xb.Parameter(np.zeros(1))], **case.options)
        defaults = {**signature.defaults, "lr": 0.05}
        self.update = sgd if case.cls == "SGD" else adam
        self.decoupled = case.cls == "AdamW"
        self.param_groups = [{**defaults, **group} for group in grouped(values)]

    def step(self) -> None:
        for group in self.param_groups:
            for value in group["params"]:
                if value.grad is not None:
                    value.steps += 1
                    grad = -value.grad if group["maximize"] else value.grad
                    if self.decoupled:
                        value.data = value.data - group["lr"] * group["weight_decay"] * value.data
                    else:
                        grad = grad + group["weight_decay"] * value.data
                    self.update(value, grad, group)


def sgd(value: Value, grad: np.ndarray, group: dict[str, Any]) -> None:
    mu = group["momentum"]
    if mu:
        share = 1.0 if value.steps == 1 else 1.0 - group["dampening"]
        value.momentum = mu * value.momentum + share * grad
        grad = grad + mu * value.momentum if group["nesterov"] else value.momentum
    value.data = value.data - group["lr"] * grad


def adam(value: Value, grad: np.ndarray, group: dict[str, Any]) -> None:
    beta1, beta2 = group["betas"]
    value.mean = beta1 * value.mean + (1 - beta1) * grad
    value.square = beta2 * value.square + (1 - beta2) * grad**2
    value.largest = np.maximum(value.largest, value.square)
    square = value.largest if group["amsgrad"] else value.square
    mean_hat = value.mean / (1 - beta1**value.steps)
    square_hat = square / (1 - beta2**value.steps)
    value.data = value.data - group["lr"] * mean_hat / (np.sqrt(square_hat) + group["eps"])


def run_textbook(case: OptimizerCase, dtype: Any) -> list[list[np.ndarray]]:
    """Return the values after every step; `dtype` is that of initial values and gradients."""
    values = [Value(data) for data in initial(dtype)]
    textbook = Textbook(case, values)

    def give_gradient(value: Value, grad: np.ndarray | None) -> None:
        value.grad = None if grad is None else grad.astype(np.float64)

    return [
        [value.data.copy() for value in values]
        for _ in course(textbook, values, give_gradient, dtype)
    ]
