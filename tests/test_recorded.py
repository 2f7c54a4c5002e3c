"""Recorded steps: what a capture refuses, and that replays give the bits of ordinary steps."""

import importlib.util
import itertools
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from command_line import call

import xbackprop as xb
from xbackprop.backend import device
from xbackprop.backend.capture import CaptureError, is_recording, open_recorder
from xbackprop.backend.device import Device
from xbackprop.dispatch import op
from xbackprop.ops.matmul import product
from xbackprop.optim.norms import sums_of_squares
from xbackprop.training.recorded import MOST_RECORDINGS, WARM_UP_STEPS

nn = xb.nn
FAKE = Device("fake", 0)

on_fakes = pytest.mark.parametrize("xb_device", ["fake", "fake:1"], indirect=True)
on_fake = pytest.mark.parametrize("xb_device", ["fake"], indirect=True)


# --- the stand-in's capture ---------------------------------------------------------------


@pytest.fixture
def x() -> Iterator[Any]:
    with xb.use_device("fake"):
        yield xb.asarray(np.arange(6.0).reshape(2, 3), dtype=np.float32)


@op
def plain_dot(x: Any) -> Any:
    """Return ``x x^T`` by a library that CuPy refuses."""
    return x.dot(x.T)


@op
def served_dot(x: Any) -> Any:
    return x.dot(x.T)


@op
def waiting_dot(x: Any) -> Any:
    return x.dot(x.T)


served_dot.kernel("cuda")(lambda x: x)
waiting_dot.kernel("cuda", capturable=False)(lambda x: x)

PROHIBITED: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "upload": (lambda x, xp: xp.asarray([1.0, 2.0]), "upload by xp.asarray"),
    "to_device": (lambda x, xp: xb.to_device(np.ones(2), "fake"), "upload by to_device"),
    "set": (lambda x, xp: x.set(np.ones((2, 3), np.float32)), "upload by set"),
    "download": (lambda x, xp: xb.to_host(x), "synchronization by get"),
    "float": (lambda x, xp: float(x[0, 0]), "synchronization by float"),
    "bool": (lambda x, xp: bool(x[0, 0]), "synchronization by bool"),
    "item": (lambda x, xp: x[0, 0].item(), "synchronization by item"),
    "print": (lambda x, xp: str(x), "synchronization by str"),
    "synchronize": (lambda x, xp: device.synchronize("fake"), "synchronization by synchronize"),
    "mask": (lambda x, xp: x[x > 2], "synchronization by getitem"),
    "assigned mask": (lambda x, xp: x.__setitem__(x > 2, 0.0), "synchronization by setitem"),
    "nonzero": (lambda x, xp: xp.nonzero(x), "synchronization by nonzero"),
    "unique": (lambda x, xp: xp.unique(x), "synchronization by unique"),
    "cuBLAS, dot": (lambda x, xp: x.dot(x.T), "dot cannot be recorded: CuPy refuses cuBLAS"),
    "cuBLAS, @": (lambda x, xp: x @ x.T, "matmul cannot be recorded: CuPy refuses cuBLAS"),
    "cuBLAS, einsum": (lambda x, xp: xp.einsum("ij,kj", x, x), "einsum cannot be recorded"),
    "cuSOLVER": (lambda x, xp: xp.linalg.svd(x), "svd cannot be recorded: CuPy refuses cuSOLVER"),
    "nine arrays": (
        lambda x, xp: xp.concatenate([x] * 9), "concatenate of 9 arrays cannot be recorded",
    ),
    "peer copy": (lambda x, xp: xb.to_device(x, "fake:1"), "peer_copy by to_device"),
    "op without a kernel": (lambda x, xp: plain_dot(x), "dot cannot be recorded"),
    "kernel that waits": (lambda x, xp: waiting_dot(x), "the kernel of waiting_dot cannot be"),
}  # fmt: skip


@pytest.mark.parametrize("name", PROHIBITED)
def test_what_a_capture_refuses(name: str, x: Any) -> None:
    forbidden, message = PROHIBITED[name]
    recorder = open_recorder(FAKE)
    recorder.warm_up(lambda: forbidden(x, FAKE.xp))  # allowed there
    before = xb.to_host(x)
    with pytest.raises(CaptureError, match=r"test_recorded\.py:\d+: " + message):
        recorder.capture(lambda: forbidden(x, FAKE.xp), [x])
    np.testing.assert_array_equal(xb.to_host(x), before)
    forbidden(x, FAKE.xp)  # allowed again


