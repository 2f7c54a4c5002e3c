"""Pooling beside loops over every output and every element of its window."""

import itertools
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from needs_torch import import_torch
from properties import few, on_two

import xbackprop as xb
from xbackprop import nn
from xbackprop.backend.device import Device
from xbackprop.nn.pooling.maximum import index_dtype, max_pool_forward
from xbackprop.nn.pooling.windows import Window


def window_of(place: tuple[int, ...], shape: tuple[int, ...], options: dict[str, Any]) -> list[Any]:
    """The elements of a window, in the order of memory."""
    axes = [
        [
            start * options["stride"] + k * options.get("dilation", 1) - options["padding"]
            for k in range(options["kernel_size"])
        ]
        for start in place
    ]
    return [
        index
        for index in itertools.product(*axes)
        if all(0 <= i < length for i, length in zip(index, shape, strict=True))
    ]


@st.composite
def max_pools(draw: Any) -> tuple[np.ndarray, dict[str, Any]]:
    ndim = draw(st.integers(1, 3))
    kernel = draw(st.integers(1, 3))
    options = {
        "kernel_size": kernel,
        "stride": draw(st.integers(1, 3)),
        "padding": draw(st.integers(0, kernel // 2)),
        "dilation": draw(st.integers(1, 2)),
        "ceil_mode": draw(st.booleans()),
    }
    spatial = draw(hnp.array_shapes(min_dims=ndim, max_dims=ndim, min_side=5, max_side=7))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    few_values = np.array([0.0, 1.0, 2.0, -1.5, np.inf, -np.inf, np.nan])
    kinds = draw(st.sampled_from([4, 6, 7]))
    return rng.choice(few_values[:kinds], size=(1, *spatial)), options


@on_two
@given(drawn=max_pools())
@few
def test_max_pooling_takes_the_first_of_equals_and_the_last_nan(drawn: Any, xb_device: Any) -> None:
    x, options = drawn
    shape = x.shape[1:]
    layer = getattr(nn, f"MaxPool{len(shape)}d")(**options, return_indices=True)
    (output, indices), saved = layer.forward(xb.asarray(x, dtype=np.float64))
    grad = np.random.default_rng(0).normal(size=output.shape)
    grad_input = layer.backward((xb.asarray(grad, dtype=np.float64), None), saved)
    assert indices.dtype == np.int64
    expected, places = np.empty(output.shape), np.empty(output.shape, np.int64)
    expected_grad = np.zeros(x.shape)
    for place in np.ndindex(output.shape[1:]):
        elements = window_of(place, shape, options)
        best = elements[0]
        for index in elements:
            if x[(0, *index)] > x[(0, *best)] or np.isnan(x[(0, *index)]):
                best = index
        expected[(0, *place)] = x[(0, *best)]
        places[(0, *place)] = np.ravel_multi_index(best, shape)
        expected_grad[(0, *best)] += grad[(0, *place)]
    np.testing.assert_array_equal(xb.to_host(output), expected)
    np.testing.assert_array_equal(xb.to_host(indices), places)
    np.testing.assert_allclose(xb.to_host(grad_input), expected_grad, rtol=0, atol=1e-12)


def test_what_is_kept_for_backward_is_as_small_as_its_places_allow(xb_device: Device) -> None:
    x = xb.asarray(np.random.default_rng(0).normal(size=(4, 8, 32, 32)), dtype=np.float32)
    _, (indices, *_) = max_pool_forward(x, (Window(2, 2, 0, 1, 16),) * 2)
    assert indices.dtype == np.int32
    assert index_dtype((1 << 16, (1 << 15) - 1)) is np.int32
    assert index_dtype((1 << 16, 1 << 15)) is np.int64


@st.composite
def mean_pools(draw: Any) -> tuple[np.ndarray, dict[str, Any], dict[str, Any]]:
    x, options = draw(max_pools())
    del options["dilation"]
    x = np.random.default_rng(draw(st.integers(0, 99))).uniform(0.5, 2, size=x.shape)
    further: dict[str, Any] = {"count_include_pad": draw(st.booleans())}
    if x.ndim > 2:
        further["divisor_override"] = draw(st.sampled_from([None, 3, -2]))
    return x, options, further


# Windows that differ in what they count: at the start, at the end, and beyond the padding.
UNEQUAL = {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}
SIX = np.arange(1.0, 7.0)[None]


@on_two
@given(drawn=mean_pools())
@example(drawn=(SIX, UNEQUAL, {"count_include_pad": True}))
@example(drawn=(SIX, UNEQUAL, {"count_include_pad": False}))
@few
def test_average_pooling_divides_by_what_it_counts(drawn: Any, xb_device: Any) -> None:
    x, options, further = drawn
    shape = x.shape[1:]
    layer = getattr(nn, f"AvgPool{len(shape)}d")(**options, **further)
    output, saved = layer.forward(xb.asarray(x, dtype=np.float64))
    grad = np.random.default_rng(0).normal(size=output.shape)
    grad_input = layer.backward(xb.asarray(grad, dtype=np.float64), saved)
    expected, expected_grad = np.empty(output.shape), np.zeros(x.shape)
    for place in np.ndindex(output.shape[1:]):
        elements = window_of(place, shape, options)
        with_padding = window_of(
            tuple(place),
            tuple(length + 2 * options["padding"] for length in shape),
            options | {"padding": 0},
        )
        count = len(with_padding if further["count_include_pad"] else elements)
        count = further.get("divisor_override") or count
        expected[(0, *place)] = sum(x[(0, *index)] for index in elements) / count
        for index in elements:
            expected_grad[(0, *index)] += grad[(0, *place)] / count
    np.testing.assert_allclose(xb.to_host(output), expected, rtol=1e-12)
    np.testing.assert_allclose(xb.to_host(grad_input), expected_grad, rtol=0, atol=1e-12)


@on_two
@given(drawn=mean_pools(), norm=st.sampled_from([1.0, 2.0, 3.0, 0.5, -1.0]))
@example(drawn=(SIX, UNEQUAL, {}), norm=2.0)
@few
def test_power_average_pooling_is_a_norm(drawn: Any, norm: float, xb_device: Any) -> None:
    x, options, _ = drawn
    shape = x.shape[1:]
    options = options | {"padding": 0}
    given = {key: value for key, value in options.items() if key != "padding"}
    layer = getattr(nn, f"LPPool{len(shape)}d")(norm, **given)
    output, saved = layer.forward(xb.asarray(x, dtype=np.float64))
    grad = np.random.default_rng(0).normal(size=output.shape)
    grad_input = layer.backward(xb.asarray(grad, dtype=np.float64), saved)
    expected, expected_grad = np.empty(output.shape), np.zeros(x.shape)
    for place in np.ndindex(output.shape[1:]):
        elements = window_of(place, shape, options)
        values = np.array([x[(0, *index)] for index in elements])
        scale = options["kernel_size"] ** len(shape) / len(elements)
        y = (scale * (values**norm).sum()) ** (1 / norm)
        expected[(0, *place)] = y
        for index, value in zip(elements, values, strict=True):
            derivative = scale * (value / y) ** (norm - 1)
            expected_grad[(0, *index)] += grad[(0, *place)] * derivative
    np.testing.assert_allclose(xb.to_host(output), expected, rtol=1e-12)
    np.testing.assert_allclose(xb.to_host(grad_input), expected_grad, rtol=0, atol=1e-10)


@on_two
@given(data=st.data())
@few
def test_adaptive_pooling_looks_at_intervals(data: Any, xb_device: Any) -> None:
    ndim = data.draw(st.integers(1, 3))
    lengths = st.tuples(*[st.integers(1, 7)] * ndim)
    shape, sizes = data.draw(lengths), data.draw(lengths)
    kinds = data.draw(st.sampled_from([3, 5, 6]))
    values = np.array([0.0, 1.0, 2.0, -np.inf, np.inf, np.nan])[:kinds]
    x = np.random.default_rng(data.draw(st.integers(0, 99))).choice(values, size=(1, *shape))
    grad = np.random.default_rng(0).normal(size=(1, *sizes))
    mean, best = np.empty(grad.shape), np.empty(grad.shape, np.int64)
    grad_mean, grad_best = np.zeros(x.shape), np.zeros(x.shape)
    for place in np.ndindex(sizes):
        box = [
            range(o * n // m, -((o + 1) * n // -m))
            for o, n, m in zip(place, shape, sizes, strict=True)
        ]
        elements = [(0, *index) for index in itertools.product(*box)]
        chosen = elements[0]
        for index in elements:
            chosen = index if x[index] > x[chosen] or np.isnan(x[index]) else chosen
            grad_mean[index] += grad[(0, *place)] / len(elements)
        best[(0, *place)] = np.ravel_multi_index(chosen[1:], shape)
        grad_best[chosen] += grad[(0, *place)]
        with np.errstate(invalid="ignore"):
            mean[(0, *place)] = sum(x[index] for index in elements) / len(elements)
    given, given_grad = (xb.asarray(array, dtype=np.float64) for array in (x, grad))
    layer = getattr(nn, f"AdaptiveAvgPool{ndim}d")(sizes)
    output, saved = layer.forward(given)
    np.testing.assert_allclose(xb.to_host(output), mean, atol=1e-12)
    received = xb.to_host(layer.backward(given_grad, saved))
    np.testing.assert_allclose(received, grad_mean, atol=1e-12)
    layer = getattr(nn, f"AdaptiveMaxPool{ndim}d")(sizes, return_indices=True)
    (output, indices), saved = layer.forward(given)
    np.testing.assert_array_equal(xb.to_host(indices), best)
    np.testing.assert_array_equal(xb.to_host(output), x.reshape(-1)[best])
    received = xb.to_host(layer.backward((given_grad, None), saved))
    np.testing.assert_allclose(received, grad_best, atol=1e-12)


@pytest.mark.parametrize("kind", ["Avg", "Max"])
def test_adaptive_pooling_to_nothing(kind: str, xb_device: Device) -> None:
    """PyTorch's backward refuses it; the gradient of nothing is 0."""
    layer = getattr(nn, f"Adaptive{kind}Pool2d")((0, 2))
    output, saved = layer.forward(xb.asarray(np.ones((1, 2, 3, 3), np.float32)))
    assert output.shape == (1, 2, 0, 2)
    grad = layer.backward(output, saved)
    assert grad.shape == (1, 2, 3, 3)
    assert not xb.to_host(grad).any()


def test_half_floats_are_summed_in_float32(xb_device: Device) -> None:
    x = xb.asarray(np.full((1, 4096), 10, np.float16), dtype=np.float16)
    mean = nn.AvgPool1d(4096)(x)
    assert mean.dtype == np.float16
    assert xb.to_host(mean).tolist() == [[10.0]]


@pytest.mark.torch_parity(
    *(f"{kind}Pool{n}d" for kind in ("Max", "AdaptiveMax") for n in (1, 2, 3))
)
@pytest.mark.parametrize("kinds", [2, 4, 6])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_equals_and_nans_as_in_pytorch(ndim: int, kinds: int) -> None:
    torch = import_torch()
    values = np.array([0.0, 1.0, 1.0, -np.inf, np.inf, np.nan])[:kinds]
    x = np.random.default_rng(ndim).choice(values, size=(8, 2, *(6,) * ndim))
    calls: list[Any] = [
        (f"MaxPool{ndim}d", {"kernel_size": k, "stride": s, "padding": p, "dilation": d})
        for k, s, p, d in ((2, 2, 0, 1), (3, 1, 1, 1), (2, 2, 1, 2))
    ]
    calls.append((f"MaxPool{ndim}d", {"kernel_size": 3, "stride": 2, "ceil_mode": True}))
    calls += [(f"AdaptiveMaxPool{ndim}d", {"output_size": size}) for size in (1, 4, 9)]
    for name, options in calls:
        layer = getattr(nn, name)(**options, return_indices=True)
        with xb.use_device("cpu"):
            (output, indices), saved = layer.forward(x)
            grad = layer.backward((np.ones_like(output), None), saved)
        tensor = torch.tensor(x, requires_grad=True)
        expected, places = getattr(torch.nn, name)(**options, return_indices=True)(tensor)
        expected.sum().backward()
        np.testing.assert_array_equal(output, expected.detach().numpy())
        np.testing.assert_array_equal(indices, places.numpy())
        np.testing.assert_array_equal(grad, tensor.grad.numpy())


@pytest.mark.parametrize("name", ["MaxPool1d", "AdaptiveMaxPool1d"])
def test_indices_alone_leave_no_gradient(name: str, xb_device: Device) -> None:
    layer = getattr(nn, name)(2, return_indices=True)
    _, saved = layer.forward(xb.asarray(np.ones((2, 1, 4), np.float32)))
    grad = layer.backward((None, None), saved)
    assert grad.dtype == np.float32
    assert not xb.to_host(grad).any()
    assert grad.shape == (2, 1, 4)


def test_a_window_around_all_elements_is_empty(xb_device: Device) -> None:
    """PyTorch gives an index beside the image; the next test looks."""
    layer = nn.MaxPool1d(2, 1, 1, dilation=3, return_indices=True)
    (output, indices), saved = layer.forward(xb.asarray(np.ones((1, 2), np.float32)))
    assert xb.to_host(output).tolist() == [[-np.inf]]
    assert xb.to_host(indices).tolist() == [[-1]]
    grad = layer.backward((xb.asarray(np.ones((1, 1), np.float32)), None), saved)
    assert xb.to_host(grad).tolist() == [[0.0, 0.0]]


@pytest.mark.torch_parity(*(f"MaxPool{n}d" for n in (1, 2, 3)))
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_a_window_around_all_elements_in_pytorch(ndim: int) -> None:
    torch = import_torch()
    x = np.ones((1, 1, *(2,) * ndim), np.float32)
    arguments, name = (2, 1, 1, 3, True), f"MaxPool{ndim}d"
    with xb.use_device("cpu"):
        output, indices = getattr(nn, name)(*arguments)(x)
    expected, places = getattr(torch.nn, name)(*arguments)(torch.tensor(x))
    np.testing.assert_array_equal(output, expected.numpy())
    assert (output == -np.inf).all()
    assert (indices == -1).all()
    assert (places.numpy() >= x.size).all()
