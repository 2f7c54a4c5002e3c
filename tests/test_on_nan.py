"""What a trainer does about a loss or gradient that is no number: raise, skip, stop."""

from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.backend.device import Device
from xbackprop.training import NonFiniteError

nn = xb.nn
on_fake = pytest.mark.parametrize("xb_device", ["fake"], indirect=True)


class Mean(nn.Module):
    """Keeps a running mean of its input, as normalization layers do, and counts its calls."""

    def __init__(self, features: int) -> None:
        self.register_buffer("running", xb.asarray(np.zeros(features)))
        self.register_buffer("calls", xb.asarray(np.zeros(1, np.int64)))

    def forward(self, x: Any) -> Any:
        self.update_buffer("running", self.read_buffer("running") * 0.9 + x.mean(axis=0) * 0.1)
        self.update_buffer("calls", self.read_buffer("calls") + 1)
        return x * 1.0, ()

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        return grad_output if input_grad else None


def make_trainer(on_nan: str, **options: Any) -> xb.Trainer:
    model = nn.Sequential(
        Mean(4), nn.Linear(4, 6, rng=0), nn.Tanh(), nn.Dropout(0.2, rng=0), nn.Linear(6, 3, rng=1)
    )
    optimizer = xb.optim.Adam(model.parameters(), lr=0.01)
    return xb.Trainer(model, nn.CrossEntropyLoss(), optimizer, on_nan=on_nan, **options)


def batch(seed: int, poison: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(5, 4)).astype(np.float32)
    if poison is not None:
        x[seed % 5, seed % 4] = poison
    return x, rng.integers(0, 3, size=5)


def state(trainer: xb.Trainer) -> dict[str, Any]:
    optimizer = trainer.optimizer.state_dict()["state"]
    return {name: v.tobytes() for name, v in trainer.model.state_dict().items()} | {
        f"{n} {name}": np.asarray(value).tobytes()
        for n, entry in optimizer.items()
        for name, value in entry.items()
    }


POISON = [float("nan"), float("inf"), -float("inf"), 3e38]


def test_a_thousand_poisoned_batches_never_reach_the_weights(xb_device: Device) -> None:
    """And the good ones between them do, as if the others had not been."""
    trainer, clean = make_trainer("skip"), make_trainer("skip")
    for seed in range(1000):
        trainer.step(*device_batch(seed, POISON[seed % 3]))
        if seed % 100 == 0:
            x, y = device_batch(seed)
            clean.model[3].load_extra_state(trainer.model[3].extra_state())  # the same masks
            trainer.step(x, y)
            clean.step(x, y)
    assert trainer.steps == 1010
    assert trainer.optimizer.count_skipped_steps() == 1000
    assert trainer.model.extra_state()["3.random_state"][2] == 1010  # random counters move on
    expected, received = state(clean), state(trainer)
    assert received == expected  # the count of calls too, which an average may divide by


def device_batch(seed: int, poison: float | None = None) -> tuple[Any, Any]:
    x, y = batch(seed, poison)
    return xb.asarray(x), xb.asarray(y)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_norm_keeps_the_statistics_of_good_batches(
    momentum: float | None, xb_device: Device
) -> None:
    """Their count too: the mean of all batches divides by it."""

    def make() -> xb.Trainer:
        model = nn.Sequential(nn.BatchNorm1d(4, momentum=momentum), nn.Linear(4, 3, rng=0))
        optimizer = xb.optim.Adam(model.parameters(), lr=0.01)
        return xb.Trainer(model, nn.CrossEntropyLoss(), optimizer, on_nan="skip")

    trainer, clean = make(), make()
    for seed in range(40):
        trainer.step(*device_batch(seed, POISON[seed % 3]))
        if seed % 10 == 3:
            trainer.step(*device_batch(seed))
            clean.step(*device_batch(seed))
    assert trainer.optimizer.count_skipped_steps() == 40
    assert state(trainer) == state(clean)
    assert trainer.model.state_dict()["0.num_batches_tracked"] == 4


# What such a batch is divided by is infinite, and so its loss and gradients are finite.
TOO_WIDE = 1e20  # its square, and so the variance, is beyond float32


def make_normalized(on_nan: str, **options: Any) -> xb.Trainer:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3, rng=0))
    optimizer = xb.optim.Adam(model.parameters(), lr=0.01)
    return xb.Trainer(model, nn.CrossEntropyLoss(), optimizer, on_nan=on_nan, **options)


def test_statistics_that_would_become_infinite_make_a_batch_bad(xb_device: Device) -> None:
    trainer, clean = make_normalized("skip"), make_normalized("skip")
    for seed in range(6):
        assert np.isfinite(xb.to_host(trainer.step(*device_batch(seed, TOO_WIDE))))
        trainer.step(*device_batch(seed))
        clean.step(*device_batch(seed))
    assert trainer.optimizer.count_skipped_steps() == 6
    assert state(trainer) == state(clean)


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_statistics_that_would_become_infinite_are_an_error(
    accumulation_steps: int, xb_device: Device
) -> None:
    trainer = make_normalized("raise", check_every=1, accumulation_steps=accumulation_steps)
    for seed in range(accumulation_steps):
        trainer.step(*device_batch(seed))
    before = state(trainer)
    for seed in range(accumulation_steps - 1):
        trainer.step(*device_batch(seed))
    before |= {name: value for name, value in state(trainer).items() if name.startswith("0.")}
    with pytest.raises(NonFiniteError, match=r"running statistic .* at step 2 "):
        trainer.step(*device_batch(1, TOO_WIDE))
    assert state(trainer) == before


