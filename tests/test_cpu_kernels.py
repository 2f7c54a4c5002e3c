"""Kernels of the CPU against the references they stand in for: on the calls that the rows of
layer_cases make, on larger ones, and with numbers that are none."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from layer_cases import CASES, Case

import xbackprop as xb
from xbackprop.dispatch import Op, as_specs, registered_ops
from xbackprop.kernels.cpu.nn.convolution import convolution as convolution_kernel
from xbackprop.kernels.loops import HAS_NUMBA
from xbackprop.optim.adam import coupled_adam_update
from xbackprop.testing import TOLERANCES
from xbackprop.testing.structures import (
    backward_of_all_inputs,
    is_float,
    leaves,
    random_like,
    transform,
)

needs_numba = pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed (extra fast)")
CALLS_OF_AN_OP = 40


def kernels() -> dict[str, Op]:
    xb.nn.ReLU()(np.ones(3))  # so that dispatch has loaded them
    return {name: op for name, op in registered_ops().items() if op.kernels.get("cpu")}


class Listener:
    """Keeps the arguments of calls whose op has a kernel."""

    def __init__(self, ops: dict[str, Op]) -> None:
        self.names = {op: name for name, op in ops.items()}
        self.calls: dict[str, list[tuple[Any, ...]]] = {name: [] for name in ops}

    def before(self, call: Any) -> None:
        name = self.names.get(call.op)
        if name is not None and len(self.calls[name]) < CALLS_OF_AN_OP:
            self.calls[name].append(tuple(map(copied, call.args)))

    def after(self, call: Any, result: Any) -> None:
        pass


def copied(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value


@cache
def calls() -> dict[str, list[tuple[Any, ...]]]:
    """What the rows ask of every op that has a kernel, in float32."""
    listener = Listener(kernels())
    with xb.use_device("cpu"), xb.observe(listener):
        for make, inputs in LARGER:
            module = make()
            train(module, inputs(np.random.default_rng(0)))
            if any(True for _ in module.parameters()):
                xb.optim.Adam(module.parameters()).step()
        arrays = np.random.default_rng(0).random((4, 97, 53), np.float32)
        coupled_adam_update(*arrays, 0.01, 0.9, 0.1, 0.999, 0.001, 0.02, 1e-3)
        for case in CASES:  # after the larger ones, since only so many calls are kept
            run(case)
    return listener.calls


def run(case: Case) -> None:
    made = case.inputs(np.random.default_rng(0))
    inputs = made if isinstance(made, tuple) else (made,)
    train(case.make(), *(transform(x, as_single) for x in inputs))


def as_single(leaf: Any) -> Any:
    return leaf.astype(np.float32) if is_float(leaf) else leaf


def train(module: xb.Module, *inputs: Any) -> None:
    output, saved = module.forward(*inputs)
    grad = random_like(output, np.random.default_rng(1))
    backward_of_all_inputs(module, grad, saved, len(inputs))


def images(*shape: int) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: rng.standard_normal(shape, np.float32)


LARGER: list[tuple[Callable[[], xb.Module], Callable[[np.random.Generator], np.ndarray]]] = [
    (lambda: xb.nn.Conv2d(3, 5, 3, padding=1), images(7, 3, 13, 11)),
    (lambda: xb.nn.Conv2d(2, 3, 5, padding=2, dilation=2), images(3, 2, 40, 33)),
    *(
        # Winograd's way: odd and even sizes, all paddings it takes, one sample and several blocks.
        (lambda padding=padding: xb.nn.Conv2d(8, 9, 3, padding=padding), images(*shape))
        for padding, shape in (
            (0, (1, 8, 3, 3)),
            (1, (2, 8, 9, 12)),
            (2, (3, 8, 5, 8)),
            ((1, 0), (70, 8, 6, 7)),
            ((0, 2), (2, 8, 33, 34)),
        )
    ),
    (lambda: xb.nn.Conv1d(4, 6, 4, padding="same"), images(9, 4, 50)),
    (lambda: xb.nn.Conv3d(2, 3, 2), images(2, 2, 6, 7, 8)),
    (lambda: xb.nn.MaxPool2d(2), images(3, 2, 13, 9)),
    (lambda: xb.nn.MaxPool2d(3, 2, 1), images(3, 2, 13, 9)),
    (lambda: xb.nn.GELU("tanh"), images(33, 17)),
    (lambda: xb.nn.ReLU(), images(33, 17)),
    (lambda: xb.nn.LayerNorm(96), images(150, 96)),
    (lambda: xb.nn.LSTM(5, 33), images(4, 7, 5)),
    (lambda: xb.nn.GPT(11, 40, 1, 2, 16), lambda rng: rng.integers(0, 11, (2, 40))),
]


def parts(*values: Any) -> list[Any]:
    return [leaf for _, leaf in leaves(values, "")]


def compare(op: Op, args: tuple[Any, ...], tolerance: float) -> bool:
    """Compare the kernel with the reference, which get arrays of their own; False: not served."""
    (kernel,) = op.kernels["cpu"]
    if kernel.when is not None and not kernel.when(*as_specs(args)):
        return False
    mine, theirs = tuple(map(copied, args)), tuple(map(copied, args))
    with np.errstate(all="ignore"):
        received, expected = kernel.function(*mine), op.reference(*theirs)
    for one, other in zip(parts(received, mine), parts(expected, theirs), strict=True):
        assert (one is None) == (other is None)
        if isinstance(other, (np.ndarray, np.generic)):
            assert one.dtype == other.dtype
            assert one.shape == other.shape
            scale = np.abs(other[np.isfinite(other)]).max(initial=0.0) if other.size else 0.0
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * (1 + scale))
    return True


def vars_of(op: Op) -> dict[str, Any]:
    """The module of an op's kernel, which has the loops where it needs numba."""
    return op.kernels["cpu"][0].function.__globals__


