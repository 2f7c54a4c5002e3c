"""L-BFGS: its direction and line search by their definitions, its memory, what it downloads."""

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.backend.device import Device
from xbackprop.optim.lbfgs.direction import two_loops
from xbackprop.optim.lbfgs.line_search import Point, strong_wolfe

both_searches = pytest.mark.parametrize("search", [None, "strong_wolfe"])


def rosenbrock(x: Any) -> tuple[Any, Any]:
    """Return sum (1 - a)^2 + 10 (b - a^2)^2 over pairs, and its gradient."""
    xp = xb.get_array_module(x)
    a, b = x[0::2], x[1::2]
    valley = b - a * a
    loss = ((1 - a) * (1 - a)).sum() + 10 * (valley * valley).sum()
    grad = xp.stack([-2 * (1 - a) - 40 * a * valley, 20 * valley], axis=1)
    return loss, grad.reshape(-1)


def bowl(x: Any) -> tuple[Any, Any]:
    xp = xb.get_array_module(x)
    difference = x - 1
    curvature = xp.linspace(0.5, 3.0, x.size).astype(x.dtype)
    return (curvature * difference * difference).sum(), 2 * curvature * difference


class Problem:
    """A function of two parameters, of 4 and of (1, 2) elements."""

    def __init__(self, function: Any = rosenbrock, dtype: str = "float64", **options: Any) -> None:
        start = np.array([-1.2, 1.0, 0.5, -0.7, 2.0, 2.0])
        self.first = xb.Parameter(xb.asarray(start[:4], dtype=dtype))
        self.second = xb.Parameter(xb.asarray(start[4:].reshape(1, 2), dtype=dtype))
        self.optimizer = xb.optim.LBFGS([self.first, self.second], **options)
        self.function = function
        self.calls = 0

    def closure(self) -> Any:
        self.calls += 1
        xp = xb.get_array_module(self.first.data)
        x = xp.concatenate([self.first.data, self.second.data.reshape(-1)])
        loss, grad = self.function(x)
        self.optimizer.zero_grad()
        self.first.grad = grad[:4]
        self.second.grad = grad[4:].reshape(1, 2)
        return loss

    def step(self) -> Any:
        return self.optimizer.step(self.closure)

    def values(self) -> np.ndarray:
        parts = [xb.to_host(p.data).reshape(-1) for p in (self.first, self.second)]
        return np.concatenate(parts)

    def everything(self) -> list[Any]:
        state = self.optimizer.state_dict()["state"]
        return [self.values().tobytes(), json.dumps(jsonable(state), sort_keys=True)]


def jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: jsonable(part) for key, part in value.items()}
    if isinstance(value, list):
        return [jsonable(part) for part in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


def test_finds_the_minimum(xb_device: Device) -> None:
    problem = Problem(line_search_fn="strong_wolfe")
    for _ in range(4):
        problem.step()
    np.testing.assert_allclose(problem.values(), np.ones(6), atol=1e-4)
    plain = Problem(bowl, lr=0.5)
    for _ in range(4):
        plain.step()
    np.testing.assert_allclose(plain.values(), np.ones(6), atol=1e-4)


@both_searches
def test_trains_a_network(search: str | None, xb_device: Device) -> None:
    nn = xb.nn
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1), rng=0)
    x = xb.asarray(np.random.default_rng(0).normal(size=(30, 3)))
    y = x[:, :1] * x[:, 1:2]
    optimizer = xb.optim.LBFGS(model.parameters(), lr=0.3 if search is None else 1.0,
                               line_search_fn=search)  # fmt: skip

    def closure() -> Any:
        optimizer.zero_grad()
        return xb.value_and_grad(model, nn.MSELoss())(x, y)[0]

    before = float(xb.to_host(optimizer.step(closure)))
    for _ in range(5):
        optimizer.step(closure)
    assert float(xb.to_host(closure())) < 0.02 * before


# --- direction ------------------------------------------------------------------------------


