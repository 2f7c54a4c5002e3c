"""Every row of the table beside PyTorch: state, outputs, gradients of inputs and parameters.

`nox -s torch_parity` runs these. Without PyTorch they are skipped with that reason, unless
XBACKPROP_TEST_REQUIRE lists torch.
"""

import importlib.util
import os
from typing import Any

import numpy as np
import pytest
from layer_cases import CASES, Case

import xbackprop as xb
from xbackprop import nn
from xbackprop.testing import TOLERANCES
from xbackprop.testing.structures import backward_of_all_inputs, random_like

pytestmark = [
    pytest.mark.torch_parity,
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
]

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
# PyTorch's float64 kernels hold these constants in float32; the gradient is compared to its digits.
FLOAT32_CONSTANTS = {
    "Hardsigmoid": "backward multiplies by 1/6",
    "CELU alpha": "backward multiplies by alpha and 1/alpha, and exp(x / alpha) by their product",
}
both_dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])


@pytest.fixture(scope="module")
def torch() -> Any:
    if importlib.util.find_spec("torch") is None:
        required = os.environ.get("XBACKPROP_TEST_REQUIRE", "").replace(",", " ").split()
        if "torch" in required:
            pytest.fail("XBACKPROP_TEST_REQUIRE lists torch, and PyTorch is not installed")
        pytest.skip("PyTorch is not installed; nox -s torch_parity installs it")
    import torch

    torch.manual_seed(0)
    return torch


@pytest.fixture(autouse=True)
def _on_the_cpu() -> Any:
    with xb.use_device("cpu"):
        yield


def draw(case: Case, dtype: str, seed: int = 0) -> list[np.ndarray]:
    made = case.inputs(np.random.default_rng(seed))
    inputs = [np.asarray(x) for x in (made if isinstance(made, tuple) else (made,))]
    return [x.astype(dtype) if x.dtype.kind == "f" else x for x in inputs]


def counterpart(case: Case, torch: Any, dtype: str) -> Any:
    return case.torch(torch).to(getattr(torch, dtype))


def tensors(inputs: list[np.ndarray], torch: Any) -> list[Any]:
    """As PyTorch takes them: floats with gradient, labels as int64."""
    made = []
    for array in inputs:
        if array.dtype.kind == "f":
            made.append(torch.tensor(array, requires_grad=True))
        else:
            made.append(torch.tensor(array.astype(np.int64)))
    return made


def as_tuple(value: Any) -> tuple[Any, ...]:
    """All arrays of nested tuples, in order."""
    if not isinstance(value, tuple):
        return (value,)
    return tuple(leaf for part in value for leaf in as_tuple(part))


def call(torch_module: Any, inputs: list[Any], torch: Any) -> Any:
    if isinstance(torch_module, torch.nn.ModuleDict):  # our Sequential with names
        (x,) = inputs
        for part in torch_module.values():
            x = part(x)
        return x
    return torch_module(*inputs)


def assert_close(
    received: Any, expected: Any, dtype: str, what: str, *, constants: str = "float64"
) -> None:
    assert (received is None) == (expected is None), what
    if expected is None:
        return
    tolerance = max(TOLERANCES[dtype].peer, 4 * float(np.finfo(constants).eps))
    expected = expected.detach().numpy()
    assert received.shape == expected.shape, what
    assert received.dtype == expected.dtype, what
    scale = max(1.0, np.abs(expected).max(initial=0.0))
    np.testing.assert_allclose(received, expected, rtol=0, atol=tolerance * scale, err_msg=what)


