"""THE table: one row per layer and loss, and per option that changes what it computes.

`test_layers.py` runs every row on every device and beside PyTorch. A row is a name, how to make the
layer on the default device, how to draw its inputs, and PyTorch's counterpart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xbackprop import nn
from xbackprop.module import Module

Rng = np.random.Generator


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[], Module]
    inputs: Callable[[Rng], Any]
    torch: Callable[[Any], Any]  # takes the module `torch`
    has_batch: bool = True  # the inputs' first axis is the batch
    is_random: bool = False  # in training PyTorch draws other masks: compared in evaluation only
    is_plain: bool = (
        True  # the ops' formulas show this case; see test_formulas_are_what_ops_compute
    )


# --- inputs -------------------------------------------------------------------------------


def normal(*shape: int) -> Callable[[Rng], np.ndarray]:
    return lambda rng: rng.normal(size=shape)


def off_zero(*shape: int) -> Callable[[Rng], np.ndarray]:
    """At least 0.2 away from zero, where ReLU has its kink."""
    return lambda rng: rng.choice([-1.0, 1.0], size=shape) * rng.uniform(0.2, 2.0, size=shape)


def pair(*shape: int) -> Callable[[Rng], tuple[np.ndarray, np.ndarray]]:
    return lambda rng: (rng.normal(size=shape), rng.normal(size=shape))


def probabilities(*shape: int) -> Callable[[Rng], tuple[np.ndarray, np.ndarray]]:
    return lambda rng: (rng.uniform(0.2, 0.8, size=shape), rng.uniform(0.1, 0.9, size=shape))


def logits(*shape: int) -> Callable[[Rng], tuple[np.ndarray, np.ndarray]]:
    return lambda rng: (2 * rng.normal(size=shape), rng.uniform(size=shape))


def classes(
    *shape: int, ignore: int | None = None, dtype: Any = np.int64
) -> Callable[[Rng], tuple[np.ndarray, np.ndarray]]:
    """Logits of `shape`, and class indices; the second sample is ignored where asked for."""

    def draw(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
        axis = 1 if len(shape) > 1 else 0
        count = min(shape[axis], np.iinfo(dtype).max + 1)
        target = np.asarray(rng.integers(count, size=shape[:axis] + shape[axis + 1 :]))
        if ignore is not None:
            target[0] = (ignore + 1) % count
            target[1] = ignore
        return 2 * rng.normal(size=shape), target.astype(dtype)

    return draw


# --- layers that need more than a constructor ---------------------------------------------


def frozen(layer: Any, name: str) -> Any:
    """Freeze one parameter; of a PyTorch layer just so."""
    getattr(layer, name).requires_grad = False
    return layer


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


def torch_function(torch: Any, function: Callable[..., Any], module: Any = None) -> Any:
    """A PyTorch module of `function(*inputs)`, or of `function(module, *inputs)`."""

    class Wrapper(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            if module is not None:
                self.module = module

        def forward(self, *inputs: Any) -> Any:
            return function(*inputs) if module is None else function(self.module, *inputs)

    return Wrapper()


def torch_half_squared_error(torch: Any) -> Any:
    def function(output: Any, target: Any) -> Any:
        batch = len(output) if output.ndim > 1 else 1
        return ((output - target) ** 2).sum() / 2 / batch

    return torch_function(torch, function)


CLASS_WEIGHT = [0.5, 2.0, 1.0]

# --- the table ----------------------------------------------------------------------------

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

ACTIVATIONS = [
    Case("ReLU", nn.ReLU, off_zero(4, 3), lambda t: t.nn.ReLU()),
    Case("ReLU of images", nn.ReLU, off_zero(2, 3, 2, 2), lambda t: t.nn.ReLU()),
    Case("ReLU with many elements", nn.ReLU, off_zero(40, 10), lambda t: t.nn.ReLU()),
    Case("Sigmoid", nn.Sigmoid, normal(4, 3), lambda t: t.nn.Sigmoid()),
    Case("Sigmoid of a number", nn.Sigmoid, normal(), lambda t: t.nn.Sigmoid(), has_batch=False),
    Case("Tanh", nn.Tanh, normal(4, 3), lambda t: t.nn.Tanh()),
    Case("Tanh of one 1-D sample", nn.Tanh, normal(5), lambda t: t.nn.Tanh(), has_batch=False),
]

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

REGRESSION = [
    *(
        Case(
            f"MSELoss {reduction}",
            lambda reduction=reduction: nn.MSELoss(reduction),
            pair(4, 3),
            lambda t, reduction=reduction: t.nn.MSELoss(reduction=reduction),
        )
        for reduction in ("mean", "sum", "none")
    ),
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
]

CROSS_ENTROPY = [
    *(
        Case(
            f"CrossEntropyLoss {reduction}",
            lambda reduction=reduction: nn.CrossEntropyLoss(reduction=reduction),
            classes(4, 3),
            lambda t, reduction=reduction: t.nn.CrossEntropyLoss(reduction=reduction),
        )
        for reduction in ("mean", "sum", "none")
    ),
    *(
        Case(
            f"CrossEntropyLoss {reduction} with class weights",
            lambda reduction=reduction: nn.CrossEntropyLoss(CLASS_WEIGHT, reduction=reduction),
            classes(4, 3),
            lambda t, reduction=reduction: t.nn.CrossEntropyLoss(
                t.tensor(CLASS_WEIGHT), reduction=reduction
            ),
        )
        for reduction in ("mean", "sum", "none")
    ),
    *(
        Case(
            f"CrossEntropyLoss {reduction} with ignored labels",
            lambda reduction=reduction: nn.CrossEntropyLoss(ignore_index=1, reduction=reduction),
            classes(4, 3, ignore=1),
            lambda t, reduction=reduction: t.nn.CrossEntropyLoss(
                ignore_index=1, reduction=reduction
            ),
            has_batch=False,  # nothing but an ignored label has no mean
        )
        for reduction in ("mean", "sum", "none")
    ),
    Case(
        "CrossEntropyLoss with labels of -100",
        nn.CrossEntropyLoss,
        classes(4, 3, ignore=-100),
        lambda t: t.nn.CrossEntropyLoss(),
        is_plain=False,
    ),
    *(
        Case(
            f"CrossEntropyLoss {reduction} with label smoothing",
            lambda reduction=reduction: nn.CrossEntropyLoss(
                label_smoothing=0.1, reduction=reduction
            ),
            classes(4, 3),
            lambda t, reduction=reduction: t.nn.CrossEntropyLoss(
                label_smoothing=0.1, reduction=reduction
            ),
        )
        for reduction in ("mean", "sum", "none")
    ),
    *(
        Case(
            f"CrossEntropyLoss {reduction} with everything",
            lambda reduction=reduction: nn.CrossEntropyLoss(
                CLASS_WEIGHT, ignore_index=2, label_smoothing=0.2, reduction=reduction
            ),
            classes(5, 3, 2, ignore=2),
            lambda t, reduction=reduction: t.nn.CrossEntropyLoss(
                t.tensor(CLASS_WEIGHT), ignore_index=2, label_smoothing=0.2, reduction=reduction
            ),
            has_batch=False,
        )
        for reduction in ("mean", "sum", "none")
    ),
    Case(
        "CrossEntropyLoss of one 1-D sample",
        nn.CrossEntropyLoss,
        classes(3),
        lambda t: t.nn.CrossEntropyLoss(),
        has_batch=False,
        is_plain=False,
    ),
    Case(
        "CrossEntropyLoss of one 1-D sample with everything",
        lambda: nn.CrossEntropyLoss(CLASS_WEIGHT, label_smoothing=0.2),
        classes(3),
        lambda t: t.nn.CrossEntropyLoss(t.tensor(CLASS_WEIGHT), label_smoothing=0.2),
        has_batch=False,
    ),
    Case(
        "CrossEntropyLoss of images",
        nn.CrossEntropyLoss,
        classes(2, 3, 2, 2),
        lambda t: t.nn.CrossEntropyLoss(),
        is_plain=False,
    ),
    Case(
        "CrossEntropyLoss of images with class weights, none",
        lambda: nn.CrossEntropyLoss(CLASS_WEIGHT, reduction="none"),
        classes(2, 3, 2, 2),
        lambda t: t.nn.CrossEntropyLoss(t.tensor(CLASS_WEIGHT), reduction="none"),
    ),
    Case(
        "CrossEntropyLoss of uint8 labels among 300",
        nn.CrossEntropyLoss,
        classes(2, 300, dtype=np.uint8),
        lambda t: t.nn.CrossEntropyLoss(),
    ),
]

BINARY = [
    *(
        Case(
            f"BCELoss {reduction}",
            lambda reduction=reduction: nn.BCELoss(reduction=reduction),
            probabilities(4, 3),
            lambda t, reduction=reduction: t.nn.BCELoss(reduction=reduction),
        )
        for reduction in ("mean", "sum", "none")
    ),
    Case(
        "BCELoss with weight",
        lambda: nn.BCELoss([0.5, 2.0, 1.0]),
        probabilities(4, 3),
        lambda t: t.nn.BCELoss(t.tensor([0.5, 2.0, 1.0])),
    ),
    Case(
        "BCELoss of one 1-D sample",
        nn.BCELoss,
        probabilities(3),
        lambda t: t.nn.BCELoss(),
        has_batch=False,
    ),
    *(
        Case(
            f"BCEWithLogitsLoss {reduction}",
            lambda reduction=reduction: nn.BCEWithLogitsLoss(reduction=reduction),
            logits(4, 3),
            lambda t, reduction=reduction: t.nn.BCEWithLogitsLoss(reduction=reduction),
        )
        for reduction in ("mean", "sum", "none")
    ),
    Case(
        "BCEWithLogitsLoss with weight",
        lambda: nn.BCEWithLogitsLoss([0.5, 2.0, 1.0]),
        logits(4, 3),
        lambda t: t.nn.BCEWithLogitsLoss(t.tensor([0.5, 2.0, 1.0])),
    ),
    Case(
        "BCEWithLogitsLoss with pos_weight",
        lambda: nn.BCEWithLogitsLoss(pos_weight=[3.0, 0.5, 1.0]),
        logits(4, 3),
        lambda t: t.nn.BCEWithLogitsLoss(pos_weight=t.tensor([3.0, 0.5, 1.0])),
    ),
    Case(
        "BCEWithLogitsLoss none with both weights",
        lambda: nn.BCEWithLogitsLoss([0.5, 2.0, 1.0], "none", [3.0, 0.5, 1.0]),
        logits(4, 3),
        lambda t: t.nn.BCEWithLogitsLoss(
            t.tensor([0.5, 2.0, 1.0]), reduction="none", pos_weight=t.tensor([3.0, 0.5, 1.0])
        ),
    ),
]

CASES = [
    *LINEAR,
    *ACTIVATIONS,
    *SHAPES,
    *DROPOUT,
    *CONTAINERS,
    *REGRESSION,
    *CROSS_ENTROPY,
    *BINARY,
]