def test_another_device_is_no_part_of_a_recording(x: Any) -> None:
    other = xb.asarray([1.0], device="fake:1")

    def elsewhere() -> Any:
        with xb.use_device("fake:1"):
            return other + 1

    with pytest.raises(CaptureError, match="add on fake:1 cannot be recorded: another device"):
        open_recorder(FAKE).capture(elsewhere, [x])


def test_what_may_be_recorded(x: Any) -> None:
    xp = FAKE.xp

    def allowed() -> tuple[Any, ...]:
        joined = xp.concatenate([x] * 8)
        return (
            served_dot(x), product(x, x.T), sums_of_squares(x, x[0]),
            joined[xp.argsort(joined[:, 0])],
            xp.where(x > 2, x, 0).sum(axis=0), xp.full((2,), 3.0), xp.arange(3), x[1],
        )  # fmt: skip

    expected = [xb.to_host(part) for part in allowed()]
    recorder = open_recorder(FAKE)
    results = recorder.capture(allowed, [x])
    recorder.replay()
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_array_equal(xb.to_host(result), wanted)


def test_a_capture_changes_nothing_and_a_replay_everything(x: Any) -> None:
    def count() -> Any:
        nonlocal x
        x += 1
        return x * 2

    start = xb.to_host(x)
    recorder = open_recorder(FAKE)
    doubled = recorder.capture(count, [x])
    np.testing.assert_array_equal(xb.to_host(x), start)
    with xb.transfer_log() as log:
        for _ in range(3):
            recorder.replay()
    np.testing.assert_array_equal(xb.to_host(x), start + 3)
    np.testing.assert_array_equal(xb.to_host(doubled), 2 * (start + 3))
    assert (log.launches, len(log.events)) == (3, 3)


def test_a_replay_asks_no_python(x: Any) -> None:
    numbers = iter([2.0, 3.0])
    recorder = open_recorder(FAKE)
    result = recorder.capture(lambda: x * next(numbers), [x])
    recorder.replay()
    np.testing.assert_array_equal(xb.to_host(result), 2 * xb.to_host(x))
    assert next(numbers) == 3.0


def test_code_can_tell_that_it_is_recorded(x: Any) -> None:
    recorder = open_recorder(FAKE)
    seen = [is_recording()]
    recorder.warm_up(lambda: seen.append(is_recording()))
    recorder.capture(lambda: seen.append(is_recording()), [])
    assert [*seen, is_recording()] == [False, True, True, False]


def test_the_cpu_cannot_record() -> None:
    with pytest.raises(CaptureError, match="device cpu cannot record"):
        open_recorder(Device("cpu"))


# --- training -----------------------------------------------------------------------------


def make_mlp() -> tuple[nn.Module, nn.Module]:
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3), rng=0
    ), nn.CrossEntropyLoss()  # fmt: skip


def make_cnn() -> tuple[nn.Module, nn.Module]:
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.GELU(),
        nn.MaxPool2d((1, 2), stride=1), nn.Flatten(), nn.Linear(16, 3), rng=0,
    ), nn.CrossEntropyLoss(label_smoothing=0.1)  # fmt: skip


class LastState(nn.Module):
    """An LSTM whose last output is classified."""

    def __init__(self, rng: Any = None) -> None:
        self.lstm = nn.LSTM(2, 5, batch_first=True, rng=rng)
        self.head = nn.Linear(5, 3, rng=rng)

    def forward(self, x: Any) -> Any:
        (output, _), saved = self.lstm.forward(x.reshape(len(x), 3, 2))
        scores, head_saved = self.head.forward(output[:, -1])
        return scores, (output.shape, saved, head_saved)

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        shape, saved, head_saved = saved
        grad = xb.get_array_module(grad_output).zeros(shape, dtype=grad_output.dtype)
        grad[:, -1] = self.head.backward(grad_output, head_saved)
        self.lstm.backward((grad, None), saved)


