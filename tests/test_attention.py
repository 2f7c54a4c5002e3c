"""Attention beside PyTorch where masks hide everything and scores are large, and in blocks."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from edge_cases import as_queries, edge_samples
from needs_torch import import_torch

import xbackprop as xb
from xbackprop import nn
from xbackprop.backend.device import Device
from xbackprop.testing import TOLERANCES

INF = float("inf")
both_dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def draw(*shapes: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def both_ways(layer: xb.Module, *inputs: Any, grad: np.ndarray | None = None) -> list[Any]:
    """Output and gradients of one call on the default device, on the host."""
    arrays = [xb.asarray(x, dtype=x.dtype) for x in inputs]
    output, saved = layer.forward(*arrays)
    if grad is None:
        grad = np.random.default_rng(1).normal(size=output.shape)
    grads = layer.backward(xb.asarray(grad, dtype=output.dtype), saved)
    return [None if x is None else xb.to_host(x) for x in (output, *grads)]


def pytorchs(inputs: list[np.ndarray], mask: np.ndarray | None, **options: Any) -> list[Any]:
    torch = import_torch()
    tensors = [torch.tensor(x, requires_grad=True) for x in inputs]
    masks = torch.tensor(mask) if mask is not None else None
    attend = torch.nn.functional.scaled_dot_product_attention
    output = attend(*tensors, masks, **options)
    output.backward(
        torch.tensor(np.random.default_rng(1).normal(size=output.shape)).to(output.dtype)
    )
    return [output.detach().numpy(), *(x.grad.numpy() for x in tensors)]


SHAPES = ((2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 7))
SHARES = np.array([0.5, 0.25, 0.25], np.float32)


# --- masks that hide everything -----------------------------------------------------------


def hiding(kind: str) -> np.ndarray:
    """Queries 1 and 4 see nothing."""
    sees = np.ones((5, 6), bool)
    sees[[1, 4]] = False
    sees[2, 3] = False
    return sees if kind == "bool" else np.where(sees, 0, -INF).astype(np.float32)


@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("block_size", [None, 1, 2])
def test_a_query_that_sees_nothing_gives_zeros(
    kind: str, block_size: int | None, xb_device: Device
) -> None:
    inputs, mask = draw(*SHAPES), hiding(kind)
    layer = nn.ScaledDotProductAttention(block_size=block_size)
    output, grad_q, grad_k, grad_v, grad_mask = both_ways(layer, *inputs, mask)
    for array in (output, grad_q):
        assert (array[:, :, [1, 4]] == 0).all()
        assert (array[:, :, [0, 2, 3]] != 0).all()
    assert np.isfinite(grad_k).all()
    assert np.isfinite(grad_v).all()
    assert (grad_mask is None) == (kind == "bool")
    if grad_mask is not None:
        assert ((grad_mask == 0) == np.isinf(mask)).all()


@pytest.mark.torch_parity("ScaledDotProductAttention")
@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_query_that_sees_nothing_is_that_of_pytorch(kind: str) -> None:
    inputs, mask = draw(*SHAPES), hiding(kind)
    with xb.use_device("cpu"):
        received = both_ways(nn.ScaledDotProductAttention(), *inputs, mask)
    for mine, theirs in zip(received, pytorchs(inputs, mask), strict=False):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 0, 4), (0, 5, 4), (2, 5, 0)])
@pytest.mark.parametrize("is_causal", [False, True])
def test_no_keys_no_samples_no_features(
    shape: tuple[int, ...], is_causal: bool, xb_device: Device
) -> None:
    batch, keys, features = shape
    inputs = draw((batch, 3, features), (batch, keys, features), (batch, keys, 2))
    output, *grads = both_ways(nn.ScaledDotProductAttention(is_causal=is_causal), *inputs)
    assert output.shape == (batch, 3, 2)
    assert [grad.shape for grad in grads] == [x.shape for x in inputs]
    if not features and not is_causal:  # without features every key is as near as the others
        np.testing.assert_allclose(output, np.repeat(inputs[2].mean(1, keepdims=True), 3, 1), 1e-6)
    else:
        assert not output.any() or is_causal


def test_what_is_hidden_changes_nothing(xb_device: Device) -> None:
    q, k, v = draw(*SHAPES)
    sees = np.array([True, True, False, True, False, True])
    layer = nn.ScaledDotProductAttention()
    before = both_ways(layer, q, k, v, np.broadcast_to(sees, (5, 6)))
    k[:, :, ~sees] += 7
    v[:, :, ~sees] -= 3
    after = both_ways(layer, q, k, v, np.broadcast_to(sees, (5, 6)))
    for one, other in zip(before[:-1], after[:-1], strict=True):
        assert one.tobytes() == other.tobytes()
    shorter = both_ways(layer, q, k[:, :, sees], v[:, :, sees])
    np.testing.assert_allclose(after[0], shorter[0], atol=1e-6)
    np.testing.assert_allclose(after[1], shorter[1], atol=1e-6)


# --- large scores -------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize("size", [30.0, 1e3, 1e4, 1e18])
def test_large_scores_keep_their_digits(dtype: str, size: float, xb_device: Device) -> None:
    """Two keys share the weight at a score of `size`, and the softmax knows their difference.

    A logsumexp in one number would lose it: at 1e4 a float32 has three digits behind the point.
    """
    q = np.array([[size]], dtype)
    k = np.array([[1.0], [1.0], [-1.0]], dtype)
    v = np.array([[1.0], [3.0], [100.0]], dtype)
    mask = np.array([[0.0, 0.5, 0.0]], dtype) * (size < 1e18)
    grad = np.ones((1, 1), dtype)
    layer = nn.ScaledDotProductAttention(scale=1.0)
    output, grad_q, _, grad_v, _ = both_ways(layer, q, k, v, mask.astype(dtype), grad=grad)
    share = np.exp([0.0, mask[0, 1]])
    share /= share.sum()
    tolerance = 2e-3 if dtype == "float32" and size > 1e3 else 1e-4  # of `size` + 0.5
    np.testing.assert_allclose(output, [[share @ [1, 3]]], rtol=tolerance)
    np.testing.assert_allclose(grad_v[:, 0], [*share, 0], atol=tolerance)
    np.testing.assert_allclose(grad_v.sum(), 1, rtol=1e-6)  # what backward makes anew is a share
    np.testing.assert_allclose(grad_q, [[0]], atol=1e-4)


@pytest.mark.torch_parity("ScaledDotProductAttention")
@pytest.mark.parametrize("which", ["query", "key", "value"])
def test_patterns_where_float32_ends_are_those_of_pytorch(which: str) -> None:
    x = edge_samples()
    ordinary = as_queries(x)
    edges = {
        "query": ordinary,
        "key": (ordinary[1][:, :, :1], x[:, None, None] * SHARES[:, None], ordinary[2]),
        "value": (*ordinary[:2], x[:, None, None] * SHARES[:, None]),
    }
    inputs = [part[:, 0].astype(np.float32) for part in edges[which]]
    with xb.use_device("cpu"), np.errstate(all="ignore"):
        received = both_ways(nn.ScaledDotProductAttention(), *inputs)
    parts = list(zip(received, pytorchs(inputs, None), strict=True))
    if which == "value":  # a score's gradient from infinite values: NaN in PyTorch, inf or NaN here
        parts = [parts[0], parts[3]]
    for mine, theirs in parts:
        for kind in (np.isnan, np.isposinf, np.isneginf):
            np.testing.assert_array_equal(kind(mine), kind(theirs))


@pytest.mark.parametrize("block_size", [None, 2])
def test_causal_is_the_mask_of_the_lower_triangle(
    block_size: int | None, xb_device: Device
) -> None:
    inputs, sees = draw(*SHAPES), np.tril(np.ones((5, 6), bool))
    causal = both_ways(nn.ScaledDotProductAttention(is_causal=True, block_size=block_size), *inputs)
    masked = both_ways(nn.ScaledDotProductAttention(), *inputs, sees)
    for one, other in zip(causal, masked, strict=False):
        np.testing.assert_allclose(one, other, atol=1e-6)


# --- blocks -------------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("block_size", [1, 2, 3, 4, 5, 100])
def test_blocks_give_the_numbers_of_the_whole(
    block_size: int, is_causal: bool, dtype: str, xb_device: Device
) -> None:
    for queries, keys in ((5, 6), (6, 5), (5, 1), (1, 5)):
        inputs = draw((2, queries, 4), (2, keys, 4), (2, keys, 3), (queries, keys), dtype=dtype)
        results = [
            both_ways(nn.ScaledDotProductAttention(is_causal=is_causal, block_size=size), *inputs)
            for size in (None, block_size)
        ]
        for whole, blocks in zip(*results, strict=True):
            tolerance = TOLERANCES[dtype].reordered
            np.testing.assert_allclose(blocks, whole, rtol=tolerance, atol=tolerance)


def test_dropout_drops_the_same_in_blocks(xb_device: Device) -> None:
    inputs = draw(*SHAPES)
    whole, blocks = (
        both_ways(nn.ScaledDotProductAttention(0.5, block_size=size, rng=3), *inputs)
        for size in (None, 2)
    )
    for one, other in zip(whole, blocks, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("is_causal", [False, True])
def test_blocks_take_memory_linear_in_tokens(is_causal: bool) -> None:
    """Four times the tokens: at most five times the memory, where all scores would take sixteen."""
    peaks = []
    for tokens in (512, 2048):
        inputs = draw(*((1, tokens, 8),) * 3)
        layer = nn.ScaledDotProductAttention(is_causal=is_causal, block_size=16)
        with xb.use_device("cpu"):
            tracemalloc.start()
            both_ways(layer, *inputs)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < 5 * peaks[0]
    assert peaks[1] < 2048 * 2048  # bytes; the scores alone would be four times that


# --- dropout ------------------------------------------------------------------------------


def test_dropout_keeps_the_mean_and_moves_its_counter_in_training_only(xb_device: Device) -> None:
    q, k = draw((64, 8), (500, 8))
    v = np.ones((500, 1), np.float32)
    layer = nn.ScaledDotProductAttention(0.25, rng=0)
    first, *_ = both_ways(layer, q, k, v)
    second, *_ = both_ways(layer, q, k, v)
    assert first.tobytes() != second.tobytes()
    assert abs(first.mean() - 1) < 0.05
    assert layer.extra_state()["random_state"][2] == 2
    output, *_ = both_ways(layer.eval(), q, k, v)
    np.testing.assert_allclose(output, 1, rtol=1e-6)
    assert layer.extra_state()["random_state"][2] == 2


# --- refusals -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dropout_p": 1.5}, ValueError, "expects dropout_p between 0 and 1; got 1.5"),
        ({"dropout_p": "a"}, TypeError, "expects dropout_p to be a number; got str"),
        ({"scale": "a"}, TypeError, "expects scale to be a number; got str"),
        ({"block_size": 0}, ValueError, "expects block_size >= 1; got 0"),
        ({"block_size": 2.5}, TypeError, "expects block_size to be an int; got float"),
    ],
)
def test_refused_arguments(options: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=f"^ScaledDotProductAttention {message}"):
        nn.ScaledDotProductAttention(**options)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((5,), (6, 5), (6, 5)), r"of shape \(..., L, E\), key .*; got \(5,\), \(6, 5\) and \(6"),
        (((4, 5), (6, 4), (6, 5)), r"got \(4, 5\)"),
        (((4, 5), (6, 5), (7, 5)), r"got \(4, 5\)"),
        (((2, 4, 5), (3, 6, 5), (3, 6, 5)), "whose leading axes broadcast"),
        (((2, 4, 5), (2, 6, 5), (3, 6, 5)), "whose leading axes broadcast"),
        (((2, 4, 5), (2, 6, 5), (2, 6, 5), (6,)), r"broadcasts to \(2, 4, 6\); got \(6,\)"),
        (((2, 4, 5), (2, 6, 5), (2, 6, 5), (3, 6)), r"broadcasts to \(2, 4, 6\); got \(3, 6\)"),
        (((4, 5), (6, 5), (6, 5), (2, 4, 6)), r"broadcasts to \(4, 6\); got \(2, 4, 6\)"),
    ],
)
def test_shapes_that_do_not_fit(shapes: Any, message: str, xb_device: Device) -> None:
    with pytest.raises(ValueError, match=f"^ScaledDotProductAttention expects .*{message}"):
        nn.ScaledDotProductAttention()(*map(xb.asarray, draw(*shapes)))


@pytest.mark.parametrize(
    "shapes",
    [
        ((4, 5), (6, 5), (6, 5)),
        ((3, 4, 5), (2, 6, 5), (2, 6, 5)),
        ((4, 4, 5), (2, 6, 5), (4, 6, 5)),
    ],
)
def test_heads_that_do_not_group(shapes: Any, xb_device: Device) -> None:
    with pytest.raises(ValueError, match=r"with enable_gqa expects .* groups divides heads; got"):
        nn.ScaledDotProductAttention(enable_gqa=True)(*map(xb.asarray, draw(*shapes)))


def test_refused_kinds(xb_device: Device) -> None:
    layer = nn.ScaledDotProductAttention()
    x, mask = xb.asarray(draw((4, 4))[0]), np.ones((4, 4))
    for wrong in (mask, mask.astype(np.int64)):
        message = f"attn_mask of dtype float32; got {wrong.dtype}"
        with pytest.raises(TypeError, match=f"^ScaledDotProductAttention expects {message}"):
            layer(x, x, x, xb.asarray(wrong, dtype=wrong.dtype))
    with pytest.raises(TypeError, match=r"expects query of a float dtype; got int64"):
        layer(xb.asarray(mask, dtype=np.int64), x, x)
    with pytest.raises(TypeError, match=r"expects key of dtype float32; got float64"):
        layer(x, xb.asarray(mask, dtype=np.float64), x)
    with pytest.raises(TypeError, match=r"expects value to be an array; got list"):
        layer(x, x, [1.0])
    with pytest.raises(TypeError, match=r"expects attn_mask to be an array; got list"):
        layer(x, x, x, [True])


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((4, 3), {}, ValueError, "num_heads to divide embed_dim; got embed_dim=4 and num_heads=3"),
        ((0, 1), {}, ValueError, "embed_dim >= 1; got 0"),
        ((4, 0), {}, ValueError, "num_heads >= 1; got 0"),
        ((4, 2, 1.5), {}, ValueError, "dropout between 0 and 1; got 1.5"),
        ((4, 2), {"block_size": 0}, ValueError, "block_size >= 1; got 0"),
    ],
)
def test_heads_refuse_arguments(
    arguments: Any, options: dict[str, Any], error: type, message: str
) -> None:
    with pytest.raises(error, match=f"^MultiheadAttention expects {message}"):
        nn.MultiheadAttention(*arguments, **options)


@pytest.mark.parametrize(
    "shapes",
    [
        ((4,), (4,), (4,)),
        ((3, 2, 5), (3, 2, 4), (3, 2, 4)),
        ((3, 2, 4), (5, 1, 4), (5, 1, 4)),
        ((3, 2, 4), (5, 2, 4), (6, 2, 4)),
        ((3, 4), (5, 2, 4), (5, 2, 4)),
    ],
)
def test_heads_refuse_shapes(shapes: Any, xb_device: Device) -> None:
    with pytest.raises(ValueError, match=r"^MultiheadAttention expects query of shape \(L, batch"):
        nn.MultiheadAttention(4, 2)(*map(xb.asarray, draw(*shapes)))


def test_heads_refuse_masks(xb_device: Device) -> None:
    layer = nn.MultiheadAttention(4, 2)
    x = xb.asarray(draw((3, 2, 4))[0])
    wrong = xb.asarray(np.zeros((3, 2), bool), dtype=bool)
    with pytest.raises(ValueError, match=r"key_padding_mask of shape \(2, 3\); got \(3, 2\)"):
        layer(x, x, x, key_padding_mask=wrong)
    with pytest.raises(ValueError, match=r"attn_mask of shape \(3, 3\) or \(4, 3, 3\); got"):
        layer(x, x, x, attn_mask=wrong)
    with pytest.raises(ValueError, match=r"expects attn_mask beside is_causal"):
        layer(x, x, x, is_causal=True)


@pytest.mark.torch_parity("MultiheadAttention")
@pytest.mark.parametrize("need_weights", [True, False])
def test_heads_without_any_key_are_those_of_pytorch(need_weights: bool) -> None:
    """NaN with weights, what the output's bias gives without."""
    torch = import_torch()
    theirs = torch.nn.MultiheadAttention(4, 2, batch_first=True)
    with xb.use_device("cpu"):
        ours = nn.MultiheadAttention(4, 2, batch_first=True)
        ours.load_state_dict(theirs.state_dict())
        x, mask = draw((2, 3, 4))[0], np.array([[False] * 3, [True] * 3])
        received = ours(x, x, x, mask, need_weights)[0]
    tensor = torch.tensor(x)
    expected = theirs(tensor, tensor, tensor, torch.tensor(mask), need_weights)[0]
    np.testing.assert_allclose(received, expected.detach().numpy(), atol=1e-6)
    assert np.isnan(received[1]).all() == need_weights


