"""The networks that are timed, soaked and repeated, ours and, where it is installed, PyTorch's."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import xbackprop as xb
from benchmarks.gpu.rows import TESTS

nn = xb.nn
LR = 1e-3


class LastStep(nn.Module):
    """The LSTM's output at the last step."""

    def __init__(self, lstm: Any) -> None:
        self.lstm = lstm

    def forward(self, x: Any) -> Any:
        (output, _), saved = self.lstm.forward(x)
        return output[:, -1], (output, saved)

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        output, inner = saved
        grad = xb.get_array_module(output).zeros_like(output)
        grad[:, -1] = grad_output
        return self.lstm.backward((grad, None), inner, input_grad=input_grad)


@dataclass(frozen=True)
class Network:
    """A classifier: how to make it here and in PyTorch, and a batch for it."""

    name: str
    make: Callable[[], Any]
    make_torch: Callable[[Any], Any]
    x_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    classes: int
    x_are_tokens: bool = False

    def batch(self) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        tokens = rng.integers(0, self.classes, self.x_shape)
        x = tokens if self.x_are_tokens else rng.normal(size=self.x_shape).astype(np.float32)
        return x, rng.integers(0, self.classes, self.y_shape)

    def trainer(self) -> tuple[Any, Any, Any]:
        """Return a trainer on the default device, and the batch there."""
        model = self.make()
        optimizer = xb.optim.AdamW(model.parameters(), lr=LR)
        trainer = xb.Trainer(model, nn.CrossEntropyLoss(), optimizer)
        return trainer, *map(xb.asarray, self.batch())


def networks(quick: bool) -> list[Network]:
    """Return MLP, CNN, LSTM and GPT; tiny ones with `quick`."""
    n, width, image, steps = (4, 16, 8, 3) if quick else (256, 2048, 32, 128)
    hidden, embed, heads, layers, context, vocab = (
        (8, 16, 2, 1, 8, 11) if quick else (512, 384, 6, 6, 256, 65)
    )
    batch = 2 if quick else 32
    channels = 4 if quick else 64
    return [
        Network("MLP", lambda: nn.Sequential(
            nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, 10), rng=0,
        ), lambda t: t.nn.Sequential(
            t.nn.Linear(784, width), t.nn.ReLU(), t.nn.Linear(width, width), t.nn.ReLU(),
            t.nn.Linear(width, 10),
        ), (n, 784), (n,), 10),
        Network("CNN", lambda: nn.Sequential(
            nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.MaxPool2d(2), nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(channels * (image // 4) ** 2, 10), rng=0,
        ), lambda t: t.nn.Sequential(
            t.nn.Conv2d(3, channels, 3, padding=1), t.nn.BatchNorm2d(channels), t.nn.ReLU(),
            t.nn.MaxPool2d(2), t.nn.Conv2d(channels, channels, 3, padding=1), t.nn.ReLU(),
            t.nn.MaxPool2d(2), t.nn.Flatten(), t.nn.Linear(channels * (image // 4) ** 2, 10),
        ), (n, 3, image, image), (n,), 10),
        Network("LSTM", lambda: nn.Sequential(
            LastStep(nn.LSTM(64, hidden, batch_first=True, rng=0)), nn.Linear(hidden, 10), rng=0,
        ), lambda t: torch_lstm(t, hidden), (n, steps, 64), (n,), 10),
        Network("GPT", lambda: TokenLogits(nn.GPT(vocab, context, layers, heads, embed, rng=0)),
                lambda t: torch_gpt(t, vocab, context, layers, heads, embed),
                (batch, context), (batch * context,), vocab, x_are_tokens=True),
    ]  # fmt: skip


class TokenLogits(nn.Module):
    """A GPT whose logits are rows, one a token, as the loss of both sides takes them."""

    def __init__(self, gpt: Any) -> None:
        self.gpt = gpt

    def forward(self, tokens: Any) -> Any:
        logits, saved = self.gpt.forward(tokens)
        return logits.reshape(-1, logits.shape[-1]), (logits.shape, saved)

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        shape, inner = saved
        return self.gpt.backward(grad_output.reshape(shape), inner)


def torch_lstm(torch: Any, hidden: int) -> Any:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(64, hidden, batch_first=True)
            self.head = torch.nn.Linear(hidden, 10)

        def forward(self, x: Any) -> Any:
            return self.head(self.lstm(x)[0][:, -1])

    return Net()


def torch_gpt(torch: Any, *sizes: int) -> Any:
    if str(TESTS) not in sys.path:
        sys.path.insert(0, str(TESTS))
    from layer_cases.transformer import gpt_torch

    return torch.nn.Sequential(gpt_torch(torch, *sizes), torch.nn.Flatten(0, 1))