@both_dtypes
@pytest.mark.parametrize(
    ("mode", "case"),
    # In training a random layer draws other masks than PyTorch; see the last test for those.
    [
        pytest.param(mode, case, id=f"{mode}-{case.name.replace(' ', '-')}")
        for mode in ("train", "eval")
        for case in CASES
        if not (case.is_random and mode == "train")
    ],
)
def test_outputs_and_gradients(case: Case, dtype: str, mode: str, torch: Any) -> None:
    module = case.make().to(dtype=dtype).train(mode == "train")
    torch_module = counterpart(case, torch, dtype).train(mode == "train")
    module.load_state_dict(torch_module.state_dict())
    inputs = draw(case, dtype)
    torch_inputs = tensors(inputs, torch)

    output, saved = module.forward(*inputs)
    torch_output = call(torch_module, torch_inputs, torch)
    grad_output = random_like(output, np.random.default_rng(1))
    grads = backward_of_all_inputs(module, grad_output, saved, len(inputs))
    outputs, torch_outputs, grad_outputs = map(as_tuple, (output, torch_output, grad_output))
    assert len(outputs) == len(torch_outputs)
    for received, expected in zip(outputs, torch_outputs, strict=True):
        assert_close(np.asarray(received), expected, dtype, "output")
    torch_state = torch_module.state_dict()  # running statistics and long embeddings have changed
    for name, values in module.state_dict().items():
        assert_close(values, torch_state[name], dtype, name)
    if not torch_outputs[0].requires_grad:
        assert all(grad is None for grad in grads)
        return
    torch.autograd.backward(
        [tensor for tensor in torch_outputs if tensor.requires_grad],  # indices have no gradient
        [torch.tensor(grad) for grad in grad_outputs if grad is not None],
    )
    constants = "float32" if case.name in FLOAT32_CONSTANTS else "float64"
    for position, (grad, tensor) in enumerate(zip(grads, torch_inputs, strict=True)):
        what = f"gradient of input {position}"
        assert_close(grad, tensor.grad, dtype, what, constants=constants)
    torch_parameters = dict(torch_module.named_parameters())
    parameters = dict(module.named_parameters())
    assert list(parameters) == list(torch_parameters)
    for name, parameter in parameters.items():
        assert_close(parameter.grad, torch_parameters[name].grad, dtype, f"gradient of {name}")


@every_case
def test_state_dicts_load_into_each_other(case: Case, torch: Any) -> None:
    module, torch_module = case.make(), counterpart(case, torch, "float32")
    state = module.state_dict()
    assert list(state) == list(torch_module.state_dict())
    torch_module.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
    for name, tensor in torch_module.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), state[name], strict=True)
    fresh = case.make()
    for parameter in fresh.parameters():
        parameter.data = parameter.data + 1
    fresh.load_state_dict(torch_module.state_dict())
    for name, array in fresh.state_dict().items():
        np.testing.assert_array_equal(array, state[name], strict=True)


@pytest.mark.parametrize("name", ["MSELoss", "CrossEntropyLoss", "BCELoss", "BCEWithLogitsLoss"])
@both_dtypes
def test_a_loss_of_nothing(name: str, dtype: str, torch: Any) -> None:
    """The mean of no elements is NaN, their sum 0, in both libraries."""
    output = np.zeros((0, 3), dtype)
    target = np.zeros(0, np.int64) if name == "CrossEntropyLoss" else output
    for reduction in ("mean", "sum", "none"):
        ours = getattr(nn, name)(reduction=reduction)(output, target)
        theirs = getattr(torch.nn, name)(reduction=reduction)(
            torch.tensor(output), torch.tensor(target)
        )
        np.testing.assert_array_equal(ours, theirs.numpy())


@pytest.mark.torch_parity("CrossEntropyLoss")
@both_dtypes
def test_cross_entropy_where_every_label_is_ignored(dtype: str, torch: Any) -> None:
    logits, target = np.ones((2, 3), dtype), np.array([-100, -100])
    for reduction in ("mean", "sum", "none"):
        loss = nn.CrossEntropyLoss(reduction=reduction)
        output, saved = loss.forward(logits, target)
        tensor = torch.tensor(logits, requires_grad=True)
        theirs = torch.nn.CrossEntropyLoss(reduction=reduction)(tensor, torch.tensor(target))
        np.testing.assert_array_equal(output, theirs.detach().numpy())
        theirs.backward(torch.ones_like(theirs))
        grad = loss.backward(np.ones_like(output), saved)
        np.testing.assert_array_equal(grad, tensor.grad.numpy())