def make_lstm() -> tuple[nn.Module, nn.Module]:
    return LastState(rng=0), nn.CrossEntropyLoss()


def make_gpt() -> tuple[nn.Module, nn.Module]:
    return nn.GPT(11, 6, 2, 2, 16, dropout=0.1, rng=0), nn.TokenCrossEntropyLoss()


MODELS = {"mlp": make_mlp, "cnn": make_cnn, "lstm": make_lstm, "gpt": make_gpt}


def batches_for(kind: str, number: int, size: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(1)
    if kind == "gpt":
        return [tuple(rng.integers(0, 11, (2, size, 6))) for _ in range(number)]  # type: ignore[misc]
    return [
        (rng.normal(size=(size, 6)).astype(np.float32), rng.integers(0, 3, size))
        for _ in range(number)
    ]


def make_trainer(kind: str = "mlp", *, optimizer: str = "Adam", **options: Any) -> xb.Trainer:
    model, loss_fn = MODELS[kind]()
    made = getattr(xb.optim, optimizer)(model.parameters(), lr=0.01)
    schedule = options.pop("schedule", None)
    if schedule is not None:
        options |= {"scheduler": schedule(made), "scheduler_interval": "step"}
    return xb.Trainer(model, loss_fn, made, **options)


def everything(trainer: xb.Trainer) -> dict[str, bytes]:
    state = {**trainer.model.state_dict(), **trainer.model.extra_state()}
    of_optimizer = trainer.optimizer.state_dict()["state"]
    state |= {f"{i}.{name}": x for i, entry in of_optimizer.items() for name, x in entry.items()}
    if trainer.scaler is not None:
        state |= trainer.scaler.state_dict()
    return {name: np.asarray(array).tobytes() for name, array in state.items()}


def compare(
    kind: str = "mlp",
    batches: list[Any] | None = None,
    between: Callable[[xb.Trainer, int], Any] = lambda trainer, step: None,
    **options: Any,
) -> Any:
    """Train with and without a recording; everything has the same bits. Return the recording."""
    outcomes = []
    for graph in (False, True):
        trainer = make_trainer(kind, graph=graph, **options)
        losses = []
        for number, (x, y) in enumerate(batches_for(kind, 8) if batches is None else batches):
            losses.append(trainer.step(x, y))
            between(trainer, number)
        outcomes.append(
            (
                [xb.to_host(loss).tobytes() for loss in losses],
                everything(trainer),
                trainer.steps,
                trainer.optimizer.calls,
            )
        )
    assert outcomes[0] == outcomes[1]
    return trainer.recorded


def halving(optimizer: Any) -> Any:
    return xb.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)


@on_fakes
@pytest.mark.parametrize("kind", MODELS)
def test_replays_have_the_bits_of_ordinary_steps(kind: str, xb_device: Device) -> None:
    recorded = compare(kind, schedule=halving)
    assert recorded.reason is None
    assert (recorded.ordinary_steps, recorded.recordings) == (WARM_UP_STEPS, 1)
    assert recorded.replays == 8 - WARM_UP_STEPS


HALVES = [
    "float16", pytest.param("bfloat16", marks=pytest.mark.skipif(
        importlib.util.find_spec("ml_dtypes") is None, reason="bfloat16 needs ml_dtypes")),
]  # fmt: skip


@on_fakes
@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("kind", MODELS)
def test_half_precision_is_recorded(kind: str, precision: str, xb_device: Device) -> None:
    recorded = compare(kind, precision=precision, schedule=halving, clip_norm=1.0)
    assert (recorded.reason, recorded.replays) == (None, 8 - WARM_UP_STEPS)


@on_fake
@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "RMSprop", "Adafactor"])
def test_half_copies_follow_a_replay(optimizer: str, xb_device: Device) -> None:
    trainer = make_trainer(optimizer=optimizer, precision="float16", graph=True)
    for x, y in batches_for("mlp", 5):
        trainer.step(x, y)
        for parameter in trainer.model.parameters():
            master, value = xb.to_host(parameter.data), xb.to_host(parameter.value)
            np.testing.assert_array_equal(value, master.astype(value.dtype))
    assert trainer.recorded is not None
    assert trainer.recorded.replays == 5 - WARM_UP_STEPS


