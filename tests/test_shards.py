"""A batch cut into shards that run in threads: the numbers of the whole, the same bits always."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from test_threads import hurried_switching

import xbackprop as xb
from xbackprop.backend.device import Device

pytest.importorskip("threadpoolctl")
nn = xb.nn
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(7, 2, 6, 6)).astype(np.float32)
ROWS = RNG.normal(size=(7, 5)).astype(np.float32)
TOKENS = RNG.integers(0, 9, size=(7, 4))
LABELS = np.array([0, 2, 1, -100, 1, 2, 0])


def perceptron() -> nn.Module:
    hidden = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.2), nn.GELU())
    return nn.Sequential(
        nn.Linear(5, 8), nn.Dropout(0.4), nn.Residual(hidden), nn.Recompute(hidden),
        nn.Linear(8, 3), rng=0,
    )  # fmt: skip


def convnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Dropout2d(0.3), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(16, 3), rng=0,
    )  # fmt: skip


def gpt() -> nn.Module:
    return nn.GPT(9, 4, num_layers=2, num_heads=2, embed_dim=8, dropout=0.3, rng=0)


CASES: dict[str, tuple[Callable[[], nn.Module], nn.Module, Any, Any]] = {
    "labels, some ignored": (
        perceptron, nn.CrossEntropyLoss(weight=np.array([1, 2, 3], np.float32)), ROWS, LABELS,
    ),
    "sum": (perceptron, nn.CrossEntropyLoss(reduction="sum"), ROWS, LABELS),
    "squares": (perceptron, nn.MSELoss(), ROWS, ROWS[:, :3]),
    "half squares": (perceptron, nn.HalfSquaredError(), ROWS, ROWS[:, :3]),
    "images": (convnet, nn.CrossEntropyLoss(), IMAGES, np.abs(LABELS) % 3),
    "tokens": (gpt, nn.CrossEntropyLoss(), TOKENS, np.roll(TOKENS, 1, 0)),
}  # fmt: skip


class Scores(nn.Module):
    """Puts the classes on axis 1, where the loss looks for them."""

    samples_apart = True

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def forward(self, x: Any) -> Any:
        output, saved = self.model.forward(x)
        return (output.transpose(0, 2, 1) if output.ndim == 3 else output), saved

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        if grad_output.ndim == 3:
            grad_output = grad_output.transpose(0, 2, 1)
        return self.model.backward(grad_output, saved, input_grad=input_grad)


def train(case: str, shards: int, **options: Any) -> tuple[list[float], dict[str, np.ndarray]]:
    """Return three steps' losses, and the weights after them."""
    make, loss_fn, x, y = CASES[case]
    model = Scores(make())
    optimizer = xb.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    trainer = xb.Trainer(model, loss_fn, optimizer, shards=shards, **options)
    return [float(trainer.step(x, y)) for _ in range(3)], model.state_dict()


@pytest.mark.parametrize("shards", [2, 3, 9])
@pytest.mark.parametrize("case", CASES)
def test_shards_give_the_numbers_of_the_whole_batch(case: str, shards: int) -> None:
    losses, weights = train(case, shards)
    expected_losses, expected = train(case, 1)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-6)
    for name, array in expected.items():
        np.testing.assert_allclose(weights[name], array, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_the_same_shards_give_the_same_bits(case: str) -> None:
    losses, weights = train(case, 3)
    for threads in (1, 3):
        xb.set_num_threads(threads)
        try:
            with hurried_switching():
                again, others = train(case, 3)
        finally:
            xb.set_num_threads(None)
        assert again == losses
        for name, array in weights.items():
            np.testing.assert_array_equal(others[name], array, err_msg=name)


def test_accumulation_and_clipping_see_the_whole_gradient() -> None:
    options = {"accumulation_steps": 2, "clip_norm": 0.1}
    losses, weights = train("labels, some ignored", 2, **options)
    expected_losses, expected = train("labels, some ignored", 1, **options)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-6)
    for name, array in expected.items():
        np.testing.assert_allclose(weights[name], array, rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_shard_of_ignored_labels_does_not_spoil_the_batch() -> None:
    labels = np.array([-100, -100, 1, 2])
    grads = []
    for shards in (1, 2):
        model = perceptron()
        optimizer = xb.optim.SGD(model.parameters(), lr=0.1)
        trainer = xb.Trainer(model, nn.CrossEntropyLoss(), optimizer, shards=shards)
        grads.append((float(trainer.step(ROWS[:4], labels)), model[0].weight.data.tobytes()))
    assert grads[0] == grads[1]


def test_a_failing_shard_leaves_no_trace() -> None:
    model = perceptron()
    before = {name: array.tobytes() for name, array in model.state_dict().items()}
    counter = model[1].random_state.tobytes()
    optimizer = xb.optim.SGD(model.parameters(), lr=0.1)
    trainer = xb.Trainer(model, nn.CrossEntropyLoss(), optimizer, shards=2)
    with pytest.raises((ValueError, IndexError)):
        trainer.step(ROWS, np.array([0, 0, 0, 0, 0, 0, 99]))
    assert {name: array.tobytes() for name, array in model.state_dict().items()} == before
    assert model[1].random_state.tobytes() == counter
    assert all(parameter.grad is None for parameter in model.parameters())


class Coupled(nn.Linear):
    """A subclass with a forward of its own has said nothing yet."""

    def forward(self, x: Any) -> Any:
        return super().forward(x - x.mean(0))


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.BatchNorm1d(5), "BatchNorm1d"),
        (nn.Softmax(dim=0), "Softmax"),
        (nn.Flatten(0), "Flatten"),
        (nn.Embedding(3, 5, max_norm=1.0), "Embedding"),
        (nn.Embedding(3, 5, scale_grad_by_freq=True), "Embedding"),
        (nn.LSTM(5, 5), "LSTM"),
        (nn.ScaledDotProductAttention(), "ScaledDotProductAttention"),
        (Coupled(5, 5), "Coupled"),
    ],
)
def test_what_may_couple_samples_is_refused_by_name(layer: nn.Module, name: str) -> None:
    model = nn.Sequential(nn.Linear(5, 5), layer)
    optimizer = xb.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(NotImplementedError, match=rf"Trainer\(shards=2\) with {name}:"):
        xb.Trainer(model, nn.MSELoss(), optimizer, shards=2)
    xb.Trainer(model, nn.MSELoss(), optimizer)