def test_a_batch_that_is_too_wide_spoils_its_group_and_no_other(xb_device: Device) -> None:
    trainer, clean = (make_normalized("skip", accumulation_steps=2) for _ in range(2))
    for poison in ((TOO_WIDE, None), (None, TOO_WIDE), (None, None)):
        for seed in range(2):
            trainer.step(*device_batch(seed, poison[seed]))
    # Of the second group, the first batch gave honest statistics, and no update.
    clean.step(*device_batch(0))
    clean.stepper.group.reset()
    for seed in range(2):
        clean.step(*device_batch(seed))
    assert trainer.optimizer.count_skipped_steps() == 2
    assert state(trainer) == state(clean)


class Lowest(Mean):
    """Keeps the lowest input of every feature; infinite until one was seen, which may be never."""

    def __init__(self, features: int) -> None:
        self.register_buffer("lowest", xb.asarray(np.full(features, np.inf)))

    def forward(self, x: Any) -> Any:
        self.update_buffer("lowest", self.read_buffer("lowest") * 1.0)
        return x * 1.0, ()


def test_what_was_infinite_before_spoils_no_batch(xb_device: Device) -> None:
    model = nn.Sequential(Lowest(4), nn.Linear(4, 3, rng=0))
    optimizer = xb.optim.SGD(model.parameters(), lr=0.1)
    trainer = xb.Trainer(model, nn.CrossEntropyLoss(), optimizer, on_nan="skip")
    before = state(trainer)["1.weight"]
    trainer.step(*device_batch(0))
    assert state(trainer)["1.weight"] != before
    assert trainer.optimizer.count_skipped_steps() == 0


@on_fake
def test_looking_at_statistics_waits_for_nothing(xb_device: Device) -> None:
    trainer = make_normalized("skip")
    batches = [batch(seed, TOO_WIDE if seed % 2 else None) for seed in range(50)]
    with xb.transfer_log() as log:
        for x, y in batches:
            trainer.step(x, y)
    assert (log.uploads, log.downloads, log.synchronizations) == (100, 0, 0)


@on_fake
@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_skipping_waits_for_nothing(accumulation_steps: int, xb_device: Device) -> None:
    trainer = make_trainer("skip", accumulation_steps=accumulation_steps)
    batches = [batch(seed, POISON[seed % 3] if seed % 2 else None) for seed in range(300)]
    with xb.transfer_log() as log:
        for x, y in batches:
            trainer.step(x, y)
    assert (log.uploads, log.downloads, log.synchronizations) == (600, 0, 0)
    with xb.transfer_log() as log:
        trainer.fit([batch(1, float("nan")), batch(2)], epochs=1)
    assert log.downloads <= 6  # means and counts, at the end of the epoch


def test_skipped_steps_are_counted_and_left_out_of_the_means(xb_device: Device) -> None:
    good = [batch(0), batch(2)]
    trainer = make_trainer("skip")
    rows = trainer.fit([good[0], batch(1, float("nan")), good[1], batch(3, float("inf"))], epochs=2)
    assert [row.skipped_steps for row in rows] == [2, 2]
    assert [row.step for row in rows] == [4, 8]
    assert np.isfinite([row.train_loss for row in rows]).all()
    first = make_trainer("raise").fit(good[:1], epochs=1)
    only = make_trainer("skip").fit([good[0], batch(1, float("nan"))], epochs=1)
    assert only[0].train_loss == first[0].train_loss
    assert only[0].train_accuracy == first[0].train_accuracy


def test_a_poisoned_batch_spoils_its_group_and_no_other(xb_device: Device) -> None:
    trainer = make_trainer("skip", accumulation_steps=2)
    before = state(trainer)
    trainer.step(*batch(0, float("nan")))
    trainer.step(*batch(1))
    received = state(trainer)
    # The second batch of the group gave honest statistics, the group as a whole no update.
    names = {name for name in before if before[name] != received[name]}
    assert names <= {"0.running", "0.calls"}
    assert np.isfinite(trainer.model.state_dict()["0.running"]).all()
    trainer.step(*batch(2))
    trainer.step(*batch(3))
    assert state(trainer)["1.weight"] != before["1.weight"]
    assert trainer.optimizer.count_skipped_steps() == 1


@pytest.mark.parametrize("on_nan", ["raise", "stop"])
@pytest.mark.parametrize("check_every", [1, 3, 100])
def test_the_state_before_the_first_bad_step_is_kept(
    on_nan: str, check_every: int, xb_device: Device
) -> None:
    good = [batch(seed) for seed in range(4)]
    expected = make_trainer(on_nan)
    expected.fit(good, epochs=1)
    trainer = make_trainer(on_nan, check_every=check_every)
    source = [*good, batch(9, float("nan")), *(batch(seed) for seed in range(5, 9))]
    if on_nan == "raise":
        with pytest.raises(NonFiniteError, match=r"step 5 \(epoch 1\)"):
            trainer.fit(source, epochs=3)
    else:
        rows = trainer.fit(source, epochs=3)
        assert trainer.nonfinite_step == 5
        assert trainer.steps <= 9
        assert all(row.epoch == 1 for row in rows)
    assert state(trainer) == state(expected)


def test_a_stopped_run_may_be_gone_on_with(xb_device: Device, tmp_path: Any) -> None:
    source = [batch(0), batch(1, float("nan")), batch(2)]
    trainer = make_trainer("stop", check_every=1)
    assert trainer.fit(source, epochs=1) == []
    trainer.save(tmp_path / "it")
    resumed = make_trainer("stop", check_every=1).resume(tmp_path / "it")
    assert resumed.nonfinite_step is None
    rows = resumed.fit(source, epochs=1)  # after the bad batch
    assert [row.step for row in rows] == [3]


def test_what_it_may_be() -> None:
    with pytest.raises(ValueError, match=r"raise.*skip.*stop.*'ignore'"):
        make_trainer("ignore")