@on_fakes
def test_the_loss_scale_shrinks_and_grows_in_replays(xb_device: Device) -> None:
    scales = []
    for graph in (False, True):
        trainer = make_trainer(precision="float16", graph=graph)
        scaler = trainer.scaler
        assert scaler is not None
        scaler.load_state_dict(xb.GradScaler(2.0**24, growth_interval=3).state_dict())
        told = []
        for x, y in batches_for("mlp", 24):
            trainer.step(x, y)
            told.append((scaler.state_dict(), trainer.optimizer.calls))
            if len(told) == 12:
                told.append(trainer.stepper.count_skipped())
        assert trainer.optimizer.first_nonfinite_step() is None
        scales.append((told, trainer.stepper.count_skipped(), everything(trainer)))
    assert scales[0] == scales[1]
    assert trainer.recorded is not None
    assert trainer.recorded.replays == 24 - WARM_UP_STEPS
    seen = [entry[0]["scale"] for entry in told if isinstance(entry, tuple)]
    changes = [after / before for before, after in itertools.pairwise(seen[WARM_UP_STEPS:])]
    assert {0.5, 2.0} <= set(changes)


@on_fake
def test_another_loss_scale_makes_another_recording(xb_device: Device) -> None:
    def change(trainer: xb.Trainer, step: int) -> None:
        if step == 3:
            assert trainer.scaler is not None
            trainer.scaler.load_state_dict(xb.GradScaler(64.0).state_dict())

    recorded = compare(precision="float16", between=change)
    assert (recorded.recordings, recorded.reason) == (2, None)


@on_fake
def test_another_precision_makes_another_recording(xb_device: Device) -> None:
    def change(trainer: xb.Trainer, step: int) -> None:
        if step == 0:  # nothing but the precision tells of a frozen layer's new values
            for parameter in (*trainer.model[0].parameters(), *trainer.model[4].parameters()):
                parameter.requires_grad = False
        if step == 3:
            xb.set_precision(trainer.model, "float16")

    recorded = compare(between=change)
    assert (recorded.recordings, recorded.reason) == (2, None)


OPTIMIZERS = [
    "SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adadelta", "Adagrad", "RMSprop", "Rprop",
    "ASGD", "Adafactor", "Lion",
]  # fmt: skip


@on_fake
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_can_be_recorded(optimizer: str, xb_device: Device) -> None:
    assert compare(optimizer=optimizer).replays == 8 - WARM_UP_STEPS


@on_fake
@pytest.mark.parametrize("kind", MODELS)
def test_a_replay_uploads_the_batch_and_nothing_else(kind: str, xb_device: Device) -> None:
    trainer = make_trainer(kind, graph=True)
    batches = batches_for(kind, 6)
    for x, y in batches[:3]:
        trainer.step(x, y)
    with xb.transfer_log() as log:
        for x, y in batches[3:]:
            trainer.step(x, y)
    assert (log.uploads, log.downloads, log.synchronizations) == (6, 0, 0)
    assert log.bytes_uploaded == sum(x.nbytes + y.nbytes for x, y in batches[3:])
    # The graph, two copies of the batch, the number of the step, the loss that is handed out.
    assert log.launches == 3 * 5


@on_fake
def test_fit_and_its_history_are_the_same(xb_device: Device) -> None:
    rng = np.random.default_rng(2)
    X, y = rng.normal(size=(50, 6)).astype(np.float32), rng.integers(0, 3, 50)
    rows = []
    for graph in (False, True):
        trainer = make_trainer(graph=graph, schedule=halving)
        history = trainer.fit(X, y, epochs=3, batch_size=8, rng=0, test=(X[:10], y[:10]))
        rows.append([[row.train_loss, row.train_accuracy, row.test_loss, row.step]
                     for row in history] + [everything(trainer)])  # fmt: skip
    assert rows[0] == rows[1]
    recorded = trainer.recorded
    assert recorded is not None
    assert recorded.ordinary_steps == WARM_UP_STEPS + 3  # the last batch of each epoch is smaller
    assert recorded.replays == 18 - WARM_UP_STEPS


# --- what changes between steps -----------------------------------------------------------