@pytest.mark.torch_parity("CrossEntropyLoss", "BCEWithLogitsLoss")
@both_dtypes
@pytest.mark.parametrize("scale", [30.0, 1e4])
def test_losses_of_extreme_logits(dtype: str, scale: float, torch: Any) -> None:
    """Where exp overflows and probabilities vanish."""
    rows = [[scale, -scale, 0.0], [-scale, -scale, -scale], [scale, scale, scale]]
    logits = np.array(rows, dtype)
    for ours, theirs, target in (
        (nn.CrossEntropyLoss(), torch.nn.CrossEntropyLoss(), np.array([1, 0, 2])),
        (nn.BCEWithLogitsLoss(), torch.nn.BCEWithLogitsLoss(), np.eye(3, dtype=dtype)),
    ):
        loss, saved = ours.forward(logits, target)
        tensor = torch.tensor(logits, requires_grad=True)
        torch_loss = theirs(tensor, torch.tensor(target))
        torch_loss.backward()
        assert_close(np.asarray(loss), torch_loss, dtype, type(ours).__name__)
        assert_close(ours.backward(1.0, saved), tensor.grad, dtype, type(ours).__name__)


@pytest.mark.torch_parity("BCELoss")
@both_dtypes
def test_bce_at_and_beside_the_ends(dtype: str, torch: Any) -> None:
    """Logarithms stop at -100, and the derivative's denominator at 1e-12."""
    p = np.array([0.0, 1.0, 0.0, 1.0, 1e-30, 0.5], dtype)
    y = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 0.25], dtype)
    loss, saved = nn.BCELoss().forward(p, y)
    tensor = torch.tensor(p, requires_grad=True)
    theirs = torch.nn.BCELoss()(tensor, torch.tensor(y))
    theirs.backward()
    assert_close(np.asarray(loss), theirs, dtype, "loss")
    # PyTorch's 1e-12 is a float32 in float64 too, 4e-9 below ours.
    np.testing.assert_allclose(nn.BCELoss().backward(1.0, saved), tensor.grad.numpy(), rtol=1e-8)


@pytest.mark.torch_parity("ReLU", "Sigmoid", "Tanh")
@both_dtypes
def test_activations_at_the_kink_and_at_the_ends(dtype: str, torch: Any) -> None:
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e4, -1e4, 1e-30], dtype)
    for name in ("ReLU", "Sigmoid", "Tanh"):
        output, saved = getattr(nn, name)().forward(x)
        tensor = torch.tensor(x, requires_grad=True)
        theirs = getattr(torch.nn, name)()(tensor)
        assert_close(output, theirs, dtype, name)
        theirs.backward(torch.ones_like(theirs))
        grad = getattr(nn, name)().backward(np.ones_like(x), saved)
        at = ~np.isnan(x)  # for NaN, ReLU's derivative is no number that matters
        np.testing.assert_allclose(grad[at], tensor.grad.numpy()[at], atol=1e-7, err_msg=name)


@pytest.mark.torch_parity("Dropout")
def test_dropout_keeps_as_many_and_scales_as_pytorch(torch: Any) -> None:
    x = np.ones(20_000, np.float32)
    for p in (0.1, 0.5, 0.9):
        ours = nn.Dropout(p, rng=0)(x)
        theirs = torch.nn.Dropout(p)(torch.tensor(x)).numpy()
        np.testing.assert_array_equal(np.unique(ours), np.unique(theirs))
        spread = 5 * np.sqrt(p * (1 - p) / x.size)
        assert abs((ours == 0).mean() - p) < spread
        assert abs((theirs == 0).mean() - p) < spread
