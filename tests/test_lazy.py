"""LazyLinear: nothing exists before a forward has succeeded, everything as usual afterwards."""

import copy
import pickle
import threading
from typing import Any

import numpy as np
import pytest
from needs_torch import import_torch

import xbackprop as xb
from xbackprop import nn
from xbackprop.backend.device import Device
from xbackprop.module import UninitializedParameter


def batch(*shape: int, dtype: Any = np.float32) -> Any:
    return xb.asarray(np.random.default_rng(0).normal(size=shape), dtype=dtype)


def same_bits(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(
        first[name].tobytes() == second[name].tobytes() for name in first
    )


def is_uninitialized(layer: nn.LazyLinear) -> bool:
    return all(type(p) is UninitializedParameter for p in layer.parameters())


def test_the_first_input_tells_in_features(xb_device: Device) -> None:
    layer = nn.LazyLinear(2, rng=0)
    assert layer.in_features == 0
    assert is_uninitialized(layer)
    assert repr(layer) == "LazyLinear(0, 2, bias=True)"
    assert layer(batch(4, 3)).shape == (4, 2)
    assert layer.in_features == 3
    assert layer.weight.shape == (2, 3)
    assert layer.weight.device == layer.bias.device == xb_device
    assert repr(layer) == "LazyLinear(3, 2, bias=True)"
    with pytest.raises(ValueError, match=r"LazyLinear expects x of shape \(\.\.\., 3\); got \(4,"):
        layer(batch(4, 5))
    first = layer.state_dict()
    bound = 1 / np.sqrt(3)
    assert all(0 < np.abs(array).max() <= bound for array in first.values())
    other = nn.LazyLinear(2, rng=0)
    other(batch(1, 3))
    assert same_bits(first, other.state_dict())


@pytest.mark.parametrize(
    ("x", "error"),
    [
        (np.zeros((4, 3)), TypeError),
        (np.zeros((4, 3), np.int64), TypeError),
        (np.zeros((), np.float32), ValueError),
        ([[1.0]], TypeError),
    ],
)
def test_a_refused_input_creates_nothing(x: Any, error: Any, xb_device: Device) -> None:
    layer = nn.LazyLinear(2, rng=0)
    given = xb.asarray(x, dtype=x.dtype) if isinstance(x, np.ndarray) else x
    with pytest.raises(error, match=r"^LazyLinear expects x"):
        layer(given)
    assert is_uninitialized(layer)


def test_a_failure_further_on_creates_nothing_and_draws_nothing(xb_device: Device) -> None:
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.LazyLinear(2, rng=rng), nn.Linear(3, 1))
    before = rng.bit_generator.state
    for call in (model, model.forward):
        with pytest.raises(ValueError, match=r"Linear \(Sequential\.1\) expects"):
            call(batch(4, 5))
        assert is_uninitialized(model[0])
    assert rng.bit_generator.state == before
    loss = nn.MSELoss()
    fits = nn.Sequential(nn.LazyLinear(2, rng=1))
    with pytest.raises(ValueError, match="MSELoss expects"):
        xb.value_and_grad(fits, loss)(batch(4, 3), batch(4, 1))
    assert is_uninitialized(fits[0])
    fits(batch(4, 6))
    assert fits[0].in_features == 6


def test_the_first_step_has_gradients(xb_device: Device) -> None:
    """Forward, loss and backward are one call there: what is created is used before it is kept."""
    x, y = batch(4, 3), batch(4, 2)
    lazy = nn.Sequential(nn.Recompute(nn.Sequential(nn.LazyLinear(2, rng=0))), nn.Tanh())
    xb.value_and_grad(lazy, nn.MSELoss())(x, y)
    gradients = [xb.to_host(p.grad) for p in lazy.parameters()]
    assert [p.contributions for p in lazy.parameters()] == [1, 1]
    plain = nn.Sequential(nn.Linear(3, 2), nn.Tanh())
    plain.load_state_dict(dict(zip(plain.state_dict(), lazy.state_dict().values(), strict=True)))
    with xb.use_references():  # else this one would run as one op
        xb.value_and_grad(plain, nn.MSELoss())(x, y)
    for received, parameter in zip(gradients, plain.parameters(), strict=True):
        np.testing.assert_array_equal(received, xb.to_host(parameter.grad))


def test_a_layer_used_twice_is_created_once(xb_device: Device) -> None:
    layer = nn.LazyLinear(3, rng=0)
    nn.Sequential(layer, nn.Tanh(), layer)(batch(4, 3))
    assert layer.weight.shape == (3, 3)
    narrow = nn.LazyLinear(2)
    with pytest.raises(ValueError, match=r"Sequential\.0\) expects .* 3\); got \(4, 2"):
        nn.Sequential(narrow, narrow)(batch(4, 3))
    assert is_uninitialized(narrow)


def test_tied_parameters_stay_tied(xb_device: Device) -> None:
    first, second = nn.LazyLinear(3, rng=0), nn.LazyLinear(3, rng=1)
    second.weight = first.weight
    nn.Sequential(first, nn.Tanh(), second)(batch(4, 3))
    assert type(first.weight) is nn.Parameter
    assert second.weight is first.weight
    assert second.bias is not first.bias
    first, second = nn.LazyLinear(3, rng=0), nn.LazyLinear(3, rng=1)
    second.weight = first.weight
    first(batch(4, 3))
    second(batch(4, 3))
    assert second.weight is first.weight
    model = nn.Sequential(nn.LazyLinear(3), nn.LazyLinear(3))
    model[1].weight = model[0].weight
    rebuilt = nn.from_config(model.config())
    source = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    source[1].weight = source[0].weight
    rebuilt.load_state_dict(source.state_dict())
    assert type(rebuilt[0].weight) is nn.Parameter
    assert rebuilt[1].weight is rebuilt[0].weight


