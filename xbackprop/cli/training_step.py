"""The training step that ``xbackprop profile`` measures: the trainer's, with a target made up."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from xbackprop import nn
from xbackprop.backend.array_module import is_array
from xbackprop.backend.device import Device
from xbackprop.backend.transfer import to_device
from xbackprop.cli.errors import CommandError
from xbackprop.cli.model_argument import GivenModel
from xbackprop.cli.networks import OPTIMIZERS
from xbackprop.module import as_one_call
from xbackprop.testing.structures import is_float, moved, random_like, transform

_LR = 1e-4  # small: some steps on random targets must not lead to infinities

NamePhase = Callable[[str], contextlib.AbstractContextManager[None]]


def _unnamed(name: str) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


class TrainingStep:
    """One step after the other on the same batch, which is uploaded in each of them.

    Parameters
    ----------
    given : GivenModel
        The model, which is moved and trained, and its inputs.
    device : Device
        Where to compute.
    optimizer : str
        One of ``OPTIMIZERS``.
    loss : str
        ``mse``, ``cross-entropy``, ``none`` or ``auto``.
    seed : int
        Of targets.

    Attributes
    ----------
    loss_name : str
        What ``auto`` has become.

    Raises
    ------
    CommandError
        For a loss that the output does not go with.
    """

    def __init__(
        self, given: GivenModel, device: Device, optimizer: str, loss: str, seed: int
    ) -> None:
        self._inputs, self._device = given.inputs, device
        rng = np.random.default_rng(seed)
        output = given.model(*given.inputs)  # on the CPU, where read_model left it
        self.loss_name = _loss_for(given, output) if loss == "auto" else loss
        self._loss, self._target = _made_up(self.loss_name, output, given, rng)
        self._model = given.model.to(device)
        self._optimizer = OPTIMIZERS[optimizer](self._model.parameters(), lr=_LR)
        if self._loss is None:
            self._target = moved(self._target, device)

    def run(self, phase: NamePhase = _unnamed) -> None:
        """Do a step.

        Parameters
        ----------
        phase : callable, optional
            Names what runs inside a ``with`` block.
        """
        with phase("batch"):
            inputs = transform(self._inputs, self._up)
            target = self._target if self._loss is None else self._up(self._target)
        with as_one_call(*inputs):
            with phase("update"):
                self._optimizer.zero_grad()
            with phase("forward"):
                output, saved = self._model.forward(*inputs)
                loss_saved = None if self._loss is None else self._loss.forward(output, target)[1]
            with phase("backward"):
                grad = target if self._loss is None else self._loss.backward(1.0, loss_saved)
                del output, target, loss_saved
                self._model.backward(grad, saved, input_grad=False)
                del grad, saved
            with phase("update"):
                self._optimizer.step()

    def _up(self, leaf: Any) -> Any:
        return to_device(leaf, self._device) if is_array(leaf) else leaf


def _loss_for(given: GivenModel, output: Any) -> str:
    if not is_float(output):
        return "none"
    is_classifier = given.name in ("mlp", "cnn", "resnet") or _are_tokens(given)
    return "cross-entropy" if is_classifier and output.ndim > 1 else "mse"


def _are_tokens(given: GivenModel) -> bool:
    first = given.inputs[0]
    return len(given.inputs) == 1 and is_array(first) and first.dtype.kind in "iu"


def _made_up(
    name: str, output: Any, given: GivenModel, rng: np.random.Generator
) -> tuple[nn.Module | None, Any]:
    """Return a loss with a random target, or None with a random gradient of the output."""
    if name == "none":
        return None, random_like(output, rng)
    if not is_float(output):
        raise CommandError(f"--loss {name} takes one output; this model has several: --loss none")
    if name == "mse":
        return nn.MSELoss(), random_like(output, rng)
    if output.ndim < 2:
        raise CommandError(
            f"--loss cross-entropy takes an output (batch, classes, ...); got {output.shape}"
        )
    if _are_tokens(given):
        return nn.TokenCrossEntropyLoss(), rng.integers(output.shape[-1], size=output.shape[:-1])
    places = (output.shape[0], *output.shape[2:])
    return nn.CrossEntropyLoss(), rng.integers(output.shape[1], size=places)