def test_direction_is_that_of_the_dense_formula(xb_device: Device) -> None:
    """H_new = (I - r s y^T) H (I - r y s^T) + r s s^T, Nocedal and Wright, equation 7.16."""
    rng = np.random.default_rng(0)
    grad = rng.normal(size=5)
    steps = [rng.normal(size=5) for _ in range(3)]
    changes = [step * [0.5, 1, 2, 3, 4] for step in steps]
    inverses = [1 / (s @ y) for s, y in zip(steps, changes, strict=True)]
    hessian = 0.7 * np.eye(5)
    for s, y, r in zip(steps, changes, inverses, strict=True):
        left = np.eye(5) - r * np.outer(s, y)
        hessian = left @ hessian @ left.T + r * np.outer(s, s)
    arrays = [[xb.asarray(a, dtype=np.float64) for a in part] for part in (changes, steps)]
    received = two_loops(xb.asarray(grad, dtype=np.float64), *arrays, inverses, 0.7)
    np.testing.assert_allclose(xb.to_host(received), -hessian @ grad, rtol=1e-12)


def test_history_is_limited(xb_device: Device) -> None:
    problem = Problem(history_size=3, max_iter=10, line_search_fn="strong_wolfe")
    problem.step()
    memory = problem.optimizer.state_dict()["state"][0]
    assert [len(memory[name]) for name in ("old_dirs", "old_stps", "ro")] == [3, 3, 3]
    s, y = memory["old_stps"][-1], memory["old_dirs"][-1]
    assert memory["ro"][-1] == pytest.approx(1 / (s @ y))
    assert memory["H_diag"] == pytest.approx((s @ y) / (y @ y))


# --- line search ----------------------------------------------------------------------------

LINES: dict[str, Callable[[float], tuple[float, float]]] = {
    "parabola": lambda t: ((t - 3) ** 2, 2 * (t - 3)),
    "steep": lambda t: (100 * (t - 0.01) ** 2, 200 * (t - 0.01)),
    "far": lambda t: ((t / 50 - 1) ** 2, (t / 50 - 1) / 25),
    "waves": lambda t: (np.cos(3 * t) - 0.2 * t, -3 * np.sin(3 * t) - 0.2),
    "wall": lambda t: (-t if t < 2 else np.inf, -1.0 if t < 2 else np.nan),
}


@pytest.mark.parametrize("first", [1e-3, 0.3, 1.0, 20.0])
@pytest.mark.parametrize("name", ["parabola", "steep", "far", "waves"])
def test_strong_wolfe_conditions(name: str, first: float) -> None:
    calls = []

    def evaluate(t: float) -> Point:
        calls.append(t)
        loss, slope = LINES[name](t)
        return Point(t, loss, None, slope)

    start = evaluate(0.0)._replace(t=0.0)
    if start.slope == 0 or start.slope >= 0:
        start = start._replace(slope=-0.2)
    found, evaluations = strong_wolfe(evaluate, start, first, 1.0, max_evaluations=25)
    assert evaluations == len(calls) - 1
    assert found.loss <= start.loss + 1e-4 * found.t * start.slope
    assert abs(found.slope) <= -0.9 * start.slope
    assert found.t > 0


def test_line_search_gives_up_in_time() -> None:
    def evaluate(t: float) -> Point:
        return Point(t, *LINES["wall"](t)[:1], None, LINES["wall"](t)[1])

    for limit in (0, 1, 4):
        found, evaluations = strong_wolfe(
            evaluate, Point(0.0, 0.0, None, -1.0), 1.0, 1.0, max_evaluations=limit
        )
        assert evaluations <= limit + 1
        assert np.isfinite(found.loss)


# --- downloads ------------------------------------------------------------------------------


@pytest.mark.parametrize("xb_device", ["fake"], indirect=True)
def test_downloads_are_those_that_are_documented(xb_device: Device) -> None:
    problem = Problem(max_iter=4, lr=0.01)
    with xb.transfer_log() as log:
        problem.step()
    # At first; the first direction's length; slope and outcome of 4 iterations; the products of 3
    # pairs; what the closure found in all iterations but the last.
    assert log.downloads == 1 + 1 + 2 * 4 + 3 + 3
    assert log.uploads == 0
    problem = Problem(max_iter=4, line_search_fn="strong_wolfe")
    with xb.transfer_log() as log:
        problem.step()
    points = problem.calls - 1
    assert log.downloads == 1 + 1 + 2 * 4 + 3 + 4 + points
    assert log.uploads == 0


