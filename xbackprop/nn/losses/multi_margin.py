"""Hinge losses of one class, and of several, against all others."""

import math
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.initializers import given
from xbackprop.module import describe_layer
from xbackprop.nn.losses.base import Loss, check_floats, check_number, mean_factor, reduce_loss
from xbackprop.nn.losses.class_indices import (
    check_class_target,
    class_weight_beside,
    one_hot_and_weight,
)


@op(
    formula="loss = (where(target[:, None] == arange(output.shape[1]), 0, maximum(margin - "
    "output[arange(len(target)), target][:, None] + output, 0)).sum(1) / output.shape[1]).mean()",
)
def multi_margin_forward(
    output: Array,
    target: Array,
    weight: Array | None = None,
    *,
    p: int = 1,
    margin: float = 1.0,
    reduction: str = "mean",
) -> tuple[Array, Any]:
    """Compute ``sum over i != y of max(0, margin - x[y] + x[i])^p / classes``."""
    xp = get_array_module(output)
    one_hot, sample_weight = one_hot_and_weight(output, target, weight)
    chosen = xp.where(one_hot, output, 0).sum(axis=-1, keepdims=True)
    hinge = margin - chosen + output
    # A comparison, not maximum: as in PyTorch, NaN costs nothing.
    hinge = xp.where((hinge > 0) & ~one_hot, hinge, 0)
    terms = hinge if p == 1 else hinge * hinge
    losses = terms.sum(axis=-1) * (sample_weight * mean_factor(output.shape[-1], "mean"))
    return reduce_loss(losses, reduction), (hinge, one_hot, sample_weight)


@op(
    formula="grad = grad_output / hinge.size "
    "* where(one_hot, -(hinge > 0).sum(1, keepdims=True), hinge > 0)",
)
def multi_margin_backward(
    grad_output: Array,
    hinge: Array,
    one_hot: Array,
    sample_weight: Array,
    *,
    p: int = 1,
    reduction: str = "mean",
) -> Array:
    """Return ``p hinge^(p-1) g`` for each other class, and minus their sum for the target."""
    xp = get_array_module(hinge)
    factor = mean_factor(hinge.shape[-1], "mean") * mean_factor(sample_weight.size, reduction)
    scale = xp.expand_dims(sample_weight * grad_output * factor, -1)
    slope = hinge * (2 * scale) if p == 2 else (hinge > 0).astype(hinge.dtype) * scale
    return xp.where(one_hot, -slope.sum(axis=-1, keepdims=True), slope).astype(hinge.dtype)


@op(
    formula="loss = (where((target >= 0)[:, :, None] "
    "& ~(target[:, :, None] == arange(output.shape[1])).any(1)[:, None], maximum(0, 1 "
    "- output[arange(len(output))[:, None], target][:, :, None] + output[:, None]), 0)"
    ").sum((1, 2)).mean() / output.shape[1]",
)
def multilabel_margin_forward(
    output: Array, target: Array, *, reduction: str = "mean"
) -> tuple[Array, Any]:
    """Compute ``sum over j in y, i not in y of max(0, 1 - x[j] + x[i]) / classes``.

    The labels of a sample end before its first -1. Saves which hinges are open, ``(batch, labels,
    classes)``, the labels' one-hot, and 0 per sample, NaN where a label names no class.
    """
    xp = get_array_module(output)
    classes = output.shape[-1]
    is_label = xp.expand_dims(xp.cumprod((target >= 0).astype(np.int64), axis=-1) > 0, -1)
    one_hot = (xp.expand_dims(target, -1) == xp.arange(classes)) & is_label
    scores = xp.expand_dims(output, -2)
    hinge = 1 - xp.where(one_hot, scores, 0).sum(axis=-1, keepdims=True) + scores
    is_open = (hinge > 0) & is_label & ~one_hot.any(axis=-2, keepdims=True)
    wrong = ((target < -1) | (target >= classes)).any(axis=-1)
    penalty = xp.where(wrong, math.nan, 0).astype(output.dtype)
    losses = xp.where(is_open, hinge, 0).sum(axis=(-2, -1)) * mean_factor(classes, "mean")
    return reduce_loss(losses + penalty, reduction), (is_open, one_hot, penalty)


