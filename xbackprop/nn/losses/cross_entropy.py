"""Cross-entropy of classes."""

import math
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.initializers import given
from xbackprop.module import describe_layer
from xbackprop.nn.losses.base import Loss, buffer_beside
from xbackprop.ops.softmax import logsumexp


@op(formula="loss = (log(exp(logits).sum(1)) - logits[arange(len(target)), target]).mean()")
def cross_entropy_forward(
    logits: Array,
    target: Array,
    weight: Array | None = None,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> tuple[Array, Any]:
    """Compute ``logsumexp(x) - x[target]``; saves logits, target and logsumexp.

    Parameters
    ----------
    logits : array, shape (batch, classes, ...) or (classes,)
        Unnormalised log-probabilities.
    target : array of int, shape (batch, ...) or ()
        Class indices.
    weight : array, shape (classes,), or None
        Factor of each class.
    ignore_index : int
        Targets of this value count nothing.
    label_smoothing : float
        Share of the target spread evenly over all classes.
    reduction : {"mean", "sum", "none"}
        The mean divides by the sum of the weights of the targets.

    Returns
    -------
    loss : array, shape () or that of ``target``
    saved : (logits, target, logsumexp)

    Notes
    -----
    ``dLoss/dx = softmax(x) - one_hot(target)``, times the target's weight.
    """
    axis = _class_axis(logits)
    normalizer = logsumexp(logits, axis)
    one_hot, sample_weight = _targets(logits, target, weight, ignore_index)
    xp = get_array_module(logits)
    log_probability = logits - normalizer
    losses = -xp.where(one_hot, log_probability, 0).sum(axis=axis) * sample_weight
    if label_smoothing:
        counted = _counted(target, ignore_index)
        weighted = log_probability if weight is None else log_probability * _along(weight, logits)
        smooth = -weighted.sum(axis=axis) * counted.astype(logits.dtype)
        share = label_smoothing / logits.shape[axis]
        losses = losses * (1 - label_smoothing) + smooth * share
    if reduction == "mean":
        losses = losses.sum() / sample_weight.sum()
    elif reduction == "sum":
        losses = losses.sum()
    return losses, (logits, target, normalizer, weight)


@op(
    formula="grad = grad_output / len(target) "
    "* (exp(logits - normalizer) - (target[:, None] == arange(logits.shape[1])))",
)
def cross_entropy_backward(
    grad_output: Array,
    logits: Array,
    target: Array,
    normalizer: Array,
    weight: Array | None = None,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Array:
    """Return ``(softmax(x) - one_hot(target)) g``, weighted and averaged as the loss was."""
    axis = _class_axis(logits)
    xp = get_array_module(logits)
    one_hot, sample_weight = _targets(logits, target, weight, ignore_index)
    probability = xp.exp(logits - normalizer)
    grad = (probability - one_hot) * _over_classes(sample_weight, axis)
    if label_smoothing:
        counted = _over_classes(_counted(target, ignore_index).astype(logits.dtype), axis)
        if weight is None:
            smooth = probability * logits.shape[axis] - 1
        else:
            smooth = probability * weight.sum() - _along(weight, logits)
        share = label_smoothing / logits.shape[axis]
        grad = grad * (1 - label_smoothing) + smooth * counted * share
    if reduction == "none":
        return grad * _over_classes(grad_output, axis)
    if reduction == "mean":
        total = sample_weight.sum()
        # Where every label is ignored the loss is NaN and its gradient 0, as in PyTorch.
        grad_output = xp.where(total == 0, 0, grad_output / total)
    return (grad * grad_output).astype(logits.dtype)


def _class_axis(logits: Array) -> int:
    return 1 if logits.ndim > 1 else 0


def _along(weight: Array, logits: Array) -> Array:
    """Shape class weights so that they broadcast along the class axis."""
    axis = _class_axis(logits)
    return weight.reshape([-1 if position == axis else 1 for position in range(logits.ndim)])


def _over_classes(values: Array, axis: int) -> Array:
    """Give per-sample values a class axis of length one."""
    return get_array_module(values).expand_dims(values, axis)


def _counted(target: Array, ignore_index: int) -> Array:
    return target != ignore_index


def _targets(
    logits: Array, target: Array, weight: Array | None, ignore_index: int
) -> tuple[Array, Array]:
    """Return the one-hot mask and each target's weight: 0 where ignored, NaN out of range.

    The mask is a comparison, not an indexed read: CuPy wraps an index that is out of range.
    """
    xp = get_array_module(logits)
    axis = _class_axis(logits)
    number = logits.shape[axis]
    classes = _along(xp.arange(number), logits)  # not in target's dtype: uint8 ends at 255
    one_hot = xp.expand_dims(target, axis) == classes
    if weight is None:
        sample_weight = xp.ones(target.shape, dtype=logits.dtype)
    else:
        sample_weight = xp.where(one_hot, _along(weight, logits), 0).sum(axis=axis)
    valid = (target >= 0) & (target < number)
    sample_weight = xp.where(valid, sample_weight, math.nan)
    return one_hot, xp.where(_counted(target, ignore_index), sample_weight, 0)


class CrossEntropyLoss(Loss):
    """Cross-entropy of class indices under the softmax of logits.

    Parameters
    ----------
    weight : array_like, shape (classes,), optional
        Factor of each class.
    ignore_index : int, default -100
        Targets of this value count nothing.
    reduction : {"mean", "sum", "none"}
        The mean divides by the sum of the targets' weights.
    label_smoothing : float, default 0.0
        Share of the target spread evenly over all classes, 0 to 1.

    Notes
    -----
    ``dLoss/dx = (softmax(x) - one_hot(target)) / batch``. Labels out of range are refused where
    looking costs nothing (host arrays); on a device they make the loss NaN. Targets given as class
    probabilities are not there yet: NotImplementedError.

    References
    ----------
    Szegedy et al., "Rethinking the Inception architecture", CVPR 2016 (label smoothing).
    """

    def __init__(
        self,
        weight: Any = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(
                f"CrossEntropyLoss expects label_smoothing from 0 to 1; got {label_smoothing}"
            )
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        if weight is not None:
            self.register_buffer("weight", given(weight))

    def forward(self, logits: Array, target: Array) -> tuple[Array, Any]:
        """Compare logits ``(batch, classes, ...)`` with class indices ``(batch, ...)``."""
        self._check(logits, target)
        weight = buffer_beside(self, "weight", logits)
        return cross_entropy_forward(logits, target, weight, **self._options())

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradient of the logits; the integer target has none."""
        grad = cross_entropy_backward(grad_output, *saved, **self._options())
        return (grad, None) if all_inputs else grad

    def _options(self) -> dict[str, Any]:
        return {
            "ignore_index": self.ignore_index,
            "label_smoothing": self.label_smoothing,
            "reduction": self.reduction,
        }

    def _check(self, logits: Array, target: Array) -> None:
        name = describe_layer(self)
        self.check_device("logits", logits, logits)
        self.check_device("target", target, logits)
        if target.dtype.kind not in "iu":
            if target.shape == logits.shape:
                raise NotImplementedError(
                    f"{name}: targets as class probabilities; give class indices"
                )
            raise TypeError(f"{name} expects integer class indices as target; got {target.dtype}")
        if logits.ndim == 0:
            raise ValueError(f"{name} expects logits of shape (batch, classes); got ()")
        axis = _class_axis(logits)
        expected = logits.shape[:axis] + logits.shape[axis + 1 :]
        if target.shape != expected:
            raise ValueError(
                f"{name}: logits of shape {logits.shape} expect a target of shape {expected}; "
                f"got {target.shape}"
            )
        if get_array_module(target) is np:
            check_class_indices(name, np.asarray(target), logits.shape[axis], self.ignore_index)


def check_class_indices(
    name: str, target: np.ndarray, classes: int, ignore_index: int = -100
) -> None:
    """Refuse labels outside ``0 .. classes - 1``; for host arrays, where looking costs nothing."""
    if target.size == 0 or (target.min() >= 0 and target.max() < classes):
        return
    wrong = ((target < 0) | (target >= classes)) & (target != ignore_index)
    if wrong.any():
        first = np.argwhere(wrong)[0]
        place = ", ".join(str(number) for number in first)
        raise ValueError(
            f"{name}: label {target[tuple(first)]} at index ({place}) is out of range; expected "
            f"0 to {classes - 1}. Give the network {int(target.max()) + 1} outputs, or check "
            "the labels."
        )
