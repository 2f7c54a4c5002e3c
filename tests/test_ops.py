"""The array functions that layers share, and the initial values: against references."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from needs_torch import import_torch

import xbackprop as xb
from xbackprop import initializers
from xbackprop.backend.device import Device
from xbackprop.ops.matmul import dot_rows, flatten_rows
from xbackprop.ops.moments import mean, moments
from xbackprop.ops.random_bits import new_state, next_call, philox, random_bits
from xbackprop.ops.softmax import log_softmax, logsumexp, softmax
from xbackprop.ops.special import erf, sigmoid, softplus
from xbackprop.testing import TOLERANCES

both_dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def on(device: Device, array: np.ndarray) -> xb.Array:
    return xb.to_device(array, device)


# --- softmax ------------------------------------------------------------------------------


@both_dtypes
def test_softmax_is_exp_over_sum(dtype: str, xb_device: Device) -> None:
    x = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(dtype)
    for axis in (-1, 0, 1):
        expected = np.exp(x) / np.exp(x).sum(axis=axis, keepdims=True)
        received = xb.to_host(softmax(on(xb_device, x), axis))
        assert received.dtype == x.dtype
        tolerance = TOLERANCES[dtype].reordered
        np.testing.assert_allclose(received, expected, rtol=10 * tolerance)
        logs = xb.to_host(log_softmax(on(xb_device, x), axis))
        np.testing.assert_allclose(np.exp(logs), expected, rtol=10 * tolerance)


@both_dtypes
def test_softmax_of_extreme_rows(dtype: str, xb_device: Device) -> None:
    inf = math.inf
    x = np.array([[1e4, 0, -1e4], [-1e4, -1e4, -1e4], [0, -inf, 0], [-inf, -inf, -inf]], dtype)
    with np.errstate(all="ignore"):  # as the call frame has it around every layer
        total = xb.to_host(logsumexp(on(xb_device, x)))
        probability = xb.to_host(softmax(on(xb_device, x)))
        logs = xb.to_host(log_softmax(on(xb_device, x)))
    assert total.shape == (4, 1)
    expected = [1e4, -1e4 + math.log(3), math.log(2), -inf]
    np.testing.assert_allclose(total[:, 0], np.array(expected, dtype), rtol=1e-6)
    np.testing.assert_allclose(probability[0], [1, 0, 0])
    reordered = TOLERANCES[dtype].reordered
    np.testing.assert_allclose(probability[1], [1 / 3] * 3, rtol=reordered)
    np.testing.assert_allclose(probability[2], [0.5, 0, 0.5], rtol=reordered)
    assert np.isnan(probability[3]).all()  # no distribution, as in PyTorch
    np.testing.assert_allclose(logs[1], [-math.log(3)] * 3, rtol=reordered)
    np.testing.assert_allclose(logs[2], [-math.log(2), -inf, -math.log(2)], rtol=reordered)


# --- special functions --------------------------------------------------------------------


def test_erf_is_exact_to_1e_15(xb_device: Device) -> None:
    grid = np.concatenate([np.linspace(-7, 7, 40_001), np.array([0.46875, 4.0, 6.5, 30.0, 1e300])])
    edges = [np.nextafter(point, side) for point in (0.46875, 4.0) for side in (-9, 9)]
    x = np.concatenate([grid, edges, -np.array(edges)])
    expected = np.array([math.erf(value) for value in x])
    received = xb.to_host(erf(on(xb_device, x)))
    assert np.abs(received - expected).max() < 1e-15


def test_erf_of_float32_is_exact_to_its_last_bits(xb_device: Device) -> None:
    x = np.linspace(-6, 6, 20_001, dtype=np.float32)
    expected = np.array([math.erf(value) for value in x])
    received = xb.to_host(erf(on(xb_device, x)))
    assert received.dtype == np.float32
    assert np.abs(received - expected).max() < 3e-7  # five units in the last place of 1


@both_dtypes
def test_erf_at_the_ends(dtype: str, xb_device: Device) -> None:
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-30], dtype)
    received = xb.to_host(erf(on(xb_device, x)))
    np.testing.assert_allclose(received[:5], [0, 0, 1, -1, np.nan])
    assert np.signbit(received[1])
    np.testing.assert_allclose(received[5], 2e-30 / math.sqrt(math.pi), rtol=1e-6)


@both_dtypes
def test_sigmoid_and_softplus_do_not_overflow(dtype: str, xb_device: Device) -> None:
    x = np.array([1e4, -1e4, 0.0, 30.0, -30.0, np.inf, -np.inf], dtype)
    probability = xb.to_host(sigmoid(on(xb_device, x)))
    small = math.exp(-30.0)
    expected = [1, 0, 0.5, 1 / (1 + small), small / (1 + small), 1, 0]
    assert probability.dtype == x.dtype
    np.testing.assert_allclose(probability, expected, rtol=1e-6)
    logs = xb.to_host(softplus(on(xb_device, x)))
    expected = [1e4, 0, math.log(2), 30 + small, math.log1p(small), np.inf, 0]
    assert logs.dtype == x.dtype
    np.testing.assert_allclose(logs, expected, rtol=1e-6)


# --- products -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 4, 3), (2, 2, 4, 3), (0, 3), (2, 0, 3)])
def test_dot_rows_is_matmul(shape: tuple[int, ...], xb_device: Device) -> None:
    rng = np.random.default_rng(0)
    x, matrix = rng.normal(size=shape), rng.normal(size=(3, 2))
    received = xb.to_host(dot_rows(on(xb_device, x), on(xb_device, matrix)))
    assert received.shape == (*shape[:-1], 2)
    np.testing.assert_allclose(received, np.matmul(x, matrix), rtol=1e-13, atol=1e-13)
    rows = xb.to_host(flatten_rows(on(xb_device, x)))
    np.testing.assert_array_equal(rows, x.reshape(math.prod(shape[:-1]), 3))


# --- random bits --------------------------------------------------------------------------

# The Random123 distribution, tests/kat_vectors, philox4x32 with 10 rounds: counter, key, output.
KNOWN_ANSWERS = [
    (
        "00000000 00000000 00000000 00000000",
        "00000000 00000000",
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ),
    (
        "ffffffff ffffffff ffffffff ffffffff",
        "ffffffff ffffffff",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


def hex_words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN_ANSWERS, ids=["zeros", "ones", "pi"])
def test_philox_gives_the_known_answers(
    counter: str, key: str, output: str, xb_device: Device
) -> None:
    words = hex_words(counter)
    state = np.array([*hex_words(key), words[2], words[3]], dtype=np.uint32)
    block = np.array([words[0] | words[1] << 32], dtype=np.uint64)
    received = philox(on(xb_device, state), on(xb_device, block))
    assert [int(xb.to_host(word)[0]) for word in received] == hex_words(output)
    assert all(word.dtype == np.uint32 for word in received)


def test_random_bits_are_the_words_of_block_after_block(xb_device: Device) -> None:
    key, output = hex_words(KNOWN_ANSWERS[0][1]), hex_words(KNOWN_ANSWERS[0][2])
    state = on(xb_device, np.array([*key, 0, 0], dtype=np.uint32))
    bits = xb.to_host(random_bits(state, (2, 3)))
    assert bits.ravel()[:4].tolist() == output
    second = philox(state, on(xb_device, np.array([1], dtype=np.uint64)))
    assert bits.ravel()[4:].tolist() == [int(xb.to_host(word)[0]) for word in second[:2]]


def test_shards_draw_what_the_whole_batch_draws(xb_device: Device) -> None:
    state = on(xb_device, new_state(np.random.default_rng(3)))
    whole = xb.to_host(random_bits(state, (13, 5)))
    for start, end in ((0, 1), (1, 4), (4, 4), (4, 11), (11, 13)):
        part = xb.to_host(random_bits(state, (end - start, 5), start * 5))
        np.testing.assert_array_equal(part, whole[start:end], strict=True)
    far = xb.to_host(random_bits(state, (8,), 2**40 + 3))
    np.testing.assert_array_equal(far[5:], xb.to_host(random_bits(state, (3,), 2**40 + 8)))
    # Blocks are numbered in 64 bits: 2**34 elements further, the 32-bit number would come again.
    assert not np.array_equal(
        xb.to_host(random_bits(state, (8,))), xb.to_host(random_bits(state, (8,), 2**34))
    )


def test_next_call_counts_in_64_bits(xb_device: Device) -> None:
    top = 2**32 - 1
    for before, after in (([0, 0], [1, 0]), ([top, 0], [0, 1]), ([top, top], [0, 0])):
        state = on(xb_device, np.array([7, 8, *before], dtype=np.uint32))
        following = next_call(state)
        assert xb.to_host(following).tolist() == [7, 8, *after]
        assert following.dtype == np.uint32
        assert xb.to_host(state).tolist() == [7, 8, *before]


def test_every_device_draws_the_same_bits(xb_device: Device) -> None:
    state = new_state(np.random.default_rng(5))
    expected = random_bits(state, (7, 9))
    np.testing.assert_array_equal(xb.to_host(random_bits(on(xb_device, state), (7, 9))), expected)


def test_random_bits_look_uniform_and_independent() -> None:
    state = new_state(np.random.default_rng(0))
    first = random_bits(state, (100_000,))
    assert first.dtype == np.uint32
    counts = np.bincount(first >> np.uint32(24), minlength=256)
    chi_square = ((counts - 390.625) ** 2 / 390.625).sum()
    assert 170 < chi_square < 360  # 255 degrees of freedom, beyond four standard deviations
    for bit in range(32):
        share = ((first >> np.uint32(bit)) & np.uint32(1)).mean()
        assert abs(share - 0.5) < 5 * 0.5 / math.sqrt(first.size), bit
    centred = first / 2**32 - 0.5
    others = random_bits(next_call(state), first.shape) / 2**32 - 0.5
    limit = 5 / math.sqrt(first.size)
    assert abs(np.corrcoef(centred[1:], centred[:-1])[0, 1]) < limit
    assert abs(np.corrcoef(centred, others)[0, 1]) < limit


def test_new_state_starts_counting_at_zero() -> None:
    first, second = (new_state(np.random.default_rng(seed)) for seed in (0, 1))
    assert first.dtype == np.uint32
    assert first[2:].tolist() == [0, 0]
    assert first[:2].tolist() != second[:2].tolist()


# --- initial values -----------------------------------------------------------------------


def test_uniform_fills_its_interval() -> None:
    drawn = initializers.uniform((400, 100), 0.3, rng=0, device="cpu")
    assert drawn.dtype == np.float32
    assert -0.3 <= drawn.min() < -0.2999
    assert 0.2999 < drawn.max() <= 0.3
    assert abs(drawn.mean()) < 5 * 0.3 / math.sqrt(3 * drawn.size)
    assert abs(drawn.var() - 0.3**2 / 3) < 1e-3


def test_kaiming_uniform_is_bounded_by_the_fan_in() -> None:
    drawn = initializers.kaiming_uniform((200, 25), 25, rng=0, device="cpu")
    assert 0.199 < np.abs(drawn).max() <= 0.2
    assert not initializers.kaiming_uniform((3, 0), 0, rng=0, device="cpu").size


def test_seeds_decide_and_dtypes_and_devices_agree(xb_device: Device) -> None:
    shape = (4, 5)
    expected = initializers.uniform(shape, 1.0, rng=3, dtype=np.float64, device="cpu")
    received = initializers.uniform(shape, 1.0, rng=3)
    assert xb.device_of(received) == xb_device
    np.testing.assert_array_equal(xb.to_host(received), expected.astype(np.float32))
    generator = np.random.default_rng(3)
    again = initializers.uniform(shape, 1.0, rng=generator, dtype=np.float64)
    np.testing.assert_array_equal(xb.to_host(again), expected)
    more = xb.to_host(initializers.uniform(shape, 1.0, rng=generator, dtype=np.float64))
    assert not np.array_equal(more, expected)  # the stream went on


def test_manual_seed_repeats_what_is_drawn_without_rng() -> None:
    draws = []
    for _ in range(2):
        xb.manual_seed(11)
        draws.append(initializers.uniform((5,), 1.0, device="cpu"))
    np.testing.assert_array_equal(*draws)
    assert not np.array_equal(draws[0], initializers.uniform((5,), 1.0, device="cpu"))


@pytest.mark.parametrize("rng", ["0", 0.5, True, np.random.RandomState])
def test_what_is_no_random_source_is_refused(rng: object) -> None:
    with pytest.raises(TypeError, match="rng expects a seed"):
        initializers.as_generator(rng)


@pytest.mark.parametrize("dtype", ["int32", "float16", "complex64"])
def test_layers_are_float32_or_float64(dtype: str) -> None:
    with pytest.raises(TypeError, match=f"float32 or float64; got {dtype}"):
        xb.nn.Linear(2, 2, dtype=dtype)


def test_placeholders_take_no_memory_and_draw_nothing(xb_device):
    xb.manual_seed(5)
    expected = np.random.default_rng(5).random()
    with initializers.placeholders():
        assert initializers.makes_placeholders()
        layer = xb.nn.Linear(10**9, 10**9, dtype=np.float64)
        dropout, loss = xb.nn.Dropout(0.5), xb.nn.CrossEntropyLoss(weight=[1.0, 2.0])
        xb.nn.Sequential(xb.nn.Linear(10**9, 2), xb.nn.Dropout(), rng=0)
        with ThreadPoolExecutor(1) as pool:  # another thread's layers are real
            assert pool.submit(initializers.makes_placeholders).result() is False
    assert not initializers.makes_placeholders()
    arrays = [layer.weight.data, layer.bias.data, dropout.random_state]
    for array, shape in zip(arrays, [(10**9, 10**9), (10**9,), (4,)], strict=True):
        assert (array.shape, set(array.strides)) == (shape, {0})
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    assert [array.dtype for array in arrays] == [np.float64, np.float64, np.uint32]
    assert type(loss.weight) is np.ndarray
    assert initializers.as_generator().random() == expected
    assert xb.nn.Linear(2, 2).weight.device == xb_device


def test_placeholders_end_where_a_constructor_fails():
    with pytest.raises(ValueError, match="in_features"), initializers.placeholders():
        xb.nn.Linear(-1, 2)
    assert not initializers.makes_placeholders()


# --- mean and variance --------------------------------------------------------------------

# Shapes and axes as layers have them: of a layer, of a batch of rows, of a batch of images.
FAR = [((64, 256), (1,)), ((4096, 5), (0,)), ((32, 3, 20, 20), (0, 2, 3))]
every_far = pytest.mark.parametrize(("shape", "axes"), FAR)
LEVELS = [0.0, 1e3, 1e6, 1e8, -1e8]  # at 1e8 neighbours in float32 are 8 apart


def far_from_zero(shape: tuple[int, ...], level: float) -> np.ndarray:
    return (level + np.random.default_rng(0).normal(size=shape)).astype(np.float32)


@every_far
@pytest.mark.parametrize("level", LEVELS)
def test_moments_have_all_digits_of_float32(
    shape: tuple[int, ...], axes: tuple[int, ...], level: float, xb_device: Device
) -> None:
    x = far_from_zero(shape, level)
    centered, center, var = map(xb.to_host, moments(on(xb_device, x), axes))
    exact = x.astype(np.float64)
    exact_center = exact.mean(axes, keepdims=True)
    assert center.dtype == var.dtype == np.float64
    assert centered.dtype == np.float32
    np.testing.assert_allclose(center, exact_center, rtol=1e-15, atol=1e-15)
    np.testing.assert_allclose(var, exact.var(axes, keepdims=True), rtol=1e-7)
    np.testing.assert_allclose(centered, exact - exact_center, rtol=2e-7, atol=2e-7)
    received = xb.to_host(mean(on(xb_device, x), axes))
    np.testing.assert_array_equal(received, exact_center.astype(np.float32), strict=True)


def test_variance_of_numbers_whose_squares_are_no_float32(xb_device: Device) -> None:
    for size in (1e-30, 1e25):
        x = np.array([[1, -1, 3, -3]], np.float32) * np.float32(size)
        var = xb.to_host(moments(on(xb_device, x), (1,))[2])
        np.testing.assert_allclose(var, [[5 * size * size]], rtol=1e-6)


@both_dtypes
def test_moments_of_nothing_are_zero(dtype: str, xb_device: Device) -> None:
    centered, center, var = moments(on(xb_device, np.zeros((0, 3), dtype)), (0,))
    assert centered.shape == (0, 3)
    assert xb.to_host(center).tolist() == xb.to_host(var).tolist() == [[0.0] * 3]


@pytest.mark.torch_parity
@every_far
@pytest.mark.parametrize("level", LEVELS)
def test_moments_are_at_most_twice_as_wrong_as_those_of_pytorch(
    shape: tuple[int, ...], axes: tuple[int, ...], level: float
) -> None:
    """In float32, the worst of all; rounding the exact number costs half a unit anyway."""
    torch = import_torch()
    x = far_from_zero(shape, level)
    _, center, var = moments(x, axes)
    theirs = torch.var_mean(torch.tensor(x), axes, correction=0, keepdim=True)
    exact = x.astype(np.float64)
    for received, expected, true in (
        (center, theirs[1], exact.mean(axes, keepdims=True)),
        (var, theirs[0], exact.var(axes, keepdims=True)),
    ):
        units = np.spacing(np.abs(true).astype(np.float32))
        wrong = np.max(abs(received.astype(np.float32) - true) / units)
        assert wrong <= 2 * max(0.5, np.max(abs(expected.numpy() - true) / units))
