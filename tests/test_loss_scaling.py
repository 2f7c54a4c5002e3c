"""Loss scaling: overflows are skipped, counted and told apart from real NaNs, on the device."""

from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop import nn
from xbackprop.backend.device import Device
from xbackprop.training import NonFiniteError

X = np.float32([[0.1, 0.2], [0.3, -0.1]])
Y = np.float32([[0.1], [0.0]])
LARGE = np.float32([[6e4], [6e4]])  # makes gradients that overflow at any scale above 1 or so


def make_trainer(**options: Any) -> xb.Trainer:
    model = nn.Sequential(nn.Linear(2, 3, rng=0), nn.Linear(3, 1, rng=1))
    optimizer = xb.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return xb.Trainer(model, nn.MSELoss(), optimizer, precision="float16", **options)


def with_scale(trainer: xb.Trainer, scale: float, **options: Any) -> xb.Trainer:
    trainer.scaler = trainer.stepper.scaler = xb.GradScaler(scale, **options)
    return trainer


def weights(trainer: xb.Trainer) -> dict[str, bytes]:
    return {key: values.tobytes() for key, values in trainer.model.state_dict().items()}


def test_the_scale_does_not_change_an_update(xb_device: Device) -> None:
    found = []
    for scale in (1.0, 64.0, 1024.0):
        trainer = with_scale(make_trainer(), scale)
        trainer.step(X, Y)
        found.append(trainer.model.state_dict()["0.weight"])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-3)


def test_small_gradients_are_lost_without_it(xb_device: Device) -> None:
    gradients = {}
    for scale in (1.0, 65536.0):
        trainer = with_scale(make_trainer(), scale)
        trainer.model[1].weight.data = trainer.model[1].weight.data * 1e-6
        trainer.step(X * 1e-1, Y * 0 + 1e-1)
        grad = xb.to_host(trainer.model[0].weight.grad)
        gradients[scale] = grad
    assert not gradients[1.0].any()
    assert gradients[65536.0].any()


def test_an_overflow_is_skipped_and_the_scale_shrinks(xb_device: Device) -> None:
    trainer = make_trainer()
    before = weights(trainer)
    loss = trainer.step(X, LARGE)
    assert np.isfinite(float(loss))
    trainer.stepper.look_for_nonfinite()  # no error
    assert weights(trainer) == before
    assert trainer.scaler.get_scale() == 32768.0
    assert trainer.stepper.count_skipped() == 1
    assert trainer.stepper.count_skipped() == 0
    trainer.step(X, Y)
    assert weights(trainer) != before
    assert trainer.scaler.get_scale() == 32768.0


@pytest.mark.parametrize("on_nan", ["raise", "skip", "stop"])
@pytest.mark.parametrize("options", [{}, {"clip_norm": 1.0}, {"accumulation_steps": 2}])
def test_fit_reports_them_in_its_history(
    on_nan: str, options: dict[str, Any], xb_device: Device
) -> None:
    trainer = make_trainer(on_nan=on_nan, **options)
    y = np.concatenate([LARGE, Y, Y, Y])
    x = np.concatenate([X, X, X, X])
    data = [(x[i : i + 2], y[i : i + 2]) for i in range(0, 8, 2)]
    (row,) = trainer.fit(data)
    assert row.skipped_steps >= 1
    assert trainer.nonfinite_step is None
    assert all(np.isfinite(v).all() for v in trainer.model.state_dict().values())


def test_it_grows_after_an_interval(xb_device: Device) -> None:
    trainer = with_scale(make_trainer(), 4.0, growth_interval=3)
    scales = []
    for y in (Y, Y, Y, Y, LARGE * 10, Y, Y, Y):
        trainer.step(X, y)
        scales.append(trainer.scaler.get_scale())
    assert scales == [4, 4, 8, 8, 4, 4, 4, 8]


