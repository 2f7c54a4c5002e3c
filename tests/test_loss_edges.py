"""Losses and their gradients at the ends of float32, beside PyTorch."""

from typing import Any

import numpy as np
import pytest
from loss_edges import CASES, FLOAT64, KINKS, Edge
from needs_torch import import_torch

import xbackprop as xb
from xbackprop.testing.structures import backward_of_all_inputs

pytestmark = pytest.mark.torch_parity

every_edge = pytest.mark.parametrize("edge", CASES, ids=lambda edge: edge.name.replace(" ", "-"))

SMALLEST_NORMAL = np.finfo(np.float32).tiny  # what a GPU flushes to 0 is no error


@pytest.fixture(scope="module")
def torch() -> Any:
    return import_torch()


@pytest.fixture(autouse=True)
def _on_the_cpu() -> Any:
    with xb.use_device("cpu"):
        yield


def cast(edge: Edge, dtype: str) -> list[np.ndarray]:
    return [x.astype(dtype) if x.dtype.kind == "f" else x for x in edge.inputs]


def ours(edge: Edge) -> list[Any]:
    """Loss and gradients in float32; a warning would be an error here."""
    inputs = cast(edge, "float32")
    loss = edge.ours()
    output, saved = loss.forward(*inputs)
    return [output, *backward_of_all_inputs(loss, np.ones_like(output), saved, len(inputs))]


def theirs(edge: Edge, torch: Any, dtype: str) -> list[Any]:
    inputs = [torch.tensor(x, requires_grad=x.dtype.kind == "f") for x in cast(edge, dtype)]
    output = edge.torch(torch)(*inputs)
    output.backward(torch.ones_like(output))
    grads = [None if x.grad is None else x.grad.numpy() for x in inputs]
    return [output.detach().numpy(), *grads]


def kinds(values: np.ndarray) -> np.ndarray:
    """0 finite, 1 and -1 the infinities, 2 NaN."""
    infinite = np.sign(values) * np.isinf(values)
    return np.where(np.isnan(values), 2, infinite)


def excepted(edge: Edge, position: int, result: list[Any]) -> np.ndarray:
    """Where the table says that PyTorch is not followed."""
    received, single, double = result
    mask = edge.exceptions.get(position)
    if mask is None:
        return np.zeros(received.shape, bool)
    if mask is FLOAT64:
        return (kinds(single) != kinds(double)) & (kinds(received) == kinds(double))
    return np.broadcast_to(mask(*edge.inputs), received.shape)


def compared(edge: Edge, torch: Any) -> list[tuple[int, list[Any]]]:
    """Position, and our result beside PyTorch's in float32 and in float64."""
    results = zip(
        ours(edge), theirs(edge, torch, "float32"), theirs(edge, torch, "float64"), strict=True
    )
    return [
        (position, list(result))
        for position, result in enumerate(results)
        if any(part is not None for part in result)
    ]


@every_edge
def test_finite_infinite_and_nan_are_where_pytorch_has_them(edge: Edge, torch: Any) -> None:
    for position, result in compared(edge, torch):
        received, expected, _ = result
        differ = kinds(received) != kinds(expected)
        allowed = excepted(edge, position, result)
        place = np.argwhere(differ & ~allowed)
        what = "loss" if position == 0 else f"gradient of input {position - 1}"
        assert not place.size, (
            f"{what} at {place[0]}: {received[tuple(place[0])]}, PyTorch has "
            f"{expected[tuple(place[0])]}; {len(place)} of {received.size} differ"
        )


def test_every_exception_is_needed(torch: Any) -> None:
    for edge in CASES:
        assert bool(edge.reason) == bool(edge.exceptions), edge.name
        for position, result in compared(edge, torch):
            if position in edge.exceptions:
                differ = kinds(result[0]) != kinds(result[1])
                assert (differ & excepted(edge, position, result)).any(), (edge.name, position)


@every_edge
def test_error_of_float32_is_at_most_four_times_pytorchs(edge: Edge, torch: Any) -> None:
    """In 99 of 100 numbers; PyTorch's float64 is the reference."""
    for position, result in compared(edge, torch):
        with np.errstate(all="ignore"):
            received, expected, exact = (np.asarray(part, np.float64) for part in result)
            finite = np.isfinite(received) & np.isfinite(expected) & np.isfinite(exact)
            rounding = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
            error, peer = np.abs(received - exact), np.abs(expected - exact)
            allowed = 4 * np.maximum(np.maximum(peer, rounding), SMALLEST_NORMAL)
            counts = finite & ~excepted(edge, position, result)
            worse = counts & ~(error <= allowed)
        assert counts.sum() >= 20, "too few numbers to compare"
        assert worse.sum() <= 0.01 * counts.sum(), (
            f"position {position}: {worse.sum()} of {counts.sum()} are worse, at "
            f"{np.argwhere(worse)[:3].tolist()}"
        )


@pytest.mark.parametrize("edge", KINKS, ids=lambda edge: edge.name.replace(" ", "-"))
def test_derivatives_at_kinks_are_pytorchs(edge: Edge, torch: Any) -> None:
    for position, (received, expected, _) in compared(edge, torch):
        if expected is None:  # of a p that has no derivative
            expected = np.zeros_like(received)
        np.testing.assert_allclose(received, expected, rtol=1e-6, atol=0, err_msg=str(position))
