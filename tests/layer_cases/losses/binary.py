"""Rows of losses of yes and no."""

from collections.abc import Callable
from typing import Any

import numpy as np

from layer_cases.case import Case, Rng, torch_function
from layer_cases.losses.drawing import CLASS_WEIGHT, reduced
from xbackprop import nn


def probabilities(*shape: int) -> Callable[[Rng], tuple[np.ndarray, np.ndarray]]:
    return lambda rng: (rng.uniform(0.2, 0.8, size=shape), rng.uniform(0.1, 0.9, size=shape))


def logits(*shape: int) -> Callable[[Rng], tuple[np.ndarray, np.ndarray]]:
    return lambda rng: (2 * rng.normal(size=shape), rng.uniform(size=shape))


def labelled(*shape: int) -> Callable[[Rng], tuple[np.ndarray, np.ndarray]]:
    return lambda rng: (2 * rng.normal(size=shape), rng.integers(2, size=shape))


def torch_focal_loss(
    torch: Any, *, alpha: float = 0.25, gamma: float = 2.0, reduction: str = "mean"
) -> Any:
    """Lin et al. (2017) as torchvision's sigmoid_focal_loss computes it."""

    def function(output: Any, target: Any) -> Any:
        functional = torch.nn.functional
        entropy = functional.binary_cross_entropy_with_logits(
            output, target.to(output.dtype), reduction="none"
        )
        p = torch.sigmoid(output)
        loss = entropy * (1 - (p * target + (1 - p) * (1 - target))) ** gamma
        if alpha >= 0:
            loss = (alpha * target + (1 - alpha) * (1 - target)) * loss
        return loss if reduction == "none" else getattr(loss, reduction)()

    return torch_function(torch, function)


def torch_dice_loss(torch: Any, *, smooth: float = 1.0, reduction: str = "mean") -> Any:
    """Milletari et al. (2016) for each sample, with `smooth` on both sides of the fraction."""

    def function(output: Any, target: Any) -> Any:
        if output.ndim > 1:
            output, target = output.flatten(1), target.flatten(1)
        overlap = 2 * (output * target).sum(-1) + smooth
        loss = 1 - overlap / ((output**2).sum(-1) + (target**2).sum(-1) + smooth)
        return loss if reduction == "none" else getattr(loss, reduction)()

    return torch_function(torch, function)


BINARY = [
    *(
        Case(
            f"BCELoss {reduction}",
            lambda reduction=reduction: nn.BCELoss(reduction=reduction),
            probabilities(4, 3),
            lambda t, reduction=reduction: t.nn.BCELoss(reduction=reduction),
        )
        for reduction in ("mean", "sum", "none")
    ),
    Case(
        "BCELoss with weight",
        lambda: nn.BCELoss([0.5, 2.0, 1.0]),
        probabilities(4, 3),
        lambda t: t.nn.BCELoss(t.tensor([0.5, 2.0, 1.0])),
    ),
    Case(
        "BCELoss of one 1-D sample",
        nn.BCELoss,
        probabilities(3),
        lambda t: t.nn.BCELoss(),
        has_batch=False,
    ),
    *(
        Case(
            f"BCEWithLogitsLoss {reduction}",
            lambda reduction=reduction: nn.BCEWithLogitsLoss(reduction=reduction),
            logits(4, 3),
            lambda t, reduction=reduction: t.nn.BCEWithLogitsLoss(reduction=reduction),
        )
        for reduction in ("mean", "sum", "none")
    ),
    Case(
        "BCEWithLogitsLoss with weight",
        lambda: nn.BCEWithLogitsLoss([0.5, 2.0, 1.0]),
        logits(4, 3),
        lambda t: t.nn.BCEWithLogitsLoss(t.tensor([0.5, 2.0, 1.0])),
    ),
    Case(
        "BCEWithLogitsLoss with pos_weight",
        lambda: nn.BCEWithLogitsLoss(pos_weight=[3.0, 0.5, 1.0]),
        logits(4, 3),
        lambda t: t.nn.BCEWithLogitsLoss(pos_weight=t.tensor([3.0, 0.5, 1.0])),
    ),
    Case(
        "BCEWithLogitsLoss none with both weights",
        lambda: nn.BCEWithLogitsLoss([0.5, 2.0, 1.0], "none", [3.0, 0.5, 1.0]),
        logits(4, 3),
        lambda t: t.nn.BCEWithLogitsLoss(
            t.tensor([0.5, 2.0, 1.0]), reduction="none", pos_weight=t.tensor([3.0, 0.5, 1.0])
        ),
    ),
    *reduced(
        "MultiLabelSoftMarginLoss",
        nn.MultiLabelSoftMarginLoss,
        logits(4, 3),
        lambda t, **o: t.nn.MultiLabelSoftMarginLoss(**o),
    ),
    *reduced(
        "MultiLabelSoftMarginLoss",
        lambda **o: nn.MultiLabelSoftMarginLoss(CLASS_WEIGHT, **o),
        logits(4, 2, 3),
        lambda t, **o: t.nn.MultiLabelSoftMarginLoss(t.tensor(CLASS_WEIGHT), **o),
        suffix="with weight",
    ),
    Case(
        "MultiLabelSoftMarginLoss of integers",
        nn.MultiLabelSoftMarginLoss,
        labelled(4, 3),
        lambda t: t.nn.MultiLabelSoftMarginLoss(),
    ),
    Case(
        "MultiLabelSoftMarginLoss of one 1-D sample",
        nn.MultiLabelSoftMarginLoss,
        logits(3),
        lambda t: t.nn.MultiLabelSoftMarginLoss(),
        has_batch=False,
    ),
    *reduced("FocalLoss", nn.FocalLoss, logits(4, 3), torch_focal_loss),
    *(
        Case(
            f"FocalLoss alpha {alpha} gamma {gamma}",
            lambda alpha=alpha, gamma=gamma: nn.FocalLoss(alpha, gamma),
            logits(4, 3),
            lambda t, alpha=alpha, gamma=gamma: torch_focal_loss(t, alpha=alpha, gamma=gamma),
        )
        for alpha, gamma in ((-1, 2.0), (0.25, 0.0), (0.6, 1.0), (0.25, 0.5), (-1, 3.5), (1, 2))
    ),
    Case("FocalLoss of integers", nn.FocalLoss, labelled(4, 3), torch_focal_loss),
    *reduced("DiceLoss", nn.DiceLoss, probabilities(4, 3), torch_dice_loss),
    *reduced(
        "DiceLoss",
        lambda **o: nn.DiceLoss(0.1, **o),
        probabilities(3, 2, 2, 2),
        lambda t, **o: torch_dice_loss(t, smooth=0.1, **o),
        suffix="of images smooth 0.1",
    ),
    Case(
        "DiceLoss of one 1-D sample",
        nn.DiceLoss,
        probabilities(3),
        torch_dice_loss,
        has_batch=False,
        is_plain=False,
    ),
]
