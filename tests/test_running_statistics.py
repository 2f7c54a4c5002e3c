"""Running statistics of normalizations: when they move, when they do not, and by how much."""

from typing import Any

import numpy as np
import pytest
from needs_torch import import_torch

import xbackprop as xb
from xbackprop import nn
from xbackprop.backend.device import Device

RNG = np.random.default_rng(0)
BATCHES = [RNG.normal([1.0, -2.0, 5.0], [1.0, 3.0, 0.5], size=(n, 3)) for n in (6, 9, 4)]


def on_device(x: Any) -> Any:
    return xb.asarray(np.asarray(x, np.float32))


def statistics(layer: nn.Module) -> dict[str, Any]:
    return {k: v for k, v in layer.state_dict().items() if k not in ("weight", "bias")}


def unchanged(layer: nn.Module) -> bool:
    state, first = statistics(layer), statistics(type(layer)(layer.num_features))
    return all(state[name].tobytes() == first[name].tobytes() for name in first)


@pytest.mark.parametrize("momentum", [0.1, 0.7, 1.0, 0.0, None])
def test_batch_norm_moves_them(momentum: float | None, xb_device: Device) -> None:
    layer = nn.BatchNorm1d(3, momentum=momentum)
    expected = [np.zeros(3), np.ones(3)]
    with xb.transfer_guard(uploads=len(BATCHES), downloads=0, synchronizations=0):
        for batch in BATCHES:
            layer(on_device(batch))
    for number, batch in enumerate(BATCHES, 1):
        share = 1 / number if momentum is None else momentum
        for n, news in enumerate((batch.mean(0), batch.var(0, ddof=1))):
            expected[n] = (1 - share) * expected[n] + share * news
    received = statistics(layer)
    np.testing.assert_allclose(received["running_mean"], expected[0], rtol=1e-5)
    np.testing.assert_allclose(received["running_var"], expected[1], rtol=1e-5)
    assert received["num_batches_tracked"].dtype == np.int64
    assert received["num_batches_tracked"] == len(BATCHES)
    layer.reset_running_stats()
    assert unchanged(layer)


def test_evaluation_takes_them_and_leaves_them(xb_device: Device) -> None:
    layer = nn.BatchNorm1d(3)
    layer(on_device(BATCHES[0]))
    before = statistics(layer)
    output = xb.to_host(layer.eval()(on_device(BATCHES[1])))
    after = statistics(layer)
    assert all(after[name].tobytes() == before[name].tobytes() for name in before)
    expected = (BATCHES[1] - before["running_mean"]) / np.sqrt(before["running_var"] + 1e-5)
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)


def test_a_later_training_call_does_not_reach_into_what_evaluation_saved(
    xb_device: Device,
) -> None:
    grads = []
    for has_training_between in (False, True):
        layer = nn.BatchNorm1d(3).eval()
        output, saved = layer.forward(on_device(BATCHES[0]))
        if has_training_between:
            layer.train()(on_device(BATCHES[1] * 10))
        grads.append(xb.to_host(layer.backward(output, saved)).tobytes())
        grads.append(xb.to_host(layer.weight.grad).tobytes())
    assert grads[:2] == grads[2:]


def test_a_refused_call_leaves_them(xb_device: Device) -> None:
    """Be it refused by the layer, by one after it, or by the loss."""
    layer = nn.BatchNorm1d(3)
    with pytest.raises(ValueError, match="more than one value per channel"):
        layer(on_device(np.ones((1, 3))))
    network = nn.Sequential(layer, nn.Linear(4, 2, rng=0))
    with pytest.raises(ValueError, match="Linear"):
        network(on_device(BATCHES[0]))
    with pytest.raises(ValueError, match="MSELoss"):
        xb.value_and_grad(layer, nn.MSELoss())(on_device(BATCHES[0]), on_device([1.0]))
    assert unchanged(layer)


def test_recompute_moves_them_once(xb_device: Device) -> None:
    states = []
    for wrap in (lambda layer: layer, nn.Recompute):
        layer = nn.BatchNorm1d(3)
        network = wrap(layer)
        for batch in BATCHES:
            output, saved = network.forward(on_device(batch))
            network.backward(output, saved)
        states.append({name: a.tobytes() for name, a in statistics(layer).items()})
    assert states[0] == states[1]


def test_a_layer_used_twice_in_one_call_moves_them_twice(xb_device: Device) -> None:
    layer, apart = nn.BatchNorm1d(3, affine=False), nn.BatchNorm1d(3, affine=False)
    nn.Sequential(layer, layer)(on_device(BATCHES[0]))
    apart(apart(on_device(BATCHES[0])))
    for name, values in statistics(apart).items():
        assert statistics(layer)[name].tobytes() == values.tobytes()
    assert layer.num_batches_tracked == 2


