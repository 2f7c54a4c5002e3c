"""Kernels of the CPU against the references they stand in for: on the calls that the rows of
layer_cases make, on larger ones, and with numbers that are none."""

import math
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
from layer_cases import CASES, Case
from layer_cases.recurrent import FEATURES, row
from perceptron_calls import OUTPUTS, batch, epoch

import xbackprop as xb
from xbackprop.dispatch import Kernel, Op, as_specs, registered_ops
from xbackprop.kernels.cpu.nn.convolution.convolution import columns, copied
from xbackprop.kernels.loops import HAS_NUMBA, loops
from xbackprop.nn.perceptron import canonical_gradients, perceptron_gradients
from xbackprop.nn.perceptron_epoch import perceptron_epoch
from xbackprop.nn.remade import gelu_tanh_linear_backward, gelu_tanh_linear_forward
from xbackprop.optim.adam import coupled_adam_update
from xbackprop.optim.sgd import sgd_step
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


class Given(NamedTuple):
    """What an op was called with."""

    args: tuple[Any, ...]
    options: dict[str, Any]

    def changed(self, change: Callable[[Any], Any]) -> "Given":
        return self._replace(args=tuple(map(change, self.args)))


class Listener:
    """Keeps the arguments of calls whose op has a kernel."""

    def __init__(self, ops: dict[str, Op]) -> None:
        self.names = {op: name for name, op in ops.items()}
        self.calls: dict[str, list[Given]] = {name: [] for name in ops}

    def before(self, call: Any) -> None:
        name = self.names.get(call.op)
        if name is not None and len(self.calls[name]) < CALLS_OF_AN_OP:
            self.calls[name].append(Given(tuple(map(copy_of, call.args)), call.options))

    def after(self, call: Any, result: Any) -> None:
        pass


def copy_of(value: Any) -> Any:
    if type(value) is tuple:
        return tuple(map(copy_of, value))
    return value.copy() if isinstance(value, np.ndarray) else value


@cache
def calls() -> dict[str, list[Given]]:
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
        for output_activation in OUTPUTS:
            canonical_gradients(*batch((5, 7, 3), "relu", output_activation))
            perceptron_epoch(*epoch((5, 7, 3), "relu", output_activation))
        for shape in ((33, 17), (2, 19, 17), (1, 33)):
            for args in pairs_of_layers(*shape):
                output, saved = gelu_tanh_linear_forward(*args)
                for wanted in ((True, True, True), (False, True, False), (True, False, True)):
                    gelu_tanh_linear_backward(np.cos(output), *saved, *wanted)
        for arrays, numbers, options in steps_of_sgd():
            with np.errstate(invalid="ignore"):
                sgd_step(*arrays, *numbers, None, None, **options)
        for case in (*LONG, *CASES):  # after the larger ones, since only so many calls are kept
            run(case)
    return listener.calls


def pairs_of_layers(*shape: int) -> Iterator[tuple[Any, ...]]:
    """What a GELU and the Linear after it are given, with a bias and without."""
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(s, np.float32) for s in (shape, (5, shape[-1]), 5))
    yield x, weight, bias
    yield x, weight, None


def steps_of_sgd() -> Iterator[tuple[Any, Any, dict[str, Any]]]:
    """What SGD calls on the CPU, with weights that are infinite."""
    arrays = images(3, 97, 53)(np.random.default_rng(0))
    arrays[0, 3, 3:5] = np.inf, -np.inf
    for momentum, dampening, is_nesterov in ((None, 0.0, False), (0.9, 0.0, False),
                                             (0.9, 0.25, False), (0.9, 0.0, True)):  # fmt: skip
        for step, weight_decay, is_climbing in ((1, None, False), (2, 0.1, False), (2, 0.1, True)):
            options = {"dampening": dampening, "nesterov": is_nesterov, "maximize": is_climbing}
            data, grad, buffer = arrays.copy()
            yield (
                (data, grad, None if momentum is None else buffer),
                (step, 0.02, momentum, weight_decay),
                options,
            )


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
    # So many channels that a gradient of the weight is cut by places.
    (lambda: xb.nn.Conv2d(96, 90, 3, padding=(1, 2)), images(2, 96, 7, 6)),
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
    *(
        (kind, images(33, 17))
        for kind in (xb.nn.ReLU, xb.nn.LeakyReLU, xb.nn.GELU, xb.nn.SiLU, xb.nn.Sigmoid)
    ),
    (lambda: xb.nn.LayerNorm(96), images(150, 96)),
    (lambda: xb.nn.RMSNorm(96), images(150, 96)),
    (lambda: xb.nn.LSTM(5, 33), images(4, 7, 5)),
    (lambda: xb.nn.GRU(5, 33), images(4, 7, 5)),
    (lambda: xb.nn.LSTM(5, 33), images(9, 7, 5)),  # so many steps that weights are copied
    (lambda: xb.nn.GRU(5, 33, bias=False), images(9, 7, 5)),
    (lambda: xb.nn.RNN(5, 33), images(9, 7, 5)),
    (lambda: xb.nn.RNN(5, 33, nonlinearity="relu", bidirectional=True), images(9, 7, 5)),
    (lambda: xb.nn.GPT(11, 40, 1, 2, 16), lambda rng: rng.integers(0, 11, (2, 40))),
]

