"""CUDA kernels against their references, run on the CPU thread by thread.

Each case calls the kernel's own Python function, with arrays at addresses that 16 divides and at
others, and with the threads of a launch taking turns in order and in the reverse order: the results
must be the same bits, which they are not where a thread does not wait for another one.
"""

import copy
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu import running

import xbackprop.kernels.cuda
from xbackprop.dispatch import ArraySpec, Kernel, Op, as_specs
from xbackprop.kernels.cuda.ops import random_bits as random_module
from xbackprop.kernels.cuda.sources import SOURCES
from xbackprop.nn.activations.gates import (
    gelu_backward,
    gelu_forward,
    gelu_tanh_backward,
    gelu_tanh_forward,
)
from xbackprop.nn.activations.rectifiers import relu_backward
from xbackprop.nn.fusion import (
    bias_gelu_tanh_backward,
    bias_gelu_tanh_forward,
    bias_relu_backward,
    bias_relu_forward,
)
from xbackprop.nn.losses.cross_entropy import cross_entropy_backward, cross_entropy_forward
from xbackprop.nn.normalization.normalize import normalize_backward, normalize_forward
from xbackprop.nn.normalization.rms_norm import rms_norm_backward, rms_norm_forward
from xbackprop.ops.matmul import sum_rows
from xbackprop.ops.random_bits import next_call, random_bits, random_kept
from xbackprop.ops.scatter import sum_by_index
from xbackprop.optim.adam import adam_step
from xbackprop.optim.norms import sums_of_squares
from xbackprop.optim.sgd import sgd_step

pytestmark = pytest.mark.skipif(not running.CAN_RUN, reason=running.WHY_NOT)

# Reductions are float in both, and the result is rounded once: a unit in the last place or two.
TOLERANCE = {"float32": 2e-6, "float16": 2e-3, "bfloat16": 1.6e-2}
Memory = running.Memory


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Memory]:
    made = Memory()
    monkeypatch.setitem(sys.modules, "cupy", running.make_cupy(made))
    for source in SOURCES:
        source._functions.clear()
    running.launched.clear()
    yield made
    for source in SOURCES:
        source._functions.clear()
    made.check()


def flat(value: Any) -> list[Any]:
    if isinstance(value, (tuple, list)):
        return [part for item in value for part in flat(item)]
    return [value]


def find(op: Op, arguments: Any, options: dict[str, Any]) -> Kernel:
    (kernel,) = (
        kernel
        for kernel in op.kernels["cuda"]
        if kernel.when is None or kernel.when(*as_specs(arguments), **options)
    )
    return kernel


# Launches of CuPy's own functions, which are NumPy's here: the sort, and the indices in order.
FROM_CUPY = {"sum_by_index": 2}


def run(memory: Memory, op: Op, *arguments: Any, shift: int = 0, **options: Any) -> Any:
    """Return what the kernel makes of host arrays, having run it in both orders."""
    results = []
    # Reversed first: what thread 0 has not yet shared is then of an earlier launch.
    for is_reversed in (True, False):
        running.turn_around(is_reversed)
        placed = [
            memory.put(value, shift=shift) if isinstance(value, np.ndarray) else copy.copy(value)
            for value in arguments
        ]
        kernel = find(op, placed, options)
        running.launched.clear()
        result = kernel.function(*placed, **options)
        launches = len(running.launched) + FROM_CUPY.get(op.name, 0)
        assert launches == kernel.count_launches(tuple(placed), options)
        assert kernel.bytes_moved is not None
        assert (kernel.bytes_moved(*as_specs(placed), **options) > 0) is (launches > 0)
        results.append([result, [p for p in placed if isinstance(p, np.ndarray)]])
    for first, second in zip(flat(results[0]), flat(results[1]), strict=True):
        if isinstance(first, np.ndarray):
            assert first.tobytes() == second.tobytes()
    return results[0]


def widened(value: np.ndarray) -> np.ndarray:
    return np.asarray(value, dtype=np.float64) if value.dtype.kind in "fV" else np.asarray(value)


def compare(received: Any, expected: Any, dtype: str, scale: float) -> None:
    """Hold flat results against the reference's, which are float32 where `dtype` is meant."""
    for got, want in zip(flat(received), flat(expected), strict=True):
        if not isinstance(want, (np.ndarray, np.generic)):
            assert got == want
            continue
        assert got.shape == want.shape
        assert got.dtype == (running.DTYPES[dtype] if want.dtype == np.float32 else want.dtype)
        tolerance = TOLERANCE[dtype] * scale
        np.testing.assert_allclose(widened(got), widened(want), rtol=tolerance, atol=tolerance)


