"""Optimizers, schedule and clipping beside PyTorch's own.

`nox -s torch_parity` runs these. Without PyTorch they are skipped with that reason, unless
XBACKPROP_TEST_REQUIRE lists torch.
"""

import copy
from typing import Any

import numpy as np
import pytest
from needs_torch import import_torch
from optimizer_cases import OPTIMIZERS, OptimizerCase, course, initial, run_ours

import xbackprop as xb
from xbackprop.testing import TOLERANCES

pytestmark = pytest.mark.torch_parity

every_optimizer = pytest.mark.parametrize(
    "case",
    [case for case in OPTIMIZERS if case.is_in_pytorch],
    ids=lambda case: case.name.replace(" ", "-"),
)
both_dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])


@pytest.fixture(scope="module")
def torch() -> Any:
    return import_torch()


@pytest.fixture(autouse=True)
def _on_the_cpu() -> Any:
    with xb.use_device("cpu"):
        yield


@pytest.fixture(autouse=True)
def _default_dtype(request: Any, torch: Any) -> Any:
    """Keep PyTorch's scalars of state (mu_product, eta, mu) in float64 too, where the rest is."""
    dtype = request.getfixturevalue("dtype") if "dtype" in request.fixturenames else "float64"
    torch.set_default_dtype(getattr(torch, dtype))
    yield
    torch.set_default_dtype(torch.float32)


def assert_close(
    received: Any, expected: Any, dtype: str, what: str, case: OptimizerCase | None = None
) -> None:
    tolerance = TOLERANCES[dtype].peer if case is None else case.tolerance(dtype)
    expected = expected.detach().numpy() if hasattr(expected, "detach") else expected
    np.testing.assert_allclose(
        np.asarray(received), expected, rtol=tolerance, atol=tolerance, err_msg=what
    )


def run_torch(case: OptimizerCase, dtype: str, torch: Any) -> tuple[list[list[np.ndarray]], Any]:
    """Return the values after every step of PyTorch's optimizer, and the optimizer."""
    parameters = [torch.nn.Parameter(torch.from_numpy(values)) for values in initial(case, dtype)]
    optimizer = case.make_torch(torch, case.grouped(parameters))

    def give_gradient(parameter: Any, grad: np.ndarray | None) -> None:
        parameter.grad = None if grad is None else torch.from_numpy(grad)

    history = [
        [parameter.detach().numpy().copy() for parameter in parameters]
        for _ in course(case, optimizer, parameters, give_gradient, dtype)
    ]
    return history, optimizer


@both_dtypes
@every_optimizer
def test_twenty_steps(case: OptimizerCase, dtype: str, torch: Any) -> None:
    # Groups, changing rates, parameters without gradient, frozen, empty and of no axis.
    ours, theirs = run_ours(case, dtype)[0], run_torch(case, dtype, torch)[0]
    for step, (received, expected) in enumerate(zip(ours, theirs, strict=True), start=1):
        for number, (values, theirs_now) in enumerate(zip(received, expected, strict=True)):
            assert_close(values, theirs_now, dtype, f"step {step}, parameter {number}", case)


@every_optimizer
def test_state_dict(case: OptimizerCase, torch: Any) -> None:
    _, ours = run_ours(case, np.float64)
    _, theirs = run_torch(case, "float64", torch)
    received, expected = ours.state_dict(), theirs.state_dict()
    assert received.keys() == expected.keys()
    assert received["state"].keys() == expected["state"].keys()
    for number, entry in expected["state"].items():
        assert received["state"][number].keys() == entry.keys()
        for name, value in entry.items():
            what = f"{name} of {number}"
            assert np.shape(received["state"][number][name]) == tuple(value.shape), what
            assert_close(received["state"][number][name], value, "float64", what, case)
    for ours_now, theirs_now in zip(
        received["param_groups"], expected["param_groups"], strict=True
    ):
        assert ours_now == theirs_now