@both_searches
def test_cpu_and_stand_in_give_the_same_bits(search: str | None) -> None:
    results = []
    for place in ("cpu", "fake"):
        with xb.use_device(place):
            problem = Problem(lr=0.1, line_search_fn=search)
            for _ in range(3):
                problem.step()
            results.append(problem.everything())
    assert results[0] == results[1]


# --- memory ---------------------------------------------------------------------------------


def carried(problem: Problem, carry: Any) -> Problem:
    function, problem.function = problem.function, None
    other = carry(problem)
    other.function = function
    return other


def pickled(problem: Problem) -> Problem:
    other = pickle.loads(pickle.dumps(problem))
    for parameter in (other.first, other.second):
        parameter.to(xb.default_device())
    return other


def moved_there_and_back(problem: Problem) -> Problem:
    here = xb.default_device()
    for place in ("fake:1" if here.kind == "fake" else "fake", here):
        for parameter in (problem.first, problem.second):
            parameter.to(place)
        problem.optimizer.zero_grad()
    return problem


def state_loaded(problem: Problem) -> Problem:
    other = Problem(lr=77.0)
    for own, given in ((other.first, problem.first), (other.second, problem.second)):
        own.data = given.data.copy()
    other.optimizer.load_state_dict(problem.optimizer.state_dict())
    return other


@pytest.mark.parametrize("carry", [pickled, copy.deepcopy, moved_there_and_back, state_loaded])
@both_searches
def test_goes_on_as_if_nothing_had_happened(
    search: str | None, carry: Any, xb_device: Device
) -> None:
    options = {"lr": 0.1, "max_iter": 5, "line_search_fn": search}
    expected, problem = Problem(**options), Problem(**options)
    for _ in range(4):
        expected.step()
    problem.step()
    problem.step()
    problem = carried(problem, carry)
    problem.step()
    problem.step()
    assert problem.everything() == expected.everything()


def test_state_is_a_copy(xb_device: Device) -> None:
    problem = Problem(max_iter=5, lr=0.1)
    problem.step()
    before = problem.everything()
    state = problem.optimizer.state_dict()
    state["state"][0]["d"][...] = 7.0
    state["state"][0]["old_dirs"][0][...] = 7.0
    state["state"][0]["ro"].clear()
    state["param_groups"][0]["lr"] = 7.0
    assert problem.everything() == before
    assert problem.optimizer.param_groups[0]["lr"] == 0.1


REFUSED_STATES = {
    "another parameter": (lambda s: s.update({1: s.pop(0)}), "state of parameter 0 alone"),
    "no direction": (lambda s: s[0].pop("d"), "state of the name d; got none"),
    "another size": (
        lambda s: s[0].update(d=np.zeros(3)),
        r"'d' has shape \(3,\); expected \(6,\)",
    ),
    "an old direction": (
        lambda s: s[0]["old_dirs"].__setitem__(1, np.zeros((6, 1))),
        r"'old_dirs' has shape \(6, 1\)",
    ),
    "another length": (lambda s: s[0]["ro"].pop(), "of one length"),
}


@pytest.mark.parametrize("what", REFUSED_STATES)
def test_state_that_does_not_fit_changes_nothing(what: str, xb_device: Device) -> None:
    change, message = REFUSED_STATES[what]
    problem = Problem(max_iter=5, lr=0.1)
    problem.step()
    before, state = problem.everything(), problem.optimizer.state_dict()
    change(state["state"])
    state["param_groups"][0]["lr"] = 3.0
    with pytest.raises(ValueError, match=message):
        problem.optimizer.load_state_dict(state)
    assert problem.everything() == before
    assert problem.optimizer.param_groups[0]["lr"] == 0.1


# --- parameters that stand still --------------------------------------------------------------


@both_searches
def test_frozen_and_unreached_parameters_stay(search: str | None, xb_device: Device) -> None:
    problem = Problem(max_iter=5, lr=0.1, line_search_fn=search)
    problem.step()  # so that the history has directions for all
    for make_still in (
        lambda: setattr(problem.second, "requires_grad", False),
        lambda: setattr(problem, "closure", without_second),
    ):
        everything = problem.closure

        def without_second(compute: Any = everything) -> Any:
            loss = compute()
            problem.second.grad = None
            return loss

        make_still()
        first, second = (xb.to_host(p.data).copy() for p in (problem.first, problem.second))
        problem.step()
        assert (xb.to_host(problem.first.data) != first).any()
        if not problem.second.requires_grad:
            np.testing.assert_array_equal(xb.to_host(problem.second.data), second)
        problem.second.requires_grad = True


