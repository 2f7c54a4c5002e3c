"""What the rows of convolutions do not say: transfers, memory, skipped gradients, first values."""

import math
from typing import Any

import numpy as np
import pytest
from needs_torch import import_torch

import xbackprop as xb
from xbackprop import nn
from xbackprop.backend.device import Device
from xbackprop.nn.convolution.convolution import convolution_forward


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


class Calls:
    """Notes the op calls of one name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[tuple[Any, Any]] = []

    def before(self, call: Any) -> None:
        pass

    def after(self, call: Any, result: Any) -> None:
        if call.op.name == self.name:
            self.seen.append((call, result))


def small_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding="same", rng=0),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2, padding_mode="reflect", rng=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 3, rng=2),
    )


@pytest.mark.parametrize("xb_device", ["fake", "fake:1"], indirect=True)
def test_a_step_uploads_its_batch_and_nothing_else(xb_device: Device) -> None:
    model = small_network()
    optimizer = xb.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    compute = xb.value_and_grad(model, nn.CrossEntropyLoss())
    for seed in range(3):
        x, y = draw(5, 1, 8, 8, seed=seed), np.array([0, 1, 2, 0, 1])
        with xb.transfer_log() as log:
            optimizer.zero_grad()
            compute(xb.to_device(x), xb.to_device(y))
            optimizer.step()
        assert (log.uploads, log.bytes_uploaded) == (2, x.nbytes + y.nbytes), log.events
        assert (log.downloads, log.synchronizations) == (0, 0)


def test_a_small_network_learns(xb_device: Device) -> None:
    """Whether a row or a column is lit, wherever it is."""
    rng = np.random.default_rng(0)
    x = np.zeros((32, 1, 8, 8), np.float32)
    y = np.arange(32) % 2
    for image, is_column, at in zip(x, y, rng.integers(0, 8, size=32), strict=True):
        image[(0, slice(None), at) if is_column else (0, at)] = 1
    model = small_network()
    optimizer = xb.optim.Adam(model.parameters(), lr=0.01)
    compute = xb.value_and_grad(model, nn.CrossEntropyLoss())
    for _ in range(100):
        optimizer.zero_grad()
        compute(xb.to_device(x), xb.to_device(y))
        optimizer.step()
    assert (xb.to_host(model(xb.to_device(x))).argmax(axis=1) == y).all()


def test_what_is_not_wanted_is_not_computed(xb_device: Device) -> None:
    layer = nn.Conv2d(2, 3, 3, rng=0)
    x, calls = xb.asarray(draw(2, 2, 4, 5)), Calls("convolution_backward")
    with xb.observe(calls):
        for wanted in ((True, True, True), (False, True, False), (True, False, True)):
            layer.weight.requires_grad, layer.bias.requires_grad = wanted[1:]
            output, saved = layer.forward(x)
            grad = layer.backward(output, saved, input_grad=wanted[0])
            assert (grad is not None) == wanted[0]
            assert tuple(part is not None for part in calls.seen.pop()[1]) == wanted


def test_windows_are_not_saved() -> None:
    with xb.use_device("cpu"):
        layer = nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect", rng=0)
        x = draw(2, 2, 4, 5)
        _, saved = convolution_forward(
            x,
            layer.weight.value,
            None,
            layer.stride,
            ((1, 1), (1, 1)),
            layer.dilation,
            1,
            "reflect",
        )
    arrays = [part for part in saved if isinstance(part, np.ndarray)]
    assert len(arrays) == 2
    assert arrays[0] is x
    assert arrays[1] is layer.weight.value


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (lambda: nn.Conv2d(8, 64, 5, groups=2, rng=0), 4 * 25),
        (lambda: nn.Conv1d(16, 512, 4, rng=0), 16 * 4),
        (lambda: nn.Conv3d(2, 128, (1, 2, 3), rng=0), 2 * 6),
        (lambda: nn.ConvTranspose2d(64, 256, 2, groups=2, rng=0), 128 * 4),
    ],
)
def test_first_values_are_uniform_with_the_bound_of_the_fan_in(layer: Any, fan_in: int) -> None:
    made, bound = layer(), 1 / math.sqrt(fan_in)
    for values in made.state_dict().values():
        assert 0.9 * bound < np.abs(values).max() <= bound
    before = made.state_dict()
    made.reset_parameters(0)
    for name, values in made.state_dict().items():
        np.testing.assert_array_equal(values, before[name])
    made.reset_parameters(1)
    assert not np.array_equal(made.state_dict()["weight"], before["weight"])


def test_an_empty_batch_of_every_padding(xb_device: Device) -> None:
    for mode in ("zeros", "reflect", "replicate", "circular"):
        layer = nn.Conv2d(2, 3, 3, padding=1, padding_mode=mode, rng=0)
        output, saved = layer.forward(xb.asarray(draw(0, 2, 4, 5)))
        assert output.shape == (0, 3, 4, 5)
        assert layer.backward(output, saved).shape == (0, 2, 4, 5)
        assert not xb.to_host(layer.weight.grad).any()


def test_same_adds_the_odd_zero_at_the_end(xb_device: Device) -> None:
    layer = nn.Conv1d(1, 1, 2, padding="same", bias=False)
    layer.load_state_dict({"weight": np.array([[[1, 10]]], np.float32)})
    assert xb.to_host(layer(xb.asarray([[1.0, 2.0, 3.0]]))).tolist() == [[21, 32, 3]]


def test_flops_count_products_and_sums() -> None:
    x, weight = draw(2, 4, 5, 6), draw(6, 2, 3, 2)
    options = ((2, 1), ((1, 1), (0, 2)), (1, 2), 2, "zeros")
    output, _ = convolution_forward(x, weight, None, *options)
    assert convolution_forward.flops(x, weight, None, *options) == 2 * output.size * 2 * 3 * 2


SHOWN = [
    ("Conv2d", (2, 4, 3, 2, 1, 2, 2, False, "reflect")),
    ("Conv2d", (1, 1, 3)),
    ("Conv2d", (1, 1, (3, 2), 1, "same")),
    ("Conv1d", (1, 1, 3, 1, "valid")),
    ("Conv3d", (1, 1, 3, 2, (0, 1, 0))),
    ("ConvTranspose2d", (2, 4, 3, (2, 3), 1, 1, 2, False, 2)),
    ("ConvTranspose1d", (1, 1, 3)),
    ("Unfold", (3, 1, (0, 1))),
    ("Fold", ((5, 6), 3, 2)),
]


@pytest.mark.torch_parity(
    "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "Fold", "Unfold"
)
@pytest.mark.parametrize(("name", "arguments"), SHOWN)
def test_repr_is_pytorchs(name: str, arguments: Any) -> None:
    theirs = getattr(import_torch().nn, name)(*arguments)
    assert repr(getattr(nn, name)(*arguments)).replace("'", "") == repr(theirs)


# --- transposed ---------------------------------------------------------------------------


def test_output_size_is_output_padding(xb_device: Device) -> None:
    x = xb.asarray(draw(2, 2, 3, 4))
    for added in ((0, 0), (1, 0), (0, 2), (1, 2)):
        layers = [nn.ConvTranspose2d(2, 3, 3, (2, 3), 1, more, rng=0) for more in (0, added)]
        size = tuple(np.add((5, 10), added))
        results = []
        for layer, sizes in zip(layers, ([size, (7, 9, *size)], [None]), strict=True):
            for output_size in sizes:
                layer.zero_grad()
                output, saved = layer.forward(x, output_size)
                grad = xb.asarray(draw(*output.shape, seed=1))
                parts = (output, layer.backward(grad, saved), layer.weight.grad, layer.bias.grad)
                results.append([xb.to_host(part).copy() for part in parts])
        assert results[0][0].shape[2:] == size
        for result in results[:-1]:
            for received, expected in zip(result, results[-1], strict=True):
                np.testing.assert_array_equal(received, expected)
    sample = nn.ConvTranspose2d(2, 3, 3, (2, 3), 1, rng=0)(x[0], output_size=(3, 6, 12))
    assert sample.shape == (3, 6, 12)


OUTPUT_SIZES = [
    ((11, 11), ValueError, r"expects output_size from \(9, 9\) to \(10, 10\); got \(11, 11\)"),
    ((8, 9), ValueError, r"expects output_size from \(9, 9\) to \(10, 10\); got \(8, 9\)"),
    ((9,), ValueError, r"expects output_size of 2 or 4 numbers; got \(9,\)"),
    ((1, 9, 9), ValueError, r"expects output_size of 2 or 4 numbers; got \(1, 9, 9\)"),
    (9, TypeError, "expects output_size to be a sequence of ints; got int"),
    ((9.5, 9), TypeError, "expects each output_size to be an int; got float"),
]


@pytest.mark.parametrize(("output_size", "error", "message"), OUTPUT_SIZES)
def test_output_sizes_that_are_refused(
    output_size: Any, error: Any, message: str, xb_device: Device
) -> None:
    layer = nn.ConvTranspose2d(1, 1, 3, 2, 1, rng=0)
    with pytest.raises(error, match=f"^ConvTranspose2d {message}"):
        layer(xb.asarray(draw(2, 1, 5, 5)), output_size)


@pytest.mark.torch_parity("ConvTranspose2d")
@pytest.mark.parametrize(("output_size", "error", "message"), OUTPUT_SIZES)
def test_pytorch_refuses_these_output_sizes(output_size: Any, error: Any, message: str) -> None:
    torch = import_torch()
    with pytest.raises((ValueError, TypeError)):
        torch.nn.ConvTranspose2d(1, 1, 3, 2, 1)(torch.ones(2, 1, 5, 5), output_size)


@pytest.mark.torch_parity("ConvTranspose2d")
@pytest.mark.parametrize("output_size", [(9, 10), [10, 9], (2, 7, 10, 10)])
def test_output_size_beside_pytorch(output_size: Any) -> None:
    torch = import_torch()
    theirs = torch.nn.ConvTranspose2d(2, 3, 3, 2, 1)
    with xb.use_device("cpu"):
        ours = nn.ConvTranspose2d(2, 3, 3, 2, 1)
        ours.load_state_dict(theirs.state_dict())
        x = draw(2, 2, 5, 5)
        expected = theirs(torch.tensor(x), output_size).detach().numpy()
        np.testing.assert_allclose(ours(x, output_size), expected, rtol=1e-5, atol=1e-5)


def test_it_gives_the_gradient_of_a_convolution(xb_device: Device) -> None:
    there = nn.Conv2d(2, 4, 3, 2, 1, 1, 2, bias=False, rng=0)
    back = nn.ConvTranspose2d(4, 2, 3, 2, 1, 1, 2, bias=False)
    back.load_state_dict(there.state_dict())
    output, saved = there.forward(xb.asarray(draw(2, 2, 6, 8)))
    grad = xb.asarray(draw(*output.shape, seed=1))
    received, expected = xb.to_host(back(grad)), xb.to_host(there.backward(grad, saved))
    np.testing.assert_array_equal(received, expected)


# --- windows as columns -------------------------------------------------------------------


def test_a_product_with_the_columns_is_a_convolution(xb_device: Device) -> None:
    layer = nn.Conv2d(2, 3, (3, 2), (2, 1), (1, 0), (1, 2), rng=0)
    x = xb.asarray(draw(2, 2, 5, 6))
    columns = xb.to_host(nn.Unfold((3, 2), (1, 2), (1, 0), (2, 1))(x))
    weight, bias = layer.state_dict().values()
    expected = weight.reshape(3, -1) @ columns + bias[:, None]
    received = xb.to_host(layer(x))
    np.testing.assert_allclose(received.reshape(2, 3, -1), expected, rtol=1e-5, atol=1e-5)


def test_fold_of_unfold_counts_the_windows(xb_device: Device) -> None:
    x = xb.asarray(np.ones((1, 1, 3, 4), np.float32))
    counted = xb.to_host(nn.Fold((3, 4), 2)(nn.Unfold(2)(x)))
    assert counted[0, 0].tolist() == [[1, 2, 2, 1], [2, 4, 4, 2], [1, 2, 2, 1]]
