"""Rows of likelihoods and divergences."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from layer_cases.case import Case, Rng, torch_function
from layer_cases.losses.drawing import REDUCTIONS, reduced
from xbackprop import nn


def distributions(*shape: int, log_target: bool = False) -> Callable[[Rng], Any]:
    def draw(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
        output, target = rng.normal(size=shape), rng.uniform(0.1, 1, size=shape)
        return output, np.log(target) if log_target else target

    return draw


def torch_kl_div(torch: Any, **options: Any) -> Any:
    """Without the warning that PyTorch's default will change."""

    def function(module: Any, output: Any, target: Any) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="reduction: 'mean' divides")
            return module(output, target)

    return torch_function(torch, function, torch.nn.KLDivLoss(**options))


def counts(
    *shape: int, rates: bool = False, integers: bool = False
) -> Callable[[Rng], tuple[np.ndarray, np.ndarray]]:
    """Rates or their logarithms; counts keep off 1, where Stirling's formula sets in."""

    def draw(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
        output = rng.uniform(0.5, 3, size=shape) if rates else rng.normal(size=shape)
        if integers:
            return output, rng.integers(6, size=shape)
        return output, rng.choice([0.3, 0.8, 1.7, 4.2], size=shape)

    return draw


def torch_poisson_of_integers(torch: Any) -> Any:
    """PyTorch takes the logarithm of an integer in float32, whatever the output's dtype is."""

    def function(module: Any, output: Any, target: Any) -> Any:
        return module(output, target.to(output.dtype))

    return torch_function(torch, function, torch.nn.PoissonNLLLoss(False, True))


def with_variance(*shape: int) -> Callable[[Rng], tuple[np.ndarray, ...]]:
    def draw(rng: Rng) -> tuple[np.ndarray, ...]:
        variance = rng.uniform(0.5, 2, size=shape)
        return rng.normal(size=(4, 3, 2)), rng.normal(size=(4, 3, 2)), variance

    return draw


def torch_gaussian_of_number(torch: Any) -> Any:
    return torch_function(
        torch, lambda output, target: torch.nn.GaussianNLLLoss()(output, target, 0.7)
    )


class GaussianOfNumber(nn.GaussianNLLLoss):
    """With one variance for all, given as a number."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, output: Any, target: Any) -> Any:
        return super().forward(output, target, 0.7)

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        grads = super().backward(grad_output, saved, all_inputs=all_inputs)
        if not all_inputs:
            return grads
        assert grads[2] is None
        return grads[:2]


LIKELIHOOD = [
    *reduced(
        "KLDivLoss",
        nn.KLDivLoss,
        distributions(4, 3),
        torch_kl_div,
        reductions=(*REDUCTIONS, "batchmean"),
    ),
    *reduced(
        "KLDivLoss",
        lambda **o: nn.KLDivLoss(log_target=True, **o),
        distributions(4, 3, log_target=True),
        functools.partial(torch_kl_div, log_target=True),
        reductions=(*REDUCTIONS, "batchmean"),
        suffix="of logarithms",
    ),
    *reduced(
        "PoissonNLLLoss",
        nn.PoissonNLLLoss,
        counts(4, 3),
        lambda t, **o: t.nn.PoissonNLLLoss(**o),
    ),
    *reduced(
        "PoissonNLLLoss",
        lambda **o: nn.PoissonNLLLoss(False, eps=0.1, **o),
        counts(4, 3, rates=True),
        lambda t, **o: t.nn.PoissonNLLLoss(False, eps=0.1, **o),
        suffix="of rates",
    ),
    *reduced(
        "PoissonNLLLoss",
        lambda **o: nn.PoissonNLLLoss(full=True, **o),
        counts(4, 3),
        lambda t, **o: t.nn.PoissonNLLLoss(full=True, **o),
        suffix="full",
    ),
    Case(
        "PoissonNLLLoss of integers, rates, full",
        lambda: nn.PoissonNLLLoss(False, True),
        counts(4, 3, rates=True, integers=True),
        torch_poisson_of_integers,
    ),
    *reduced(
        "GaussianNLLLoss",
        nn.GaussianNLLLoss,
        with_variance(4, 3, 2),
        lambda t, **o: t.nn.GaussianNLLLoss(**o),
    ),
    *reduced(
        "GaussianNLLLoss",
        lambda **o: nn.GaussianNLLLoss(full=True, **o),
        with_variance(4, 3),
        lambda t, **o: t.nn.GaussianNLLLoss(full=True, **o),
        suffix="full, a variance per row",
        is_plain=False,
    ),
    *reduced(
        "GaussianNLLLoss",
        nn.GaussianNLLLoss,
        with_variance(4, 1, 2),
        lambda t, **o: t.nn.GaussianNLLLoss(**o),
        suffix="a variance per column",
        is_plain=False,
    ),
    Case(
        "GaussianNLLLoss of one variance",
        GaussianOfNumber,
        lambda rng: (rng.normal(size=(4, 3)), rng.normal(size=(4, 3))),
        torch_gaussian_of_number,
    ),
]
