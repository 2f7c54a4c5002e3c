"""Schedules beside PyTorch's own, number by number.

`nox -s torch_parity` runs these. Without PyTorch they are skipped with that reason, unless
XBACKPROP_TEST_REQUIRE lists torch.
"""

import copy
import json
import warnings
from typing import Any

import numpy as np
import pytest
from needs_torch import import_torch
from schedule_cases import BY_HAND, REFUSED, SCHEDULES, ScheduleCase

import xbackprop as xb

pytestmark = pytest.mark.torch_parity

PEERS = [case for case in SCHEDULES if case.is_in_pytorch]
every_schedule = pytest.mark.parametrize(
    "case", PEERS, ids=lambda case: case.name.replace(" ", "-")
)
every_single_schedule = pytest.mark.parametrize(
    "case", [case for case in PEERS if case.resumes], ids=lambda case: case.name.replace(" ", "-")
)


@pytest.fixture(scope="module")
def torch() -> Any:
    return import_torch()


class Library:
    """One of the two, and an optimizer of two groups in it."""

    def __init__(self, library: Any, case: ScheduleCase, groups: list[dict[str, Any]]) -> None:
        parameters = [library_parameter(library) for _ in groups]
        self.optimizer = getattr(library.optim, case.optimizer)(
            [{"params": [p], **group} for p, group in zip(parameters, groups, strict=True)]
        )
        self.schedules = library.optim.lr_scheduler
        self.case = case

    def start(self, last_epoch: int = -1) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's: a chain inside of another steps at once
            self.schedule = self.case.make(self.schedules, self.optimizer, last_epoch)
        return self.schedule

    def record(self) -> list[Any]:
        return [
            self.schedule.get_last_lr(),
            [
                {k: v for k, v in group.items() if k in WATCHED}
                for group in self.optimizer.param_groups
            ],
        ]

    def step(self, *epoch: Any) -> list[Any]:
        self.optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's, that `epoch` is deprecated
            self.schedule.step(*epoch)
        return self.record()


WATCHED = {"lr", "momentum", "betas", "initial_lr", "max_lr", "min_lr", "max_momentum",
           "base_momentum"}  # fmt: skip


def library_parameter(library: Any) -> Any:
    return xb.Parameter(np.ones(1)) if library is xb else library.nn.Parameter(library.ones(1))


def both(case: ScheduleCase, torch: Any, **group: Any) -> tuple[Library, Library]:
    groups = [{"lr": 0.3, **group}, {"lr": 1.7, **group}]
    return Library(xb, case, groups), Library(torch, case, groups)


def assert_equal(ours: Any, theirs: Any, epoch: int) -> None:
    """Not nearly: the same arithmetic gives the same bits."""
    assert ours == theirs, f"epoch {epoch}"


@every_schedule
def test_every_epoch(case: ScheduleCase, torch: Any) -> None:
    ours, theirs = both(case, torch)
    assert ours.start().get_last_lr() == theirs.start().get_last_lr()
    for epoch in range(case.epochs):
        assert_equal(ours.step(), theirs.step(), epoch)


@every_schedule
def test_rates_set_by_hand(case: ScheduleCase, torch: Any) -> None:
    ours, theirs = both(case, torch)
    ours.start(), theirs.start()
    for epoch in range(case.epochs):
        if epoch in BY_HAND:
            group, rate = BY_HAND[epoch]
            for library in (ours, theirs):
                library.optimizer.param_groups[group]["lr"] = rate
        assert_equal(ours.step(), theirs.step(), epoch)


@pytest.mark.parametrize("last_epoch", [0, 4, 30])
@every_single_schedule
def test_last_epoch(case: ScheduleCase, last_epoch: int, torch: Any) -> None:
    momentum = {"momentum": 0.9} if case.optimizer == "SGD" else {}
    start = {"initial_lr": 0.4, "max_lr": 0.4, "min_lr": 0.001, "max_momentum": 0.95,
             "base_momentum": 0.8}  # fmt: skip
    ours, theirs = both(case, torch, **start, **momentum)
    ours.start(last_epoch), theirs.start(last_epoch)
    assert_equal(ours.record(), theirs.record(), last_epoch)
    for epoch in range(last_epoch, 100):
        assert_equal(ours.step(), theirs.step(), epoch)


