"""Positions: what a turn keeps, the waves, and what is refused."""

import numpy as np
import pytest

import xbackprop as xb
from xbackprop import nn
from xbackprop.backend.device import Device


def test_waves_are_those_of_the_paper(xb_device: Device):
    x = xb.asarray(np.zeros((5, 6)), dtype=np.float64)
    found = xb.to_host(nn.SinusoidalPositionalEncoding(6)(x))
    for t in range(5):
        for i in range(3):
            assert found[t, 2 * i] == pytest.approx(np.sin(t / 10000 ** (2 * i / 6)))
            assert found[t, 2 * i + 1] == pytest.approx(np.cos(t / 10000 ** (2 * i / 6)))


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
        (lambda: nn.SinusoidalPositionalEncoding(4, -1), ValueError, "base above 0"),
        (lambda: nn.SinusoidalPositionalEncoding(0), ValueError, "embed_dim"),
        (lambda: nn.LearnedPositionalEmbedding(0, 4), ValueError, "num_positions"),
    ],
)
def test_arguments_that_are_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_integers_are_refused():
    with pytest.raises(TypeError, match="float"):
        nn.SinusoidalPositionalEncoding(4)(np.zeros((2, 4), int))
