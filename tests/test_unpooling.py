"""Unpooling: repeated indices, indices out of range, the sizes that may be asked for."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from needs_torch import import_torch
from properties import few, on_two

import xbackprop as xb
from xbackprop import nn
from xbackprop.backend.device import Device
from xbackprop.ops.entries import last_entries, sum_entries
from xbackprop.testing import check_gradients


def on_device(x: Any, indices: Any) -> tuple[Any, Any]:
    return xb.asarray(np.array(x, np.float32)), xb.asarray(np.array(indices), dtype=np.int64)


@on_two
@given(st.lists(st.integers(0, 5), max_size=12))
@few
def test_entries_find_their_places(xb_device: Any, drawn: list[int]) -> None:
    places = xb.asarray(np.array(drawn, np.int64), dtype=np.int64)
    values = np.random.default_rng(0).normal(size=len(drawn))
    last, total = [-1] * 6, np.zeros(6)
    for entry, place in enumerate(drawn):
        last[place] = entry
        total[place] += values[entry]
    assert xb.to_host(last_entries(places, 6)).tolist() == last
    most = max((drawn.count(place) for place in drawn), default=0)
    received = sum_entries(xb.asarray(values, dtype=np.float64), places, 6, most)
    np.testing.assert_allclose(xb.to_host(received), total, atol=1e-14)


@on_two
@given(data=st.data())
@few
def test_unpooling_writes_in_order(data: Any, xb_device: Any) -> None:
    ndim = data.draw(st.integers(1, 3))
    shape, kernel = data.draw(st.tuples(*[st.integers(1, 3)] * ndim)), data.draw(st.integers(1, 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    lengths = tuple(kernel * length for length in shape)
    x = rng.normal(size=(2, 2, *shape)).astype(np.float32)
    indices = rng.integers(0, np.prod(lengths), size=x.shape)
    layer = getattr(nn, f"MaxUnpool{ndim}d")(kernel)
    output, saved = layer.forward(*on_device(x, indices))
    grad = rng.normal(size=output.shape).astype(np.float32)
    grad_input, nothing = layer.backward(xb.asarray(grad), saved)
    expected, owner = np.zeros((4, np.prod(lengths))), {}
    for place in np.ndindex(2, 2, *shape):
        plane = place[0] * 2 + place[1]
        expected[plane, indices[place]] = x[place]
        owner[plane, indices[place]] = place
    expected_grad = np.zeros(x.shape, np.float32)
    for (plane, index), place in owner.items():
        expected_grad[place] = grad.reshape(4, -1)[plane, index]
    np.testing.assert_array_equal(xb.to_host(output), expected.reshape(2, 2, *lengths))
    np.testing.assert_array_equal(xb.to_host(grad_input), expected_grad)
    assert nothing is None


def test_gradient_of_overlapping_windows_is_that_of_what_is_shown(xb_device: Device) -> None:
    """In PyTorch the maximum that two windows share would have it twice."""

    class ThereAndBack(nn.Module):
        def __init__(self) -> None:
            self.pool = nn.MaxPool1d(2, 1, return_indices=True)
            self.unpool = nn.MaxUnpool1d(2, 1)

        def forward(self, x: Any) -> Any:
            (y, indices), pooled = self.pool.forward(x)
            output, unpooled = self.unpool.forward(y, indices)
            return output, (pooled, unpooled)

        def backward(self, grad_output: Any, saved: Any) -> Any:
            grad, _ = self.unpool.backward(grad_output, saved[1])
            return self.pool.backward((grad, None), saved[0])

    x = xb.asarray(np.array([[1.0, 3.0, 2.0, 0.5]]), dtype=np.float64)
    check_gradients(ThereAndBack(), x, rng=0)
    assert xb.to_host(ThereAndBack()(x)).tolist() == [[0, 3, 2, 0]]


@pytest.mark.parametrize("index", [-1, 6, 99])
def test_an_index_out_of_range(index: int, xb_device: Device) -> None:
    """Refused where looking costs nothing; elsewhere its channel is NaN, and no other."""
    layer = nn.MaxUnpool1d(2)
    x, indices = on_device([[[1, 2, 3], [4, 5, 6]]], [[[0, index, 4], [1, 3, 5]]])
    if xb_device.kind == "cpu":
        message = f"MaxUnpool1d: index {index} is out of range; expected 0 to 5. Take the indices"
        with pytest.raises(ValueError, match=message):
            layer.forward(x, indices)
        return
    with xb.transfer_log() as log:
        output, saved = layer.forward(x, indices)
        layer.backward(output, saved)
    assert (log.uploads, log.downloads, log.synchronizations) == (0, 0, 0)
    received = xb.to_host(output)
    assert np.isnan(received[0, 0]).all()
    assert received[0, 1].tolist() == [0, 4, 0, 5, 0, 6]


def test_indices_of_any_integer_dtype(xb_device: Device) -> None:
    x, indices = on_device([[1, 2, 3]], [[5, 0, 200]])
    layer = nn.MaxUnpool1d(70)
    expected = xb.to_host(layer(x, indices))
    assert xb.to_host(layer(x, indices.astype(np.uint8))).tobytes() == expected.tobytes()


def test_half_floats_stay(xb_device: Device) -> None:
    x, indices = on_device([[1, 2]], [[3, 0]])
    output, saved = nn.MaxUnpool1d(2).forward(x.astype(np.float16), indices)
    assert output.dtype == np.float16
    assert nn.MaxUnpool1d(2).backward(output, saved)[0].dtype == np.float16


def test_indices_of_another_shape_are_refused(xb_device: Device) -> None:
    x, indices = on_device([[1, 2, 3]], [[0, 1]])
    with pytest.raises(ValueError, match=r"indices of the shape of x, \(1, 3\); got \(1, 2\)"):
        nn.MaxUnpool1d(2)(x, indices)
    with pytest.raises(TypeError, match="MaxUnpool1d expects indices to be an array; got list"):
        nn.MaxUnpool1d(2)(x, [[0, 1, 2]])


SIZES = [(7,), (1, 1, 5), [6], None, (4,), (8,), (1, 7), 7, ()]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_output_size(size: Any, xb_device: Device) -> None:
    x, indices = on_device([[[1, 2, 3]]], [[[0, 1, 3]]])
    layer = nn.MaxUnpool1d(2)
    if size in SIZES[4:6]:
        with pytest.raises(
            ValueError, match=r"makes x of shape \(1, 1, 3\) to lengths 5 to 7; got"
        ):
            layer(x, indices, output_size=size)
    elif size in SIZES[6:]:
        with pytest.raises(ValueError, match="MaxUnpool1d expects output_size of 1 ints, or 3 wi"):
            layer(x, indices, output_size=size)
    else:
        output, saved = layer.forward(x, indices, size)
        assert output.shape == (1, 1, 6 if size is None else size[-1])
        assert layer.backward(output, saved)[0].shape == x.shape


@pytest.mark.torch_parity("MaxUnpool1d")
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_output_size_as_in_pytorch(size: Any) -> None:
    torch = import_torch()
    x, indices = np.array([[[1.0, 2.0, 3.0]]]), np.array([[[0, 1, 3]]])
    theirs = torch.nn.MaxUnpool1d(2)
    tensors = torch.tensor(x), torch.tensor(indices)
    if size in SIZES[4:]:
        with pytest.raises((ValueError, TypeError)):
            theirs(*tensors, output_size=size)
        return
    with xb.use_device("cpu"):
        received = nn.MaxUnpool1d(2)(x, indices, output_size=size)
    np.testing.assert_array_equal(received, theirs(*tensors, output_size=size).numpy())


@pytest.mark.torch_parity("MaxUnpool2d", "MaxPool2d")
def test_pooling_and_back_as_in_pytorch() -> None:
    torch = import_torch()
    x = np.random.default_rng(0).normal(size=(2, 3, 7, 6))
    for options in ({"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1}):
        pools = nn.MaxPool2d(**options, return_indices=True), nn.MaxUnpool2d(**options)
        theirs = torch.nn.MaxPool2d(**options, return_indices=True), torch.nn.MaxUnpool2d(**options)
        with xb.use_device("cpu"):
            received = pools[1](*pools[0](x), output_size=x.shape)
        expected = theirs[1](*theirs[0](torch.tensor(x)), output_size=x.shape)
        np.testing.assert_array_equal(received, expected.numpy())


@pytest.mark.torch_parity("MaxUnpool1d")
def test_pytorch_gives_all_of_a_repeated_index_the_gradient() -> None:
    """On one thread it shows the last as well."""
    torch = import_torch()
    x, indices = np.array([[[1.0, 2.0, 3.0]]]), np.array([[[1, 1, 4]]])
    tensor = torch.tensor(x, requires_grad=True)
    theirs = torch.nn.MaxUnpool1d(2)(tensor, torch.tensor(indices))
    theirs.sum().backward()
    with xb.use_device("cpu"):
        output, saved = nn.MaxUnpool1d(2).forward(x, indices)
        grad, _ = nn.MaxUnpool1d(2).backward(np.ones_like(output), saved)
    np.testing.assert_array_equal(output, theirs.detach().numpy())
    assert (grad.tolist(), tensor.grad.tolist()) == ([[[0, 1, 1]]], [[[1, 1, 1]]])