@on_fake
def test_options_that_change_make_another_recording(xb_device: Device) -> None:
    def change(trainer: xb.Trainer, step: int) -> None:
        if step == 3:
            trainer.optimizer.param_groups[0]["betas"] = (0.5, 0.9)

    recorded = compare(between=change)
    assert (recorded.recordings, recorded.reason) == (2, None)


@on_fake
def test_layers_that_change_make_another_recording(xb_device: Device) -> None:
    def change(trainer: xb.Trainer, step: int) -> None:
        if step == 3:
            trainer.model[3].p = 0.6

    assert compare(between=change).recordings == 2


@on_fake
def test_frozen_parameters_make_another_recording(xb_device: Device) -> None:
    def change(trainer: xb.Trainer, step: int) -> None:
        if step == 3:
            trainer.model[0].weight.requires_grad = False

    assert compare(between=change).recordings == 2


@on_fake
def test_weights_loaded_meanwhile_are_used(xb_device: Device) -> None:
    start = make_mlp()[0].state_dict()

    def change(trainer: xb.Trainer, step: int) -> None:
        if step == 4:
            trainer.model.load_state_dict(start)
            trainer.optimizer.zero_grad()

    assert compare(between=change).reason is None


@on_fake
def test_moving_the_model_makes_another_recording(xb_device: Device) -> None:
    def change(trainer: xb.Trainer, step: int) -> None:
        if step == 3:
            trainer.to("fake:1")

    with_fake_1 = compare(between=change)
    assert (with_fake_1.recordings, with_fake_1.reason) == (2, None)