def test_it_stays_at_least_one_and_finite(xb_device: Device) -> None:
    trainer = with_scale(make_trainer(on_nan="skip"), 2.0)
    for _ in range(3):
        trainer.step(X, LARGE * 1e3)
    assert trainer.scaler.get_scale() == 1.0
    scaler = with_scale(make_trainer(), 2.0**127, growth_interval=1).scaler
    scaler.grad_output(xb.asarray(1.0))
    scaler.update()
    assert scaler.get_scale() == 2.0**127


@pytest.mark.parametrize("accumulation_steps", [1, 2])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_loss_that_is_no_number_is_no_overflow(
    clip_norm: float | None, accumulation_steps: int, xb_device: Device
) -> None:
    trainer = make_trainer(
        check_every=1, clip_norm=clip_norm, accumulation_steps=accumulation_steps
    )
    before = weights(trainer)
    for _ in range(accumulation_steps - 1):
        trainer.step(X, Y * np.float32(np.nan))
    with pytest.raises(NonFiniteError, match="at step 1 "):
        trainer.step(X, Y * np.float32(np.nan))
    assert weights(trainer) == before


def test_a_gradient_that_overflows_at_scale_one_is_none(xb_device: Device) -> None:
    trainer = with_scale(make_trainer(check_every=1), 1.0)
    with pytest.raises(NonFiniteError, match="at step 1 "):
        trainer.step(X, LARGE * 1e3)


def test_nothing_is_downloaded() -> None:
    with xb.use_device("fake"):
        trainer = make_trainer(clip_norm=1.0)
        x, y, large = (xb.asarray(array) for array in (X, Y, LARGE))
        trainer.step(x, y)
        with xb.transfer_guard():
            for target in (y, large, y):
                trainer.step(x, target)
        assert trainer.stepper.count_skipped() >= 1


def test_a_loop_by_hand_makes_the_trainers_steps(xb_device: Device) -> None:
    trainer, hand = make_trainer(clip_norm=0.5), make_trainer()
    model, loss_fn, optimizer, scaler = (
        hand.model, nn.MSELoss(), xb.optim.SGD(hand.model.parameters(), lr=0.01, momentum=0.9),
        xb.GradScaler(),
    )  # fmt: skip
    for target in (Y, LARGE, Y, Y):
        trainer.step(X, target)
        x, y = xb.asarray(X), xb.asarray(target)
        output, saved = model.forward(x)
        loss, loss_saved = loss_fn.forward(output, y)
        optimizer.zero_grad()
        model.backward(loss_fn.backward(scaler.grad_output(loss), loss_saved), saved)
        scaler.unscale_(optimizer)
        xb.optim.clip_grad_norm_(model.parameters(), 0.5)
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == trainer.scaler.get_scale()
    assert weights(trainer) == weights(hand)
    assert not optimizer.skip_nonfinite


def test_states_go_to_pytorch_and_back(xb_device: Device) -> None:
    trainer = make_trainer()
    trainer.step(X, Y)
    state = trainer.scaler.state_dict()
    assert state == {
        "scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000,
        "_growth_tracker": 1,
    }  # fmt: skip
    scaler = xb.GradScaler(8.0)
    scaler.load_state_dict(state)
    assert scaler.state_dict() == state


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"init_scale": 0.5}, "init_scale >= 1; got 0.5"),
        ({"init_scale": float("nan")}, "init_scale >= 1; got nan"),
        ({"growth_factor": 1.0}, "growth_factor > 1; got 1.0"),
        ({"backoff_factor": 1.0}, "backoff_factor between 0 and 1; got 1.0"),
        ({"growth_interval": 0}, "growth_interval >= 1; got 0"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        xb.GradScaler(**options)


def test_what_it_refuses() -> None:
    model = nn.Linear(2, 1, rng=0)
    optimizer, scaler = xb.optim.SGD(model.parameters()), xb.GradScaler()
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="already been called"):
        scaler.unscale_(optimizer)
    with pytest.raises(NotImplementedError, match="LBFGS: loss scaling"):
        xb.optim.LBFGS(model.parameters()).step(lambda: 0.0, may_overflow=True)