def test_switched_off_later_they_stay(xb_device: Device) -> None:
    """As in PyTorch: training normalizes by the batch and moves nothing, evaluation takes them."""
    layer = nn.BatchNorm1d(3)
    layer.track_running_stats = False
    output = xb.to_host(layer(on_device(BATCHES[0])))
    np.testing.assert_allclose(output.mean(0), np.zeros(3), atol=1e-5)
    assert unchanged(layer)
    output = xb.to_host(layer.eval()(on_device(BATCHES[0])))
    np.testing.assert_allclose(output, BATCHES[0] / np.sqrt(1 + 1e-5), rtol=1e-5)


@pytest.mark.parametrize("shape", [(0, 3), (2, 3, 0)])
def test_an_empty_batch_is_counted_and_leaves_them(
    shape: tuple[int, ...], xb_device: Device
) -> None:
    layer = nn.BatchNorm1d(3)
    output, saved = layer.forward(on_device(np.zeros(shape)))
    assert layer.backward(output, saved).shape == output.shape == shape
    assert not xb.to_host(layer.weight.grad).any()
    assert layer.state_dict()["num_batches_tracked"] == 1
    assert layer.state_dict()["running_var"].tolist() == [1, 1, 1]


def test_without_them_there_is_no_state(xb_device: Device) -> None:
    layer = nn.BatchNorm1d(3, affine=False, track_running_stats=False)
    assert layer.state_dict() == layer.extra_state() == {}
    assert layer.running_mean is layer.running_var is layer.num_batches_tracked is None
    layer.reset_parameters()
    x = on_device(BATCHES[0])
    assert xb.to_host(layer(x)).tobytes() == xb.to_host(layer.eval()(x)).tobytes()


def test_reset_parameters(xb_device: Device) -> None:
    layer = nn.BatchNorm1d(3)
    layer.load_state_dict({name: a + 2 for name, a in layer.state_dict().items()})
    layer.reset_parameters()
    first = nn.BatchNorm1d(3).state_dict()
    assert {k: v.tobytes() for k, v in layer.state_dict().items()} == {
        k: v.tobytes() for k, v in first.items()
    }


def test_instance_norm_moves_them_by_the_mean_over_samples(xb_device: Device) -> None:
    layer = nn.InstanceNorm1d(3, momentum=0.3, track_running_stats=True)
    x = np.random.default_rng(0).normal(3.0, 2.0, size=(4, 3, 5))
    layer(on_device(x))
    received = statistics(layer)
    expected = 0.3 * x.mean((0, 2)), 0.7 + 0.3 * x.var(2, ddof=1).mean(0)
    np.testing.assert_allclose(received["running_mean"], expected[0], rtol=1e-5)
    np.testing.assert_allclose(received["running_var"], expected[1], rtol=1e-5)
    assert received["num_batches_tracked"] == 0


def test_instance_norm_of_an_empty_batch_leaves_them(xb_device: Device) -> None:
    layer = nn.InstanceNorm1d(3, affine=True, track_running_stats=True)
    for shape in ((0, 3, 2), (2, 3, 0)):
        output, saved = layer.forward(on_device(np.zeros(shape)))
        assert layer.backward(output, saved).shape == output.shape == shape
    assert unchanged(layer)


@pytest.mark.torch_parity(*(f"{kind}Norm{n}d" for kind in ("Batch", "Instance") for n in (1, 2, 3)))
@pytest.mark.parametrize("options", [{}, {"momentum": None}, {"momentum": 0.7, "affine": False}])
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("kind", ["Batch", "Instance"])
def test_many_batches_beside_pytorch(kind: str, dims: int, options: dict[str, Any]) -> None:
    torch = import_torch()
    name = f"{kind}Norm{dims}d"
    options = {"track_running_stats": True, **options}
    ours = getattr(nn, name)(3, **options, device="cpu", dtype="float64")
    theirs = getattr(torch.nn, name)(3, **options).double()
    assert repr(ours) == repr(theirs)
    rng = np.random.default_rng(dims)
    for length in (2, 3, 0, 4):
        x = rng.normal(2.0, 3.0, size=(5, 3, *(length,) * dims))
        ours(x), theirs(torch.tensor(x))
    for key, values in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[key], values.numpy(), rtol=1e-12, err_msg=key)


@pytest.mark.torch_parity("BatchNorm1d")
def test_far_from_zero_they_are_at_most_twice_as_wrong_as_those_of_pytorch() -> None:
    torch = import_torch()
    x = (1e8 + np.random.default_rng(0).normal(size=(4096, 50))).astype(np.float32)
    ours, theirs = nn.BatchNorm1d(50, momentum=1.0, device="cpu"), torch.nn.BatchNorm1d(50)
    theirs.momentum = 1.0
    ours(x), theirs(torch.tensor(x))
    exact = x.astype(np.float64)
    for name, true in (("running_mean", exact.mean(0)), ("running_var", exact.var(0, ddof=1))):
        units = np.spacing(abs(true).astype(np.float32))
        wrong = [
            np.max(abs(np.asarray(library.state_dict()[name]) - true) / units)
            for library in (ours, theirs)
        ]
        assert wrong[0] <= 2 * max(0.5, wrong[1]), name