def test_threads_that_meet_at_the_first_call_agree(xb_device: Device) -> None:
    layer = nn.LazyLinear(64, rng=0)
    x = batch(8, 32)
    barrier = threading.Barrier(4)
    outputs: list[np.ndarray] = []

    def run() -> None:
        with xb.use_device(xb_device):
            barrier.wait()
            outputs.append(xb.to_host(layer(x)))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outputs) == 4
    for output in outputs:
        np.testing.assert_array_equal(output, outputs[0])


def test_an_optimizer_refuses_what_has_no_values(xb_device: Device) -> None:
    layer = nn.LazyLinear(2)
    with pytest.raises(TypeError, match=r"UninitializedParameter.*Run one forward first"):
        xb.optim.SGD(layer.parameters(), lr=0.1)
    layer(batch(1, 3))
    xb.optim.SGD(layer.parameters(), lr=0.1)


# --- state --------------------------------------------------------------------------------


def test_values_that_are_loaded_initialize(xb_device: Device) -> None:
    source = nn.Linear(3, 2, rng=5)
    layer = nn.LazyLinear(2)
    layer.weight.requires_grad = False
    layer.load_state_dict(source.state_dict())
    assert layer.in_features == 3
    assert layer.weight.device == xb_device
    assert not layer.weight.requires_grad
    assert layer.bias.requires_grad
    np.testing.assert_array_equal(xb.to_host(layer(batch(4, 3))), xb.to_host(source(batch(4, 3))))


def test_a_state_without_values_keeps_a_layer_without_values(xb_device: Device) -> None:
    layer, other = nn.LazyLinear(2), nn.LazyLinear(2)
    state = layer.state_dict()
    assert {name: array.shape for name, array in state.items()} == {"weight": (2, 0), "bias": (0,)}
    other.load_state_dict(state)
    assert is_uninitialized(other)
    other(batch(1, 3))
    with pytest.raises(ValueError, match=r"weight has shape \(2, 0\), expected \(2, 3\)"):
        other.load_state_dict(state)


def test_a_refused_state_initializes_nothing(xb_device: Device) -> None:
    layer = nn.LazyLinear(2)
    good = nn.Linear(3, 2).state_dict()
    for state in (
        {"weight": good["weight"]},
        good | {"bias": np.zeros(3)},
        good | {"weight": np.zeros((3, 3))},
        good | {"weight": np.zeros(2)},
        good | {"gamma": np.zeros(2)},
    ):
        with pytest.raises(ValueError, match="load_state_dict changed nothing"):
            layer.load_state_dict(state)
        assert is_uninitialized(layer)
    layer.load_state_dict({"weight": good["weight"]}, strict=False)
    assert type(layer.bias) is UninitializedParameter
    with pytest.raises(ValueError, match=r"expects x of shape \(\.\.\., 3\); got \(4, 5\)"):
        layer(batch(4, 5))
    layer(batch(4, 3))
    np.testing.assert_array_equal(layer.state_dict()["weight"], good["weight"])
    assert layer.bias.shape == (2,)


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "config"])
def test_copies_before_the_first_forward(way: str, xb_device: Device) -> None:
    layer = nn.LazyLinear(2, bias=False, rng=0)
    layer.weight.requires_grad = False
    if way == "deepcopy":
        other = copy.deepcopy(layer)
    elif way == "pickle":
        other = pickle.loads(pickle.dumps(layer)).to(xb_device)
    else:
        other = nn.from_config(layer.config())
        other.reset_parameters(0)
        layer.reset_parameters(0)
    assert is_uninitialized(other)
    assert other.device == xb_device
    x = batch(4, 3)
    np.testing.assert_array_equal(xb.to_host(other(x)), xb.to_host(layer(x)))
    assert other.weight.requires_grad is (way == "config")


@pytest.mark.parametrize("first_call", [False, True])
def test_checkpoints_before_and_after_the_first_forward(
    first_call: bool, xb_device: Device, tmp_path: Any
) -> None:
    layer = nn.LazyLinear(2, rng=0)
    if first_call:
        layer(batch(4, 3))
    xb.save(tmp_path / "it", layer)
    loaded = xb.load(tmp_path / "it").model
    assert is_uninitialized(loaded) is not first_call
    assert same_bits(loaded.state_dict(), layer.state_dict())
    assert loaded(batch(4, 3)).shape == (4, 2)


def test_to_and_seeds_before_the_first_forward(xb_device: Device) -> None:
    model = nn.Sequential(nn.LazyLinear(2), nn.Tanh(), nn.LazyLinear(1), rng=0).to("cpu", "float64")
    assert model.dtype == np.float64
    model.to(xb_device)
    model(batch(4, 3, dtype=np.float64))
    assert model[2].weight.dtype == np.float64
    single = nn.Sequential(nn.LazyLinear(2), nn.Tanh(), nn.LazyLinear(1), rng=0)
    single(batch(4, 3))
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array.astype(np.float32), single.state_dict()[name])
    assert not same_bits({"": single[0].state_dict()["bias"]}, {"": np.zeros(2, np.float32)})


@pytest.mark.torch_parity
def test_states_before_the_first_forward_beside_pytorch() -> None:
    torch = import_torch()
    ours, theirs = nn.LazyLinear(2, device="cpu"), torch.nn.LazyLinear(2)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs(torch.zeros(1, 3))
    ours.load_state_dict(theirs.state_dict())
    np.testing.assert_array_equal(ours.weight.data, theirs.weight.detach().numpy())