LONG = [  # more steps than the rows have, which Elman's network needs to gain from a kernel
    row(
        "RNN", shape=(9, 3, FEATURES), lengths=[2, 9, 5], enforce_sorted=False, states=True,
        bidirectional=True, nonlinearity=nonlinearity,
    )
    for nonlinearity in ("tanh", "relu")
]  # fmt: skip


def parts(*values: Any) -> list[Any]:
    return [leaf for _, leaf in leaves(values, "")]


def compare(op: Op, given: Given, tolerance: float) -> bool:
    """Compare kernels with the reference, which get arrays of their own; False: none serves."""
    served = [kernel for kernel in op.kernels["cpu"] if serves(kernel, given)]
    for kernel in served:
        compare_kernel(kernel, op, given, tolerance)
    return bool(served)


def serves(kernel: Kernel, given: Given) -> bool:
    return kernel.when is None or kernel.when(*as_specs(given.args), **given.options)


def compare_kernel(kernel: Kernel, op: Op, given: Given, tolerance: float) -> None:
    mine, theirs = given.changed(copy_of).args, given.changed(copy_of).args
    with np.errstate(all="ignore"):
        received = kernel.function(*mine, **given.options)
        expected = op.reference(*theirs, **given.options)
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
    served = [compare(op, given, TOLERANCES["float32"].peer) for given in calls()[name]]
    assert any(served) or (not HAS_NUMBA and "loops" in vars_of(op))


@pytest.mark.parametrize("name", sorted(kernels()))
def test_kernel_serves_other_layouts_or_says_so(name: str) -> None:
    """Columns first, every other element, float64, big-endian."""
    op = kernels()[name]
    for given in calls()[name][:8]:
        for change in (np.asfortranarray, strided, as_double, big_endian):
            changed = given.changed(lambda a, to=change: to(a) if is_float(a) and a.ndim else a)
            compare(op, changed, TOLERANCES["float32"].peer)


@needs_numba
@pytest.mark.parametrize(
    "stem", ["nn.activations.rectifiers.relu_backward", "optim.adam.adam_update",
             "optim.adam.coupled_adam_update", "optim.sgd.sgd_step"],
)  # fmt: skip
def test_some_kernels_serve_float64(stem: str) -> None:
    name = f"xbackprop.{stem}"
    for given in calls()[name]:
        double = given.changed(lambda a: as_double(a) if is_float(a) else a)
        assert compare(kernels()[name], double, TOLERANCES["float64"].peer)


@needs_numba
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_step_of_sgd_has_the_bits_of_its_reference(dtype: Any) -> None:
    op, name = sgd_step, "xbackprop.optim.sgd.sgd_step"
    for given in calls()[name]:
        mine, theirs = (
            given.changed(lambda a: a.astype(dtype) if is_float(a) else a).args for _ in range(2)
        )
        with np.errstate(all="ignore"):
            op.kernels["cpu"][0].function(*mine, **given.options)
            op.reference(*theirs, **given.options)
        for one, other in zip(mine[:3], theirs[:3], strict=True):
            np.testing.assert_array_equal(one, other)


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
    ["pooling.maximum.max_pool_forward",
     "remade.gelu_tanh_linear_forward", "remade.gelu_tanh_linear_backward",
     *(f"activations.{stem}_{way}" for way in ("forward", "backward") for stem in (
         "gates.gelu", "gates.gelu_tanh", "gates.silu", "leaky.leaky_relu", "rectifiers.relu",
         "smooth.sigmoid"))],
)  # fmt: skip
def test_numbers_that_are_none(stem: str) -> None:
    name = f"xbackprop.nn.{stem}"
    for given in calls()[name]:
        compare(kernels()[name], given.changed(spoiled), TOLERANCES["float32"].peer)


def spoiled(value: Any) -> Any:
    if is_float(value):
        value = value.copy()
        flat = value.reshape(-1)
        flat[::3], flat[1::5], flat[2::7] = np.nan, np.inf, -np.inf
    return value