class Both:
    """The same network here and in PyTorch, trained on the same batches."""

    def __init__(self, case: OptimizerCase, torch: Any) -> None:
        self.torch, self.case = torch, case
        layers = torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)
        self.theirs = torch.nn.Sequential(*layers).double()
        nn = xb.nn
        self.ours = nn.Sequential(
            nn.Linear(3, 5, dtype=np.float64), nn.Tanh(), nn.Linear(5, 2, dtype=np.float64)
        )
        self.ours.load_state_dict(dict(self.theirs.state_dict()))
        self.optimizer = case.make(case.trainable(self.ours.parameters()))
        self.their_optimizer = case.make_torch(torch, case.trainable(self.theirs.parameters()))

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([3, step])
        return rng.normal(size=(6, 3)), rng.normal(size=(6, 2))

    def step_ours(self, step: int, max_norm: float | None = None) -> None:
        self.optimizer.zero_grad()
        x, y = self.batch(step)
        xb.value_and_grad(self.ours, xb.nn.MSELoss())(x, y)
        if max_norm is not None:
            xb.optim.clip_grad_norm_(self.ours.parameters(), max_norm)
        self.optimizer.step()

    def step_theirs(self, step: int, max_norm: float | None = None) -> None:
        self.their_optimizer.zero_grad()
        x, y = (self.torch.from_numpy(array) for array in self.batch(step))
        self.torch.nn.functional.mse_loss(self.theirs(x), y).backward()
        if max_norm is not None:
            self.torch.nn.utils.clip_grad_norm_(self.theirs.parameters(), max_norm)
        self.their_optimizer.step()

    def compare(self, what: str) -> None:
        for name, values in self.theirs.state_dict().items():
            ours = self.ours.state_dict()[name]
            assert_close(ours, values, "float64", f"{what}: {name}", self.case)


@every_optimizer
def test_state_of_pytorch_is_loaded_and_goes_on_equal(case: OptimizerCase, torch: Any) -> None:
    both = Both(case, torch)
    for step in range(5):
        both.step_theirs(step)
    both.ours.load_state_dict(dict(both.theirs.state_dict()))
    both.optimizer = case.make(case.trainable(both.ours.parameters()), lr=77.0)
    both.optimizer.load_state_dict(both.their_optimizer.state_dict())
    for step in range(5, 10):
        both.step_ours(step)
        both.step_theirs(step)
        both.compare(f"step {step}")


@every_optimizer
def test_our_state_is_loaded_by_pytorch_and_goes_on_equal(case: OptimizerCase, torch: Any) -> None:
    both = Both(case, torch)
    for step in range(5):
        both.step_ours(step)
    arrays = both.ours.state_dict()
    both.theirs.load_state_dict({name: torch.from_numpy(a) for name, a in arrays.items()})
    state = copy.deepcopy(both.optimizer.state_dict())
    for entry in state["state"].values():
        for name, value in entry.items():
            if isinstance(value, np.ndarray):
                entry[name] = torch.from_numpy(value)
    both.their_optimizer.load_state_dict(state)
    for step in range(5, 10):
        both.step_ours(step)
        both.step_theirs(step)
        both.compare(f"step {step}")


@every_optimizer
def test_training_with_schedule_and_clipping(case: OptimizerCase, torch: Any) -> None:
    both = Both(case, torch)
    ours = xb.optim.StepLR(both.optimizer, 3, 0.3)
    theirs = torch.optim.lr_scheduler.StepLR(both.their_optimizer, 3, 0.3)
    for step in range(20):
        both.step_ours(step, max_norm=0.4)
        both.step_theirs(step, max_norm=0.4)
        both.compare(f"step {step}")
        ours.step()
        theirs.step()
        if step == 7:
            for optimizer in (both.optimizer, both.their_optimizer):
                optimizer.param_groups[0]["lr"] = 0.033
        assert ours.get_last_lr() == theirs.get_last_lr()
        assert both.optimizer.param_groups[0]["lr"] == both.their_optimizer.param_groups[0]["lr"]


@pytest.mark.torch_parity("StepLR")
@pytest.mark.parametrize("last_epoch", [-1, 0, 2, 3, 5])
def test_step_lr(last_epoch: int, torch: Any) -> None:
    rates = []
    for library, parameter in ((xb, xb.Parameter(np.ones(1))), (torch, torch.ones(1))):
        group = {"params": [parameter], "lr": 0.5}
        if last_epoch >= 0:
            group["initial_lr"] = 2.0
        optimizer = library.optim.SGD([group])
        schedule = library.optim.lr_scheduler.StepLR(optimizer, 3, 0.7, last_epoch)
        rates.append([])
        for _ in range(8):
            rates[-1].append((schedule.last_epoch, *schedule.get_last_lr()))
            optimizer.step()
            schedule.step()
    assert rates[0] == rates[1]


