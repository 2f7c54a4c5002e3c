"""Stacks of copies, initial values, masks and refusals of the transformers."""

import copy
from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop import nn
from xbackprop.backend.device import Device

STACKS = [
    (nn.TransformerEncoderLayer, nn.TransformerEncoder),
    (nn.TransformerDecoderLayer, nn.TransformerDecoder),
]
both_stacks = pytest.mark.parametrize(("layer", "stack"), STACKS)


@both_stacks
def test_copies_have_equal_values_and_keys_of_their_own(
    layer: Any, stack: Any, xb_device: Device
) -> None:
    made = layer(4, 2, 5, rng=0)
    first, second = stack(made, 2, rng=1).layers
    for name, array in made.state_dict().items():
        np.testing.assert_array_equal(first.state_dict()[name], array)
        np.testing.assert_array_equal(second.state_dict()[name], array)
    keys = [
        part.extra_state()["random_state"][:2].tobytes()
        for whole in (made, first, second)
        for part in whole.modules()
        if isinstance(part, nn.Dropout)
    ]
    assert len(set(keys)) == len(keys)
    assert not set(map(id, made.parameters())) & set(map(id, first.parameters()))


@both_stacks
@pytest.mark.parametrize("by_name", [False, True])
def test_config_is_that_of_a_copy(layer: Any, stack: Any, by_name: bool) -> None:
    made = layer(4, 2, 5, activation=nn.PReLU())
    name = "encoder_layer" if stack is nn.TransformerEncoder else "decoder_layer"
    whole = stack(num_layers=2, **{name: made}) if by_name else stack(made, 2, nn.LayerNorm(4))
    outer = nn.ModuleList([made, whole])
    again = nn.from_config(outer.config())
    assert again.config() == outer.config()
    assert list(again.state_dict()) == list(outer.state_dict())
    copied = copy.deepcopy(whole)
    assert copied.config() == whole.config()


@both_stacks
def test_copies_among_placeholders_take_no_memory(layer: Any, stack: Any) -> None:
    with xb.initializers.placeholders():
        whole = stack(layer(10**4, 2, 10**6), 3)
    for parameter in whole.parameters():
        assert not any(parameter.data.strides)


def test_transformer_draws_glorots_values_for_every_layer(xb_device: Device) -> None:
    model = nn.Transformer(16, 2, 2, 2, 300, rng=0)
    first, second = (layer.linear1.weight for layer in model.encoder.layers)
    for weight in (first, second):
        values, bound = xb.to_host(weight.data), np.sqrt(6 / 316)
        assert np.abs(values).max() <= bound
        assert abs(values.std() / (bound / np.sqrt(3)) - 1) < 0.05
    assert xb.to_host(first.data).tobytes() != xb.to_host(second.data).tobytes()
    before = model.state_dict()
    model.reset_parameters(0)
    assert before["encoder.layers.0.linear1.weight"].shape == first.shape
    assert before["encoder.layers.0.linear1.weight"].tobytes() != xb.to_host(first.data).tobytes()


@pytest.mark.parametrize("dtype", [None, "float64"])
def test_mask_of_later_tokens(dtype: Any, xb_device: Device) -> None:
    mask = nn.Transformer.generate_square_subsequent_mask(3, dtype=dtype)
    expected = np.triu(np.full((3, 3), -np.inf), 1).astype(dtype or "float32")
    np.testing.assert_array_equal(xb.to_host(mask), expected, strict=True)


@pytest.mark.parametrize(
    ("activation", "error", "message"),
    [
        ("tanh", ValueError, "expects activation 'relu' or 'gelu'; got 'tanh'"),
        (abs, NotImplementedError, r"\(activation=abs\): a function has no backward"),
        (nn.ReLU, TypeError, "expects activation to be 'relu', 'gelu' or a module; got ReLU"),
        (3, TypeError, "got int"),
    ],
)
@pytest.mark.parametrize("layer", [nn.TransformerEncoderLayer, nn.TransformerDecoderLayer])
def test_refused_activations(layer: Any, activation: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=f"^{layer.__name__}.*{message}"):
        layer(4, 2, 5, activation=activation)