@needs_numba
def test_tails_of_the_normal_distribution() -> None:
    """To their own digits, of which a comparison with 1 + erf says nothing; without e^(-x^2/2)."""
    for x in map(float, np.linspace(-13, -1e-3, 997, dtype=np.float32)):
        tail = loops("maths").normal_distribution(np.float32(x), np.float32(1))
        expected = 0.5 * math.erfc(-x / math.sqrt(2)) * math.exp(x * x / 2)
        assert tail == pytest.approx(expected, rel=5e-7)
        other = loops("maths").normal_distribution(np.float32(-x), np.float32(1))
        assert other == pytest.approx(1 - expected, abs=1e-7)


def unusual_logits() -> np.ndarray:
    """Rows of 700 classes, more than one block of sums: far away, infinite, and none."""
    logits = images(11, 700)(np.random.default_rng(0))
    logits[1] *= 1e4
    logits[2, 5] = 300  # one class takes all
    logits[3] = -np.inf
    logits[4, 9:] = -np.inf
    logits[5, 650] = logits[6, 3] = logits[6, 600] = np.inf
    logits[7, 650] = np.nan
    logits[8, 3], logits[8, 600] = np.nan, np.inf
    logits[9] = -3e38
    return logits


@needs_numba
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("change", [None, np.int32, np.dtype(">i2"), "strided"])
@pytest.mark.parametrize("labels", ["known", "ignored", "wrong", "all ignored"])
def test_cross_entropy_of_any_logits(reduction: str, change: Any, labels: str) -> None:
    logits = unusual_logits()
    target = np.array([698, 3, 5, 3, 9, 650, 3, 3, 2, 0, 1])
    if labels != "known":
        places, label = {"ignored": ([0, 3, 7], 699), "wrong": ([4, 10], -7),
                         "all ignored": (slice(None), 699)}[labels]  # fmt: skip
        target[places] = label
    changed = strided(target) if isinstance(change, str) else target.astype(change or target.dtype)
    options = {"ignore_index": 699, "label_smoothing": 0.0, "reduction": reduction}
    ops, module = kernels(), "xbackprop.nn.losses.cross_entropy.cross_entropy"
    tolerance = TOLERANCES["float32"].peer
    for rows in (slice(None), slice(0, 3), slice(10, 11)):  # with rows that spoil the sum, without
        given = Given((logits[rows], changed[rows].copy(), None), options)
        assert compare(ops[f"{module}_forward"], given, tolerance)
        with np.errstate(all="ignore"):
            _, saved = ops[f"{module}_forward"].reference(*given.args, **options)
        scale = np.float32(0.3)
        grads = (0.3, np.array(scale)) if reduction != "none" else (np.full(len(saved[1]), scale),)
        for grad in grads:
            assert compare(ops[f"{module}_backward"], Given((grad, *saved), options), tolerance)


@needs_numba
@pytest.mark.parametrize("options", [{"label_smoothing": 0.1}, {"ignore_index": 2**63}], ids=str)
def test_cross_entropy_leaves_the_rest_to_its_reference(options: dict[str, Any]) -> None:
    op = kernels()["xbackprop.nn.losses.cross_entropy.cross_entropy_forward"]
    logits, target = unusual_logits(), np.zeros(11, np.int64)
    tolerance = TOLERANCES["float32"].peer
    assert compare(op, Given((logits, target), {}), tolerance)
    assert not compare(op, Given((logits, target), options), tolerance)
    assert not compare(op, Given((logits, target, np.ones(700, np.float32)), {}), tolerance)
    assert not compare(op, Given((logits, target.astype(np.uint64)), {}), tolerance)


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
    served = [given for given in calls()[name] if serves(kernel, given)]
    assert len(served) >= least
    for given in served:
        for change in (as_double, strided, np.asfortranarray):
            changed = given.changed(lambda a, change=change: change(a) if is_float(a) else a)
            assert serves(kernel, changed)
            tolerance = TOLERANCES["float64" if change is as_double else "float32"].peer
            compare_kernel(kernel, op, changed, tolerance)
        foreign = given.changed(lambda a: big_endian(a) if is_float(a) else a)
        empty = given.changed(lambda a: a[:0] if is_float(a) and a.ndim > 1 else a)
        mixed = given._replace(args=(as_double(given.args[0]), *given.args[1:]))
        for refused in (foreign, empty, mixed):
            assert not serves(kernel, refused)


@pytest.mark.parametrize("bound", ["BLOCK", "PRODUCT"])
@pytest.mark.parametrize("numbers", [64, 1 << 12])
def test_convolutions_in_blocks_of_any_size(
    bound: str, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (columns, copied) if bound == "BLOCK" else (columns,):
        monkeypatch.setattr(module, bound, numbers)
    for direction in ("forward", "backward"):
        name = f"xbackprop.nn.convolution.convolution.convolution_{direction}"
        for given in calls()[name]:
            compare(kernels()[name], given, TOLERANCES["float32"].peer)


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
