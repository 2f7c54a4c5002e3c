"""Averaged models and batch statistics beside those of torch.optim.swa_utils.

`nox -s torch_parity` runs these. Without PyTorch they are skipped with that reason, unless
XBACKPROP_TEST_REQUIRE lists torch.
"""

from typing import Any

import numpy as np
import pytest
from needs_torch import import_torch

import xbackprop as xb
from xbackprop.testing import TOLERANCES

pytestmark = pytest.mark.torch_parity


@pytest.fixture(scope="module")
def torch() -> Any:
    return import_torch()


@pytest.fixture(autouse=True)
def _on_the_cpu(torch: Any) -> Any:
    with xb.use_device("cpu"):
        yield
    torch.set_default_dtype(torch.float32)


def make_models(torch: Any) -> tuple[Any, Any]:
    theirs = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)
    ).double()
    nn = xb.nn
    ours = nn.Sequential(
        nn.Linear(3, 4, dtype=np.float64),
        nn.BatchNorm1d(4, dtype=np.float64),
        nn.Linear(4, 2, dtype=np.float64),
    )
    return ours, theirs


def change(ours: Any, theirs: Any, number: int) -> None:
    """Give the weights and buffers of both the same other values."""
    import torch

    rng = np.random.default_rng([7, number])
    state = {
        name: np.asarray(10 * number if values.dtype.kind == "i" else rng.normal(size=values.shape))
        for name, values in ours.state_dict().items()
    }
    ours.load_state_dict(state)
    theirs.load_state_dict({name: torch.from_numpy(values) for name, values in state.items()})


def compare(ours: Any, theirs: Any) -> None:
    received, expected = ours.state_dict(), theirs.state_dict()
    assert received.keys() == expected.keys()
    tolerance = TOLERANCES["float64"].peer
    for name, values in expected.items():
        np.testing.assert_allclose(
            received[name], values.numpy(), rtol=tolerance, atol=tolerance, err_msg=name
        )


OPTIONS = {
    "equal": lambda swa: {},
    "equal by function": lambda swa: {"avg_fn": swa.get_swa_avg_fn()},
    "equal of many": lambda swa: {"multi_avg_fn": swa.get_swa_multi_avg_fn()},
    "exponential": lambda swa: {"avg_fn": swa.get_ema_avg_fn(0.8)},
    "exponential of many": lambda swa: {"multi_avg_fn": swa.get_ema_multi_avg_fn(0.8)},
    "exponential by default": lambda swa: {"multi_avg_fn": swa.get_ema_multi_avg_fn()},
    "nothing kept": lambda swa: {"multi_avg_fn": swa.get_ema_multi_avg_fn(0.0)},
}


# PyTorch cannot average the count of batches, an integer, with all weights at once.
CASES = [
    (name, b) for name in OPTIONS for b in (False, True) if (name, b) != ("equal of many", True)
]


@pytest.mark.parametrize(("name", "use_buffers"), CASES)
def test_average(name: str, use_buffers: bool, torch: Any) -> None:
    options = OPTIONS[name]
    if name == "equal of many":
        torch.set_default_dtype(torch.float64)  # in which it then computes 1 / (count + 1)
    models = make_models(torch)
    libraries = (xb.optim.swa_utils, torch.optim.swa_utils)
    averaged = [
        swa.AveragedModel(model, **options(swa), use_buffers=use_buffers)
        for swa, model in zip(libraries, models, strict=True)
    ]
    for number in range(6):
        change(*models, number)
        if number == 3:  # the other's state goes on equal
            state, their_state = averaged[0].state_dict(), averaged[1].state_dict()
            averaged[0].load_state_dict(their_state)
            averaged[1].load_state_dict(
                {name: torch.from_numpy(np.asarray(values)) for name, values in state.items()}
            )
        for each, model in zip(averaged, models, strict=True):
            each.update_parameters(model)
        compare(*averaged)


def test_update_bn(torch: Any) -> None:
    models = make_models(torch)
    change(*models, 1)
    rng = np.random.default_rng(5)
    loader = [rng.normal(1.0, 2.0, size=(6, 3)) for _ in range(4)]
    models[0].eval(), models[1].eval()
    xb.optim.swa_utils.update_bn([(x, None) for x in loader], models[0])
    torch.optim.swa_utils.update_bn([(torch.from_numpy(x), None) for x in loader], models[1])
    compare(*models)
    assert models[0].training == models[1].training
    assert models[0][1].momentum == models[1][1].momentum


def test_what_pytorch_refuses_is_refused(torch: Any) -> None:
    for swa, model in (
        (xb.optim.swa_utils, xb.nn.Linear(1, 1)),
        (torch.optim.swa_utils, torch.nn.Linear(1, 1)),
    ):
        for make in (swa.get_ema_avg_fn, swa.get_ema_multi_avg_fn):
            for decay in (-0.1, 1.1):
                with pytest.raises(ValueError, match="decay"):
                    make(decay)
        with pytest.raises((ValueError, AssertionError), match="avg_fn and multi_avg_fn"):
            swa.AveragedModel(
                model, avg_fn=swa.get_swa_avg_fn(), multi_avg_fn=swa.get_swa_multi_avg_fn()
            )
