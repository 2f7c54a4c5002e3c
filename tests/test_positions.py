"""Positions: what a turn keeps, the waves, and what is refused."""

import numpy as np
import pytest

import xbackprop as xb
from xbackprop import nn
from xbackprop.backend.device import Device


def rotate(x, offset=0, **options):
    layer = nn.RotaryEmbedding(**options)
    return xb.to_host(layer(xb.asarray(x, dtype=np.float64), offset))


@pytest.mark.parametrize("interleaved", [True, False])
def test_a_product_depends_on_the_distance_only(xb_device: Device, interleaved):
    rng = np.random.default_rng(0)
    q, k = (np.tile(rng.normal(size=8), (6, 1)) for _ in range(2))
    products = rotate(q, interleaved=interleaved) @ rotate(k, interleaved=interleaved).T
    for distance in range(-5, 6):
        line = np.diagonal(products, distance)
        np.testing.assert_allclose(line, line[0], atol=1e-12)
    assert np.ptp(products) > 0.1
    np.testing.assert_allclose(
        np.linalg.norm(rotate(q, interleaved=interleaved), axis=-1), np.linalg.norm(q, axis=-1)
    )


def test_an_offset_goes_on_where_a_text_stopped(xb_device: Device):
    x = np.random.default_rng(0).normal(size=(2, 7, 4))
    whole = rotate(x, base=100.0)
    np.testing.assert_allclose(rotate(x[:, 4:], 4, base=100.0), whole[:, 4:], atol=1e-14)


def test_far_positions_keep_their_digits_in_float32(xb_device: Device):
    x = np.ones((1, 4))
    layer = nn.RotaryEmbedding()
    near = xb.to_host(layer(xb.asarray(x, dtype=np.float32), 1_000_003))
    angle = 1_000_003 * np.array([1.0, 0.01])
    expected = [np.cos(angle) - np.sin(angle), np.sin(angle) + np.cos(angle)]
    np.testing.assert_allclose(near, np.stack(expected, -1).reshape(1, 4), atol=1e-6)


def test_waves_are_those_of_the_paper(xb_device: Device):
    x = xb.asarray(np.zeros((5, 6)), dtype=np.float64)
    found = xb.to_host(nn.SinusoidalPositionalEncoding(6)(x))
    for t in range(5):
        for i in range(3):
            assert found[t, 2 * i] == pytest.approx(np.sin(t / 10000 ** (2 * i / 6)))
            assert found[t, 2 * i + 1] == pytest.approx(np.cos(t / 10000 ** (2 * i / 6)))


def test_hidden_units_of_swiglu_are_those_of_llama():
    assert nn.SwiGLU(4096, rng=0).hidden_dim == 11008
    assert nn.SwiGLU(3, rng=0).hidden_dim == 256


def test_learned_positions_start_small_and_again_the_same():
    layer = nn.LearnedPositionalEmbedding(300, 40, rng=0)
    first = layer.state_dict()["weight"]
    assert first.std() == pytest.approx(0.02, rel=0.05)
    layer.reset_parameters(1)
    assert (layer.state_dict()["weight"] != first).all()
    layer.reset_parameters(0)
    np.testing.assert_array_equal(layer.state_dict()["weight"], first)


def test_frozen_positions_have_no_gradient():
    layer = nn.LearnedPositionalEmbedding(3, 2, rng=0)
    layer.weight.requires_grad = False
    y, saved = layer.forward(np.ones((3, 2), np.float32))
    assert layer.backward(y, saved) is not None
    assert not layer.weight.has_grad


@pytest.mark.parametrize(
    ("make", "shape", "words"),
    [
        (nn.RotaryEmbedding, (3, 5), "even number of features"),
        (nn.RotaryEmbedding, (4,), "time, features"),
        (lambda: nn.SinusoidalPositionalEncoding(4), (3, 5), r"\(time, batch, 4\)"),
        (lambda: nn.SinusoidalPositionalEncoding(4, batch_first=True), (4,), "batch, time, 4"),
        (lambda: nn.LearnedPositionalEmbedding(2, 4), (3, 1, 4), "2 positions; got 3 tokens"),
        (lambda: nn.LearnedPositionalEmbedding(2, 4), (1, 1, 1, 4), "expects x of shape"),
    ],
)
def test_shapes_that_are_refused(make, shape, words):
    with pytest.raises(ValueError, match=words):
        make()(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: nn.RotaryEmbedding(0), ValueError, "base above 0"),
        (lambda: nn.RotaryEmbedding("a"), TypeError, "base"),
        (lambda: nn.SinusoidalPositionalEncoding(4, -1), ValueError, "base above 0"),
        (lambda: nn.SinusoidalPositionalEncoding(0), ValueError, "embed_dim"),
        (lambda: nn.LearnedPositionalEmbedding(0, 4), ValueError, "num_positions"),
        (lambda: nn.SwiGLU(4, 0), ValueError, "hidden_dim"),
    ],
)
def test_arguments_that_are_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_integers_are_refused():
    for layer in (nn.RotaryEmbedding(), nn.SinusoidalPositionalEncoding(4)):
        with pytest.raises(TypeError, match="float"):
            layer(np.zeros((2, 4), int))
