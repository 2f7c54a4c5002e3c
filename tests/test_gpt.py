"""GPT: what it starts from, its tied embedding, its text, and files of GPT-2's weights."""

import json
import math

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import xbackprop as xb
from xbackprop import nn
from xbackprop.backend.device import Device
from xbackprop.interop.gpt2 import load_gpt2, save_gpt2
from xbackprop.nn.generation import KeyValueCache, draw_token, generate, next_logits

SIZES = (11, 8, 2, 2, 12)


def small(**options):
    model = nn.GPT(*SIZES, rng=0, **options)
    state = model.state_dict()
    model.load_state_dict({name: a * 20 if a.ndim > 1 else a for name, a in state.items()})
    return model


def some_tokens(*shape):
    return np.random.default_rng(1).integers(0, SIZES[0], shape)


# --- the model ----------------------------------------------------------------------------


def test_initial_values_are_those_of_gpt_2():
    state = nn.GPT(300, 64, num_layers=8, num_heads=2, embed_dim=64, rng=0).state_dict()
    for name, array in state.items():
        if name.endswith("bias"):
            assert not array.any(), name
        elif array.ndim == 1:
            np.testing.assert_array_equal(array, 1)
        else:
            std = 0.02 / 4 if name.endswith("c_proj.weight") else 0.02
            assert array.std() == pytest.approx(std, rel=0.05), name
            assert abs(array.mean()) < std / 10


def test_a_seed_gives_the_same_weights_again():
    model, other = nn.GPT(*SIZES, 0.1, rng=3), nn.GPT(*SIZES, 0.1, rng=4)
    drawn = model.state_dict()
    other.reset_parameters(3)
    again = {**other.state_dict(), **other.extra_state()}
    model.reset_parameters(3)
    for name, array in {**model.state_dict(), **model.extra_state()}.items():
        np.testing.assert_array_equal(again[name], array)
    other.reset_parameters(4)
    assert (other.state_dict()["wte.weight"] != drawn["wte.weight"]).any()


def test_matrices_decay_and_nothing_else_does():
    model = nn.GPT(*SIZES, rng=0)
    decayed, others = model.parameter_groups(0.1)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert {len(parameter.shape) for parameter in decayed["params"]} == {2}
    assert {len(parameter.shape) for parameter in others["params"]} == {1}
    assert len(decayed["params"]) + len(others["params"]) == len(list(model.parameters()))


def test_a_token_knows_nothing_of_those_behind_it(xb_device: Device):
    model = small().eval()
    tokens = some_tokens(1, 8)
    changed = tokens.copy()
    changed[0, 5:] = (tokens[0, 5:] + 1) % SIZES[0]
    before, after = (xb.to_host(model(xb.asarray(t))) for t in (tokens, changed))
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert (before[:, 5:] != after[:, 5:]).any(axis=-1).all()


def test_frozen_embeddings_get_no_gradient():
    model = small()
    model.wte.weight.requires_grad = model.wpe.weight.requires_grad = False
    logits, saved = model.forward(some_tokens(2, 4))
    model.backward(np.ones_like(logits), saved)
    assert not model.wte.weight.has_grad
    assert not model.wpe.weight.has_grad
    assert model.h[0].ln_1.weight.has_grad


@pytest.mark.parametrize(
    ("tokens", "error", "words"),
    [
        (np.zeros((2, 3)), TypeError, "integer tokens"),
        (np.zeros(3, int), ValueError, "batch, time"),
        (np.zeros((1, 9), int), ValueError, "context_length=8"),
        (np.zeros((1, 0), int), ValueError, "context_length=8"),
        (np.full((1, 2), 11), IndexError, "11"),
    ],
)
def test_what_is_refused(tokens, error, words):
    with pytest.raises(error, match=words):
        nn.GPT(*SIZES, rng=0)(tokens)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="num_heads to divide embed_dim"):
        nn.GPT(11, 8, 1, 5, 12)
    with pytest.raises(ValueError, match="num_layers"):
        nn.GPT(11, 8, 0, 2, 12)


def test_a_step_uploads_the_batch_only():
    with xb.use_device("fake"):
        model = nn.GPT(*SIZES, 0.1, rng=0)
        optimizer = xb.optim.AdamW(model.parameter_groups(0.1), lr=1e-3)
        flat = nn.Sequential(model, nn.Flatten(0, 1))
        step = xb.value_and_grad(flat, nn.CrossEntropyLoss())
        for count in range(2):
            with xb.transfer_log() as log:
                x, y = xb.asarray(some_tokens(3, 8)), xb.asarray(some_tokens(24))
                optimizer.zero_grad()
                step(x, y)
                optimizer.step()
            assert count == 0 or log.uploads == 2
            assert (log.downloads, log.synchronizations) == (0, 0)


