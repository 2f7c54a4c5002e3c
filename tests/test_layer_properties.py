"""What holds for every layer and loss, whatever the shapes and values.

Families are found by what rows make, so that a new row is tested here without being named.
"""

import functools
from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layer_cases import CASES, Case
from properties import close, close_all, dtypes, few, host, on_cpu, on_two, plain, seeds

import xbackprop as xb
from xbackprop.ops.softmax import log_softmax, logsumexp, softmax
from xbackprop.testing.structures import backward_of_all_inputs, random_like, transform

# --- families, by what rows make ----------------------------------------------------------


class Rows(list[Case]):
    """The rows of one class; shown in a word when a test fails."""

    def __repr__(self) -> str:
        return f"rows of {self[0].name}"


@functools.cache
def made() -> dict[str, Rows]:
    with xb.use_device("cpu"):
        found: dict[str, Rows] = {}
        for case in CASES:
            found.setdefault(type(case.make()).__name__, Rows()).append(case)
        return found


def classes(belongs: Callable[[xb.Module, Case], bool]) -> Any:
    """One test per class of which some rows belong to the family."""
    with xb.use_device("cpu"):
        found = [
            pytest.param(rows, id=name)
            for name, cases in made().items()
            if (rows := Rows(case for case in cases if belongs(case.make(), case)))
        ]
    return pytest.mark.parametrize("rows", found)  # a visible skip where the family is empty


def is_elementwise(module: xb.Module, case: Case) -> bool:
    return any(base.__name__.lstrip("_") == "Elementwise" for base in type(module).__mro__)


def has_reduction(module: xb.Module, case: Case) -> bool:
    return hasattr(module, "reduction")


def treats_samples_apart(module: xb.Module, case: Case) -> bool:
    is_layer = (
        type(module) in xb.nn.catalogue().values() and ".losses" not in type(module).__module__
    )
    return is_layer and case.has_batch and getattr(module, "dim", None) != 0


def is_softmax(module: xb.Module, case: Case) -> bool:
    return type(module).__module__.endswith(".softmax")


def is_dropout(module: xb.Module, case: Case) -> bool:
    return type(module).__module__.endswith(".dropout")


# --- what examples are made of ------------------------------------------------------------


def make(case: Case, dtype: str = "float64", **attributes: Any) -> xb.Module:
    xb.manual_seed(0)
    module = case.make().to(dtype=dtype)
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


def draw(case: Case, seed: int, dtype: str = "float64") -> list[xb.Array]:
    drawn = case.inputs(np.random.default_rng(seed))
    drawn = [np.asarray(x) for x in (drawn if isinstance(drawn, tuple) else (drawn,))]
    return [xb.asarray(x, dtype=dtype if x.dtype.kind == "f" else x.dtype) for x in drawn]


def equal_bits(received: Any, expected: Any) -> None:
    np.testing.assert_array_equal(host(received), host(expected), strict=True)


# --- elementwise layers -------------------------------------------------------------------

values = st.one_of(
    st.floats(-20, 20, width=32),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 88.0, -104.0, 1e4, -3e38, np.inf, -np.inf, np.nan]),
)


@on_two
@classes(is_elementwise)
@given(data=st.data())
@few
def test_elementwise_layers_see_one_element_at_a_time(
    rows: list[Case], data: Any, xb_device: Any
) -> None:
    """Shape and place of an element change nothing; shape and dtype are kept."""
    dtype = data.draw(dtypes)
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    array = data.draw(hnp.arrays(dtype, shape, elements=values))
    order = np.array(data.draw(st.permutations(range(array.size))), dtype=np.int64)
    module = make(data.draw(st.sampled_from(rows)), dtype)
    grad = np.random.default_rng(0).normal(size=shape).astype(dtype)

    whole, whole_grad = both_ways(module, array, grad)
    assert whole.shape == whole_grad.shape == shape
    assert whole.dtype == whole_grad.dtype == dtype
    # NumPy's vectorised and scalar loops differ in the last bit.
    moved, moved_grad = both_ways(module, array.ravel()[order], grad.ravel()[order])
    finite = np.isfinite(whole.ravel()[order])
    np.testing.assert_array_equal(np.isfinite(moved), finite)
    close(moved[finite], whole.ravel()[order][finite], dtype, "outputs")
    finite = np.isfinite(whole_grad.ravel()[order])
    np.testing.assert_array_equal(np.isfinite(moved_grad), finite)
    close(moved_grad[finite], whole_grad.ravel()[order][finite], dtype, "gradients")