# --- what is not finite -----------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["loss", "gradient"])
@both_searches
def test_a_step_that_is_not_finite_is_taken_back(
    search: str | None, bad: str, xb_device: Device
) -> None:
    problem = Problem(max_iter=5, lr=0.1, line_search_fn=search)
    problem.optimizer.skip_nonfinite = True
    problem.step()
    before, good = problem.everything(), problem.function

    def broken(x: Any) -> tuple[Any, Any]:
        loss, grad = good(x)
        return (loss * np.nan, grad) if bad == "loss" else (loss, grad * np.inf)

    problem.function = broken
    problem.step()
    assert problem.everything() == before
    problem.function = good
    assert problem.optimizer.first_nonfinite_step() == 2
    problem.step()
    assert problem.everything() != before


def test_a_step_that_ends_at_infinity_is_taken_back(xb_device: Device) -> None:
    problem = Problem(max_iter=3, lr=1e200)
    problem.optimizer.skip_nonfinite = problem.optimizer.stop_at_nonfinite = True
    before = problem.everything()
    problem.step()
    assert problem.everything() == before
    problem.optimizer.param_groups[0]["lr"] = 0.1
    problem.step()
    assert problem.everything() == before  # stopped until somebody asks
    assert problem.optimizer.first_nonfinite_step() == 1
    problem.step()
    assert problem.everything() != before


class BrokenOffError(Exception):
    """What a closure may raise."""


@both_searches
def test_a_step_that_is_broken_off_is_taken_back(search: str | None, xb_device: Device) -> None:
    problem = Problem(max_iter=5, lr=0.1, line_search_fn=search)
    problem.step()
    before, good, calls = problem.everything(), problem.function, problem.optimizer.calls
    for number in (1, 2, 4):
        left = iter(range(number))

        def broken(x: Any, left: Any = left) -> tuple[Any, Any]:
            if next(left, None) is None:
                raise BrokenOffError
            return good(x)

        problem.function = broken
        with pytest.raises(BrokenOffError):
            problem.step()
        assert problem.everything() == before
        assert problem.optimizer.calls == calls


@pytest.mark.parametrize("xb_device", ["fake"], indirect=True)
@both_searches
def test_a_step_without_memory_is_taken_back(search: str | None, xb_device: Device) -> None:
    from xbackprop.backend.fake import memory_of, set_memory_limit

    problem = Problem(max_iter=5, lr=0.1, line_search_fn=search)
    problem.step()
    before, refused = problem.everything(), 0
    for room in range(0, 400, 20):
        set_memory_limit(memory_of(0).used + room)
        try:
            problem.step()
        except MemoryError:
            refused += 1
            set_memory_limit(None)
            assert problem.everything() == before
        else:
            break
        finally:
            set_memory_limit(None)
    assert refused > 5


# --- what is refused ----------------------------------------------------------------------------


def test_what_makes_no_sense_is_refused() -> None:
    w, other = (xb.Parameter(xb.asarray([1.0])) for _ in range(2))
    with pytest.raises(ValueError, match="one group of parameters; got a second"):
        xb.optim.LBFGS([{"params": [w]}, {"params": [other]}])
    with pytest.raises(ValueError, match="None or 'strong_wolfe'; got 'armijo'"):
        xb.optim.LBFGS([w], line_search_fn="armijo")
    with pytest.raises(ValueError, match="LBFGS expects lr >= 0; got -1"):
        xb.optim.LBFGS([w], lr=-1)
    with pytest.raises(TypeError, match="expects a closure"):
        xb.optim.LBFGS([w]).step()
    wide = xb.Parameter(xb.asarray([1.0], dtype=np.float64))
    with pytest.raises(ValueError, match=r"one dtype on one device; got float32 on .*, float64 on"):
        xb.optim.LBFGS([w, wide]).step(lambda: 1.0)


def test_defaults() -> None:
    optimizer = xb.optim.LBFGS([xb.Parameter(xb.asarray([1.0]))], max_iter=10)
    assert optimizer.param_groups[0]["max_eval"] == 12
    assert optimizer.state_dict()["state"] == {}