# --- text ---------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [(1, 2, 3, 4, 5, 6, 7), (5,), (), (3, 4)])
def test_kept_keys_and_values_give_the_logits_of_the_whole(xb_device: Device, cuts):
    model = small(dtype=np.float64).eval()
    tokens = xb.asarray(some_tokens(2, 8))
    whole = xb.to_host(model(tokens))
    cache = KeyValueCache(model, batch=2)
    for start, stop in zip((0, *cuts), (*cuts, 8), strict=True):
        logits = xb.to_host(next_logits(model, tokens[:, start:stop], cache))
        np.testing.assert_allclose(logits, whole[:, stop - 1], atol=1e-12)
    with pytest.raises(ValueError, match="do not fit"):
        next_logits(model, tokens[:, :1], cache)


def test_text_is_what_the_whole_context_would_give(xb_device: Device):
    model = small(dtype=np.float64).train()
    found = list(model.generate([1, 2, 3], 5, rng=7))
    assert model.training
    rng, context = np.random.default_rng(7), [1, 2, 3]
    for token in found:
        logits = xb.to_host(model.eval()(xb.asarray([context])))[0, -1]
        model.train()
        assert token == draw_token(logits, rng=rng)
        context.append(token)


def test_a_text_longer_than_the_context_goes_on_from_its_second_half():
    model = small(dtype=np.float64).eval()
    found = list(generate(model, [1], 20, temperature=0))
    assert len(found) == 20
    context = [1]
    for token in found:
        if len(context) > 8:
            context = context[-4:]
        assert token == int(model(np.array([context]))[0, -1].argmax())
        context.append(token)
    long = list(generate(model, list(range(11)) * 3, 3, temperature=0))
    assert long == list(generate(model, (list(range(11)) * 3)[-8:], 3, temperature=0))


def test_a_token_is_one_upload_and_one_download():
    with xb.use_device("fake"):
        model = small().eval()
        tokens = model.generate([1, 2], 4, rng=0)
        next(tokens)
        with xb.transfer_log() as log:
            next(tokens)
        assert (log.uploads, log.downloads) == (1, 1)


def test_the_same_text_on_every_device():
    found = []
    for device in ("cpu", "fake"):
        with xb.use_device(device):
            found.append(list(small().generate([3], 12, rng=5, temperature=0.8, top_k=6)))
    assert found[0] == found[1]


def test_drawn_tokens_have_the_probabilities_of_the_softmax():
    logits, rng = np.log([0.5, 0.3, 0.15, 0.05]), np.random.default_rng(0)

    def shares(**options):
        drawn = [draw_token(logits, rng=rng, **options) for _ in range(4000)]
        return np.bincount(drawn, minlength=4) / 4000

    np.testing.assert_allclose(shares(), [0.5, 0.3, 0.15, 0.05], atol=0.03)
    squared = np.array([0.5, 0.3, 0.15, 0.05]) ** 2
    np.testing.assert_allclose(shares(temperature=0.5), squared / squared.sum(), atol=0.03)
    np.testing.assert_allclose(shares(top_k=2), [0.625, 0.375, 0, 0], atol=0.03)
    np.testing.assert_allclose(shares(top_p=0.5), [1, 0, 0, 0])
    np.testing.assert_allclose(shares(top_p=0.51), [0.625, 0.375, 0, 0], atol=0.03)
    np.testing.assert_allclose(shares(temperature=0), [1, 0, 0, 0])
    np.testing.assert_allclose(shares(top_k=99, top_p=1.0), [0.5, 0.3, 0.15, 0.05], atol=0.03)


def test_extreme_logits_are_drawn_from():
    assert draw_token(np.array([-np.inf, 3e38, 0.0]), rng=0) == 1
    assert draw_token(np.array([1e-45, -1e30]), rng=0) == 0
    assert draw_token(np.array([1.0, 2.0]), temperature=1e-300, rng=0) == 1
    assert draw_token(np.array([1.0, np.inf, 2.0]), rng=0) == 1
    assert {draw_token(np.array([np.inf, 0.0, np.inf]), rng=seed) for seed in range(9)} == {0, 2}
    assert {draw_token(np.full(2, -np.inf), rng=seed) for seed in range(9)} == {0, 1}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
    ],
)
def test_drawing_refuses(options, words):
    with pytest.raises(ValueError, match=words):
        draw_token(np.zeros(3), **options)
    with pytest.raises(ValueError, match=words):
        next(small().generate([1], 1, **options))


def test_nothing_is_drawn_from_nan_or_from_nothing():
    with pytest.raises(ValueError, match="NaN"):
        draw_token(np.array([0.0, np.nan]))
    with pytest.raises(ValueError, match="at least one token"):
        next(small().generate([], 1))