@on_fake
def test_options_that_change_in_every_step_are_no_recording(
    xb_device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    def change(trainer: xb.Trainer, step: int) -> None:
        trainer.optimizer.param_groups[0]["eps"] = 1e-8 * (1 + step // 3)

    recorded = compare(batches=batches_for("mlp", 3 * MOST_RECORDINGS + 6), between=change)
    assert recorded.recordings == MOST_RECORDINGS
    assert "changed in each of 8 recordings" in recorded.reason
    assert "changed in each of 8 recordings" in caplog.text


@on_fake
def test_another_shape_is_recorded_when_it_stays(xb_device: Device) -> None:
    batches = [*batches_for("mlp", 3, size=2), *batches_for("mlp", 8)]
    recorded = compare(batches=batches)
    assert (recorded.recordings, recorded.reason) == (2, None)
    # Ordinary: the first of the new shape, and the warm-ups.
    assert recorded.ordinary_steps == 1 + 2 * WARM_UP_STEPS


@on_fake
def test_observers_see_ordinary_steps(xb_device: Device) -> None:
    class Names:
        def __init__(self) -> None:
            self.seen: list[str] = []

        def before(self, call: Any) -> None:
            self.seen.append(call.op.name)

        def after(self, call: Any, result: Any) -> None:
            pass

    trainer = make_trainer(graph=True)
    names = Names()
    for number, (x, y) in enumerate(batches_for("mlp", 6)):
        if number < 4:
            trainer.step(x, y)
        else:
            with xb.observe(names):
                trainer.step(x, y)
    assert names.seen.count("linear_forward") == 4
    assert trainer.recorded is not None
    assert trainer.recorded.replays == 4 - WARM_UP_STEPS


# --- NaN, clipping, resume ----------------------------------------------------------------


@on_fake
@pytest.mark.parametrize("on_nan", ["raise", "skip", "stop"])
def test_bad_batches_are_handled_by_the_recording(on_nan: str, xb_device: Device) -> None:
    batches = batches_for("mlp", 9)
    batches[5][0][0] = np.nan
    outcomes = []
    for graph in (False, True):
        trainer = make_trainer(graph=graph, on_nan=on_nan, check_every=3)
        told: Any = None
        try:
            for x, y in batches:
                trainer.step(x, y)
        except xb.training.NonFiniteError as error:
            told = str(error)
        outcomes.append(
            (told, trainer.nonfinite_step, trainer.optimizer.count_skipped_steps(),
             everything(trainer))
        )  # fmt: skip
    assert outcomes[0] == outcomes[1]
    told = outcomes[1]
    assert {"raise": "step 6" in str(told[0]), "stop": told[1] == 6, "skip": told[2] == 1}[on_nan]
    assert trainer.recorded is not None
    assert trainer.recorded.replays > 2


@on_fake
@pytest.mark.parametrize("kind", ["mlp", "gpt"])
def test_clipping_is_recorded(kind: str, xb_device: Device) -> None:
    assert compare(kind, clip_norm=0.05).replays == 8 - WARM_UP_STEPS


@on_fake
def test_gradients_that_were_forgotten_are_there_again(xb_device: Device) -> None:
    def change(trainer: xb.Trainer, step: int) -> None:
        assert trainer.model[0].weight.grad is not None
        trainer.optimizer.zero_grad()

    assert compare(between=change).recordings == 1


@on_fake
def test_parameters_that_move_apart_are_recorded(
    xb_device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sometimes(nn.Module):
        """Has a part that only training with `on` reaches."""

        def __init__(self, rng: Any = None) -> None:
            self.first, self.second = (nn.Linear(6, 3, rng=rng) for _ in range(2))
            self.on = True

        def forward(self, x: Any) -> Any:
            layer = self.second if self.on else self.first
            output, saved = layer.forward(x)
            return output, (layer, saved)

        def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
            layer, saved = saved
            return layer.backward(grad_output, saved, input_grad=input_grad)

    def change(trainer: xb.Trainer, step: int) -> None:
        trainer.model.on = step // 4 % 2 == 0

    monkeypatch.setitem(MODELS, "mlp", lambda: (Sometimes(rng=0), nn.CrossEntropyLoss()))
    for optimizer in ("Adam", "NAdam"):
        batches = batches_for("mlp", 12)
        recorded = compare(batches=batches, between=change, optimizer=optimizer)
        assert (recorded.recordings, recorded.reason) == (3, None)


@on_fake
def test_a_layer_outside_of_the_optimizer_may_thaw(xb_device: Device) -> None:
    grads = []
    for graph in (False, True):
        model, loss_fn = make_mlp()
        model[0].weight.requires_grad = False
        optimizer = xb.optim.SGD(model[4].parameters())
        trainer = xb.Trainer(model, loss_fn, optimizer, graph=graph)
        for number, (x, y) in enumerate(batches_for("mlp", 6)):
            model[0].weight.requires_grad = number > 3
            trainer.step(x, y)
        grads.append(xb.to_host(model[0].weight.grad).tobytes())
    assert grads[0] == grads[1]


@on_fake
def test_a_resumed_run_watches_the_loss_scale_that_it_uses(
    xb_device: Device, tmp_path: Any
) -> None:
    first = make_trainer(graph=True, precision="float16")
    for x, y in batches_for("mlp", 2):
        first.step(x, y)
    first.save(tmp_path / "run.safetensors")
    second = make_trainer(graph=True, precision="float16").resume(tmp_path / "run.safetensors")
    assert second.scaler is second.stepper.scaler is second.stepper.recorded.scaler
    third = make_trainer(precision="float16").resume(tmp_path / "run.safetensors")
    for x, y in batches_for("mlp", 8):
        second.step(x, y)
        third.step(x, y)
    assert second.stepper.recorded.replays
    assert everything(second) == everything(third)
    assert second.scaler.state_dict() == third.scaler.state_dict()


@on_fake
def test_a_recorded_run_is_resumed(xb_device: Device, tmp_path: Any) -> None:
    batches = batches_for("mlp", 10)
    first = make_trainer(graph=True)
    for x, y in batches[:6]:
        first.step(x, y)
    first.save(tmp_path / "run.safetensors")
    second = make_trainer(graph=True).resume(tmp_path / "run.safetensors")
    for trainer in (first, second):
        for x, y in batches[6:]:
            trainer.step(x, y)
    assert everything(first) == everything(second)
    assert second.recorded is not None
    assert second.recorded.replays == 4 - WARM_UP_STEPS


@on_fake
def test_many_running_statistics_are_recorded(
    xb_device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make() -> tuple[nn.Module, nn.Module]:
        layers = [nn.Linear(6, 3), *(nn.BatchNorm1d(3) for _ in range(37))]
        return nn.Sequential(*layers, rng=0), nn.CrossEntropyLoss()

    monkeypatch.setitem(MODELS, "mlp", make)
    assert compare().replays == 8 - WARM_UP_STEPS


# --- what cannot be recorded --------------------------------------------------------------


def check_reason(recorded: Any, words: str, caplog: pytest.LogCaptureFixture) -> None:
    assert words in recorded.reason
    assert recorded.replays == 0
    (message,) = [r for r in caplog.records if "graph=True" in r.getMessage()]
    assert message.levelno == logging.WARNING
    assert words in message.getMessage()


def test_the_cpu_says_that_it_cannot(caplog: pytest.LogCaptureFixture) -> None:
    with xb.use_device("cpu"):
        recorded = compare()
    check_reason(recorded, "device cpu cannot record", caplog)
    assert recorded.ordinary_steps == 8


@on_fake
def test_accumulation_says_that_it_cannot(
    xb_device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    check_reason(compare(accumulation_steps=2), "accumulation_steps > 1", caplog)


class Waiting(nn.Module):
    """Looks at its input."""

    def forward(self, x: Any) -> Any:
        return x, float(x[0, 0])

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        return grad_output


@on_fake
def test_a_layer_that_waits_is_named(
    xb_device: Device, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make() -> tuple[nn.Module, nn.Module]:
        return nn.Sequential(nn.Linear(6, 3), Waiting(), rng=0), nn.CrossEntropyLoss()

    monkeypatch.setitem(MODELS, "mlp", make)
    recorded = compare()
    check_reason(recorded, "synchronization by float() cannot be recorded", caplog)
    assert "test_recorded.py:" in recorded.reason


@on_fake
def test_state_in_a_new_array_is_named(
    xb_device: Device, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Rebinding(xb.optim.SGD):
        def update(self, flat: Any, data: Any, *rest: Any) -> None:
            super().update(flat, data, *rest)
            flat.state["trace"] = data * 0.5

    monkeypatch.setattr(xb.optim, "Rebinding", Rebinding, raising=False)
    recorded = compare(optimizer="Rebinding")
    check_reason(recorded, "group 0, trace lives in a new array after the step", caplog)


@on_fake
def test_an_update_that_cannot_be_recorded_leaves_the_loss_scale_usable(
    xb_device: Device, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Looking(xb.optim.SGD):
        def update(self, flat: Any, data: Any, *rest: Any) -> None:
            float(data[0])
            super().update(flat, data, *rest)

    monkeypatch.setattr(xb.optim, "Looking", Looking, raising=False)
    recorded = compare(optimizer="Looking", precision="float16")
    check_reason(recorded, "synchronization by float() cannot be recorded", caplog)


@on_fake
def test_an_embedding_with_max_norm_is_recorded(
    xb_device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make() -> tuple[nn.Module, nn.Module]:
        layers = nn.Embedding(11, 4, max_norm=0.5), nn.Flatten(), nn.Linear(24, 3)
        return nn.Sequential(*layers, rng=0), nn.CrossEntropyLoss()

    monkeypatch.setitem(MODELS, "mlp", make)
    rng = np.random.default_rng(0)
    batches = [(rng.integers(0, 11, (4, 6)), rng.integers(0, 3, 4)) for _ in range(6)]
    recorded = compare(batches=batches)
    assert (recorded.reason, recorded.replays) == (None, 6 - WARM_UP_STEPS)


@on_fake
def test_a_batch_that_is_refused_changes_no_count(xb_device: Device) -> None:
    trainer = make_trainer(graph=True)
    batches = batches_for("mlp", 5)
    for x, y in batches:
        trainer.step(x, y)
    before = everything(trainer), trainer.optimizer.calls
    with pytest.raises(ValueError, match="features"):
        trainer.step(np.ones((4, 7), np.float32), batches[0][1])
    assert (everything(trainer), trainer.optimizer.calls) == before


# --- the command line ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "words"),
    [("fake", "graph     3 of 6 steps were replayed"),
     ("cpu", "graph     steps ran one by one: device cpu cannot record")],
)  # fmt: skip
def test_the_command_says_what_came_of_it(
    device: str, words: str, capsys: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(
        capsys, "train", "--graph", "--epochs", "1", "--batch-size", "240", "--device", device,
        "--out", "run",
    )  # fmt: skip
    assert code == 0
    assert words in out
    assert "--graph" in json.loads((tmp_path / "run" / "config.json").read_text())["command"]
