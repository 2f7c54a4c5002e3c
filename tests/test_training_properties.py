"""What holds for every optimizer and schedule, whatever they train."""

import copy
import importlib.util
import json
from typing import Any

import numpy as np
import optimizer_cases
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optimizer_cases import OPTIMIZERS
from properties import few, host, on_cpu, seeds

import xbackprop as xb

# --- optimizers ---------------------------------------------------------------------------


@on_cpu
@pytest.mark.parametrize("case", OPTIMIZERS, ids=lambda case: case.name.replace(" ", "-"))
@given(data=st.data())
@few
def test_groups_of_the_same_options_change_no_number(case: Any, data: Any, xb_device: Any) -> None:
    shapes = getattr(case, "shapes", None) or optimizer_cases.SHAPES
    rng = np.random.default_rng(data.draw(seeds))
    start = [rng.normal(size=shape) for shape in shapes]
    grads = [[rng.normal(size=shape) for shape in shapes] for _ in range(3)]
    numbers = [data.draw(st.integers(0, 2)) for _ in shapes]

    def train(groups: list[list[int]]) -> list[np.ndarray]:
        parameters = [xb.Parameter(xb.asarray(x, dtype=np.float64)) for x in start]
        optimizer = case.make([{"params": [parameters[i] for i in group]} for group in groups])
        for step in grads:
            for parameter, grad in zip(parameters, step, strict=True):
                parameter.grad = xb.asarray(grad, dtype=np.float64)
            optimizer.step()
        return [host(parameter.data) for parameter in parameters]

    parts = [[i for i, part in enumerate(numbers) if part == number] for number in range(3)]
    apart = train([part for part in parts if part])
    for one, other in zip(train([list(range(len(shapes)))]), apart, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-15)


# --- schedules ----------------------------------------------------------------------------


def schedule_makers() -> list[Any]:
    """Rows of schedules where there is a table of them, else the one schedule there is."""
    if importlib.util.find_spec("schedule_cases") is None:
        return [pytest.param(lambda schedules, o, _: schedules.StepLR(o, 3, 0.5), id="StepLR")]
    rows = importlib.import_module("schedule_cases").SCHEDULES
    return [pytest.param(row.make, id=row.name.replace(" ", "-")) for row in rows]


@on_cpu
@pytest.mark.parametrize("make_schedule", schedule_makers())
@given(before=st.integers(0, 12), after=st.integers(1, 12))
@few
def test_state_of_a_schedule_goes_round(
    make_schedule: Any, before: int, after: int, xb_device: Any
) -> None:
    optimizer, schedule = start_schedule(make_schedule)
    advance(optimizer, schedule, before)
    resumed_optimizer, resumed = start_schedule(make_schedule)
    resumed_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    resumed.load_state_dict(copy.deepcopy(schedule.state_dict()))
    expected = advance(optimizer, schedule, after)
    assert advance(resumed_optimizer, resumed, after) == expected
    assert as_text(resumed.state_dict()) == as_text(schedule.state_dict())


def start_schedule(make_schedule: Any) -> tuple[Any, Any]:
    groups = [{"params": [xb.Parameter(xb.asarray([1.0]))], "lr": lr} for lr in (0.1, 0.5)]
    optimizer = xb.optim.SGD(groups, momentum=0.9)
    return optimizer, make_schedule(xb.optim.lr_scheduler, optimizer, -1)


def advance(optimizer: Any, schedule: Any, steps: int) -> list[Any]:
    rates = []
    for _ in range(steps):
        optimizer.step()
        schedule.step(*METRIC.get(type(schedule).__name__, ()))
        rates.append([(group["lr"], group.get("momentum")) for group in optimizer.param_groups])
    return rates


METRIC = {"ReduceLROnPlateau": (1.0,)}  # one that never improves


def as_text(state: Any) -> str:
    return json.dumps(state, default=str, sort_keys=True)