def both_ways(module: xb.Module, x: np.ndarray, grad: np.ndarray) -> tuple[Any, Any]:
    output, saved = module.forward(xb.asarray(x, dtype=x.dtype))
    return host(output), host(module.backward(xb.asarray(grad, dtype=grad.dtype), saved))


# --- every row ----------------------------------------------------------------------------


@on_cpu
@classes(lambda module, case: True)
@given(data=st.data())
@few
def test_backward_is_linear_in_grad_output(rows: list[Case], data: Any, xb_device: Any) -> None:
    case, seed = data.draw(st.sampled_from(rows)), data.draw(seeds)
    a, b = data.draw(st.floats(-3, 3)), data.draw(st.floats(-3, 3))
    inputs = draw(case, seed)

    def gradients(*factors: float) -> list[Any]:
        module = make(case)  # of one seed: random layers draw the same
        output, saved = module.forward(*inputs)
        grads = [
            random_like(output, np.random.default_rng([seed, n])) for n, _ in enumerate(factors)
        ]
        found = backward_of_all_inputs(module, combined(grads, factors), saved, len(inputs))
        return plain([*found, *(p.grad if p.has_grad else None for p in module.parameters())])

    parts = [gradients(1.0, 0.0), gradients(0.0, 1.0)]
    close_all(gradients(a, b), combined(parts, (a, b)))


def combined(parts: list[Any], factors: tuple[float, ...]) -> Any:
    """The sum of nested arrays of one structure, each times its factor."""
    columns = [iter(plain(part)) for part in parts]

    def weighted(_: Any) -> Any:
        arrays = [next(column) for column in columns]
        if arrays[0] is None:
            return None
        return sum(factor * array for factor, array in zip(factors, arrays, strict=True))

    return transform(parts[0], weighted)


@on_cpu
@classes(treats_samples_apart)
@given(data=st.data())
@few
def test_samples_of_a_batch_do_not_see_each_other(
    rows: list[Case], data: Any, xb_device: Any
) -> None:
    case, dtype = data.draw(st.sampled_from(rows)), data.draw(dtypes)
    module = make(case, dtype).eval()
    first, second = (draw(case, seed, dtype) for seed in (data.draw(seeds), data.draw(seeds)))
    length = data.draw(st.integers(0, len(second[0])))
    second = [x[:length] for x in second]
    joined = [np.concatenate(pair) for pair in zip(first, second, strict=True)]
    outputs = [plain(module(*first)), plain(module(*second))]
    close_all(module(*joined), [np.concatenate(pair) for pair in zip(*outputs, strict=True)], dtype)


# --- losses -------------------------------------------------------------------------------


@on_two
@classes(has_reduction)
@given(data=st.data())
@few
def test_reductions_agree(rows: list[Case], data: Any, xb_device: Any) -> None:
    case = data.draw(st.sampled_from(rows))
    inputs = draw(case, data.draw(seeds))
    found = {}
    for reduction in ("none", "sum", "mean"):
        module = make(case, reduction=reduction)
        output, saved = module.forward(*inputs)
        grad = xb.asarray(np.ones(output.shape), dtype=np.float64)
        found[reduction] = host(output), host(first_of(module.backward(grad, saved)))
    (each, each_grad), (total, total_grad), (mean, mean_grad) = found.values()
    close(total, each.sum(), what="sum")
    close(total_grad, each_grad, what="gradient of the sum")
    if hasattr(module, "ignore_index"):  # divides by the weights of what counts
        close(mean * total_grad, mean_grad * total, what="mean")
    elif not hasattr(module, "blank"):  # divides each sequence by its length first
        close(mean, each.mean(), what="mean")
        close(mean_grad * each.size, each_grad, what="gradient of the mean")


