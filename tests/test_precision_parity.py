"""Half precision beside PyTorch: autocast in bfloat16 on the CPU, and the course of a GradScaler.

`nox -s torch_parity` runs these. Without PyTorch they are skipped with that reason, unless
XBACKPROP_TEST_REQUIRE lists torch.
"""

from typing import Any

import numpy as np
import pytest
from needs_torch import import_torch

import xbackprop as xb
from xbackprop import nn

pytestmark = pytest.mark.torch_parity("half precision")

# Of the largest element: bfloat16 has units of 0.004, and PyTorch rounds in other places.
TOLERANCE = 0.03


@pytest.fixture(scope="module")
def torch() -> Any:
    return import_torch()


@pytest.fixture(autouse=True)
def _on_the_cpu() -> Any:
    with xb.use_device("cpu"):
        yield


def mlp(module: Any) -> Any:
    layers = [module.Linear(12, 24), module.LayerNorm(24), module.GELU(), module.Linear(24, 5)]
    return module.Sequential(*layers)


def cnn(module: Any) -> Any:
    return module.Sequential(
        module.Conv2d(3, 8, 3, padding=1), module.GroupNorm(2, 8), module.ReLU(),
        module.MaxPool2d(2), module.Flatten(), module.Linear(32, 5),
    )  # fmt: skip


def encoder(module: Any) -> Any:
    layer = module.TransformerEncoderLayer(12, 3, 24, dropout=0.0, batch_first=True)
    return module.Sequential(layer, module.Flatten(), module.Linear(48, 5))


@pytest.mark.parametrize(
    ("make", "shape"), [(mlp, (6, 12)), (cnn, (6, 3, 4, 4)), (encoder, (6, 4, 12))]
)
def test_loss_and_gradients_are_those_of_autocast(
    make: Any, shape: tuple[int, ...], torch: Any
) -> None:
    xb.manual_seed(0)
    model, other = make(nn), make(torch.nn)
    other.load_state_dict({name: torch.tensor(a) for name, a in model.state_dict().items()})
    xb.set_precision(model, "bfloat16")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=shape).astype(np.float32), rng.integers(0, 5, 6)
    loss, output = xb.value_and_grad(model, nn.CrossEntropyLoss())(x, y)
    with torch.autocast("cpu", torch.bfloat16):
        expected = other(torch.tensor(x))
        expected_loss = torch.nn.functional.cross_entropy(expected, torch.tensor(y))
    expected_loss.backward()
    assert float(loss) == pytest.approx(expected_loss.item(), rel=0.01)
    pairs = {"output": (output, expected)}
    pairs |= {
        name: (parameter.grad, dict(other.named_parameters())[name].grad)
        for name, parameter in model.named_parameters()
    }
    for name, (received, tensor) in pairs.items():
        reference = tensor.detach().float().numpy()
        allowed = TOLERANCE * max(float(np.abs(reference).max()), 0.01)
        np.testing.assert_allclose(received, reference, rtol=0, atol=allowed, err_msg=name)


def test_the_course_of_the_scale(torch: Any) -> None:
    options = {"init_scale": 64.0, "growth_interval": 2}
    ours, theirs = xb.GradScaler(**options), torch.amp.GradScaler("cpu", **options)
    parameter = xb.Parameter(np.ones(2, np.float32))
    optimizer = xb.optim.SGD([parameter], lr=0.1)
    tensor = torch.ones(2, requires_grad=True)
    other = torch.optim.SGD([tensor], lr=0.1)
    for size in (1.0, 1.0, np.inf, 1.0, np.nan, 1.0, 1.0, 1.0, 1.0):
        theirs.scale(torch.tensor(1.0))  # PyTorch's scaler wakes up
        optimizer.zero_grad()
        scale = ours.grad_output(np.float32(1.0))
        parameter.accumulate(np.full(2, size * scale, np.float32))
        tensor.grad = torch.full((2,), float(size * theirs.get_scale()))
        ours.step(optimizer)
        ours.update()
        theirs.step(other)
        theirs.update()
        assert ours.get_scale() == theirs.get_scale()
        np.testing.assert_allclose(parameter.data, tensor.detach().numpy(), rtol=1e-6)
    assert ours.state_dict() == theirs.state_dict()
    assert xb.GradScaler().state_dict() == {**torch.amp.GradScaler("cpu").state_dict(),
                                            **xb.GradScaler().state_dict()}  # fmt: skip
    ours.load_state_dict(theirs.state_dict())