@every_single_schedule
def test_going_to_an_epoch(case: ScheduleCase, torch: Any) -> None:
    ours, theirs = both(case, torch)
    ours.start(), theirs.start()
    for epoch in (0, 3, 17, 80, 81, 5, 31, 150):
        assert_equal(ours.step(epoch), theirs.step(epoch), epoch)
        assert_equal(ours.step(), theirs.step(), epoch)


@every_schedule
def test_state_is_that_of_pytorch_and_goes_both_ways(case: ScheduleCase, torch: Any) -> None:
    ours, theirs = both(case, torch)
    ours.start(), theirs.start()
    for _ in range(33):
        ours.step(), theirs.step()
    state, their_state = ours.schedule.state_dict(), theirs.schedule.state_dict()
    assert keys(state) == keys(their_state)

    def load(library: Library, state: Any, optimizer_state: Any) -> Library:
        library.start()
        library.optimizer.load_state_dict(optimizer_state)
        library.schedule.load_state_dict(state)
        return library

    resumed = [
        load(both(case, torch)[0], copy.deepcopy(their_state), theirs.optimizer.state_dict()),
        load(both(case, torch)[0], through_json(their_state), theirs.optimizer.state_dict()),
        load(both(case, torch)[1], state, ours.optimizer.state_dict()),
    ]
    for epoch in range(5):
        expected = theirs.step()
        for library in resumed:
            assert_equal(library.step(), expected, epoch)


def through_json(state: Any) -> Any:
    return json.loads(json.dumps(state))


def keys(state: Any) -> Any:
    if isinstance(state, dict):
        return {str(k): keys(v) for k, v in state.items() if k != "_get_lr_called_within_step"}
    if isinstance(state, list):
        return [keys(part) for part in state]
    return None


METRICS = [5.0, 4.0, 4.0, 3.9999, 3.9, 3.95, 3.95, 3.95, 3.95, 4.0, 4.0, 1.0, 2.0, float("nan"),
           float("inf"), 2.0, 2.0, 2.0, 0.5] + [0.6] * 20  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        {"patience": 2},
        {"mode": "max", "patience": 1, "cooldown": 3, "factor": 0.5},
        {"threshold_mode": "abs", "threshold": 0.2, "patience": 0, "min_lr": [0.01, 0.5]},
        {"mode": "max", "threshold_mode": "abs", "threshold": 0.7, "patience": 3, "eps": 0.05},
    ],
)
def test_plateau(options: dict[str, Any], torch: Any) -> None:
    case = ScheduleCase("", lambda s, o, _: s.ReduceLROnPlateau(o, **options))
    ours, theirs = both(case, torch)
    ours.start(), theirs.start()
    for epoch, metric in enumerate(METRICS):
        assert_equal(ours.step(metric), theirs.step(metric), epoch)
        assert keys(ours.schedule.state_dict()) == keys(theirs.schedule.state_dict())
        if epoch == 8:
            state, optimizer = theirs.schedule.state_dict(), theirs.optimizer.state_dict()
            ours, _ = both(case, torch)
            ours.start().load_state_dict(through_json(state))
            ours.optimizer.load_state_dict(optimizer)


@pytest.mark.parametrize("what", REFUSED)
def test_what_pytorch_refuses_is_refused(what: str, torch: Any) -> None:
    case = ScheduleCase(what, lambda s, o, _: REFUSED[what](s, o))
    errors = []
    for library in both(case, torch):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's, on a step before the optimizer's
            with pytest.raises((ValueError, TypeError, KeyError)) as caught:
                library.start()
        errors.append(type(caught.value))
    assert errors[0] is errors[1]