def test_a_loss_that_may_couple_samples_is_refused_by_name() -> None:
    model = nn.Linear(5, 5)
    optimizer = xb.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(NotImplementedError, match="with CTCLoss:"):
        xb.Trainer(model, nn.CTCLoss(), optimizer, shards=2)


@pytest.mark.parametrize("shards", [0, -1, 1.5, True])
def test_a_number_that_is_none_is_refused(shards: Any) -> None:
    model = nn.Linear(5, 5)
    with pytest.raises(ValueError, match="shards to be an int"):
        xb.Trainer(model, nn.MSELoss(), xb.optim.SGD(model.parameters()), shards=shards)


def test_shards_are_threads_of_the_cpu(xb_device: Device) -> None:
    model = nn.Linear(5, 5)
    optimizer = xb.optim.SGD(model.parameters(), lr=0.1)
    if xb_device.kind == "cpu":
        xb.Trainer(model, nn.MSELoss(), optimizer, shards=2)
        return
    with pytest.raises(NotImplementedError, match=rf"shards=2\) on {xb_device}"):
        xb.Trainer(model, nn.MSELoss(), optimizer, shards=2)


def test_a_model_that_moved_to_a_device_is_refused() -> None:
    model = nn.Linear(5, 5)
    trainer = xb.Trainer(model, nn.MSELoss(), xb.optim.SGD(model.parameters()), shards=2)
    model.to("fake")
    with pytest.raises(NotImplementedError, match="a batch of a device"):
        trainer.stepper.run(xb.to_device(ROWS, "fake"), xb.to_device(ROWS, "fake"))


def test_other_precisions_and_watchers_are_refused() -> None:
    model = xb.nn.Sequential(xb.nn.Linear(3, 2, rng=0))
    optimizer = xb.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(NotImplementedError, match="with a watcher"):
        xb.Trainer(model, xb.nn.MSELoss(), optimizer, shards=2, watcher=object())  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError, match="another precision than float32"):
        xb.Trainer(model, xb.nn.MSELoss(), optimizer, shards=2, precision="float16")


def test_a_language_model_over_shards_is_that_of_the_batch() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 9, (5, 5))
    x, y = tokens[:, :-1], tokens[:, 1:].copy()
    y[0, :3] = -100  # shards of different weight
    found = []
    for shards in (1, 2):
        model = nn.GPT(9, 4, num_layers=1, num_heads=2, embed_dim=8, rng=0)
        optimizer = xb.optim.SGD(model.parameters(), lr=0.5)
        trainer = xb.Trainer(model, nn.TokenCrossEntropyLoss(), optimizer, shards=shards)
        losses = [float(trainer.stepper.run(x, y)[0]) for _ in range(3)]
        found.append((losses, model.state_dict()))
    np.testing.assert_allclose(*(losses for losses, _ in found), rtol=1e-6)
    for name, expected in found[0][1].items():
        np.testing.assert_allclose(found[1][1][name], expected, rtol=1e-5, atol=1e-6, err_msg=name)
