"""Where float32 ends: patterns of finite, inf and NaN, and errors, beside PyTorch's.

The rows are in `edge_cases.py`. Whatever warns fails, since warnings are errors here.
"""

from typing import Any

import numpy as np
import pytest
from edge_cases import (
    DIFFERENCES,
    EDGE_ROWS,
    EdgeRow,
    edge_samples,
    one_input,
    random_batches,
)
from needs_torch import import_torch

import xbackprop as xb
from xbackprop.backend.device import Device
from xbackprop.testing.structures import backward_of_all_inputs, moved, random_like

MAGNITUDES = (1e-6, 1e-3, 0.1, 1.0, 10.0, 100.0)

every_row = pytest.mark.parametrize("row", EDGE_ROWS, ids=lambda row: row.name.replace(" ", ""))


@pytest.fixture(scope="module")
def torch() -> Any:
    return import_torch()


def ours(row: EdgeRow, x: np.ndarray, dtype: Any = np.float32, **state: Any) -> dict[str, Any]:
    """Output and gradients of one call on the default device, on the host."""
    module = row.make().to(dtype=dtype).train(state.get("training", True))
    inputs = moved(cast(row.inputs(x), dtype), xb.default_device())
    output, saved = module.forward(*inputs)
    grad_output = moved(gradient_for(output, dtype), xb.default_device())
    grads = backward_of_all_inputs(module, grad_output, saved, len(inputs))
    return {"output": xb.to_host(output), "gradient": xb.to_host(grads[0])}


def theirs(
    row: EdgeRow, x: np.ndarray, torch: Any, dtype: Any = np.float32, **state: Any
) -> dict[str, Any]:
    """The same of PyTorch."""
    module = row.torch(torch).to(getattr(torch, np.dtype(dtype).name))
    module.train(state.get("training", True))
    inputs = [torch.tensor(array) for array in cast(row.inputs(x), dtype)]
    inputs[0].requires_grad_()
    output = module(*inputs)
    output.backward(torch.tensor(gradient_for(output.detach().numpy(), dtype)))
    return {"output": output.detach().numpy(), "gradient": inputs[0].grad.numpy()}


def cast(inputs: tuple[np.ndarray, ...], dtype: Any) -> tuple[np.ndarray, ...]:
    return tuple(x.astype(dtype) if x.dtype.kind == "f" else x for x in inputs)


def gradient_for(output: Any, dtype: Any) -> np.ndarray:
    drawn = random_like(np.empty(output.shape, np.float32), np.random.default_rng(0))
    return np.asarray(drawn).astype(dtype)  # float32 numbers in float64 too


def pattern(values: np.ndarray) -> np.ndarray:
    kinds = np.full(values.shape, "finite", dtype="<U6")
    kinds[np.isnan(values)] = "nan"
    kinds[np.isposinf(values)] = "inf"
    kinds[np.isneginf(values)] = "-inf"
    return kinds


# --- patterns -----------------------------------------------------------------------------


@every_row
def test_edges_warn_of_nothing_and_give_the_same_bits_everywhere(
    row: EdgeRow, xb_device: Device
) -> None:
    received = ours(row, edge_samples())
    if xb_device.kind == "cuda":
        return
    with xb.use_device("cpu"):
        expected = ours(row, edge_samples())
    for part, values in expected.items():
        assert received[part].tobytes() == values.tobytes(), part


NUMBERS = [row for row in EDGE_ROWS if row.inputs is one_input and row.name != "GLU()"]


@pytest.mark.parametrize("row", NUMBERS, ids=lambda row: row.name.replace(" ", ""))
def test_a_number_is_computed_as_an_array_of_one(row: EdgeRow, xb_device: Device) -> None:
    """What NumPy computes from arrays without axes are scalars, of the same dtype and bits."""
    for value in (-0.7, 0.0, 0.3, 100.0):
        alone = ours(row, np.array(value, np.float32))
        for part, expected in ours(row, np.array([value], np.float32)).items():
            assert alone[part].dtype == np.float32
            assert alone[part].shape == ()
            assert alone[part].tobytes() == expected.tobytes(), (part, value)


@pytest.mark.torch_parity
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@every_row
def test_edges_give_the_pattern_of_pytorch(row: EdgeRow, training: bool, torch: Any) -> None:
    x = edge_samples()
    with xb.use_device("cpu"):
        received = ours(row, x, training=training)
    expected = theirs(row, x, torch, training=training)
    for part, values in expected.items():
        mine, pytorchs = pattern(received[part]), pattern(values)
        for known in DIFFERENCES:
            if (known.row, known.part) == (row.name, part):
                there = known.where(x) & (pytorchs == known.theirs)
                assert (mine[there] == known.ours).all(), known.reason
                pytorchs[there] = known.ours
        wrong = np.argwhere(mine != pytorchs)
        assert not len(wrong), (
            f"{part} of {row.name}: {len(wrong)} patterns differ; the first for sample "
            f"{x[wrong[0][0]]}: expected {values[wrong[0][0]]}, got {received[part][wrong[0][0]]}"
        )


# --- precision ----------------------------------------------------------------------------


@pytest.mark.torch_parity
@pytest.mark.parametrize("part", ["output", "gradient"])
@every_row
def test_errors_are_at_most_four_times_those_of_pytorch(
    row: EdgeRow, part: str, torch: Any
) -> None:
    """On 99 % of cases.

    A case is a call with a batch of 16 samples of 16 numbers, its error the root of the mean square
    of the distances to float64 on the same float32 numbers. PyTorch's own error is taken as that of
    rounding the exact results at least: half a unit in the last place each. Float64 is ours, since
    PyTorch's loses what it is to measure (GELU by tanh is 0 below -10 there); the two are compared.
    """
    good = []
    for magnitude in MAGNITUDES:
        batches = random_batches(np.random.default_rng(0), magnitude)
        x = batches.reshape(-1, 16)
        with xb.use_device("cpu"):
            received = ours(row, x, training=False)[part]
            reference = ours(row, x, np.float64, training=False)[part]
        known = theirs(row, x, torch, np.float64, training=False)[part]
        # To the digits of the constants that PyTorch's kernels hold in float32, and of 1 - tanh.
        np.testing.assert_allclose(reference, known, rtol=1e-6, atol=1e-13)
        pytorchs = theirs(row, x, torch, training=False)[part]
        # Where both overflow, the pattern is all there is to compare.
        both = (pattern(received) == pattern(pytorchs)) & ~np.isfinite(received)
        error = np.where(both, 0, received - reference)
        own = np.where(both, 0, pytorchs - reference)
        rounding = np.where(both, 0, np.spacing(abs(reference).astype(np.float32)) / 2)
        error, own, rounding = (
            np.sqrt((part.reshape(len(batches), -1) ** 2).mean(axis=1))
            for part in (error, own, rounding)
        )
        good += (error <= 4 * np.maximum(own, rounding)).tolist()
    fractions = np.reshape(good, (len(MAGNITUDES), -1)).mean(axis=1)
    table = dict(zip(MAGNITUDES, fractions.tolist(), strict=True))
    assert np.mean(good) >= 0.99, f"{part} of {row.name}, good cases by magnitude: {table}"