@both_stacks
def test_refused_stacks(layer: Any, stack: Any) -> None:
    with pytest.raises(ValueError, match=f"^{stack.__name__} expects num_layers >= 1; got 0"):
        stack(layer(4, 2, 5), 0)
    with pytest.raises(TypeError, match=f"^{stack.__name__} expects modules; .* is type"):
        stack(layer, 1)


@pytest.mark.parametrize(
    "shapes",
    [((4,), (4,)), ((3, 2, 5), (3, 2, 4)), ((3, 2, 4), (3, 1, 4)), ((3, 4), (3, 2, 4))],
)
def test_refused_shapes(shapes: Any, xb_device: Device) -> None:
    model = nn.Transformer(4, 2, 1, 1, 5)
    inputs = [xb.asarray(np.zeros(shape, np.float32)) for shape in shapes]
    with pytest.raises(ValueError, match=r"^Transformer expects src of shape \(S, batch, 4\)"):
        model(*inputs)


@pytest.mark.parametrize("xb_device", ["fake"], indirect=True)
def test_a_step_moves_nothing_to_the_host(xb_device: Device) -> None:
    model = nn.Transformer(4, 2, 1, 2, 5, rng=0)
    x = xb.asarray(np.ones((3, 2, 4), np.float32))
    mask = nn.Transformer.generate_square_subsequent_mask(3)
    with xb.transfer_log() as log:
        output, saved = model.forward(x, x, mask, mask)
        model.backward(output, saved)
    assert (log.uploads, log.downloads, log.synchronizations) == (0, 0, 0)


def test_default_sizes_of_swiglu_are_those_of_llama() -> None:
    assert nn.SwiGLU(4096).w1.out_features == 11008
    assert nn.SwiGLU(5120).w2.in_features == 13824


def test_products_of_turned_tokens_depend_on_their_distance(xb_device: Device) -> None:
    rng = np.random.default_rng(0)
    q, k = (xb.asarray(rng.normal(size=(1, 8)), dtype="float64") for _ in range(2))
    for interleaved in (False, True):
        turn = nn.RotaryEmbedding(8, interleaved=interleaved)
        near, far = (
            xb.to_host((turn.forward(q, offset=at)[0] * turn.forward(k, offset=at + 3)[0]).sum())
            for at in (0, 10**6)
        )
        np.testing.assert_allclose(near, far, rtol=1e-8)
    positions = xb.asarray(np.array([5]), dtype="int64")
    np.testing.assert_array_equal(
        xb.to_host(turn.forward(q, offset=5)[0]), xb.to_host(turn.forward(q, positions)[0])
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((3,), "an even dim; got 3"), ((0,), "dim >= 2; got 0"), ((4, 0.0), "base > 0; got 0.0")],
)
def test_refused_rotations(arguments: Any, message: str, xb_device: Device) -> None:
    with pytest.raises(ValueError, match=f"^RotaryEmbedding expects {message}"):
        nn.RotaryEmbedding(*arguments)
    layer, x = nn.RotaryEmbedding(4), xb.asarray(np.ones((3, 4), np.float32))
    with pytest.raises(ValueError, match=r"x of shape \(..., time, 4\); got \(4,\)"):
        layer(x[0])
    with pytest.raises(ValueError, match=r"positions of shape \(3,\) .* got \(2,\) and offset=0"):
        layer(x, xb.asarray(np.arange(2), dtype="int64"))
    with pytest.raises(TypeError, match="integer positions; got float32"):
        layer(x, x[:, 0])


@pytest.mark.parametrize("xb_device", ["fake"], indirect=True)
def test_tables_are_made_on_the_device(xb_device: Device) -> None:
    layer, x = nn.RotaryEmbedding(4), xb.asarray(np.ones((3, 4), np.float32))
    with xb.transfer_log() as log:
        output, saved = layer.forward(x, offset=7)
        layer.backward(output, saved)
    assert (log.uploads, log.downloads, log.synchronizations) == (0, 0, 0)
