"""A trainer that clips the norm of the gradients before every update."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.backend.device import Device
from xbackprop.training import CheckpointError, NonFiniteError, resume

nn = xb.nn
MODES = ["raise", "skip", "stop"]
LARGEST = 0.05  # below the norm of every update here


def make_trainer(
    clip_norm: float | None = LARGEST, *, optimizer: str = "SGD", dtype: Any = "float32", **o: Any
) -> xb.Trainer:
    model = nn.Sequential(
        nn.Linear(4, 6, dtype=dtype), nn.Tanh(), nn.Linear(6, 3, dtype=dtype), rng=0
    )
    made = getattr(xb.optim, optimizer)(model.parameters(), lr=1.0 if optimizer == "SGD" else 0.1)
    return xb.Trainer(model, nn.CrossEntropyLoss(), made, clip_norm=clip_norm, **o)


def data(samples: int = 24) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    y = rng.integers(0, 3, size=samples)
    return rng.normal(size=(samples, 4)) + y[:, None], y


def weights(trainer: xb.Trainer) -> dict[str, bytes]:
    return {name: values.tobytes() for name, values in trainer.model.state_dict().items()}


def flat(trainer: xb.Trainer) -> np.ndarray:
    return np.concatenate([values.ravel() for values in trainer.model.state_dict().values()])


# --- what is clipped ----------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("clip_norm", [LARGEST, 1e-3, 1e3])
def test_a_step_is_the_loop_by_hand(clip_norm: float, optimizer: str, xb_device: Device) -> None:
    X, y = data()
    trainer, hand = (make_trainer(clip, optimizer=optimizer) for clip in (clip_norm, None))
    model, loss_fn = hand.model, hand.loss_fn
    for _ in range(3):
        trainer.step(X, y)
        hand.optimizer.zero_grad()
        output, saved = model.forward(xb.asarray(X, dtype=np.float32))
        _, loss_saved = loss_fn.forward(output, xb.asarray(y))
        model.backward(loss_fn.backward(1.0, loss_saved), saved)
        xb.optim.clip_grad_norm_(model.parameters(), clip_norm)
        hand.optimizer.step()
        assert weights(trainer) == weights(hand)
    plain = make_trainer(None, optimizer=optimizer)
    for _ in range(3):
        plain.step(X, y)
    assert (weights(plain) == weights(trainer)) is (clip_norm == 1e3)


@pytest.mark.parametrize("parts", [[24], [2, 6, 16]])
def test_an_update_has_the_norm_at_most(parts: list[int], xb_device: Device) -> None:
    """SGD with a learning rate of 1 moves by the gradient itself."""
    X, y = data()
    trainer = make_trainer(dtype="float64", accumulation_steps=len(parts))
    before = flat(trainer)
    for rows in np.split(np.arange(24), np.cumsum(parts)[:-1]):
        assert (flat(trainer) == before).all()
        trainer.step(X[rows], y[rows])
    moved = np.linalg.norm(flat(trainer) - before)
    assert moved == pytest.approx(LARGEST, rel=1e-4)  # the 1e-6 of clip_grad_norm_


def test_an_accumulated_group_is_clipped_as_one_batch(xb_device: Device) -> None:
    X, y = data()
    y = np.where(np.arange(24) % 5 == 0, -100, y)
    results = []
    for parts in ([slice(0, 24)], [slice(0, 3), slice(3, 14), slice(14, 24)]):
        trainer = make_trainer(0.2, dtype="float64", accumulation_steps=len(parts))
        for _ in range(3):
            for part in parts:
                trainer.step(X[part], y[part])
        results.append(flat(trainer))
    np.testing.assert_allclose(results[1], results[0], rtol=1e-11, atol=1e-13)


def test_the_last_group_of_an_epoch_is_clipped(xb_device: Device) -> None:
    X, y = data()
    trainer = make_trainer(dtype="float64", accumulation_steps=5)
    before = flat(trainer)
    trainer.fit(X, y, batch_size=8)  # three batches: the update comes at the end
    assert trainer.steps == 1
    assert np.linalg.norm(flat(trainer) - before) == pytest.approx(LARGEST, rel=1e-4)


def test_only_what_is_updated_has_a_part_in_the_norm(xb_device: Device) -> None:
    """Nobody forgets the gradients of parameters that no optimizer has: they would grow."""
    X, y = data()
    model = make_trainer(dtype="float64").model
    optimizer = xb.optim.SGD(model[2].parameters(), lr=1.0)
    trainer = xb.Trainer(model, nn.CrossEntropyLoss(), optimizer, clip_norm=LARGEST)
    for _ in range(3):
        before = flat(trainer)
        trainer.step(X, y)
        assert np.linalg.norm(flat(trainer) - before) == pytest.approx(LARGEST, rel=1e-4)


def test_nothing_to_update_is_nothing_to_clip(xb_device: Device) -> None:
    trainer = make_trainer().to("fake:1")  # a norm of nothing would lie on the default device
    trainer.model.requires_grad_(False)
    before = weights(trainer)
    trainer.step(*data())
    assert weights(trainer) == before


# --- non-finite ---------------------------------------------------------------------------


def with_zero_weights(on_nan: str, **options: Any) -> xb.Trainer:
    """Gradients as large as the input, of a loss that stays log 3."""
    model = nn.Sequential(nn.Linear(4, 3, bias=False), rng=0)
    model[0].weight.data = model[0].weight.data * 0
    optimizer = xb.optim.Adam(model.parameters(), lr=0.1)
    loss = nn.CrossEntropyLoss()
    return xb.Trainer(model, loss, optimizer, on_nan=on_nan, clip_norm=LARGEST, **options)


@pytest.mark.parametrize("accumulation_steps", [1, 2])
@pytest.mark.parametrize("size", [1e30, float("inf"), float("nan")])
@pytest.mark.parametrize("on_nan", MODES)
def test_gradients_without_a_finite_norm_change_nothing(
    on_nan: str, size: float, accumulation_steps: int, xb_device: Device
) -> None:
    """Of 1e30 float32 has no square; scaled by 0 such gradients would pass for good ones."""
    X, y = data()
    trainer = with_zero_weights(on_nan, accumulation_steps=accumulation_steps)
    good, bad = [(X, y)] * accumulation_steps, [(X * size, y)] * accumulation_steps
    trainer.fit(good)
    kept, steps = weights(trainer), trainer.optimizer.state_dict()["state"][0]["step"]
    if on_nan == "raise":
        with pytest.raises(NonFiniteError, match="at step 2"):
            trainer.fit(bad)
    else:
        trainer.fit(bad)
    assert weights(trainer) == kept
    assert trainer.optimizer.state_dict()["state"][0]["step"] == steps
    assert trainer.nonfinite_step == (2 if on_nan == "stop" else None)
    assert on_nan != "skip" or trainer.history[-1].skipped_steps == 1
    trainer.fit(good)
    assert weights(trainer) != kept


# --- devices ------------------------------------------------------------------------------


@pytest.mark.parametrize("xb_device", ["fake"], indirect=True)
@pytest.mark.parametrize("accumulation_steps", [1, 2])
@pytest.mark.parametrize("on_nan", MODES)
def test_clipping_uploads_nothing_and_waits_for_nothing(
    on_nan: str, accumulation_steps: int, xb_device: Device
) -> None:
    trainer = make_trainer(on_nan=on_nan, accumulation_steps=accumulation_steps)
    X, y = data()
    with xb.transfer_log() as log:
        for _ in range(6):
            trainer.step(X, y)
    assert (log.uploads, log.downloads, log.synchronizations) == (12, 0, 0)


# --- saving -------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulation_steps", [1, 2])
@pytest.mark.parametrize("batch", [1, 3, 4, 7])
def test_a_run_goes_on_bit_by_bit(
    batch: int, accumulation_steps: int, xb_device: Device, tmp_path: Path
) -> None:
    X, y = data()
    options: Any = {"optimizer": "Adam", "accumulation_steps": accumulation_steps}
    whole = make_trainer(**options)
    done = []

    def on_batch(number: int, total: int) -> None:
        done.append(number)
        if len(done) == batch:
            whole.save(tmp_path / "it")

    whole.fit(X, y, epochs=2, batch_size=5, rng=3, on_batch=on_batch)
    resumed = make_trainer(**options).resume(tmp_path / "it")
    resumed.fit(X, y, epochs=2, batch_size=5, rng=3)
    assert weights(resumed) == weights(whole)


def test_another_norm_is_refused(xb_device: Device, tmp_path: Path) -> None:
    make_trainer(0.5).save(tmp_path / "it")
    make_trainer(np.float32(0.5)).resume(tmp_path / "it")
    for clip_norm in (None, 0.25):
        with pytest.raises(CheckpointError, match=f"another clip_norm .*0.5, here {clip_norm}"):
            make_trainer(clip_norm).resume(tmp_path / "it")


def test_a_file_from_before_clipping_is_read(
    xb_device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = resume._identity

    def without(trainer: xb.Trainer) -> dict[str, Any]:
        return {key: value for key, value in identity(trainer).items() if key != "clip_norm"}

    with monkeypatch.context() as patch:
        patch.setattr(resume, "_identity", without)
        make_trainer(None).save(tmp_path / "it")
    make_trainer(None).resume(tmp_path / "it")
    with pytest.raises(CheckpointError, match=r"another clip_norm .*saved None, here 0.05"):
        make_trainer().resume(tmp_path / "it")


# --- arguments ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clip_norm", "error", "words"),
    [
        (0, ValueError, "clip_norm above 0 and finite; got 0"),
        (-1.0, ValueError, "got -1.0. None clips nothing"),
        (float("nan"), ValueError, "got nan"),
        (float("inf"), ValueError, "got inf"),
        ("1", TypeError, "clip_norm to be a number or None; got '1'"),
        (True, TypeError, "got True"),
    ],
)
def test_norms_that_make_no_sense(clip_norm: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        make_trainer(clip_norm)
