"""Fractional max pooling beside loops over windows, and what it draws."""

import itertools
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
from xbackprop.testing import check_layer


def starts(u: Any, length: int, kernel: int, outputs: int) -> list[int]:
    if outputs == 1:
        return [length - kernel]
    alpha = (length - kernel) / (outputs - 1)
    found = [int((o + u) * alpha) - int(u * alpha) for o in range(outputs - 1)]
    return [*found, length - kernel]


@on_two
@pytest.mark.parametrize("kinds", [3, 5, 6])
@pytest.mark.parametrize("ndim", [2, 3])
@given(data=st.data())
@few
def test_windows_start_where_the_samples_say(
    ndim: int, kinds: int, data: Any, xb_device: Any
) -> None:
    axes = [data.draw(st.integers(1, 9 - 2 * ndim)) for _ in range(ndim)]
    kernels = [data.draw(st.integers(1, length)) for length in axes]
    sizes = [
        data.draw(st.integers(1, length - kernel + 1))
        for length, kernel in zip(axes, kernels, strict=True)
    ]
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = np.array([0.0, 1.0, 2.0, -np.inf, np.inf, np.nan])[:kinds]
    x = rng.choice(values, size=(2, 2, *axes))
    u = rng.choice([0.0, 1 / 3, 0.5, 0.99, 1.0], size=(2, 2, ndim)).astype(np.float64)
    layer = getattr(nn, f"FractionalMaxPool{ndim}d")(
        tuple(kernels), tuple(sizes), return_indices=True, _random_samples=u
    ).to(dtype="float64")
    layer.load_state_dict({"_random_samples": u})
    (output, indices), saved = layer.forward(xb.asarray(x, dtype=np.float64))
    grad = rng.normal(size=output.shape)
    received = layer.backward((xb.asarray(grad, dtype=np.float64), None), saved)
    columns = u[..., ::-1] if ndim == 2 else u
    best, expected_grad = np.empty(grad.shape, np.int64), np.zeros(x.shape)
    for lead in np.ndindex(2, 2):
        places = [
            starts(*numbers) for numbers in zip(columns[lead], axes, kernels, sizes, strict=True)
        ]
        for o in np.ndindex(*sizes):
            corner = [place[number] for place, number in zip(places, o, strict=True)]
            chosen, largest = tuple(corner), -np.inf
            for k in itertools.product(*map(range, kernels)):
                index = tuple(a + b for a, b in zip(corner, k, strict=True))
                if x[lead + index] > largest or np.isnan(x[lead + index]):
                    chosen, largest = index, x[lead + index]
            best[lead + o] = np.ravel_multi_index(chosen, axes)
            expected_grad[lead + chosen] += grad[lead + o]
    np.testing.assert_array_equal(xb.to_host(indices), best)
    shown = np.take_along_axis(x.reshape(2, 2, -1), best.reshape(2, 2, -1), -1).reshape(best.shape)
    np.testing.assert_array_equal(xb.to_host(output), shown)
    np.testing.assert_allclose(xb.to_host(received), expected_grad, atol=1e-12)


@pytest.mark.torch_parity("FractionalMaxPool2d", "FractionalMaxPool3d")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_windows_as_in_pytorch(dtype: str) -> None:
    """With any samples, where rounding decides, and gradients that windows share."""
    torch = import_torch()
    rng = np.random.default_rng(0)
    for trial in range(120):
        ndim = 2 + trial % 2
        axes = rng.integers(4, 30 if ndim == 2 else 9, size=ndim)
        kernels = [int(rng.integers(1, n - 1)) for n in axes]
        sizes = [int(rng.integers(1, n - k + 1)) for n, k in zip(axes, kernels, strict=True)]
        x = rng.integers(0, 9, size=(2, 3, *axes)).astype(dtype)
        u = rng.random((2, 3, ndim)).astype(dtype)
        options = {"kernel_size": tuple(kernels), "output_size": tuple(sizes)}
        name = f"FractionalMaxPool{ndim}d"
        with xb.use_device("cpu"):
            layer = getattr(nn, name)(**options, return_indices=True, _random_samples=u)
            layer = layer.to(dtype=dtype)
            layer.load_state_dict({"_random_samples": u})
            (output, indices), saved = layer.forward(x)
            grad = layer.backward((output, None), saved)
        tensor = torch.tensor(x, requires_grad=True)
        theirs = getattr(torch.nn, name)(
            **options, return_indices=True, _random_samples=torch.tensor(u)
        )
        expected, places = theirs(tensor)
        expected.backward(expected.detach())
        np.testing.assert_array_equal(indices, places.numpy())
        np.testing.assert_array_equal(output, expected.detach().numpy())
        np.testing.assert_array_equal(grad, tensor.grad.numpy())


def test_drawn_windows_obey_the_protocol(xb_device: Device) -> None:
    check_layer(
        lambda: nn.FractionalMaxPool2d(2, (3, 4), return_indices=True, rng=0),
        lambda rng: rng.normal(size=(3, 2, 7, 6)),
        devices=[xb_device],
    )


