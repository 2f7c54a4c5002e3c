"""A GPT of two blocks beside the same in PyTorch: logits, gradients, and ten steps of AdamW.

`nox -s torch_parity` runs these. Without PyTorch they are skipped with that reason, unless
XBACKPROP_TEST_REQUIRE lists torch.
"""

from typing import Any

import numpy as np
import pytest
from layer_cases.transformer import gpt_torch
from needs_torch import import_torch

import xbackprop as xb

pytestmark = pytest.mark.torch_parity("GPT")

VOCAB, CONTEXT, LAYERS, HEADS, WIDTH = 50, 16, 2, 4, 32
TOLERANCES = {"float32": 1e-4, "float64": 1e-9}
both_dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])


@pytest.fixture(scope="module")
def torch() -> Any:
    return import_torch()


@pytest.fixture(autouse=True)
def _on_the_cpu() -> Any:
    with xb.use_device("cpu"):
        yield


def pair(torch: Any, dtype: str) -> tuple[Any, Any]:
    model = xb.nn.GPT(VOCAB, CONTEXT, LAYERS, HEADS, WIDTH, rng=0, dtype=dtype)
    other = gpt_torch(torch, VOCAB, CONTEXT, LAYERS, HEADS, WIDTH).to(getattr(torch, dtype))
    other.load_state_dict({name: torch.tensor(a) for name, a in model.state_dict().items()})
    return model, other


def batch(step: int = 0) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.random.default_rng(step).integers(0, VOCAB, (4, CONTEXT + 1))
    return tokens[:, :-1], tokens[:, 1:].reshape(-1)


def torch_loss(torch: Any, other: Any, x: np.ndarray, y: np.ndarray) -> Any:
    logits = other(torch.tensor(x)).flatten(0, 1)
    return logits, torch.nn.functional.cross_entropy(logits, torch.tensor(y))


def close(received: Any, expected: Any, dtype: str, what: str = "") -> None:
    """Allow the tolerance times the largest magnitude of the group."""
    expected = expected.detach().numpy()
    allowed = TOLERANCES[dtype] * max(float(np.abs(expected).max()), 1e-8)
    np.testing.assert_allclose(received, expected, rtol=0, atol=allowed, err_msg=what)


@both_dtypes
def test_logits_loss_and_every_gradient(dtype: str, torch: Any) -> None:
    model, other = pair(torch, dtype)
    x, y = batch()
    flat = xb.nn.Sequential(model, xb.nn.Flatten(0, 1))
    loss, logits = xb.value_and_grad(flat, xb.nn.CrossEntropyLoss())(x, y)
    expected_logits, expected = torch_loss(torch, other, x, y)
    expected.backward()
    close(logits, expected_logits, dtype)
    close(loss, expected, dtype)
    gradients = dict(model.named_parameters())
    assert len(gradients) == 4 + 12 * LAYERS  # embeddings, last norm; twelve a block
    for name, parameter in other.named_parameters():
        close(gradients[name].grad, parameter.grad, dtype, name)


@both_dtypes
def test_ten_steps_of_adamw(dtype: str, torch: Any) -> None:
    model, other = pair(torch, dtype)
    groups = model.parameter_groups(0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    theirs = dict(other.named_parameters())
    other_groups = [
        {**group, "params": [theirs[names[id(parameter)]] for parameter in group["params"]]}
        for group in groups
    ]
    options: dict[str, Any] = {"lr": 1e-2, "betas": (0.9, 0.95)}
    optimizer = xb.optim.AdamW(groups, **options)
    other_optimizer = torch.optim.AdamW(other_groups, **options)
    flat = xb.nn.Sequential(model, xb.nn.Flatten(0, 1))
    step = xb.value_and_grad(flat, xb.nn.CrossEntropyLoss())
    losses = []
    for number in range(10):
        x, y = batch(number % 3)
        optimizer.zero_grad()
        loss, _ = step(x, y)
        optimizer.step()
        other_optimizer.zero_grad()
        _, expected = torch_loss(torch, other, x, y)
        expected.backward()
        other_optimizer.step()
        close(loss, expected, dtype, f"step {number}")
        losses.append(float(loss))
    assert losses[-1] < losses[0] - 0.3
