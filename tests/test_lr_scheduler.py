"""Schedules follow their formulas, keep rates set by hand, and go on from their state."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from schedule_cases import BY_HAND, REFUSED, SCHEDULES, ScheduleCase

import xbackprop as xb
from xbackprop.backend.device import Device

schedules = xb.optim.lr_scheduler
every_schedule = pytest.mark.parametrize(
    "case", SCHEDULES, ids=lambda case: case.name.replace(" ", "-")
)


def make_optimizer(cls: str = "SGD", rates: tuple[float, ...] = (0.3, 1.7)) -> Any:
    groups = [{"params": xb.Parameter(xb.asarray([1.0])), "lr": rate} for rate in rates]
    return getattr(xb.optim, cls)(groups)


def start(case: ScheduleCase) -> Any:
    return case.make(schedules, make_optimizer(case.optimizer), -1)


def rates_of(schedule: Any) -> list[float]:
    return [group["lr"] for group in schedule.optimizer.param_groups]


# --- formulas, from the rate at the start ---------------------------------------------------


def cosine(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2


def restarts(first: int, growth: int) -> Callable[[int], float]:
    def factor(epoch: int) -> float:
        length = first
        while epoch >= length:
            epoch, length = epoch - length, length * growth
        return cosine(epoch / length)

    return factor


def triangle(epoch: int, up: int, down: int) -> tuple[int, float]:
    """Return the cycle, counted from 0, and the height in it."""
    cycle, place = divmod(epoch, up + down)
    return cycle, place / up if place <= up else 1 - (place - up) / down


def swing(height: float, base: float = 0.01) -> list[float]:
    return [base + (top - base) * height for top in (0.1, 0.2)]


def one_cycle(epoch: int, highest: float) -> float:
    top = 0.3 * 201 - 1
    if epoch <= top:
        return highest / 25 + (highest - highest / 25) * (1 - cosine(epoch / top))
    low = highest / 25 / 1e4
    return low + (highest - low) * cosine((epoch - top) / (200 - top))


def swa(share: float) -> list[float]:
    return [start + (end - start) * share for start, end in ((0.3, 0.05), (1.7, 0.1))]


FACTORS: dict[str, Callable[[int], float]] = {
    "LambdaLR": lambda t: 0.99**t,
    "MultiplicativeLR": lambda t: 0.97**t,
    "StepLR": lambda t: 0.3 ** (t // 30),
    "MultiStepLR": lambda t: 0.5 ** ((t >= 3) + (t >= 30) + 2 * (t >= 80)),
    "ConstantLR": lambda t: 0.3 if t < 7 else 1.0,
    "LinearLR": lambda t: 0.2 + 0.5 * min(t, 90) / 90,
    "LinearLR with defaults": lambda t: 1 / 3 + 2 / 3 * min(t, 5) / 5,
    "ExponentialLR": lambda t: 0.95**t,
    "PolynomialLR": lambda t: (1 - min(t, 150) / 150) ** 1.7,
    "CosineAnnealingLR to zero": lambda t: cosine(t / 200),
    "CosineAnnealingWarmRestarts": restarts(7, 1),
    # One factor of 0.9 at once: the chain's first step is an ordinary one, in PyTorch too.
    "SequentialLR that starts with a chain": lambda t: (
        (0.1 + 0.9 * min(t, 10) / 10) * 0.9 ** (t + 1) if t < 12 else math.nan
    ),
    "ChainedScheduler": lambda t: (0.1 + 0.9 * min(t, 10) / 10) * 0.98**t,
    "WarmupStableDecayLR": lambda t: (
        (t + 1) / 11 if t < 10 else 1.0 if t < 60 else max(0.0, 1 - math.sqrt((t - 60) / 30))
    ),
    "WarmupStableDecayLR along a cosine": lambda t: 0.1 + 0.9 * cosine(min(1, t / 100)),
}
RATES: dict[str, Callable[[int], list[float]]] = {
    name: lambda t, factor=factor: [0.3 * factor(t), 1.7 * factor(t)]
    for name, factor in FACTORS.items()
} | {
    "LambdaLR with one per group": lambda t: [0.3 / (t + 1), 1.7 * 0.5 ** (t / 50)],
    "CosineAnnealingLR": lambda t: [
        0.01 + (base - 0.01) * cosine(t / 60) for base in (0.3, 1.7)
    ],
    "CosineAnnealingWarmRestarts of growing rounds": lambda t: [
        0.001 + (base - 0.001) * restarts(5, 2)(t) for base in (0.3, 1.7)
    ],
    "CyclicLR": lambda t: swing(triangle(t, 7, 7)[1]),
    "CyclicLR with shrinking cycles": lambda t: swing(
        triangle(t, 7, 11)[1] * 0.5 ** triangle(t, 7, 11)[0]
    ),
    "CyclicLR of a power": lambda t: swing(triangle(t, 9, 9)[1] * 0.99**t),
    "CyclicLR of a function": lambda t: swing(triangle(t, 9, 9)[1] * 0.5 ** (t / 50)),
    "OneCycleLR": lambda t: [one_cycle(t, 0.5), one_cycle(t, 1.0)],
    "SWALR": lambda t: swa(1 - cosine(min(1, t / 30))),
    "SWALR along a line": lambda t: swa(min(1, t / 150)),
    "SWALR at once": lambda t: swa(1.0),
    "SequentialLR": lambda t: [
        base * (0.1 + 0.9 * t / 10) if t < 10
        else 0.01 + (base - 0.01) * cosine((t - 10) / 60)
        for base in (0.3, 1.7)
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", RATES)
def test_rates_are_those_of_the_formula(name: str) -> None:
    (case,) = (case for case in SCHEDULES if case.name == name)
    schedule = start(case)
    for epoch in range(case.epochs):
        expected = np.array(RATES[name](epoch))
        received = np.array(rates_of(schedule))
        assert schedule.get_last_lr() == received.tolist()
        known = ~np.isnan(expected)
        # A chain of factors adds a rounding each epoch; towards 0 it adds to the cosine's.
        np.testing.assert_allclose(
            received[known], expected[known], rtol=1e-9, atol=1e-12, err_msg=f"epoch {epoch}"
        )
        schedule.step()


def test_every_row_has_a_formula_or_is_compared_with_pytorch() -> None:
    for case in SCHEDULES:
        assert case.name in RATES or case.is_in_pytorch, case.name


def test_momentum_goes_the_other_way() -> None:
    optimizer = make_optimizer("Adam")
    schedule = schedules.CyclicLR(optimizer, 0.0, 1.0, step_size_up=4)
    for _ in range(20):
        for group in optimizer.param_groups:
            assert group["betas"] == (pytest.approx(0.9 - 0.1 * group["lr"]), 0.999)
        schedule.step()
    optimizer = make_optimizer()
    schedule = schedules.OneCycleLR(optimizer, 1.0, total_steps=40)
    momentums = []
    for _ in range(40):
        momentums.append(optimizer.param_groups[1]["momentum"])
        schedule.step()
    assert (momentums[0], min(momentums)) == (0.95, pytest.approx(0.85))
    assert momentums[-1] == pytest.approx(0.95)


def test_training_with_cycled_momentum(xb_device: Device) -> None:
    """A momentum of 0 that becomes one brings its buffer along, with nothing uploaded."""
    w = xb.Parameter(xb.asarray([1.0], dtype=np.float64))
    optimizer = xb.optim.SGD([w], lr=0.1)
    schedule = schedules.OneCycleLR(optimizer, 0.1, total_steps=20)
    value, buffer = 1.0, 0.0
    for _ in range(20):
        group = optimizer.param_groups[0]
        buffer = group["momentum"] * buffer + value
        value = value - group["lr"] * buffer
        w.grad = w.data
        with xb.transfer_guard(uploads=0, downloads=0, synchronizations=0):
            optimizer.step()
            schedule.step()
    np.testing.assert_allclose(xb.to_host(w.data), [value], rtol=1e-12)


# --- in between -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MultiplicativeLR", "StepLR", "ExponentialLR", "PolynomialLR"])
def test_a_rate_set_by_hand_stays_in_force(name: str) -> None:
    (case,) = (case for case in SCHEDULES if case.name == name)
    by_hand, left_alone = start(case), start(case)
    factors = [1.0, 1.0]
    for epoch in range(120):
        if epoch in BY_HAND:
            group, rate = BY_HAND[epoch]
            by_hand.optimizer.param_groups[group]["lr"] = rate
            factors[group] = rate / rates_of(left_alone)[group]
        by_hand.step()
        left_alone.step()
        expected = [lr * factor for lr, factor in zip(rates_of(left_alone), factors, strict=True)]
        assert rates_of(by_hand) == pytest.approx(expected, rel=1e-9)


@every_schedule
def test_goes_on_from_its_state(case: ScheduleCase) -> None:
    schedule = start(case)
    for _ in range(33):
        schedule.step()
    state = json.loads(json.dumps(schedule.state_dict()))
    groups = json.loads(json.dumps(schedule.optimizer.state_dict()))
    resumed = start(case)
    resumed.optimizer.load_state_dict(groups)
    resumed.load_state_dict(state)
    for _ in range(60):
        schedule.step()
        resumed.step()
        assert resumed.get_last_lr() == schedule.get_last_lr()
        for ours, theirs in zip(
            resumed.optimizer.param_groups, schedule.optimizer.param_groups, strict=True
        ):
            assert {**ours, "params": None} == {**theirs, "params": None}


@every_schedule
def test_state_is_a_copy(case: ScheduleCase) -> None:
    schedule = start(case)
    before = json.dumps(schedule.state_dict())
    state = schedule.state_dict()
    other = start(case)
    other.load_state_dict(state)
    for _ in range(20):
        other.step()
    for value in state.values():
        if isinstance(value, list):
            value.clear()
    assert json.dumps(schedule.state_dict()) == before


def test_state_travels_in_a_checkpoint(xb_device: Device, tmp_path: Path) -> None:
    model = xb.nn.Linear(2, 1, rng=0)
    optimizer = xb.optim.Adam(model.parameters())
    schedule = schedules.OneCycleLR(optimizer, 0.1, total_steps=30)
    for _ in range(7):
        schedule.step()
    counters = {"schedule": schedule.state_dict()}
    xb.save(tmp_path / "it", model, optimizer, counters=counters)
    loaded = xb.load(tmp_path / "it")
    resumed_optimizer = xb.optim.Adam(loaded.model.parameters())
    resumed = schedules.OneCycleLR(resumed_optimizer, 77.0, total_steps=3, max_momentum=0.5)
    resumed_optimizer.load_state_dict(loaded.optimizer_state)
    resumed.load_state_dict(loaded.counters["schedule"])
    for _ in range(20):
        schedule.step()
        resumed.step()
        ours, expected = resumed_optimizer.param_groups[0], optimizer.param_groups[0]
        assert (ours["lr"], ours["betas"]) == (expected["lr"], expected["betas"])


def test_state_of_a_schedule_made_with_other_options() -> None:
    with_momentum = schedules.CyclicLR(make_optimizer(), 0.1, 0.2)
    without = schedules.CyclicLR(make_optimizer(), 0.1, 0.2, cycle_momentum=False)
    without.load_state_dict(with_momentum.state_dict())
    without.step()
    assert without.cycle_momentum


def test_state_that_does_not_fit_changes_nothing() -> None:
    optimizer = make_optimizer()
    chain = schedules.ChainedScheduler(
        [schedules.LambdaLR(optimizer, abs), schedules.ExponentialLR(optimizer, 0.5)]
    )
    before = chain.state_dict()
    for damage in (
        lambda s: s["_schedulers"][1].update(warmup=3),
        lambda s: s["_schedulers"][0]["lr_lambdas"].append(None),
        lambda s: s.update(warmup=3),
    ):
        state = copy.deepcopy(before)
        state["_last_lr"] = state["_schedulers"][0]["_last_lr"] = [7.0, 7.0]
        damage(state)
        with pytest.raises(ValueError, match=r"has no warmup|expects the state of 2 lr_lambdas"):
            chain.load_state_dict(state)
        assert chain.state_dict() == before


def test_states_of_more_schedules_are_refused() -> None:
    chain = schedules.ChainedScheduler([schedules.ExponentialLR(make_optimizer(), 0.5)])
    state = chain.state_dict()
    state["_schedulers"].append({})
    with pytest.raises(ValueError, match="expects the states of 1 schedules; got 2"):
        chain.load_state_dict(state)


# --- the plateau ----------------------------------------------------------------------------


def test_plateau(xb_device: Device) -> None:
    schedule = schedules.ReduceLROnPlateau(make_optimizer(rates=(1.0,)), patience=1, factor=0.5)
    rates = []
    for metric in (3.0, 2.0, 2.0, 2.0, 1.0, 1.5, 1.5, 1.5, 1.5):
        schedule.step(xb.asarray(metric))
        rates.append(schedule.get_last_lr()[0])
    assert rates == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]


@pytest.mark.parametrize("xb_device", ["fake"], indirect=True)
def test_plateau_downloads_its_metric(xb_device: Device) -> None:
    schedule = schedules.ReduceLROnPlateau(make_optimizer())
    metric = xb.asarray(1.0)
    with xb.transfer_log() as log:
        schedule.step(metric)
    assert (log.synchronizations, log.uploads) == (1, 0)


def test_plateau_with_a_group_added_later() -> None:
    for min_lr in (0.0, [0.0, 0.0]):
        schedule = schedules.ReduceLROnPlateau(
            make_optimizer(), patience=0, factor=0.5, min_lr=min_lr
        )
        schedule.optimizer.add_param_group({"params": xb.Parameter(xb.asarray([1.0])), "lr": 4.0})
        schedule.step(1.0)
        if isinstance(min_lr, list):
            with pytest.raises(RuntimeError, match="2 values of min_lr for 3 groups"):
                schedule.step(1.0)
        else:
            schedule.step(1.0)
            assert schedule.get_last_lr() == [0.15, 0.85, 2.0]


# --- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize("what", REFUSED)
def test_what_makes_no_sense_is_refused(what: str) -> None:
    optimizer = make_optimizer()
    with pytest.raises(
        (ValueError, TypeError, KeyError), match=r"expect|has |only where|cannot hold"
    ):
        REFUSED[what](schedules, optimizer)


OURS = {
    "step_size": (lambda o: schedules.StepLR(o, 0), "step_size >= 1; got 0"),
    "lambda": (lambda o: schedules.LambdaLR(o, 3), "lr_lambda to be callable; got int"),
    "warmup": (lambda o: schedules.WarmupStableDecayLR(o, -1, 0, 1), "warmup_iters >= 0; got -1"),
    "stable": (lambda o: schedules.WarmupStableDecayLR(o, 0, -1, 1), "stable_iters >= 0; got -1"),
    "decay": (lambda o: schedules.WarmupStableDecayLR(o, 0, 1, -1), "decay_iters >= 0; got -1"),
    "end": (lambda o: schedules.WarmupStableDecayLR(o, 1, 1, 1, 2.0), r"\[0, 1\]; got 2.0"),
    "shape": (lambda o: schedules.WarmupStableDecayLR(o, 1, 1, 1, decay="no"), "got 'no'"),
    "a chain that is not first": (
        lambda o: schedules.SequentialLR(
            o,
            [schedules.ConstantLR(o), schedules.ChainedScheduler([schedules.ConstantLR(o)])],
            [3],
        ),
        "a chain of schedules that does not come first",
    ),
    "another optimizer": (
        lambda o: schedules.ChainedScheduler(
            [schedules.ConstantLR(o), schedules.ConstantLR(make_optimizer())]
        ),
        "ConstantLR at index 1 has another",
    ),
    "no rule": (schedules.LRScheduler, "LRScheduler has no get_lr"),
}


@pytest.mark.parametrize("what", OURS)
def test_what_we_refuse_as_well(what: str) -> None:
    make, message = OURS[what]
    with pytest.raises((ValueError, TypeError, NotImplementedError), match=message):
        make(make_optimizer())


def test_a_decay_of_no_epochs_falls_at_once() -> None:
    schedule = schedules.WarmupStableDecayLR(make_optimizer(), 0, 2, 0, end_factor=0.5)
    rates = []
    for _ in range(4):
        rates.append(rates_of(schedule)[0])
        schedule.step()
    assert rates == [0.3, 0.3, 0.15, 0.15]


# --- StepLR ---------------------------------------------------------------------------------


def scheduled(rate: float = 1.0, **options: Any) -> tuple[Any, Any]:
    optimizer = xb.optim.SGD(
        [
            {"params": xb.Parameter(xb.asarray([1.0]))},
            {"params": xb.Parameter(xb.asarray([1.0])), "lr": 10.0},
        ],
        lr=rate,
    )
    return optimizer, xb.optim.StepLR(optimizer, **options)


def test_step_lr_multiplies_every_few_epochs() -> None:
    optimizer, schedule = scheduled(step_size=3, gamma=0.5)
    rates = []
    for _ in range(7):
        rates.append([group["lr"] for group in optimizer.param_groups])
        assert schedule.get_last_lr() == rates[-1]
        schedule.step()
    assert [first for first, _ in rates] == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25]
    assert [second for _, second in rates] == [10.0, 10.0, 10.0, 5.0, 5.0, 5.0, 2.5]


def test_step_lr_keeps_a_rate_set_by_hand() -> None:
    optimizer, schedule = scheduled(step_size=2, gamma=0.1)
    optimizer.param_groups[0]["lr"] = 7.0
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == 7.0
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.7)


def test_step_lr_goes_on_from_its_state() -> None:
    optimizer, schedule = scheduled(step_size=3, gamma=0.5)
    for _ in range(4):
        schedule.step()
    state, saved = schedule.state_dict(), optimizer.state_dict()
    resumed_optimizer, resumed = scheduled(step_size=1)
    resumed_optimizer.load_state_dict(saved)
    resumed.load_state_dict(state)
    for _ in range(4):
        schedule.step()
        resumed.step()
        assert resumed.get_last_lr() == schedule.get_last_lr()
    with pytest.raises(ValueError, match="StepLR has no warmup"):
        schedule.load_state_dict({"warmup": 3})


def test_step_lr_resumed_by_last_epoch() -> None:
    optimizer, schedule = scheduled(step_size=3, gamma=0.5)
    for _ in range(4):
        schedule.step()
    expected = []
    for _ in range(3):
        schedule.step()
        expected.append(optimizer.param_groups[0]["lr"])
    again = xb.optim.SGD(
        [{"params": xb.Parameter(xb.asarray([1.0])), "lr": 0.5, "initial_lr": 1.0}]
    )
    resumed = xb.optim.StepLR(again, 3, 0.5, last_epoch=4)  # as PyTorch: makes one step at once
    received = [again.param_groups[0]["lr"]]
    for _ in range(2):
        resumed.step()
        received.append(again.param_groups[0]["lr"])
    assert received == expected
    with pytest.raises(KeyError, match="initial_lr"):
        xb.optim.StepLR(xb.optim.SGD([xb.Parameter(xb.asarray([1.0]))]), 3, last_epoch=4)
    with pytest.raises(ValueError, match="step_size >= 1; got 0"):
        xb.optim.StepLR(again, 0)


def test_step_lr_with_a_group_added_later() -> None:
    optimizer, schedule = scheduled(step_size=1, gamma=0.5)
    optimizer.add_param_group({"params": xb.Parameter(xb.asarray([1.0])), "lr": 4.0})
    schedule.step()
    assert schedule.get_last_lr() == [0.5, 5.0, 2.0]