@pytest.mark.parametrize("name", sorted(kernels()))
def test_kernel_equals_its_reference(name: str) -> None:
    op = kernels()[name]
    served = [compare(op, args, TOLERANCES["float32"].peer) for args in calls()[name]]
    assert any(served) or (not HAS_NUMBA and "loops" in vars_of(op))


@pytest.mark.parametrize("name", sorted(kernels()))
def test_kernel_serves_other_layouts_or_says_so(name: str) -> None:
    """Columns first, every other element, float64, big-endian."""
    op = kernels()[name]
    for args in calls()[name][:8]:
        for change in (np.asfortranarray, strided, as_double, big_endian):
            changed = tuple(change(a) if is_float(a) and a.ndim else a for a in args)
            compare(op, changed, TOLERANCES["float32"].peer)


@needs_numba
@pytest.mark.parametrize(
    "stem", ["nn.activations.rectifiers.relu_backward", "optim.adam.adam_update",
             "optim.adam.coupled_adam_update"],
)  # fmt: skip
def test_some_kernels_serve_float64(stem: str) -> None:
    name = f"xbackprop.{stem}"
    for args in calls()[name]:
        double = tuple(as_double(a) if is_float(a) else a for a in args)
        assert compare(kernels()[name], double, TOLERANCES["float64"].peer)


def strided(array: np.ndarray) -> np.ndarray:
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def as_double(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64)


def big_endian(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder(">"))


@needs_numba
@pytest.mark.parametrize(
    "stem",
    ["activations.rectifiers.relu_backward", "activations.gates.gelu_tanh_forward",
     "activations.gates.gelu_tanh_backward", "pooling.maximum.max_pool_forward"],
)  # fmt: skip
def test_numbers_that_are_none(stem: str) -> None:
    name = f"xbackprop.nn.{stem}"
    for args in calls()[name]:
        spoiled = []
        for value in args:
            if is_float(value):
                value = value.copy()
                flat = value.reshape(-1)
                flat[::3], flat[1::5], flat[2::7] = np.nan, np.inf, -np.inf
            spoiled.append(value)
        compare(kernels()[name], tuple(spoiled), TOLERANCES["float32"].peer)


@pytest.mark.parametrize("bound", ["BLOCK", "PRODUCT"])
@pytest.mark.parametrize("numbers", [64, 1 << 12])
def test_convolution_in_blocks_of_any_size(
    bound: str, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution_kernel, bound, numbers)
    for direction in ("forward", "backward"):
        name = f"xbackprop.nn.convolution.convolution.convolution_{direction}"
        for args in calls()[name]:
            compare(kernels()[name], args, TOLERANCES["float32"].peer)


@needs_numba
@pytest.mark.parametrize("lead", [(), (4,), (2, 4), (2, 3, 4)])
def test_heads_are_joined_without_a_copy(lead: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((*lead, 48, 96)).astype(np.float32) for _ in range(3))
    attention = xb.nn.ScaledDotProductAttention(is_causal=True)
    output, _ = attention.forward(q, k, v)
    with xb.use_references():
        np.testing.assert_allclose(output, attention.forward(q, k, v)[0], rtol=1e-5, atol=1e-6)
    assert output.shape == q.shape
    joined = output.swapaxes(-3, -2) if len(lead) > 1 else output
    assert joined.flags.c_contiguous  # (..., tokens, heads, features), or as without heads


def test_references_can_be_asked_for() -> None:
    layer = xb.nn.Conv2d(3, 5, 3, padding=1, rng=0)
    x = images(9, 3, 15, 15)(np.random.default_rng(0))
    with xb.use_references():
        expected = layer(x)
    assert layer(x).flags.c_contiguous
    assert not expected.flags.c_contiguous  # the reference's has channels first
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-5)


@needs_numba
def test_small_arrays_take_the_reference() -> None:
    op = kernels()["xbackprop.nn.activations.rectifiers.relu_backward"]
    small, large = np.ones(16, np.float32), np.ones(5000, np.float32)
    device = xb.backend.device.Device("cpu")
    assert op.select(device, (small, small), {}) is None
    assert op.select(device, (large, large), {}) is not None


def one_more(number: int) -> int:
    return number + 1


@needs_numba
def test_loops_are_compiled_where_no_folder_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core import caching

    from xbackprop.kernels.loops.compiling import loop

    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])
    assert loop()(one_more)(1) == 2
