"""Rows of triplet losses."""

import math
from typing import Any

import numpy as np

from layer_cases.case import Case, Rng
from layer_cases.losses.drawing import reduced
from xbackprop import nn
from xbackprop.module import Module


def triplet(*shape: int) -> Any:
    """Anchors near their likes; the unlike is sometimes nearer to these, and some margins hold."""

    def draw(rng: Rng) -> tuple[np.ndarray, ...]:
        anchor = rng.normal(size=shape)
        reach = np.resize([1.0, 5.0], shape[:-1])[..., np.newaxis]
        return (
            anchor,
            anchor + rng.uniform(0.2, 0.5, size=shape),
            anchor + reach * rng.uniform(0.1, 0.4, size=shape) * rng.choice([-1, 1], size=shape),
        )

    return draw


def broadcast(rng: Rng) -> tuple[np.ndarray, ...]:
    anchor, positive, negative = triplet(4, 3)(rng)
    return anchor, positive[:1], negative


class SquaredDistance(Module):
    """A distance of one's own."""

    def forward(self, x1: Any, x2: Any) -> Any:
        difference = x1 - x2
        return (difference * difference).sum(axis=-1), difference

    def backward(self, grad_output: Any, difference: Any) -> Any:
        grad = 2 * difference * grad_output[..., np.newaxis]
        return grad, -grad


class Projected(Module):
    """A distance that is trained: that of two linear maps."""

    def __init__(self) -> None:
        self.linear = nn.Linear(3, 2, rng=0)

    def forward(self, x1: Any, x2: Any) -> Any:
        (y1, saved1), (y2, saved2) = self.linear.forward(x1), self.linear.forward(x2)
        difference = y1 - y2
        return (difference * difference).sum(axis=-1), (difference, saved1, saved2)

    def backward(self, grad_output: Any, saved: Any) -> Any:
        difference, saved1, saved2 = saved
        grad = 2 * difference * grad_output[..., np.newaxis]
        return self.linear.backward(grad, saved1), self.linear.backward(-grad, saved2)


def torch_squared(torch: Any, **options: Any) -> Any:
    return torch.nn.TripletMarginWithDistanceLoss(
        distance_function=lambda x1, x2: ((x1 - x2) ** 2).sum(-1), **options
    )


def torch_projected(torch: Any) -> Any:
    class Distance(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(3, 2)

        def forward(self, x1: Any, x2: Any) -> Any:
            return ((self.linear(x1) - self.linear(x2)) ** 2).sum(-1)

    return torch.nn.TripletMarginWithDistanceLoss(distance_function=Distance(), swap=True)


DISTANCES = [
    *reduced(
        "TripletMarginLoss",
        nn.TripletMarginLoss,
        triplet(4, 3),
        lambda t, **o: t.nn.TripletMarginLoss(**o),
    ),
    *reduced(
        "TripletMarginLoss",
        lambda **o: nn.TripletMarginLoss(0.3, swap=True, **o),
        triplet(6, 3),
        lambda t, **o: t.nn.TripletMarginLoss(0.3, swap=True, **o),
        suffix="margin 0.3 swap",
    ),
    *(
        Case(
            f"TripletMarginLoss p {p} eps 0.01",
            lambda p=p: nn.TripletMarginLoss(p=p, eps=0.01),
            triplet(4, 3),
            lambda t, p=p: t.nn.TripletMarginLoss(p=p, eps=0.01),
            is_plain=p < math.inf,
        )
        for p in (1, 0.5, 1.5, 3, math.inf)
    ),
    Case(
        "TripletMarginLoss of sequences",
        lambda: nn.TripletMarginLoss(0.3, reduction="none"),
        triplet(2, 3, 3),
        lambda t: t.nn.TripletMarginLoss(0.3, reduction="none"),
    ),
    Case(
        "TripletMarginLoss of one 1-D sample",
        nn.TripletMarginLoss,
        triplet(3),
        lambda t: t.nn.TripletMarginLoss(),
        has_batch=False,
    ),
    Case(
        "TripletMarginLoss broadcast",
        lambda: nn.TripletMarginLoss(swap=True),
        broadcast,
        lambda t: t.nn.TripletMarginLoss(swap=True),
        has_batch=False,
        is_plain=False,
    ),
    *reduced(
        "TripletMarginWithDistanceLoss",
        lambda **o: nn.TripletMarginWithDistanceLoss(margin=0.3, swap=True, **o),
        triplet(4, 3),
        lambda t, **o: t.nn.TripletMarginWithDistanceLoss(margin=0.3, swap=True, **o),
        suffix="of the default",
    ),
    *reduced(
        "TripletMarginWithDistanceLoss",
        lambda **o: nn.TripletMarginWithDistanceLoss(distance_function=SquaredDistance(), **o),
        triplet(4, 3),
        torch_squared,
        suffix="of squares",
    ),
    Case(
        "TripletMarginWithDistanceLoss of a trained distance",
        lambda: nn.TripletMarginWithDistanceLoss(distance_function=Projected(), swap=True),
        triplet(4, 3),
        torch_projected,
    ),
]
