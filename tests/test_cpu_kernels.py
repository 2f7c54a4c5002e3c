"""Kernels of the CPU against the references they stand in for: on the calls that the rows of
layer_cases make, on larger ones, and with numbers that are none."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from layer_cases import CASES, Case

import xbackprop as xb
from xbackprop.dispatch import Kernel, Op, as_specs, registered_ops
from xbackprop.kernels.cpu.nn.convolution.convolution import columns, copied
from xbackprop.kernels.loops import HAS_NUMBA
from xbackprop.nn.perceptron import perceptron_gradients
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
CALLS_OF_AN_OP = 70


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
            self.calls[name].append(tuple(map(copy_of, call.args)))

    def after(self, call: Any, result: Any) -> None:
        pass


def copy_of(value: Any) -> Any:
    if type(value) is tuple:
        return tuple(map(copy_of, value))
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
        for units in ((3, 1), (5, 7, 2), (2, 3, 17, 4)):
            for loss in ("half_squared_error", "mse_loss", "cross_entropy"):
                perceptron_gradients(*small_network(units, loss))
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


def small_network(units: tuple[int, ...], loss: str) -> tuple[Any, ...]:
    """Arguments of ``perceptron_gradients``."""
    rng = np.random.default_rng(0)

    def numbers(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    weights = tuple(numbers(outputs, inputs) for inputs, outputs in pairwise(units))
    biases = tuple(numbers(outputs) for outputs in units[1:])
    grads = tuple(map(np.ones_like, weights)), tuple(map(np.ones_like, biases))
    target = rng.integers(0, units[-1], 6) if loss == "cross_entropy" else numbers(6, units[-1])
    activations = ("tanh", "sigmoid", "identity")[-len(weights) :]
    return numbers(6, units[0]), target, weights, biases, *grads, activations, loss, len(units) < 4


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
    *(
        # Few channels: depthwise with all strides and paddings, dilated, in small groups; of one.
        (lambda args=args, options=options: xb.nn.Conv2d(*args, **options), images(*shape))
        for args, options, shape in (
            ((8, 8, 3), {"groups": 8, "padding": 1}, (3, 8, 9, 12)),
            ((8, 8, 3, 2), {"groups": 8, "padding": 1}, (3, 8, 9, 12)),
            ((8, 16, (3, 2), (1, 2)), {"groups": 8, "padding": (0, 2)}, (3, 8, 8, 7)),
            ((6, 6, 4, 3), {"groups": 6, "padding": 2, "dilation": (1, 2)}, (2, 6, 13, 14)),
            ((9, 6, (2, 5), (2, 1)), {"groups": 3, "padding": (3, 1)}, (2, 9, 7, 11)),
            ((16, 8, 3, 5), {"groups": 2, "bias": False}, (2, 16, 13, 11)),
            ((1, 5, 3), {"padding": 1}, (4, 1, 11, 9)),
            ((3, 2, 4), {"padding": "same", "dilation": (2, 1)}, (2, 3, 11, 9)),
        )
    ),
    *(
        # Columns that loops copy: strides, groups, dilation, kernels that reach beyond the image.
        (lambda args=args, options=options: xb.nn.Conv2d(*args, **options), images(*shape))
        for args, options, shape in (
            ((9, 5, 3, 2), {"padding": 1}, (7, 9, 23, 24)),
            ((9, 5, 3, 2), {"padding": 1, "padding_mode": "reflect"}, (7, 9, 23, 24)),  # not served
            ((10, 20, 3), {"groups": 2, "padding": (0, 2), "dilation": 2}, (4, 10, 17, 16)),
            ((18, 4, (2, 3), (3, 1)), {"groups": 2, "padding": (1, 0)}, (9, 18, 20, 19)),
            ((2, 9, 7, 3), {"padding": 3, "bias": False}, (9, 2, 31, 30)),
        )
    ),
    (lambda: xb.nn.Conv1d(4, 6, 5, 2, 2), images(5, 4, 260)),
    (lambda: xb.nn.Conv1d(10, 5, 3, 1, 1), images(5, 10, 260)),
    *(
        # A kernel of one element, which skips some, in groups; along one axis and three.
        (lambda layer=layer, args=args, options=options: layer(*args, **options), images(*shape))
        for layer, args, options, shape in (
            (xb.nn.Conv2d, (9, 5, 1), {}, (3, 9, 13, 12)),
            (xb.nn.Conv2d, (9, 5, 1), {"padding": (0, 1)}, (3, 9, 13, 12)),  # not served
            (xb.nn.Conv2d, (9, 5, (1, 3)), {}, (3, 9, 13, 12)),  # nor this
            (xb.nn.Conv2d, (9, 5, 1, (1, 2)), {"bias": False}, (3, 9, 13, 12)),
            (xb.nn.Conv2d, (18, 36, 1, 3), {"groups": 2}, (2, 18, 28, 27)),
            (xb.nn.Conv1d, (10, 3, 1, 2), {"padding_mode": "reflect"}, (3, 10, 201)),
            (xb.nn.Conv3d, (9, 10, 1), {}, (2, 9, 5, 6, 7)),
        )
    ),
    (lambda: xb.nn.Conv1d(4, 6, 4, padding="same"), images(9, 4, 50)),
    (lambda: xb.nn.Conv1d(6, 12, 5, 2, 3, groups=6), images(3, 6, 50)),
    (lambda: xb.nn.Conv1d(4, 4, 3, groups=2), images(3, 4, 50)),
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
    """Compare kernels with the reference, which get arrays of their own; False: none serves."""
    served = [k for k in op.kernels["cpu"] if k.when is None or k.when(*as_specs(args))]
    for kernel in served:
        compare_kernel(kernel, op, args, tolerance)
    return bool(served)


def compare_kernel(kernel: Kernel, op: Op, args: tuple[Any, ...], tolerance: float) -> None:
    mine, theirs = tuple(map(copy_of, args)), tuple(map(copy_of, args))
    with np.errstate(all="ignore"):
        received, expected = kernel.function(*mine), op.reference(*theirs)
    for one, other in zip(parts(received, mine), parts(expected, theirs), strict=True):
        assert (one is None) == (other is None)
        if isinstance(other, (np.ndarray, np.generic)):
            assert one.dtype == other.dtype
            assert one.shape == other.shape
            scale = np.abs(other[np.isfinite(other)]).max(initial=0.0) if other.size else 0.0
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * (1 + scale))


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


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(
    ("stem", "least"),
    [
        pytest.param("direct", 10, marks=needs_numba),
        pytest.param("copied", 6, marks=needs_numba),
        ("pointwise", 5),
    ],
)
def test_convolutions_in_any_layout(stem: str, least: int, direction: str) -> None:
    """In float64 to its own digits; nothing of what surrounds an array is read or written."""
    name = f"xbackprop.nn.convolution.convolution.convolution_{direction}"
    op = kernels()[name]
    kernel = next(k for k in op.kernels["cpu"] if k.function.__module__.endswith(f".{stem}"))
    served = [args for args in calls()[name] if kernel.when(*as_specs(args))]
    assert len(served) >= least
    for args in served:
        for change in (as_double, strided, np.asfortranarray):
            changed = tuple(change(a) if is_float(a) else a for a in args)
            assert kernel.when(*as_specs(changed))
            tolerance = TOLERANCES["float64" if change is as_double else "float32"].peer
            compare_kernel(kernel, op, changed, tolerance)
        foreign = tuple(big_endian(a) if is_float(a) else a for a in args)
        empty = tuple(a[:0] if is_float(a) and a.ndim > 1 else a for a in args)
        mixed = (as_double(args[0]), *args[1:])
        for refused in (foreign, empty, mixed):
            assert not kernel.when(*as_specs(refused))


@pytest.mark.parametrize("block", [64, 1 << 12])
def test_convolutions_in_blocks_of_any_size(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (columns, copied):
        monkeypatch.setattr(module, "BLOCK", block)
    for direction in ("forward", "backward"):
        name = f"xbackprop.nn.convolution.convolution.convolution_{direction}"
        for args in calls()[name]:
            compare(kernels()[name], args, TOLERANCES["float32"].peer)


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