@op(
    formula="grad = grad_output / len(is_open) / is_open.shape[2] "
    "* (is_open.sum(1) - (one_hot * is_open.sum(2)[:, :, None]).sum(1))",
)
def multilabel_margin_backward(
    grad_output: Array, is_open: Array, one_hot: Array, penalty: Array, *, reduction: str = "mean"
) -> Array:
    """Return ``g`` for each hinge that is open: plus at the other class, minus at the label."""
    xp = get_array_module(is_open)
    factor = mean_factor(is_open.shape[-1], "mean") * mean_factor(penalty.size, reduction)
    scale = grad_output * factor + penalty
    counts = is_open.sum(axis=-1, keepdims=True)  # (..., labels, 1)
    slope = is_open.sum(axis=-2) - xp.where(one_hot, counts, 0).sum(axis=-2)
    return slope.astype(penalty.dtype) * xp.expand_dims(scale, -1)


class MultiMarginLoss(Loss):
    """Hinge loss of one class against all others.

    Parameters
    ----------
    p : {1, 2}
        Exponent of the hinge.
    margin : float, default 1.0
        By how much the target's score shall exceed the others.
    weight : array_like, shape (classes,), optional
        Factor of each class as a target.
    reduction : {"mean", "sum", "none"}
        The mean is over the batch, whatever the weights.

    Notes
    -----
    ``w[y] sum over i != y of max(0, margin - x[y] + x[i])^p / classes``. Each open hinge gives its
    class ``p hinge^(p-1) / classes`` and the target minus that. Labels out of range are refused
    where looking costs nothing (host arrays); on a device they make the loss NaN.

    References
    ----------
    Crammer and Singer, "On the algorithmic implementation of multiclass kernel-based vector
    machines", JMLR 2 (2001).
    """

    def __init__(
        self, p: int = 1, margin: float = 1.0, weight: Any = None, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        if check_number(self, "p", p) not in (1, 2):
            raise ValueError(f"MultiMarginLoss expects p to be 1 or 2; got {p}")
        self.p = int(p)
        self.margin = check_number(self, "margin", margin)
        if weight is not None:
            self.register_buffer("weight", given(weight))

    def forward(self, output: Array, target: Array) -> tuple[Array, Any]:
        """Compare scores ``(batch, classes)`` with labels ``(batch,)``; one sample has no batch."""
        output = check_floats(self, "output", output, output)
        self.check_device("target", target, output)
        if output.ndim > 2:
            raise ValueError(
                f"{describe_layer(self)} expects output of shape (batch, classes) or (classes,); "
                f"got {output.shape}"
            )
        check_class_target(self, output, target)
        weight = class_weight_beside(self, output)
        return multi_margin_forward(
            output, target, weight, p=self.p, margin=self.margin, reduction=self.reduction
        )

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradient of ``output``; the integer target has none."""
        options: dict[str, Any] = {"p": self.p, "reduction": self.reduction}
        grad = multi_margin_backward(grad_output, *saved, **options)
        return (grad, None) if all_inputs else grad


class MultiLabelMarginLoss(Loss):
    """Hinge loss of several classes against all others.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        The mean is over the batch.

    Notes
    -----
    ``sum over j in y, i not in y of max(0, 1 - x[j] + x[i]) / classes``. A target row lists class
    indices and ends before its first -1. Each open hinge gives class ``i`` ``1 / classes`` and
    class ``j`` minus that. Labels out of range are refused where looking costs nothing (host
    arrays); on a device they make the loss NaN.
    """

    def forward(self, output: Array, target: Array) -> tuple[Array, Any]:
        """Compare scores with class indices of the same shape, ``(batch, classes)`` or 1-D."""
        output = check_floats(self, "output", output, output)
        self.check_device("target", target, output)
        name = describe_layer(self)
        if target.dtype.kind not in "iu":
            raise TypeError(f"{name} expects integer class indices as target; got {target.dtype}")
        if output.ndim not in (1, 2) or target.shape != output.shape:
            raise ValueError(
                f"{name} expects output and target of one shape, (batch, classes) or (classes,); "
                f"got output {output.shape} and target {target.shape}"
            )
        if get_array_module(target) is np and target.size:
            low, high = target.min(), target.max()
            if low < -1 or high >= output.shape[-1]:
                raise ValueError(
                    f"{name} expects class indices from 0 to {output.shape[-1] - 1}, or -1 for the "
                    f"end; got {low} to {high}"
                )
        return multilabel_margin_forward(output, target, reduction=self.reduction)

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradient of ``output``; the integer target has none."""
        grad = multilabel_margin_backward(grad_output, *saved, reduction=self.reduction)
        return (grad, None) if all_inputs else grad