# --- files of GPT-2 -----------------------------------------------------------------------


def test_weights_go_to_a_file_of_gpt_2_and_come_back(xb_device: Device, tmp_path):
    model = small()
    save_gpt2(model, tmp_path / "made")
    tensors = load_file(tmp_path / "made" / "model.safetensors")
    assert tensors["transformer.h.0.attn.c_attn.weight"].shape == (12, 36)
    assert tensors["transformer.h.1.mlp.c_fc.weight"].shape == (12, 48)
    assert "lm_head.weight" not in tensors
    again = load_gpt2(tmp_path / "made")
    assert repr(again) == repr(model)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], array)
    np.testing.assert_array_equal(
        xb.to_host(again(xb.asarray([[1, 2]]))), xb.to_host(model(xb.asarray([[1, 2]])))
    )


def published(model):
    """The tensors of a file as it was published: no prefix, masks, and in older ones the head."""
    state = {
        name: np.ascontiguousarray(array.T) if ".c_" in name and array.ndim == 2 else array
        for name, array in model.state_dict().items()
    }
    mask = np.tril(np.ones((1, 1, 8, 8), np.float32))
    masks = {f"h.{layer}.attn.bias": mask for layer in range(2)}
    return {**state, **masks, "lm_head.weight": state["wte.weight"]}


def test_a_published_file_without_a_config_needs_the_number_of_heads(tmp_path):
    model = small()
    path = tmp_path / "model.safetensors"
    save_file(published(model), path)
    with pytest.raises(ValueError, match="num_heads"):
        load_gpt2(path)
    again = load_gpt2(path, num_heads=2, dtype=np.float64)
    assert again.dtype == np.float64
    np.testing.assert_allclose(again(np.array([[1, 2]])), model(np.array([[1, 2]])), atol=1e-5)
    wide = nn.GPT(5, 4, 1, 2, 128, rng=0)
    save_gpt2(wide, tmp_path / "wide")
    (tmp_path / "wide" / "config.json").unlink()
    assert load_gpt2(tmp_path / "wide").num_heads == 2  # of 64 features each


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda t: t.pop("h.0.ln_1.bias"), ValueError, "h.0.ln_1.bias is None"),
        (lambda t: t.update({"h.2.ln_1.bias": np.zeros(12)}), ValueError, "3 blocks"),
        (lambda t: t.update({"more": np.zeros(1)}), ValueError, "more is"),
        (lambda t: t.pop("wpe.weight"), ValueError, "no wte.weight and wpe.weight"),
        (
            lambda t: t.update({"lm_head.weight": np.zeros((11, 12))}),
            NotImplementedError,
            "lm_head",
        ),
    ],
)
def test_weights_of_something_else_are_refused(tmp_path, change, error, words):
    tensors = published(small())
    change(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(error, match=words):
        load_gpt2(tmp_path, num_heads=2)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("{", ValueError, "cannot be read"),
        ("[]", ValueError, "expected an object"),
        (json.dumps({"activation_function": "relu"}), NotImplementedError, "activation_function"),
        (json.dumps({"tie_word_embeddings": False}), NotImplementedError, "tie_word_embeddings"),
    ],
)
def test_a_config_of_something_else_is_refused(tmp_path, text, error, words):
    save_gpt2(small(), tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(error, match=words):
        load_gpt2(tmp_path)


def test_weights_in_several_files_and_in_none(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_gpt2(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(NotImplementedError, match="several files"):
        load_gpt2(tmp_path)


def test_a_model_without_biases_is_no_gpt_2(tmp_path):
    with pytest.raises(ValueError, match="biases"):
        save_gpt2(small(bias=False), tmp_path)


def test_backward_lets_go_of_what_it_has_used():
    model = small()
    logits, saved = model.forward(some_tokens(2, 4))
    grad = np.ones_like(logits)
    model.backward(grad, saved, keep=True)
    once = model.wte.weight.grad.copy()
    model.backward(grad, saved)
    np.testing.assert_allclose(model.wte.weight.grad, 2 * once, rtol=1e-5)
    with pytest.raises(RuntimeError):
        model.backward(grad, saved)


def test_tokens_that_the_cache_or_the_model_does_not_know(xb_device: Device):
    model = small().eval()
    with pytest.raises(ValueError, match="of 2 texts; got tokens of 1"):
        next_logits(model, xb.asarray([[1, 2]]), KeyValueCache(model, batch=2))
    for prompt in ([11], [-1]):
        with pytest.raises(IndexError, match="from 0 to 10"):
            next(model.generate(prompt, 1))
    with pytest.raises(TypeError):
        next(model.generate([1.5], 1))
