"""L-BFGS beside PyTorch's own: weights, counts of evaluations, state both ways.

`nox -s torch_parity` runs these. Without PyTorch they are skipped with that reason, unless
XBACKPROP_TEST_REQUIRE lists torch.
"""

import copy
from typing import Any

import numpy as np
import pytest
from needs_torch import import_torch

import xbackprop as xb
from xbackprop.testing import TOLERANCES

pytestmark = pytest.mark.torch_parity

OPTIONS = {
    "plain": {"lr": 0.1},
    "few iterations": {"lr": 0.05, "max_iter": 3},
    "short history": {"lr": 0.1, "max_iter": 8, "history_size": 2},
    "few evaluations": {"lr": 0.1, "max_iter": 8, "max_eval": 4},
    "early stop by the gradient": {"lr": 0.3, "tolerance_grad": 0.5},
    "early stop by the change": {"lr": 0.1, "tolerance_change": 1e-2},
    "line search": {"line_search_fn": "strong_wolfe"},
    "line search of few points": {"line_search_fn": "strong_wolfe", "max_iter": 4, "max_eval": 5},
    "line search from far": {"line_search_fn": "strong_wolfe", "lr": 30.0, "history_size": 3},
    "line search from near": {"line_search_fn": "strong_wolfe", "lr": 1e-3, "max_iter": 6},
}
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


@pytest.fixture(scope="module")
def torch() -> Any:
    return import_torch()


@pytest.fixture(autouse=True)
def _on_the_cpu() -> Any:
    with xb.use_device("cpu"):
        yield


class Both:
    """The same network here and in PyTorch, trained on the same data."""

    def __init__(self, torch: Any, dtype: str, options: dict[str, Any]) -> None:
        self.torch, self.dtype, self.options = torch, dtype, options
        torch.manual_seed(0)
        layers = torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)
        self.theirs = torch.nn.Sequential(*layers).to(getattr(torch, dtype))
        nn = xb.nn
        self.ours = nn.Sequential(
            nn.Linear(3, 5, dtype=dtype), nn.Tanh(), nn.Linear(5, 2, dtype=dtype)
        )
        self.ours.load_state_dict(dict(self.theirs.state_dict()))
        rng = np.random.default_rng(3)
        self.x = rng.normal(size=(20, 3)).astype(dtype)
        self.y = np.stack([self.x[:, 0] * self.x[:, 1], np.sin(self.x[:, 2])], axis=1)
        self.start()

    def start(self, **options: Any) -> None:
        self.optimizer = xb.optim.LBFGS(self.ours.parameters(), **{**self.options, **options})
        self.their_optimizer = self.torch.optim.LBFGS(
            self.theirs.parameters(), **{**self.options, **options}
        )

    def step(self) -> tuple[float, float]:
        def closure() -> Any:
            self.optimizer.zero_grad()
            return xb.value_and_grad(self.ours, xb.nn.MSELoss())(self.x, self.y)[0]

        def their_closure() -> Any:
            self.their_optimizer.zero_grad()
            x, y = map(self.torch.from_numpy, (self.x, self.y))
            loss = self.torch.nn.functional.mse_loss(self.theirs(x), y)
            loss.backward()
            return loss

        ours = self.optimizer.step(closure)
        return float(ours), float(self.their_optimizer.step(their_closure).detach())

    def compare(self, what: str) -> None:
        tolerance = TOLERANCES[self.dtype].peer
        for name, values in self.theirs.state_dict().items():
            np.testing.assert_allclose(
                self.ours.state_dict()[name], values.numpy(), tolerance, tolerance, err_msg=what
            )


def plain(entry: dict[str, Any]) -> dict[str, Any]:
    """Return a state without `al`, which holds nothing between steps."""
    return {name: value for name, value in entry.items() if name != "al"}


@every_option
def test_steps(options: dict[str, Any], torch: Any) -> None:
    both = Both(torch, "float64", options)
    for step in range(3):  # after some 60 iterations a last bit has become 1e-9
        ours, theirs = both.step()
        assert ours == pytest.approx(theirs, rel=1e-9), step
        both.compare(f"step {step}")
        state = both.optimizer.state_dict()["state"][0]
        their_state = both.their_optimizer.state_dict()["state"][0]
        assert state.keys() == plain(their_state).keys()
        for name, value in plain(their_state).items():
            if name in ("func_evals", "n_iter"):
                assert state[name] == value, f"{name} of step {step}"
            elif isinstance(value, list):
                assert len(state[name]) == len(value)
                for part, their_part in zip(state[name], value, strict=True):
                    np.testing.assert_allclose(part, their_part.numpy(), 1e-6, 1e-9)
            else:
                np.testing.assert_allclose(state[name], value, 1e-6, 1e-9, err_msg=name)


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "line search from near"])
def test_first_steps_in_float32(name: str, torch: Any) -> None:
    """Later ones divide differences of nearly equal gradients; the row left out, of losses."""
    options = OPTIONS[name]
    both = Both(torch, "float32", {**options, "max_iter": 3})
    for step in range(2):
        both.step()
        both.compare(f"step {step}")


@every_option
def test_state_goes_both_ways(options: dict[str, Any], torch: Any) -> None:
    both = Both(torch, "float64", {**options, "max_iter": 4})
    both.step()
    both.step()
    state, their_state = both.optimizer.state_dict(), both.their_optimizer.state_dict()
    both.start(lr=99.0)
    both.optimizer.load_state_dict(copy.deepcopy(their_state))
    both.their_optimizer.load_state_dict(tensors(state, torch))
    for step in range(3):
        both.step()
        both.compare(f"step {step}")


def tensors(value: Any, torch: Any) -> Any:
    if isinstance(value, dict):
        return {key: tensors(part, torch) for key, part in value.items()}
    if isinstance(value, list):
        return [tensors(part, torch) for part in value]
    return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value


def test_groups_are_those_of_pytorch(torch: Any) -> None:
    both = Both(torch, "float64", {})
    assert both.optimizer.state_dict() == both.their_optimizer.state_dict()


def test_what_pytorch_refuses_is_refused(torch: Any) -> None:
    for library, weights in (
        (xb, [xb.Parameter(np.ones(1)) for _ in range(2)]),
        (torch, [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]),
    ):
        with pytest.raises(ValueError, match=r"lr|learning rate"):
            library.optim.LBFGS(weights, lr=-1.0)
        with pytest.raises(ValueError, match="group"):
            library.optim.LBFGS([{"params": weights[:1]}, {"params": weights[1:]}])
