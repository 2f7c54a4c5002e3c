"""Distances where a norm is zero or too short, beside PyTorch's; the rest is rows of the table."""

from typing import Any

import numpy as np
import pytest
from needs_torch import import_torch

from xbackprop import nn
from xbackprop.module import Module

pytestmark = pytest.mark.torch_parity

PAIRS = [
    ([0.3, 0.4, 0.0], [0.1, -0.2, 0.5]),
    ([0.0, 0.0, 0.0], [1.0, 2.0, 3.0]),
    ([3.0, -4.0, 1.0], [3.0, -4.0, 1.0]),
    ([1e-9, 0.0, 0.0], [0.0, 0.0, 0.0]),
    ([1.0, -1.0, 0.5], [0.0, 0.0, 0.0]),
]


def compare(ours: Module, theirs: Any, torch: Any, *, p_is_zero: bool = False) -> None:
    for dtype in ("float64", "float32"):
        x1, x2 = (np.array(vectors, dtype) for vectors in zip(*PAIRS, strict=True))
        output, saved = ours.forward(x1, x2)
        tensors = [torch.tensor(x, requires_grad=True) for x in (x1, x2)]
        expected = theirs(*tensors)
        tolerance = {"float64": 1e-12, "float32": 1e-5}[dtype]
        np.testing.assert_allclose(output, expected.detach().numpy(), rtol=tolerance)
        grads = ours.backward(np.ones_like(output), saved)
        if p_is_zero:
            assert not any(grad.any() for grad in grads)
            continue
        expected.backward(torch.ones_like(expected))
        for grad, tensor in zip(grads, tensors, strict=True):
            scale = np.maximum(1, abs(tensor.grad.numpy()))
            error = abs(grad - tensor.grad.numpy()) / scale
            assert error.max() <= tolerance


@pytest.mark.parametrize("eps", [1e-8, 0.4, 2.0])
def test_cosine_of_short_and_of_no_vectors(eps: float) -> None:
    torch = import_torch()
    compare(nn.CosineSimilarity(1, eps), torch.nn.CosineSimilarity(1, eps), torch)


@pytest.mark.parametrize("p", [0, 0.5, 1, 1.5, 2, 3, -1, np.inf, -np.inf])
def test_distance_of_equals(p: float) -> None:
    """Without eps, rows have norm 0, or elements 0, or two equal ones, which share the extreme."""
    torch = import_torch()
    ours, theirs = nn.PairwiseDistance(p, eps=0.0), torch.nn.PairwiseDistance(p, eps=0.0)
    compare(ours, theirs, torch, p_is_zero=p == 0)
