"""What random layers draw: whole channels, the right share, PyTorch's values, uniform slopes."""

from typing import Any

import numpy as np
import pytest
from needs_torch import import_torch

import xbackprop as xb
from xbackprop import nn
from xbackprop.backend.device import Device

SHAPES = {
    "Dropout1d": (400, 50, 3),
    "Dropout2d": (400, 50, 2, 2),
    "Dropout3d": (400, 50, 2, 1, 2),
    "FeatureAlphaDropout": (400, 50, 3),
    "AlphaDropout": (400, 50),
    "Dropout": (400, 50),
}


def drawn(name: str, p: float, x: np.ndarray) -> np.ndarray:
    return xb.to_host(getattr(nn, name)(p, rng=0)(xb.asarray(x)))


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_channels_are_silenced_as_a_whole(name: str, p: float, xb_device: Device) -> None:
    y = drawn(name, p, np.ones(SHAPES[name], np.float32))
    channels = y.reshape(400 * 50, -1)
    assert (channels == channels[:, :1]).all()
    silenced = channels[:, 0] == channels.min()
    assert abs(silenced.mean() - p) < 5 * np.sqrt(p * (1 - p) / channels.shape[0])


@pytest.mark.torch_parity
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_values_beside_pytorch(name: str, p: float) -> None:
    torch = import_torch()
    ones = np.ones(SHAPES[name], np.float32)
    theirs = getattr(torch.nn, name)(p)(torch.tensor(ones)).numpy()
    with xb.use_device("cpu"):
        ours = drawn(name, p, ones)
    np.testing.assert_allclose(np.unique(ours), np.unique(theirs), rtol=1e-6)


@pytest.mark.parametrize("name", ["Dropout1d", "Dropout3d"])
def test_one_sample_is_silenced_like_a_batch_of_one(name: str, xb_device: Device) -> None:
    sample = np.ones(SHAPES[name][1:], np.float32)
    alone, batch = drawn(name, 0.5, sample), drawn(name, 0.5, sample[None])
    assert alone.tobytes() == batch.tobytes()


def test_alpha_dropout_keeps_mean_and_variance(xb_device: Device) -> None:
    x = np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32)
    for p in (0.1, 0.5):
        y = drawn("AlphaDropout", p, x)
        assert abs(y.mean()) < 0.02
        assert abs(y.std() - 1) < 0.02


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_slopes_of_rrelu_are_uniform(dtype: Any, xb_device: Device) -> None:
    layer = nn.RReLU(0.1, 0.5, rng=0)
    x = xb.asarray(np.array([-1.0] * 20_000 + [1.0] * 5), dtype=dtype)
    output, saved = layer.forward(x)
    y = xb.to_host(output)
    slopes = -y[:20_000]
    assert y.dtype == dtype
    assert (y[20_000:] == 1).all()
    assert 0.1 <= slopes.min() < 0.101
    assert 0.499 < slopes.max() <= np.asarray(0.5, dtype)
    assert abs(slopes.mean() - 0.3) < 5 * 0.4 / np.sqrt(12 * 20_000)
    assert abs(slopes.std() - 0.4 / np.sqrt(12)) < 0.005
    grad = xb.to_host(layer.backward(output * 0 + 2, saved))
    np.testing.assert_array_equal(grad[:20_000], 2 * slopes)
    assert (grad[20_000:] == 2).all()


@pytest.mark.torch_parity
def test_rrelu_is_uniform_between_the_same_bounds_in_pytorch() -> None:
    torch = import_torch()
    slopes = -torch.nn.RReLU(0.1, 0.5)(torch.full((20_000,), -1.0)).numpy()
    assert 0.1 <= slopes.min() < 0.101
    assert 0.499 < slopes.max() <= np.float32(0.5)
    assert abs(slopes.mean() - 0.3) < 5 * 0.4 / np.sqrt(12 * 20_000)