def check(
    memory: Memory, op: Op, *arguments: Any, shift: int = 0, scale: float = 1.0, **options: Any
) -> Any:
    """Compare a kernel with its reference, which is given halves as float32."""
    (result, _) = run(memory, op, *arguments, shift=shift, **options)
    dtypes = [str(a.dtype) for a in arguments if isinstance(a, np.ndarray)]
    with np.errstate(all="ignore"):
        expected = op.reference(*[_as_float(value) for value in arguments], **options)
    compare(result, expected, next(d for d in dtypes if d in TOLERANCE), scale)
    return result


def _as_float(value: Any) -> Any:
    is_half = isinstance(value, np.ndarray) and str(value.dtype) in ("float16", "bfloat16")
    return value.astype(np.float32) if is_half else copy.copy(value)


def numbers(shape: Any, dtype: str, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal(shape) * scale
    return np.asarray(drawn).astype(running.DTYPES[dtype])


every_dtype = pytest.mark.parametrize("dtype", list(TOLERANCE))

# --- the table of registers ---------------------------------------------------------------


def test_the_table_of_registers_names_every_instance() -> None:
    """`nox -s cuda_compile` compares the numbers; here without NVRTC."""
    table = json.loads((Path(__file__).parent / "cuda_compile/table.json").read_text("utf-8"))
    folder = Path(xbackprop.kernels.cuda.__file__).parent
    expected = {
        f"{source.path.relative_to(folder).as_posix()} {instance}": [
            f"sm_{number}" for number in (75, 80, 90, 100, 120)
            if number >= 80 or "BFloat16" not in instance
        ]
        for source in SOURCES
        for instance in source.instances
    }  # fmt: skip
    assert {name: list(row) for name, row in table["kernels"].items()} == expected
    spilled = {name for name, row in table["kernels"].items() for taken in row.values() if taken[2]}
    assert spilled == set()


# --- numbers of 16 bits -------------------------------------------------------------------


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_every_half_is_read_as_it_is(memory: Memory, half: str) -> None:
    values = np.arange(2**16, dtype=np.uint16).view(running.DTYPES[half])
    totals, _ = run(memory, sum_rows, values[None])
    np.testing.assert_array_equal(totals, values.astype(np.float32))


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_halves_are_rounded_to_nearest_ties_to_even(memory: Memory, half: str) -> None:
    bits = np.arange(0, 2**15 - 1, 13, dtype=np.uint16)
    exact, following = (
        (bits + np.uint16(step)).view(running.DTYPES[half]).astype(np.float32) for step in (0, 1)
    )
    is_pair = np.isfinite(following)
    exact, ties = exact[is_pair], exact[is_pair] / 2 + following[is_pair] / 2
    data = np.concatenate([
        exact, -exact, ties, np.nextafter(ties, 0), -np.nextafter(ties, np.float32(np.inf)),
        np.float32([0.0, -0.0, 65519, 65520, 1e-8, 3e38, math.inf, -math.inf, math.nan]),
    ])  # fmt: skip
    nothing = np.zeros_like(data)
    rest = [scalar(1, np.int64), scalar(0.0), None, None, None]
    copy_of = np.zeros(data.shape, running.DTYPES[half])
    options = {"dampening": 0.0, "nesterov": False, "maximize": False}
    arguments = [data, nothing, None, *rest, copy_of]
    _, placed = run(memory, sgd_step, *arguments, **options)
    with np.errstate(over="ignore"):
        expected = data.astype(running.DTYPES[half])
    np.testing.assert_array_equal(placed[-1].astype(np.float32), expected.astype(np.float32))
    np.testing.assert_array_equal(np.signbit(placed[-1]), np.signbit(expected))


# --- random bits --------------------------------------------------------------------------

STATES = {
    "zeros": np.array([0, 0, 0, 0], dtype=np.uint32),
    "ones": np.array([0xFFFFFFFF] * 4, dtype=np.uint32),
    "pi": np.array([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], dtype=np.uint32),
}
OFFSETS = [0, 1, 2, 3, 4, 1022, 2**32 - 2, 2**33 + 5, 2**34 + 3, 2**40 + 1]


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("shape", [(1,), (3,), (4,), (2, 3, 5), (1025,), (4099,)], ids=str)
@pytest.mark.parametrize("state", STATES)
def test_random_bits(memory: Memory, state: str, shape: tuple[int, ...], offset: int) -> None:
    bits, (placed,) = run(memory, random_bits, STATES[state], shape, offset)
    np.testing.assert_array_equal(bits, random_bits.reference(STATES[state], shape, offset))
    np.testing.assert_array_equal(placed, STATES[state])
    ((_, (grid,), block),) = running.launched
    blocks = (offset % 4 + bits.size + 3) // 4
    assert (grid - 1) * block < blocks <= grid * block  # enough threads, and no block too many


@pytest.mark.parametrize("bound", [0, 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize(("shape", "offset"), [((4, 5), 0), ((1030,), 0), ((7,), 3), ((9,), 2**33)])
def test_random_masks(memory: Memory, shape: tuple[int, ...], offset: int, bound: int) -> None:
    kept, _ = run(memory, random_kept, STATES["pi"], shape, bound, offset)
    assert kept.dtype == bool
    expected = random_kept.reference(STATES["pi"], shape, bound, offset)
    np.testing.assert_array_equal(kept.view(np.uint8), expected.view(np.uint8))


@pytest.mark.parametrize("words", [[1, 2, 3, 4], [1, 2, 2**32 - 1, 7], [1, 2] + [2**32 - 1] * 2])
def test_next_call(memory: Memory, words: list[int]) -> None:
    state = np.array(words, dtype=np.uint32)
    following, _ = run(memory, next_call, state)
    np.testing.assert_array_equal(following, next_call.reference(state))


def test_a_bound_is_reached_by_its_own_bits(memory: Memory) -> None:
    bits = random_bits.reference(STATES["pi"], (50,))
    kept, _ = run(memory, random_kept, STATES["pi"], (50,), int(bits[17]))
    assert kept[17]


def test_random_bits_known_answers(memory: Memory) -> None:
    """Random123's kat_vectors, philox4x32 with 10 rounds, counters that a block number can take."""
    bits, _ = run(memory, random_bits, STATES["zeros"], (4,))
    assert [hex(word) for word in bits] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]
    # Counter and key all ones: the block number is 2**64 - 1.
    bits, _ = run(memory, random_bits, STATES["ones"], (4,), 4 * (2**64 - 1))
    assert [hex(word) for word in bits] == ["0x408f276d", "0x41c83b0e", "0xa20bc7c6", "0x6d5451fd"]


ONE_THREAD = """
#include "cuda.h"
{source}
int main(int count, char** arguments)  // of a launch too large to run
{{
    unsigned int state[4] = {{{state}}}, out[4];
    for (int i = 1; i + 1 < count; i += 2) {{
        unsigned long long place = strtoull(arguments[i], 0, 10);
        unsigned int skip = atoi(arguments[i + 1]);
        blockDim.x = {block};
        blockIdx.x = (unsigned int)(place / blockDim.x);
        threadIdx.x = (unsigned int)(place % blockDim.x);
        random_bits(state, out - 4 * place + skip, 3, skip, 1ull << 40);
        printf("%u %u %u %u\\n", out[0], out[1], out[2], out[3]);
    }}
}}
"""


def test_random_bits_count_threads_in_64_bits(tmp_path: Path) -> None:
    """A thread's number in its launch, which is too large to run, is that of its four outputs."""
    places = [2**30, 2**32 - 1, 2**32, 2**32 + 5, 2**36 + 1]
    program = ONE_THREAD.format(
        source=random_module.SOURCE.text,
        state=", ".join(map(str, STATES["pi"])),
        block=random_module.THREADS,
    )
    (tmp_path / "one.cpp").write_text(program, encoding="ascii")
    running.compile_cpp(tmp_path / "one.cpp", tmp_path / "one")
    # By itself: a thread that writes elsewhere would take pytest along.
    pairs = [str(number) for place in places for skip in (0, 1) for number in (place, skip)]
    command = [str(tmp_path / "one"), *pairs]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0
    received = [list(map(int, line.split())) for line in run.stdout.splitlines()]
    expected = [random_bits.reference(STATES["pi"], (4,), 4 * (place + 3)) for place in places]
    assert received == [bits.tolist() for bits in expected for _ in (0, 1)]


# --- cross-entropy ------------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    ("rows", "classes", "index", "shift"),
    [(1, 1, "int64", 0), (3, 10, "int32", 0), (5, 64, "int64", 0), (2, 64, "int64", 4),
     (2, 2100, "int64", 0)],
)  # fmt: skip
def test_cross_entropy(
    memory: Memory, rows: int, classes: int, index: str, shift: int, reduction: str, dtype: str
) -> None:
    logits = numbers((rows, classes), dtype, scale=3)
    target = (np.arange(rows) * 7 % classes).astype(index)
    target[-1:] = -100 if rows > 2 else target[-1:]
    grad_output = numbers((rows,) if reduction == "none" else (), dtype, seed=1)
    options = {"reduction": reduction}
    check(memory, cross_entropy_forward, logits, target, shift=shift, scale=4, **options)
    with np.errstate(all="ignore"):
        _, saved = cross_entropy_forward.reference(_as_float(logits), target, **options)
    saved = [logits, target, *(part.astype(logits.dtype) for part in saved[2:4]), None]
    for grad in (grad_output, 1.0) if reduction != "none" else (grad_output,):
        check(memory, cross_entropy_backward, grad, *saved, shift=shift, **options)


ROWS = {
    "large": [1e4, 1e4 + 1, 9.99e3, -1e4],
    "infinite": [math.inf, 1.0, 2.0, 3.0],
    "twice infinite": [math.inf, math.inf, 2.0, 3.0],
    "nothing": [-math.inf] * 4,
    "one": [-math.inf, 0.0, -math.inf, -math.inf],
    "nan": [math.nan, 1.0, math.inf, 0.0],
}


@pytest.mark.parametrize("target", [0, 3, -100, 4, -1])
@pytest.mark.parametrize("row", ROWS)
def test_cross_entropy_of_special_rows(memory: Memory, row: str, target: int) -> None:
    logits = np.array([ROWS[row], [0.5, 1.0, -1.0, 2.0]], dtype=np.float32)
    for reduction in ("none", "mean"):
        labels = np.array([target, 1])
        check(memory, cross_entropy_forward, logits, labels, reduction=reduction)
        with np.errstate(all="ignore"):
            _, saved = cross_entropy_forward.reference(logits, labels)
        grad = np.ones(2, np.float32) if reduction == "none" else 1.0
        check(memory, cross_entropy_backward, grad, *saved, reduction=reduction)


def test_cross_entropy_of_ignored_targets_only(memory: Memory) -> None:
    logits, target = numbers((3, 4), "float32"), np.full(3, 2)
    check(memory, cross_entropy_forward, logits, target, ignore_index=2)
    _, saved = cross_entropy_forward(np.asarray(logits), np.asarray([0, 1, 3]))
    grad = check(memory, cross_entropy_backward, 1.0, logits, target, *saved[2:], ignore_index=2)
    assert not grad.any()


# --- normalization ------------------------------------------------------------------------

NORM_SHAPES = [
    ((1, 1), 1, 0), ((3, 7), 1, 0), ((2, 3, 8, 4), 2, 0), ((4, 64), 1, 4), ((150, 40), 1, 0),
    ((2, 1100), 1, 0),
]  # fmt: skip


@every_dtype
@pytest.mark.parametrize("scales", ["weight and bias", "weight", "neither"])
@pytest.mark.parametrize(("shape", "inner", "shift"), NORM_SHAPES)
def test_normalize(
    memory: Memory, shape: tuple[int, ...], inner: int, shift: int, scales: str, dtype: str
) -> None:
    first = len(shape) - inner
    axes, scale_shape = tuple(range(first, len(shape))), (1,) * first + shape[first:]
    x = numbers(shape, dtype, scale=2) + numbers((), dtype, 1)
    weight = numbers(scale_shape, dtype, 2) if scales != "neither" else None
    bias = numbers(scale_shape, dtype, 3) if scales == "weight and bias" else None
    check(memory, normalize_forward, x, weight, bias, axes, 1e-5, shift=shift, scale=2)
    _, saved = normalize_forward.reference(*map(_as_float, (x, weight, bias)), axes, 1e-5)
    saved = [part.astype(x.dtype) if part is not None else None for part in saved[:3]]
    grad = numbers(shape, dtype, 4)
    scale = 8 * max(1.0, math.prod(shape[:first]) ** 0.5)
    check(memory, normalize_backward, grad, *saved, axes, shift=shift, scale=scale)
    wanted = (False, False, bias is not None)
    check(memory, normalize_backward, grad, *saved, axes, *wanted, shift=shift, scale=scale)


@every_dtype
@pytest.mark.parametrize("has_weight", [True, False])
@pytest.mark.parametrize(("shape", "inner", "shift"), NORM_SHAPES)
def test_rms_norm(
    memory: Memory, shape: tuple[int, ...], inner: int, shift: int, has_weight: bool, dtype: str
) -> None:
    first = len(shape) - inner
    axes = tuple(range(first, len(shape)))
    x = numbers(shape, dtype, scale=2)
    weight = numbers((1,) * first + shape[first:], dtype, 2) if has_weight else None
    check(memory, rms_norm_forward, x, weight, axes, 1e-5, shift=shift, scale=2)
    _, saved = rms_norm_forward.reference(_as_float(x), _as_float(weight), axes, 1e-5)
    saved = [x, saved[1].astype(x.dtype), weight]
    grad = numbers(shape, dtype, 4)
    scale = 8 * max(1.0, math.prod(shape[:first]) ** 0.5)
    check(memory, rms_norm_backward, grad, *saved, axes, shift=shift, scale=scale)
    check(memory, rms_norm_backward, grad, *saved, axes, False, shift=shift, scale=scale)


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e8, -3e30])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e20, 3e37])
def test_normalize_of_large_numbers(memory: Memory, size: float, offset: float) -> None:
    x = (numbers((3, 100), "float64") * size + offset).astype(np.float32)
    received = check_in_units(memory, normalize_forward, x)
    centered = x.astype(np.float64) - x.mean(1, np.float64, keepdims=True)
    expected = centered / np.sqrt(np.square(centered).mean(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(received, expected, rtol=3e-5, atol=3e-6)


def check_in_units(memory: Memory, op: Op, x: np.ndarray) -> np.ndarray:
    ((output, _, _), _), _ = run(memory, op, x, None, None, (1,), 1e-5)
    return np.asarray(output)


def test_rms_norm_of_large_numbers(memory: Memory) -> None:
    x = numbers((3, 100), "float32") * np.float32(3e37)
    (output, _), _ = run(memory, rms_norm_forward, x, None, (1,), 1e-5)
    wide = x.astype(np.float64)
    expected = wide / np.sqrt(np.square(wide).mean(1, keepdims=True))
    np.testing.assert_allclose(output, expected, rtol=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_normalize_of_what_is_no_number(memory: Memory, value: float) -> None:
    x = numbers((3, 20), "float32")
    x[1, 5] = value
    (received, (_, rstd, *_)), _ = run(memory, normalize_forward, x, None, None, (1,), 1e-5)
    with np.errstate(invalid="ignore"):
        expected, _ = normalize_forward.reference(x, None, None, (1,), 1e-5)
    # The mean of infinity is NaN here; neither is finite.
    for got, want in zip((*received, rstd), (*expected, expected[2]), strict=True):
        np.testing.assert_array_equal(np.isfinite(got), np.isfinite(want))


# --- updates ------------------------------------------------------------------------------

HALVES = [None, "float16", "bfloat16"]


def scalar(value: float | None, dtype: Any = np.float64) -> np.ndarray | None:
    return None if value is None else np.array(value, dtype=dtype)


def check_update(
    memory: Memory, op: Op, written: list[Any], grad: np.ndarray, rest: list[Any], half: Any,
    *last: Any, shift: int = 0, **options: Any,
) -> None:  # fmt: skip
    """Compare what is written in place: values, state, and the rounded copy."""
    copy_of = None if half is None else np.zeros(grad.shape, running.DTYPES[half])
    first, *others = written
    arguments = [first, grad, *others, *rest, copy_of, *last]
    _, placed = run(memory, op, *arguments, shift=shift, **options)
    expected = copy.deepcopy(arguments)
    with np.errstate(all="ignore"):
        op.reference(*expected, **options)
    arrays = [value for value in expected if isinstance(value, np.ndarray)]
    for got, want in zip(placed, arrays, strict=True):
        assert got.dtype == want.dtype
        tolerance = TOLERANCE.get(str(got.dtype), 0)
        np.testing.assert_allclose(widened(got), widened(want), rtol=tolerance, atol=1e-7)


@pytest.mark.parametrize("finite", [None, True, False])
@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize(("size", "shift"), [(1, 0), (1030, 0), (9, 4)])
@pytest.mark.parametrize(
    ("amsgrad", "weight_decay", "decoupled", "maximize"),
    [(False, None, False, False), (True, 0.1, False, True), (False, 0.1, True, False)],
)
def test_adam_step(
    memory: Memory, size: int, shift: int, half: Any, finite: Any,
    amsgrad: bool, weight_decay: Any, decoupled: bool, maximize: bool,
) -> None:  # fmt: skip
    grad = numbers((size,), "float32", 1)
    if finite is False:
        grad[0] = math.nan
    data, exp_avg = numbers((size,), "float32", 2), numbers((size,), "float32", 3)
    exp_avg_sq = numbers((size,), "float32", 4) ** 2
    greatest = exp_avg_sq + numbers((size,), "float32", 5) ** 2 if amsgrad else None
    rest = [scalar(3 + size % 5, np.int64), *map(scalar, (0.01, 0.9, 0.999, weight_decay))]
    rest.append(scalar(finite, np.bool_))
    if finite is False:
        half = None  # a skipped step leaves the copy, which is that of the data
    check_update(
        memory, adam_step, [data, exp_avg, exp_avg_sq, greatest], grad, rest, half, 1e-8,
        shift=shift, decoupled=decoupled, maximize=maximize,
    )  # fmt: skip


@pytest.mark.parametrize("finite", [None, True, False])
@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize(("size", "shift"), [(1, 0), (1030, 0), (9, 4)])
@pytest.mark.parametrize(
    ("momentum", "dampening", "nesterov", "weight_decay", "maximize", "step"),
    [(None, 0.0, False, None, False, 1), (0.9, 0.2, False, 0.1, True, 1),
     (0.9, 0.2, False, None, False, 2), (0.9, 0.0, True, 0.1, False, 2)],
)  # fmt: skip
def test_sgd_step(
    memory: Memory, size: int, shift: int, half: Any, finite: Any, momentum: Any, step: int,
    dampening: float, nesterov: bool, weight_decay: Any, maximize: bool,
) -> None:  # fmt: skip
    grad = numbers((size,), "float32", 1)
    if finite is False:
        grad[0], half = math.nan, None
    buffer = numbers((size,), "float32", 3) if momentum else None
    rest = [scalar(step, np.int64), *map(scalar, (0.01, momentum, weight_decay))]
    rest.append(scalar(finite, np.bool_))
    check_update(
        memory, sgd_step, [numbers((size,), "float32", 2), buffer], grad, rest, half, shift=shift,
        dampening=dampening, nesterov=nesterov, maximize=maximize,
    )  # fmt: skip


# --- norms --------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0, 4])
@pytest.mark.parametrize(
    "shapes", [[(1,)], [(0,), (3, 5), ()], [(2053,), (7,)], [(3,)] * 66], ids=len
)
def test_sums_of_squares(memory: Memory, shapes: Any, shift: int) -> None:
    arrays = [numbers(shape, "float32", seed) for seed, shape in enumerate(shapes)]
    check(memory, sums_of_squares, *arrays, shift=shift, scale=4)


def test_sums_of_squares_show_what_is_not_finite(memory: Memory) -> None:
    values = (math.nan, math.inf, 1e20, 1.0)
    sums, _ = run(memory, sums_of_squares, *(np.full(50, value, np.float32) for value in values))
    assert np.isfinite(sums).tolist() == [False, False, False, True]
    arrays = [np.full(3, 1e19, np.float32)]
    sums, _ = run(memory, sums_of_squares, *arrays)
    np.testing.assert_allclose(sums, [3e38], rtol=1e-6)


# --- scatter ------------------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize(
    ("count", "width", "length", "seen"),
    [(1, 1, 1, 1), (40, 5, 7, 9), (700, 33, 4, 3), (30, 64, 20, 20)],
)
def test_sum_by_index(
    memory: Memory, count: int, width: int, length: int, seen: int, dtype: str
) -> None:
    """With indices that no row has, and rows whose index is none."""
    rows = numbers((count, width), dtype)
    indices = np.random.default_rng(3).integers(-1 if count > 1 else 0, seen, count)
    check(memory, sum_by_index, rows, indices, length, scale=math.sqrt(count))


def test_sum_by_index_of_many_rows_keeps_its_digits(memory: Memory) -> None:
    rows = (1 + np.arange(20000) / 1e4).astype(np.float32)[:, None]
    totals, _ = run(memory, sum_by_index, rows, np.zeros(20000, np.int64), 1)
    np.testing.assert_allclose(totals[0], rows.sum(0, np.float64), rtol=3e-7)


def test_not_a_number_stays_with_its_index(memory: Memory) -> None:
    rows = np.array([[1.0], [math.nan], [2.0], [4.0]], np.float32)
    totals, _ = run(memory, sum_by_index, rows, np.array([2, 1, 0, 2]), 3)
    np.testing.assert_array_equal(totals[:, 0], [2.0, math.nan, 5.0])


# --- activations, and gradients of biases -------------------------------------------------


@every_dtype
@pytest.mark.parametrize(("size", "shift"), [(1, 0), (2055, 0), (40, 4)])
@pytest.mark.parametrize("pair", [(gelu_forward, gelu_backward),
                                  (gelu_tanh_forward, gelu_tanh_backward)],
                         ids=lambda pair: pair[0].name)  # fmt: skip
def test_gelu(memory: Memory, pair: tuple[Op, Op], size: int, shift: int, dtype: str) -> None:
    x, grad = numbers((size,), dtype, 1, scale=3), numbers((size,), dtype, 2)
    x[: min(size, 6)] = [0.0, -20.0, 20.0, -4.0, 4.0, -0.0][: min(size, 6)]
    check(memory, pair[0], x, shift=shift)
    check(memory, pair[1], grad, x, shift=shift)


@every_dtype
def test_relu_backward(memory: Memory, dtype: str) -> None:
    output = np.maximum(numbers((5, 13), dtype), running.DTYPES[dtype](0))
    output[0, :3] = [math.nan, math.inf, -0.0]
    grad = check(memory, relu_backward, numbers((5, 13), dtype, 1), output)
    assert grad[0, 0] == 0


@every_dtype
@pytest.mark.parametrize("shape", [(1, 1), (9, 40), (128, 33), (129, 3), (3, 2, 5)])
def test_sum_rows(memory: Memory, shape: tuple[int, ...], dtype: str) -> None:
    rows = numbers(shape, dtype)
    totals, _ = run(memory, sum_rows, rows)
    assert totals.dtype == np.float32
    expected = widened(rows).sum(0)
    np.testing.assert_allclose(totals, expected, rtol=1e-5, atol=1e-5)


@every_dtype
@pytest.mark.parametrize("shift", [0, 4])
@pytest.mark.parametrize("shape", [(1, 1), (9, 40), (3, 2, 5), (129, 264), (13,), (200, 8)])
@pytest.mark.parametrize(
    ("forward", "backward"),
    [(bias_relu_forward, bias_relu_backward), (bias_gelu_tanh_forward, bias_gelu_tanh_backward)],
)
def test_bias_and_activation(
    memory: Memory, forward: Op, backward: Op, shape: tuple[int, ...], shift: int, dtype: str
) -> None:
    """The references take halves too: they round where the kernels do."""
    x, bias, grad = (numbers(s, dtype, seed, 2)
                     for seed, s in enumerate((shape, shape[-1:], shape)))  # fmt: skip
    ((output, saved), _) = run(memory, forward, x, bias, shift=shift)
    with np.errstate(all="ignore"):
        expected, expected_saved = forward.reference(x, bias)
    compare([output, *saved], [expected, *expected_saved], dtype, 1)
    for wanted in (True, False):
        (grads, _) = run(memory, backward, grad, *expected_saved, wanted, shift=shift)
        grad_input, grad_bias = backward.reference(grad, *expected_saved, wanted)
        compare(grads[0], grad_input, dtype, 1)
        assert (grads[1] is not None) is wanted
        if wanted:
            assert (grads[1].dtype, grads[1].shape) == (np.float32, bias.shape)
            total = widened(grads[0]).reshape(-1, shape[-1]).sum(0)
            np.testing.assert_allclose(grads[1], total, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(grads[1], grad_bias, rtol=TOLERANCE[dtype] * 8,
                                       atol=TOLERANCE[dtype] * 8)  # fmt: skip


@every_dtype
def test_bias_and_activation_of_special_numbers(memory: Memory, dtype: str) -> None:
    special = np.array([[math.nan, math.inf, -math.inf, -0.0]], running.DTYPES[dtype])
    bias = np.zeros(4, running.DTYPES[dtype])
    ((output, _), _) = run(memory, bias_relu_forward, special, bias)
    np.testing.assert_array_equal(widened(output), [[math.nan, math.inf, 0, 0]])
    ((grad, grad_bias), _) = run(memory, bias_relu_backward, special, output)
    np.testing.assert_array_equal(widened(grad), [[0, math.inf, 0, 0]])
    np.testing.assert_array_equal(grad_bias, widened(grad)[0])


# --- what is declared, and what is refused ------------------------------------------------


def spec(*shape: int, dtype: Any = "float32", contiguous: bool = True) -> ArraySpec:
    return ArraySpec(shape, np.dtype(running.DTYPES.get(dtype, dtype)), contiguous)


ROWS_OF_8, LABELS, ONE_EACH = spec(4, 8), spec(4, dtype="int64"), spec(4, 1)
NUMBER, STEP = spec(dtype="float64"), spec(dtype="int64")

# By hand: what is read and written, in bytes.
MOVED = [
    (cross_entropy_forward, (ROWS_OF_8, LABELS), 128 + 32 + 2 * 16 + 32 + 2 * 16 + 4),
    (cross_entropy_backward, (1.0, ROWS_OF_8, LABELS, ONE_EACH, ONE_EACH),
     128 + 32 + 16 + 16 + 128 + 32 + 2 * 4),
    (normalize_forward, (ROWS_OF_8, spec(1, 8), spec(1, 8), (1,), 1e-5),
     128 + 32 + 32 + 128 + 128 + 3 * 16),
    (normalize_backward, (ROWS_OF_8, ROWS_OF_8, ONE_EACH, spec(1, 8), (1,)),
     128 + 128 + 16 + 32 + 128 + 128 + 128 + 32 + 32),
    (rms_norm_forward, (ROWS_OF_8, None, (1,), 1e-5), 128 + 128 + 16),
    (rms_norm_backward, (ROWS_OF_8, ROWS_OF_8, ONE_EACH, None, (1,)), 128 + 128 + 16 + 128),
    (gelu_forward, (ROWS_OF_8,), 256),
    (relu_backward, (ROWS_OF_8, ROWS_OF_8), 384),
    (bias_relu_forward, (ROWS_OF_8, spec(8)), 128 + 32 + 128),
    (bias_relu_backward, (ROWS_OF_8, ROWS_OF_8), 3 * 128 + 32),
    (bias_relu_backward, (ROWS_OF_8, ROWS_OF_8, False), 3 * 128),
    (bias_gelu_tanh_backward, (spec(200, 8), spec(200, 8), spec(8)),
     3 * 6400 + 32 + 2 * 2 * 32 + 32),
    (sum_rows, (ROWS_OF_8,), 128 + 32),
    (sum_rows, (spec(200, 8, dtype="float16"),), 3200 + 2 * 2 * 32 + 32),
    (sum_by_index, (ROWS_OF_8, LABELS, 3), 128 + 4 * 32 + 96),
    (sums_of_squares, (ROWS_OF_8, spec(8)), 128 + 32 + 2 * (4 + 4 + 4)),
    (adam_step, (spec(8),) * 4 + (None, STEP, NUMBER, NUMBER, NUMBER, None, None,
     spec(8, dtype="bfloat16"), 1e-8), 32 + 6 * 32 + 16 + 4 * 8),
    (sgd_step, (spec(8), spec(8), None, STEP, NUMBER, None, None, None, None), 3 * 32 + 16),
]  # fmt: skip


@pytest.mark.parametrize(("op", "arguments", "expected"), MOVED, ids=lambda value: str(value)[:30])
def test_bytes_moved(op: Op, arguments: Any, expected: int) -> None:
    (kernel,) = op.kernels["cuda"]
    assert kernel.bytes_moved is not None
    assert kernel.bytes_moved(*arguments) == expected


STRIDED = ROWS_OF_8._replace(is_contiguous=False)
WIDE, EMPTY = spec(4, 8, dtype="float64"), spec(0, 8)
FLAT = (spec(8),) * 4
REFUSED = [
    *((cross_entropy_forward, (x, LABELS), {}) for x in (STRIDED, WIDE, EMPTY, spec(2, 3, 4))),
    (cross_entropy_forward, (ROWS_OF_8, spec(4, dtype="uint8")), {}),
    (cross_entropy_forward, (ROWS_OF_8, LABELS, spec(8)), {}),
    (cross_entropy_forward, (ROWS_OF_8, LABELS), {"label_smoothing": 0.1}),
    (cross_entropy_backward, (STRIDED, ROWS_OF_8, LABELS, ONE_EACH, WIDE), {}),
    *((normalize_forward, (x, None, None, (1,), 1e-5), {}) for x in (STRIDED, WIDE, EMPTY)),
    (normalize_forward, (ROWS_OF_8, None, None, (0,), 1e-5), {}),
    (normalize_forward, (ROWS_OF_8, spec(4, 1), None, (1,), 1e-5), {}),
    (normalize_forward, (ROWS_OF_8, None, None, (1,), 0.0), {}),
    (normalize_backward, (STRIDED, ROWS_OF_8, ONE_EACH, None, (1,)), {}),
    (rms_norm_forward, (ROWS_OF_8, None, (0, 1, 2), 1e-5), {}),
    *((gelu_forward, (x,), {}) for x in (STRIDED, WIDE, EMPTY)),
    (relu_backward, (ROWS_OF_8, spec(8, 4)), {}),
    (relu_backward, (spec(4, 8, dtype="float16"), ROWS_OF_8), {}),
    *((bias_relu_forward, (x, spec(8)), {}) for x in (STRIDED, WIDE, EMPTY, spec(8, 4), spec())),
    (bias_relu_forward, (ROWS_OF_8, spec(8, dtype="float16")), {}),
    (bias_relu_backward, (STRIDED, ROWS_OF_8), {}),
    (bias_relu_backward, (spec(8), ROWS_OF_8), {}),
    (bias_gelu_tanh_backward, (WIDE, ROWS_OF_8, spec(8)), {}),
    (bias_gelu_tanh_backward, (ROWS_OF_8, ROWS_OF_8, spec(4)), {}),
    (sum_rows, (STRIDED,), {}),
    (sum_by_index, (ROWS_OF_8, spec(4, dtype="int32"), 3), {}),
    (sum_by_index, (ROWS_OF_8, LABELS, 0), {}),
    (sums_of_squares, (ROWS_OF_8, WIDE), {}),
    (adam_step, (*FLAT, None, 3, NUMBER, NUMBER, NUMBER, None, None, None, 1e-8), {}),
    (adam_step, (*FLAT, None, STEP, 0.1, NUMBER, NUMBER, None, None, None, 1e-8), {}),
    (adam_step, (spec(8), spec(8, dtype="float64"), *FLAT[:2], None, STEP, *(NUMBER,) * 3, None,
     None, None, 1e-8), {}),
    (sgd_step, (spec(8), spec(8), None, STEP, NUMBER, None, None, None, spec(8)), {}),
]  # fmt: skip


@pytest.mark.parametrize(("op", "arguments", "options"), REFUSED)
def test_what_a_kernel_cannot_do_is_left_to_the_reference(
    op: Op, arguments: Any, options: dict[str, Any]
) -> None:
    (kernel,) = op.kernels["cuda"]
    assert kernel.when is not None
    assert not kernel.when(*arguments, **options)