def first_of(grads: Any) -> Any:
    """The gradient of the first input, where a loss has several to train."""
    return grads[0] if isinstance(grads, tuple) else grads


@on_two
@given(data=st.data())
@few
def test_cross_entropy_does_not_see_a_shift_of_the_logits(data: Any, xb_device: Any) -> None:
    rows = made()["CrossEntropyLoss"]
    case, shift = data.draw(st.sampled_from(rows)), data.draw(st.floats(-1e3, 1e3))
    logits, target = draw(case, data.draw(seeds))
    results = []
    for shifted in (logits, logits + shift):
        module = make(case)
        loss, saved = module.forward(shifted, target)
        grad = xb.asarray(np.ones(loss.shape), dtype=np.float64)
        results.append((host(loss), host(module.backward(grad, saved))))
    for before, after in zip(*results, strict=True):
        np.testing.assert_allclose(after, before, rtol=0, atol=1e-10)


# --- softmax ------------------------------------------------------------------------------


@on_two
@given(data=st.data())
@few
def test_softmax_of_shifted_numbers(data: Any, xb_device: Any) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=5))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = data.draw(hnp.arrays(np.float64, shape, elements=st.floats(-30, 30)))
    shift = data.draw(st.floats(-1e3, 1e3))
    before, after = (xb.asarray(array, dtype=np.float64) for array in (x, x + shift))
    np.testing.assert_allclose(host(softmax(after, axis)), host(softmax(before, axis)), atol=1e-11)
    np.testing.assert_allclose(host(softmax(before, axis).sum(axis=axis)), 1.0, atol=1e-12)
    logs = host(log_softmax(before, axis))
    np.testing.assert_allclose(host(log_softmax(after, axis)), logs, atol=1e-10)
    totals = [host(logsumexp(array, axis)) for array in (before, after)]
    np.testing.assert_allclose(totals[1], totals[0] + shift, atol=1e-10)


@on_two
@classes(is_softmax)
@given(data=st.data())
@few
def test_softmax_layers_do_not_see_a_shift(rows: list[Case], data: Any, xb_device: Any) -> None:
    case, shift = data.draw(st.sampled_from(rows)), data.draw(st.floats(-1e3, 1e3))
    (x,) = draw(case, data.draw(seeds))
    module = make(case)
    np.testing.assert_allclose(host(module(x + shift)), host(module(x)), rtol=0, atol=1e-10)


# --- dropout ------------------------------------------------------------------------------


@on_two
@classes(is_dropout)
@given(data=st.data())
@few
def test_dropout_scales_what_it_keeps(rows: list[Case], data: Any, xb_device: Any) -> None:
    p, dtype = data.draw(st.floats(0, 0.99)), data.draw(dtypes)
    case = data.draw(st.sampled_from(rows))
    (x,) = draw(case, data.draw(seeds), dtype)
    module = make(case, dtype, p=p)
    equal_bits(module.eval()(x), x)
    output, saved = module.train().forward(x)
    grad = host(module.backward(xb.asarray(np.ones(x.shape), dtype=dtype), saved))
    if type(module).__name__.startswith("Dropout"):  # the others silence to another number
        kept = host(output) != 0
        close(host(output)[kept], host(x)[kept] / (1 - p), dtype)
        close(grad, kept / np.asarray(1 - p, dtype), dtype)
    assert output.dtype == dtype == grad.dtype