def test_initial_values_of_heads_are_distributed_as_in_pytorch(xb_device: Device) -> None:
    """Glorot's bound for the packed matrix, zeros for biases, Xavier's deviation for bias_kv."""
    layer = nn.MultiheadAttention(64, 2, add_bias_kv=True, rng=0)
    state, bound = layer.state_dict(), np.sqrt(6 / (64 + 192))
    packed = state["in_proj_weight"]
    assert 0.99 * bound < np.abs(packed).max() <= bound
    assert abs(packed.std() / (bound / np.sqrt(3)) - 1) < 0.02
    assert 0.95 / 8 < np.abs(state["out_proj.weight"]).max() <= 1 / 8
    assert not state["in_proj_bias"].any()
    assert not state["out_proj.bias"].any()
    for name in ("bias_k", "bias_v"):
        assert abs(state[name].std() * 8 - 1) < 0.3


def test_heads_draw_anew(xb_device: Device) -> None:
    layer = nn.MultiheadAttention(4, 2, 0.5, kdim=3, add_bias_kv=True, rng=0)
    before = layer.state_dict() | layer.extra_state()
    layer.reset_parameters(1)
    after = layer.state_dict() | layer.extra_state()
    changed = {name for name in before if before[name].tobytes() != after[name].tobytes()}
    assert set(before) - changed == {"in_proj_bias", "out_proj.bias"}
    layer.reset_parameters(0)
    for name, array in (layer.state_dict() | layer.extra_state()).items():
        np.testing.assert_array_equal(array, before[name])