class Gradients:
    """The same gradients here and in PyTorch; one parameter has none."""

    def __init__(self, dtype: str, torch: Any) -> None:
        rng = np.random.default_rng(0)
        grads = [rng.normal(size=shape).astype(dtype) for shape in ((3, 4), (5,), ())]
        self.ours = [xb.Parameter(np.zeros(grad.shape, dtype)) for grad in grads]
        self.theirs = [
            torch.nn.Parameter(torch.zeros(grad.shape, dtype=getattr(torch, dtype)))
            for grad in grads
        ]
        for parameter, their_parameter, grad in zip(self.ours, self.theirs, grads, strict=True):
            parameter.grad = grad
            their_parameter.grad = torch.from_numpy(grad.copy())
        self.ours.append(xb.Parameter(np.ones(2, dtype)))
        self.dtype = dtype

    def compare(self) -> None:
        for parameter, their_parameter in zip(self.ours, self.theirs, strict=False):
            assert_close(parameter.grad, their_parameter.grad, self.dtype, "a gradient")


@pytest.mark.torch_parity("clip_grad_norm_", "get_total_norm", "clip_grads_with_norm_")
@both_dtypes
@pytest.mark.parametrize("foreach", [None, True, False])
@pytest.mark.parametrize("max_norm", [0.5, 100.0])
@pytest.mark.parametrize("norm_type", [1.0, 2.0, 2.5, float("inf")])
def test_clip_grad_norm(
    norm_type: float, max_norm: float, foreach: bool | None, dtype: str, torch: Any
) -> None:
    both = Gradients(dtype, torch)
    utils = torch.nn.utils
    for options in ((norm_type, True, foreach), (norm_type,)):
        received = xb.optim.clip_grad_norm_(both.ours, max_norm, *options)
        expected = utils.clip_grad_norm_(both.theirs, max_norm, *options)
        assert_close(received, expected, dtype, "the norm")
        both.compare()
    grads = [parameter.grad for parameter in both.ours[:-1]]
    received = xb.optim.get_total_norm(grads, norm_type)
    expected = utils.get_total_norm([p.grad for p in both.theirs], norm_type)
    assert_close(received, expected, dtype, "the norm")
    xb.optim.clip_grads_with_norm_(both.ours, 0.1, received)
    utils.clip_grads_with_norm_(both.theirs, 0.1, expected)
    both.compare()


@pytest.mark.torch_parity("clip_grad_value_")
@both_dtypes
def test_clip_grad_value(dtype: str, torch: Any) -> None:
    both = Gradients(dtype, torch)
    xb.optim.clip_grad_value_(both.ours, 0.3)
    torch.nn.utils.clip_grad_value_(both.theirs, 0.3)
    both.compare()


@pytest.mark.torch_parity("clip_grad_norm_")
def test_clipping_of_nothing(torch: Any) -> None:
    ours, theirs = xb.Parameter(np.ones(2)), torch.nn.Parameter(torch.ones(2))
    for mine, other in (([ours], [theirs]), ([], [])):
        received = xb.optim.clip_grad_norm_(mine, 1.0)
        assert received == torch.nn.utils.clip_grad_norm_(other, 1.0) == 0.0


@pytest.mark.torch_parity("clip_grad_norm_")
def test_error_of_a_norm_that_is_not_finite(torch: Any) -> None:
    both = Gradients("float64", torch)
    both.ours[0].grad = np.full((3, 4), np.nan)
    both.theirs[0].grad[...] = float("nan")
    for clip, parameters in (
        (xb.optim.clip_grad_norm_, both.ours),
        (torch.nn.utils.clip_grad_norm_, both.theirs),
    ):
        with pytest.raises(RuntimeError, match="total norm of order"):
            clip(parameters, 1.0, error_if_nonfinite=True)
    both.compare()