def test_numbers_are_drawn_at_every_call_and_alike_everywhere(xb_device: Device) -> None:
    x = np.random.default_rng(0).normal(size=(64, 8, 16, 16)).astype(np.float32)

    def places(device: Any) -> list[np.ndarray]:
        with xb.use_device(device):
            layer = nn.FractionalMaxPool2d(1, 8, return_indices=True, rng=0)
            return [xb.to_host(layer(xb.asarray(x))[1]) for _ in range(2)] + [
                xb.to_host(layer.eval()(xb.asarray(x))[1])
            ]

    drawn = places(xb_device)
    assert [one.tobytes() for one in drawn] == [one.tobytes() for one in places("cpu")]
    assert len({one.tobytes() for one in drawn}) == 3
    # A step from one window to the next has 2 or 3 of 16 elements, 15 / 7 on average; the first
    # window starts at 0 and the last at 15.
    columns = drawn[0][:, :, 0] % 16
    steps = np.diff(columns, axis=-1)
    assert set(np.unique(steps)) == {2, 3}
    assert (columns[..., 0] == 0).all()
    assert (columns[..., -1] == 15).all()


def test_numbers_are_uniform(xb_device: Device) -> None:
    """With steps of 5/4, window 1 starts at 2 for u from 3/5 to 4/5, else at 1."""
    layer = nn.FractionalMaxPool2d(1, 5, return_indices=True, rng=0)
    _, indices = layer(xb.asarray(np.zeros((64, 16, 6, 6), np.float32)))
    columns, rows = xb.to_host(indices)[:, :, 0] % 6, xb.to_host(indices)[..., 0] // 6
    for starts_here in (columns, rows):
        assert set(np.unique(starts_here[..., 1])) == {1, 2}
        share = (starts_here[..., 1] == 2).mean()
        assert abs(share - 0.2) < 5 * np.sqrt(0.2 * 0.8 / 1024)
    assert abs(np.corrcoef(columns[..., 1].ravel(), rows[..., 1].ravel())[0, 1]) < 5 / 32


def test_windows_of_steps_of_one_share_an_element(xb_device: Device) -> None:
    """All of them, also where float32 rounds 2 + u up to 3: two windows start there at once."""
    u = np.nextafter(np.float32(1), np.float32(0))
    samples = np.full((1, 1, 2), u, np.float32)
    layer = nn.FractionalMaxPool2d(1, 4, _random_samples=samples)
    output, saved = layer.forward(xb.asarray(np.ones((1, 1, 4, 4), np.float32)))
    grad = xb.to_host(layer.backward(output, saved))
    assert grad.sum() == 16
    assert grad.max() == 4


def test_samples_of_a_larger_batch_are_cut(xb_device: Device) -> None:
    x = np.random.default_rng(0).normal(size=(3, 1, 9, 9)).astype(np.float32)
    samples = np.random.default_rng(1).random((3, 1, 2)).astype(np.float32)
    layer = nn.FractionalMaxPool2d(2, 5, _random_samples=samples)
    whole, part = (xb.to_host(layer(xb.asarray(array))) for array in (x, x[:2]))
    assert whole[:2].tobytes() == part.tobytes()


@pytest.mark.parametrize("wrong", [-0.25, 1.25, np.nan])
def test_samples_out_of_range(wrong: float, xb_device: Device) -> None:
    """Refused where looking costs nothing; elsewhere their channel is NaN, and no other."""
    layer = nn.FractionalMaxPool2d(2, 3, _random_samples=[[[wrong, 0.5], [0.5, 0.5]]])
    x = xb.asarray(np.ones((1, 2, 6, 6), np.float32))
    if xb_device.kind == "cpu":
        with pytest.raises(ValueError, match="FractionalMaxPool2d expects _random_samples from 0"):
            layer.forward(x)
        return
    received = xb.to_host(layer(x))
    assert np.isnan(received[0, 0]).all()
    assert (received[0, 1] == 1).all()


def test_samples_of_another_shape_or_dtype_are_refused(xb_device: Device) -> None:
    x = xb.asarray(np.ones((2, 3, 5, 5), np.float32))
    for shape in ((2, 3), (2, 2, 2), (2, 3, 3), (1, 3, 2)):
        layer = nn.FractionalMaxPool2d(2, 2, _random_samples=np.full(shape, 0.5, np.float32))
        with pytest.raises(ValueError, match=r"shape \(2, 3, 2\), or more samples; got"):
            layer(x)
    layer = nn.FractionalMaxPool2d(2, 2, _random_samples=np.full((2, 3, 2), 0.5, np.float32))
    with pytest.raises(TypeError, match="_random_samples of dtype float64; got float32"):
        layer(x.astype(np.float64))


def test_half_floats_stay(xb_device: Device) -> None:
    layer = nn.FractionalMaxPool2d(2, 3, rng=0)
    x = xb.asarray(np.random.default_rng(0).normal(size=(2, 2, 6, 7)), dtype=np.float16)
    output, saved = layer.forward(x)
    assert output.dtype == layer.backward(output, saved).dtype == np.float16
