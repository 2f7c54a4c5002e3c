"""Windows, padding and correlation: against loops over positions, and adjoint to each other."""

import itertools
from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.backend.device import Device
from xbackprop.ops.correlation import correlate, correlate_back, correlate_weight
from xbackprop.ops.padding import pad_axes, unpad_axes
from xbackprop.ops.windows import gather_windows, scatter_windows, window_counts

# Lengths, kernel, stride, dilation.
GEOMETRIES = [
    ((5,), (1,), (1,), (1,)),
    ((7,), (3,), (2,), (1,)),
    ((8,), (2,), (3,), (3,)),
    ((5, 4), (3, 2), (1, 1), (1, 1)),
    ((7, 6), (2, 3), (2, 1), (3, 2)),
    ((6, 6), (6, 1), (5, 4), (1, 9)),
    ((4, 3, 5), (2, 1, 3), (1, 2, 1), (2, 1, 2)),
]
every_geometry = pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def on_device(array: np.ndarray) -> xb.Array:
    return xb.asarray(array, dtype=array.dtype)


def dot(a: Any, b: Any) -> float:
    return float((xb.to_host(a) * xb.to_host(b)).sum())


@every_geometry
def test_windows_are_what_indices_say(geometry: Any, xb_device: Device) -> None:
    lengths, kernel, stride, dilation = geometry
    x = draw(2, 3, *lengths)
    counts = window_counts(*geometry)
    windows = xb.to_host(gather_windows(on_device(x), kernel, counts, stride, dilation))
    assert windows.shape == (3, *kernel, 2, *counts)
    for k, i in itertools.product(np.ndindex(*kernel), np.ndindex(*counts)):
        at = tuple(np.multiply(i, stride) + np.multiply(k, dilation))
        np.testing.assert_array_equal(
            windows[(slice(None), *k, slice(None), *i)], x[(slice(None), slice(None), *at)].T
        )
    # One more window would reach beyond the end of some axis.
    last = np.multiply(counts, stride) + np.multiply(np.subtract(kernel, 1), dilation)
    assert (last >= lengths).all()


@every_geometry
def test_scatter_is_the_adjoint_of_gather(geometry: Any, xb_device: Device) -> None:
    lengths, kernel, stride, dilation = geometry
    counts = window_counts(*geometry)
    x = on_device(draw(2, 3, *lengths))
    windows = on_device(draw(3, *kernel, 2, *counts, seed=1))
    before = xb.to_host(windows).copy()
    back = scatter_windows(windows, lengths, stride, dilation)
    assert back.shape == x.shape
    gathered = gather_windows(x, kernel, counts, stride, dilation)
    np.testing.assert_allclose(dot(back, x), dot(windows, gathered), rtol=1e-12)
    np.testing.assert_array_equal(xb.to_host(windows), before)


@every_geometry
@pytest.mark.parametrize("groups", [1, 2])
def test_correlation_is_its_definition(geometry: Any, groups: int, xb_device: Device) -> None:
    lengths, kernel, stride, dilation = geometry
    counts = window_counts(*geometry)
    x, weight = draw(2, 4, *lengths), draw(6, 4 // groups, *kernel, seed=1)
    expected = np.zeros((2, 6, *counts))
    for n, o, i in itertools.product(range(2), range(6), np.ndindex(*counts)):
        first = o // (6 // groups) * (4 // groups)
        at = tuple(
            slice(a * s, a * s + d * k, d)
            for a, s, d, k in zip(i, stride, dilation, kernel, strict=True)
        )
        seen = x[(n, slice(first, first + 4 // groups), *at)]
        expected[(n, o, *i)] = (seen * weight[o]).sum()
    options = (stride, dilation, groups)
    received = correlate(on_device(x), on_device(weight), *options)
    np.testing.assert_allclose(xb.to_host(received), expected, rtol=1e-11, atol=1e-11)

    grad = on_device(draw(2, 6, *counts, seed=2))
    back = correlate_back(grad, on_device(weight), lengths, *options)
    np.testing.assert_allclose(dot(back, on_device(x)), dot(grad, received), rtol=1e-10)
    grad_weight = correlate_weight(grad, on_device(x), kernel, *options)
    assert (back.shape, grad_weight.shape) == (x.shape, weight.shape)
    np.testing.assert_allclose(dot(grad_weight, on_device(weight)), dot(grad, received), rtol=1e-10)


@pytest.mark.parametrize("empty", ["batch", "channels"])
def test_correlation_of_nothing(empty: str, xb_device: Device) -> None:
    batch, channels = (0, 2) if empty == "batch" else (2, 0)
    x, weight = on_device(draw(batch, channels, 4)), on_device(draw(4, channels, 3))
    output = correlate(x, weight, (1,), (1,), 1)
    assert output.shape == (batch, 4, 2)
    assert not xb.to_host(output).any()
    assert correlate_back(output, weight, (4,), (1,), (1,), 1).shape == x.shape
    grad_weight = correlate_weight(output, x, (3,), (1,), (1,), 1)
    assert grad_weight.shape == weight.shape
    assert not xb.to_host(grad_weight).any()


# --- padding ------------------------------------------------------------------------------

NUMPY_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
WIDTHS = [((0, 0),), ((2, 0),), ((0, 3),), ((3, 3),), ((1, 2), (3, 0)), ((0, 0), (1, 2))]


@pytest.mark.parametrize("widths", WIDTHS, ids=str)
@pytest.mark.parametrize("mode", NUMPY_MODES)
def test_padding_is_numpys_and_unpadding_its_adjoint(
    mode: str, widths: Any, xb_device: Device
) -> None:
    x = draw(2, 4, 5)
    full = ((0, 0),) * (3 - len(widths)) + widths
    expected = np.pad(x, full, mode=NUMPY_MODES[mode])
    padded = pad_axes(on_device(x), widths, mode)
    np.testing.assert_array_equal(xb.to_host(padded), expected)
    grad = on_device(draw(*expected.shape, seed=1))
    before = xb.to_host(grad).copy()
    back = unpad_axes(grad, widths, mode)
    assert back.shape == x.shape
    np.testing.assert_allclose(dot(back, on_device(x)), dot(grad, padded), rtol=1e-12)
    np.testing.assert_array_equal(xb.to_host(grad), before)


def test_circular_padding_may_be_as_long_as_the_axis(xb_device: Device) -> None:
    x = draw(1, 3)
    padded = pad_axes(on_device(x), ((3, 3),), "circular")
    np.testing.assert_array_equal(xb.to_host(padded), np.tile(x, 3))
    back = unpad_axes(padded, ((3, 3),), "circular")
    np.testing.assert_allclose(xb.to_host(back), 3 * x)


def test_windows_cost_no_transfer_and_no_wait(xb_device: Device) -> None:
    x = on_device(draw(2, 3, 5, 5))
    with xb.transfer_log() as log:
        padded = pad_axes(x, ((1, 1), (2, 2)), "reflect")
        windows = gather_windows(padded, (3, 3), (5, 7), (1, 1), (1, 1))
        unpad_axes(scatter_windows(windows, (7, 9), (1, 1), (1, 1)), ((1, 1), (2, 2)), "reflect")
    assert (log.uploads, log.downloads, log.synchronizations) == (0, 0, 0)
