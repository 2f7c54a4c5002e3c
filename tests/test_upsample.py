"""Upsampling beside loops over outputs and taps, and beside PyTorch where rounding tips."""

import math
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

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def cubic(distance: float) -> float:
    """Keys' kernel with -0.75."""
    d, a = abs(distance), -0.75
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def matrix(length: int, outputs: int, kind: str, align: bool, ratio: float) -> np.ndarray:
    """What every output takes of every element, by loops."""
    found = np.zeros((outputs, length))
    for o in range(outputs):
        c = o * ratio if align else (o + 0.5) * ratio - 0.5
        if kind == "nearest":
            taps = {math.floor(o * ratio + 1e-9): 1.0}
        elif kind == "nearest-exact":
            taps = {math.floor((o + 0.5) * ratio + 1e-9): 1.0}
        else:
            c = c if kind == "cubic" else max(c, 0.0)
            i = math.floor(c + 1e-9)
            weight = cubic if kind == "cubic" else lambda distance: max(1 - abs(distance), 0.0)
            taps = {j: weight(j - c) for j in range(i - 1, i + 3)}
        for place, weight_of_tap in taps.items():
            found[o, min(max(place, 0), length - 1)] += weight_of_tap
    return found


AXES_AND_MODES = [
    *((ndim, mode, False) for ndim in (1, 2, 3) for mode in ("nearest", "nearest-exact")),
    *((ndim, mode, align) for ndim, mode in LINEAR.items() for align in (False, True)),
    *((2, "bicubic", align) for align in (False, True)),
]


@on_two
@pytest.mark.parametrize(("ndim", "mode", "align"), AXES_AND_MODES)
@pytest.mark.parametrize("how", ["size", "scale_factor", "recomputed"])
@given(data=st.data())
@few
def test_axes_are_products_with_a_matrix(
    ndim: int, mode: str, align: bool, how: str, data: Any, xb_device: Any
) -> None:
    shape = data.draw(st.tuples(*[st.integers(2, 6)] * ndim))
    factors = data.draw(st.tuples(*[st.sampled_from([0.55, 0.83, 1.19, 1.9, 2.3])] * ndim))
    sizes = tuple(int(n * factor) for n, factor in zip(shape, factors, strict=True))
    options: dict[str, Any] = {"size": sizes} if how == "size" else {"scale_factor": factors}
    if how == "recomputed":
        options["recompute_scale_factor"] = True
    layer = nn.Upsample(**options, mode=mode, align_corners=align or None)
    x = np.random.default_rng(0).normal(size=(2, 1, *shape))
    output, saved = layer.forward(xb.asarray(x, dtype=np.float64))
    grad = np.random.default_rng(1).normal(size=output.shape)
    received = layer.backward(xb.asarray(grad, dtype=np.float64), saved)
    kind = {"bicubic": "cubic", LINEAR[ndim]: "linear"}.get(mode, mode)
    for axis, (length, outputs) in enumerate(zip(shape, sizes, strict=True), start=2):
        ratio = 1 / factors[axis - 2] if how == "scale_factor" else length / outputs
        if align:
            ratio = (length - 1) / (outputs - 1) if outputs > 1 else 0.0
        if kind == "linear" and length == outputs:
            ratio = 1.0
        product = matrix(length, outputs, kind, align, ratio)
        x = np.moveaxis(np.moveaxis(x, axis, -1) @ product.T, -1, axis)
        grad = np.moveaxis(np.moveaxis(grad, axis, -1) @ product, -1, axis)
    np.testing.assert_allclose(xb.to_host(output), x, atol=1e-6)
    np.testing.assert_allclose(xb.to_host(received), grad, atol=1e-6)


@pytest.mark.torch_parity("Upsample")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "linear"])
def test_sources_round_as_in_pytorch(mode: str, dtype: str) -> None:
    """The forward: in PyTorch's backward the nearest may be another."""
    torch = import_torch()
    rng = np.random.default_rng(0)
    for trial in range(1200):
        length = int(rng.integers(1, 60))
        options: dict[str, Any] = {"size": int(rng.integers(1, 120))}
        if trial % 2:
            options = {"scale_factor": float(rng.choice([0.5 + rng.random(), 1.3, 2.6, 3.7, 2.9]))}
        x = np.arange(length, dtype=dtype).reshape(1, 1, -1)
        if int(length * options.get("scale_factor", 1)) == 0:
            continue
        with xb.use_device("cpu"):
            output = nn.Upsample(mode=mode, **options)(x)
        expected = torch.nn.Upsample(mode=mode, **options)(torch.tensor(x)).numpy()
        tolerance = 0 if mode != "linear" else 1e-12 if dtype == "float64" else 4e-5
        np.testing.assert_allclose(output, expected, rtol=0, atol=tolerance, err_msg=str(options))


@pytest.mark.torch_parity("Upsample")
def test_where_pytorchs_backward_takes_another_neighbour() -> None:
    """Its forward reads x[1] for output 2 of 3, its backward says x[2]."""
    torch = import_torch()
    x = np.array([[[1.0, 2.0, 3.0]]])
    with xb.use_device("cpu"):
        layer = nn.Upsample(scale_factor=1.3)
        output, saved = layer.forward(x)
        grad = layer.backward(np.array([[[0.0, 0.0, 1.0]]]), saved)
    tensor = torch.tensor(x, requires_grad=True)
    theirs = torch.nn.Upsample(scale_factor=1.3)(tensor)
    theirs.backward(torch.tensor([[[0.0, 0.0, 1.0]]]))
    assert output.tolist() == theirs.tolist() == [[[1.0, 1.0, 2.0]]]
    assert grad.tolist() == [[[0.0, 1.0, 0.0]]]
    assert tensor.grad.tolist() == [[[0.0, 0.0, 1.0]]]


@pytest.mark.parametrize("mode", ["nearest", "linear", "area"])
def test_an_infinite_gradient_stays_with_what_was_read(mode: str, xb_device: Device) -> None:
    layer = nn.Upsample(size=12, mode=mode)
    x = xb.asarray(np.ones((1, 1, 6), np.float32))
    _, saved = layer.forward(x)
    grad = np.zeros((1, 1, 12), np.float32)
    grad[..., [0, -1]] = np.inf
    received = xb.to_host(layer.backward(xb.asarray(grad), saved))
    assert received[0, 0, 0] == received[0, 0, -1] == np.inf
    assert (received[..., 2:-2] == 0).all()


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_a_long_axis_takes_no_matrix(mode: str, xb_device: Device) -> None:
    """A matrix of this length would have 160 GB."""
    x = xb.asarray(np.arange(100_000, dtype=np.float64).reshape(1, 1, -1), dtype=np.float64)
    layer = nn.Upsample(scale_factor=2, mode=mode)
    output, saved = layer.forward(x)
    assert layer.backward(output, saved).shape == x.shape


def test_half_floats_are_interpolated_in_float32(xb_device: Device) -> None:
    x = np.random.default_rng(0).normal(size=(1, 1, 9, 7)).astype(np.float16)
    layer = nn.Upsample(size=(20, 15), mode="bicubic")
    output, saved = layer.forward(xb.asarray(x, dtype=np.float16))
    expected = xb.to_host(layer(xb.asarray(x.astype(np.float32)))).astype(np.float16)
    assert xb.to_host(output).tobytes() == expected.tobytes()
    assert layer.backward(output, saved).dtype == np.float16
