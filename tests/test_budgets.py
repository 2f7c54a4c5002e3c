"""What one training step may take on a GPU: launches, the bytes its kernels move, no transfer.

Counted on the stand-in GPU, where a kernel that can serve is booked with its declared launches and
every function of CuPy's as one. A change that makes a step cheaper changes a number here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.backend import transfer
from xbackprop.dispatch import Kernel, Op, as_specs
from xbackprop.nn import CrossEntropyLoss, TokenCrossEntropyLoss


class LastState(xb.nn.Module):
    """An LSTM whose last output becomes scores."""

    def __init__(self) -> None:
        self.lstm = xb.nn.LSTM(6, 8, batch_first=True, rng=0)
        self.head = xb.nn.Linear(8, 4, rng=1)

    def forward(self, x: Any) -> tuple[Any, Any]:
        (states, _), saved = self.lstm.forward(x)
        output, head_saved = self.head.forward(states[:, -1])
        return output, (saved, head_saved, states)

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        lstm_saved, head_saved, states = saved
        grad_states = xb.get_array_module(states).zeros_like(states)
        grad_states[:, -1] = self.head.backward(grad_output, head_saved)
        return self.lstm.backward((grad_states, None), lstm_saved, input_grad=input_grad)


def mlp() -> Any:
    nn = xb.nn
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 10), rng=0)


def cnn() -> Any:
    nn = xb.nn
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.5),
        nn.Linear(36, 10), rng=0,
    )  # fmt: skip


def gpt() -> Any:
    return xb.nn.GPT(24, 8, num_layers=2, num_heads=2, embed_dim=16, dropout=0.1, rng=0)


@dataclass(frozen=True)
class Step:
    make: Callable[[], Any]
    loss: Callable[[], Any]
    optimizer: Callable[[Any], Any]
    shape: tuple[int, ...]
    labels: tuple[int, ...]
    launches: int
    kernel_bytes: int
    is_integer: bool = False


STEPS = {
    "mlp": Step(mlp, CrossEntropyLoss, lambda p: xb.optim.SGD(p, lr=0.1, momentum=0.9),
                (16, 20), (16,), 32, 63152),
    "cnn": Step(cnn, CrossEntropyLoss, lambda p: xb.optim.Adam(p, lr=1e-3),
                (8, 1, 8, 8), (8,), 114, 55000),
    "lstm": Step(LastState, CrossEntropyLoss, lambda p: xb.optim.Adam(p, lr=1e-3),
                 (4, 5, 6), (4,), 232, 47768),
    "gpt": Step(gpt, TokenCrossEntropyLoss, lambda p: xb.optim.AdamW(p, lr=1e-3),
                (2, 8), (2, 8), 312, 585744, is_integer=True),
}  # fmt: skip


class KernelBytes:
    """Adds up what the chosen kernels say that they move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.total = 0
        self.names: list[str] = []
        select = Op.select

        def counted(op: Op, device: Any, args: Any, options: Any) -> Kernel | None:
            kernel = select(op, device, args, options)
            # What a kernel's reference calls on the stand-in would not run.
            if kernel is not None and kernel.bytes_moved and not transfer._muted.get():
                self.total += kernel.bytes_moved(*as_specs(args), **options)
                self.names.append(op.name)
            return kernel

        monkeypatch.setattr(Op, "select", counted)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("xb_device", ["fake"], indirect=True)
def test_a_step_takes_so_much(name: str, xb_device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    step = STEPS[name]
    model, loss_fn = step.make(), step.loss()
    optimizer = step.optimizer(list(model.parameters()))
    rng = np.random.default_rng(0)
    classes = 24 if step.is_integer else 4
    drawn = rng.integers(0, 24, step.shape) if step.is_integer else rng.standard_normal(step.shape)
    x, y = xb.asarray(drawn), xb.asarray(rng.integers(0, classes, step.labels))

    def train() -> Any:
        optimizer.zero_grad()
        loss, _ = xb.value_and_grad(model, loss_fn)(x, y)
        xb.optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    train()  # packs parameters, makes scalars
    counted = KernelBytes(monkeypatch)
    with xb.transfer_log() as log:
        train()
    assert (log.uploads, log.downloads, log.synchronizations) == (0, 0, 0)
    assert (log.launches, counted.total) == (step.launches, step.kernel_bytes), counted.names
