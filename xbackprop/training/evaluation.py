"""A model without training: outputs and scores of host data, batch by batch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.backend.transfer import to_host
from xbackprop.data.batches import batches
from xbackprop.nn import Module
from xbackprop.training.door import Door
from xbackprop.training.gradients import as_tuple
from xbackprop.training.memory import Attempt, within_memory
from xbackprop.training.metrics import RunningMeans

Result = TypeVar("Result")


@dataclass(frozen=True)
class Evaluation:
    """Mean loss and, for classes, the share of right answers."""

    loss: float
    accuracy: float | None


def predict(door: Door, X: Any, batch_size: int) -> np.ndarray:
    """Return the output of a door's model for host inputs, in evaluation mode."""
    model = door.model
    with _evaluating(model):
        outputs = [
            _fitting(lambda *parts: to_host(model(*parts)), "predict", x)
            for x in batches(X, None, batch_size, dtype=door.dtype, device=door.device)
        ]
    return np.concatenate(outputs)


def evaluate(
    door: Door,
    X: Any,
    y: Any,
    batch_size: int,
    count_correct: Callable[[Array, Array], Array] | None,
) -> Evaluation:
    """Return loss and accuracy of a door's model on host data, in evaluation mode."""
    door.check_labels(y)
    model, loss_fn = door.model, door.loss_fn
    means = RunningMeans(loss_fn, count_correct)

    def score(*inputs: Array) -> tuple[Array, Array]:
        output = model(*inputs[:-1])
        return loss_fn(output, inputs[-1]), output

    with _evaluating(model):
        for x, target in batches(X, y, batch_size, dtype=door.dtype, device=door.device):
            loss, output = _fitting(score, "evaluate", x, target)
            means.add(loss, output, target)
    return Evaluation(*means.read())


def _fitting(compute: Callable[..., Result], name: str, x: Any, *target: Array) -> Result:
    """Compute with one batch, or say which batch the device's memory would hold."""
    inputs = (*as_tuple(x), *target)
    return within_memory(
        lambda: compute(*inputs), lambda: Attempt(f"{name}()", inputs, compute), inputs
    )


class _evaluating:
    """Switch a model to evaluation and give every module its own mode back."""

    def __init__(self, model: Module) -> None:
        self.model = model

    def __enter__(self) -> None:
        self.modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()

    def __exit__(self, *exception: object) -> None:
        for module, training in self.modes:
            module.training = training
