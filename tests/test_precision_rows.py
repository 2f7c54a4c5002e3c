"""Half precision of every row of the table: near float32, and the same bits on the stand-in."""

import inspect
from typing import Any

import numpy as np
import pytest
from layer_cases import CASES, Case

import xbackprop as xb
from xbackprop.backend.half import half_dtype
from xbackprop.module import UninitializedParameter
from xbackprop.testing.structures import (
    leaves,
    moved,
    random_like,
    transform,
)

# Rounding units of a layer's result, beside its largest element: operands, product, result and bias
# round once each, and some layers of the table are a few layers. Measured: 15 at most.
LAYER_UNITS = 20
# Networks of many layers on a handful of numbers: an error anywhere is larger than this.
NETWORK_TOLERANCE = 0.25
UNITS = {"bfloat16": 2.0**-8, "float16": 2.0**-11}


def of_each_class() -> list[Case]:
    """The first row of every class."""
    found: dict[str, Case] = {}
    with xb.use_device("cpu"):
        for case in CASES:
            found.setdefault(type(case.make()).__name__, case)
    return list(found.values())


def rows(cases: list[Case]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name.replace(" ", "-"))


class Inside(xb.Module):
    """A layer inside of a network, where it is given halves and gives halves."""

    def __init__(self, layer: xb.Module) -> None:
        self.layer = layer

    def forward(self, *inputs: Any) -> Any:
        return self.layer.forward(*inputs)

    def backward(self, grad_output: Any, saved: Any, **options: Any) -> Any:
        return self.layer.backward(grad_output, saved, **options)


def run(case: Case, precision: str, half: np.dtype, device: Any) -> dict[str, np.ndarray]:
    """Outputs and all gradients, of inputs that halves hold: what is largest stays largest."""

    def rounded(array: Any) -> Any:
        is_float = np.asarray(array).dtype.kind == "f"
        return np.asarray(array).astype(half).astype(np.float32) if is_float else array

    with xb.use_device(device) as place:
        xb.manual_seed(0)
        module = Inside(case.make())
        made = case.inputs(np.random.default_rng(0))
        inputs = moved(transform(list(made) if type(made) is tuple else [made], rounded), place)
        if any(isinstance(p, UninitializedParameter) for p in module.parameters()):
            module(*inputs)
        xb.set_precision(module, precision)
        output, saved = module.forward(*inputs)
        drawn = transform(random_like(output, np.random.default_rng(1)), rounded)
        takes_all = "all_inputs" in inspect.signature(module.layer.backward).parameters
        options = {"all_inputs": True} if takes_all else {}
        grads = module.backward(moved(drawn, place), saved, **options)
        parts = [*leaves(output, "output"), *leaves(grads, "gradient of input")]
        parts += [(name, parameter.grad) for name, parameter in module.named_parameters()]
        return {name: xb.to_host(array) for name, array in parts if array is not None}


def is_refused(case: Case, half: np.dtype) -> bool:
    """Whether a row is of the layers that half precision is not there for; it must say so."""
    with xb.use_device("cpu"):
        module = case.make()
    if type(module) is not xb.nn.Embedding or module.max_norm is None:
        return False
    with pytest.raises(NotImplementedError, match="Embedding with max_norm"):
        xb.set_precision(module, half.name)
    assert module.weight.value is module.weight.data  # nothing was changed
    return True


def expect_near(case: Case, precision: str) -> None:
    half = half_dtype(precision)
    if is_refused(case, half):
        return
    expected, received = (run(case, name, half, "cpu") for name in ("float32", precision))
    assert expected.keys() == received.keys()
    tolerance = NETWORK_TOLERANCE if case.is_network else LAYER_UNITS * UNITS[precision]
    for name, array in expected.items():
        assert array.dtype == received[name].dtype, name  # float32 outside
        finite = np.abs(array[np.isfinite(array)], dtype=np.float64)
        np.testing.assert_allclose(
            received[name], array, rtol=0, atol=tolerance * finite.max(initial=1.0), err_msg=name
        )


@rows(CASES)
def test_bfloat16_is_near_float32(case: Case) -> None:
    expect_near(case, "bfloat16")


@rows(of_each_class())
def test_float16_is_near_float32(case: Case) -> None:
    expect_near(case, "float16")


@rows(of_each_class())
def test_the_stand_in_gives_the_same_bits(case: Case) -> None:
    half = half_dtype("bfloat16")
    if is_refused(case, half):
        return
    expected, received = (run(case, "bfloat16", half, device) for device in ("cpu", "fake:1"))
    for name, array in expected.items():
        assert array.tobytes() == received[name].tobytes(), name
