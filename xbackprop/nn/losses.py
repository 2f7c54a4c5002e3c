"""Losses: a number that says how wrong the output is, and its gradient."""

import math
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.transfer import asarray
from xbackprop.dispatch import op
from xbackprop.module import Module, describe_layer
from xbackprop.ops.softmax import logsumexp
from xbackprop.ops.special import sigmoid, softplus

_REDUCTIONS = ("mean", "sum", "none")


def reduce_loss(losses: Array, reduction: str) -> Array:
    """Average, add up or return the losses of the elements."""
    if reduction == "none":
        return losses
    total = losses.sum()
    return total * mean_factor(losses.size, "mean") if reduction == "mean" else total


def mean_factor(count: int, reduction: str) -> float:
    """Return ``1 / count`` for a mean (NaN for nothing, as PyTorch has it), else 1."""
    if reduction != "mean":
        return 1.0
    return 1.0 / count if count else math.nan


@op(formula="loss = ((output - target) ** 2).mean()")
def mse_loss_forward(output: Array, target: Array, *, reduction: str = "mean") -> tuple[Array, Any]:
    """Compute ``(y_hat - y)^2`` per element; saves the difference."""
    difference = output - target
    return reduce_loss(difference * difference, reduction), (difference,)


@op(formula="grad_output_of_layer = grad_output * 2 / difference.size * difference")
def mse_loss_backward(grad_output: Array, difference: Array, *, reduction: str = "mean") -> Array:
    """Return ``2 (y_hat - y) g``, divided by the number of elements for a mean."""
    return difference * (grad_output * (2.0 * mean_factor(difference.size, reduction)))


@op(formula="loss = ((output - target) ** 2).sum() / 2 / (len(output) if output.ndim > 1 else 1)")
def half_squared_error_forward(output: Array, target: Array) -> tuple[Array, Any]:
    """Compute ``1/2 (y_hat - y)^2``, summed over outputs, averaged over the batch."""
    difference = output - target
    total = (difference * difference).sum()
    return total * (0.5 * _batch_factor(difference)), (difference,)


@op(formula="grad = grad_output * difference / (len(difference) if difference.ndim > 1 else 1)")
def half_squared_error_backward(grad_output: Array, difference: Array) -> Array:
    """Return ``(y_hat - y) g``, divided by the batch size."""
    return difference * (grad_output * _batch_factor(difference))


def _batch_factor(difference: Array) -> float:
    if difference.ndim < 2:
        return 1.0
    return 1.0 / len(difference) if len(difference) else math.nan


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


@op(
    formula="loss = -(target * maximum(log(output), -100) "
    "+ (1 - target) * maximum(log(1 - output), -100)).mean()",
)
def bce_loss_forward(
    output: Array, target: Array, weight: Array | None = None, *, reduction: str = "mean"
) -> tuple[Array, Any]:
    """Compute ``-(y log p + (1 - y) log(1 - p))``, logarithms not below -100 as in PyTorch."""
    log_p, log_q = _clamped_logs(output)
    losses = -(target * log_p + (1 - target) * log_q)
    if weight is not None:
        losses = losses * weight
    return reduce_loss(losses, reduction), (output, target, weight)


@op(
    formula="grad = grad_output / output.size * (output - target) / (output * (1 - output))",
)
def bce_loss_backward(
    grad_output: Array,
    output: Array,
    target: Array,
    weight: Array | None = None,
    *,
    reduction: str = "mean",
    all_inputs: bool = False,
) -> Any:
    """Return ``(p - y) / (p (1 - p)) g``, the denominator not below 1e-12 as in PyTorch."""
    xp = get_array_module(output)
    scale = grad_output * mean_factor(output.size, reduction)
    if weight is not None:
        scale = weight * scale
    grad = (output - target) / xp.maximum((1 - output) * output, 1e-12) * scale
    if not all_inputs:
        return grad
    log_p, log_q = _clamped_logs(output)
    return grad, (log_q - log_p) * scale


def _clamped_logs(p: Array) -> tuple[Array, Array]:
    xp = get_array_module(p)
    return xp.maximum(xp.log(p), -100), xp.maximum(xp.log1p(-p), -100)


@op(formula="loss = ((1 - target) * output + log1p(exp(-output))).mean()")
def bce_with_logits_forward(
    output: Array,
    target: Array,
    weight: Array | None = None,
    pos_weight: Array | None = None,
    *,
    reduction: str = "mean",
) -> tuple[Array, Any]:
    """Compute ``-(w y log s(x) + (1 - y) log(1 - s(x)))`` with ``s`` the sigmoid, from logits."""
    negative_log = softplus(-output)
    if pos_weight is not None:
        negative_log = negative_log * (1 + (pos_weight - 1) * target)
    losses = (1 - target) * output + negative_log
    if weight is not None:
        losses = losses * weight
    return reduce_loss(losses, reduction), (output, target, weight, pos_weight)


@op(formula="grad = grad_output / output.size * (1 / (1 + exp(-output)) - target)")
def bce_with_logits_backward(
    grad_output: Array,
    output: Array,
    target: Array,
    weight: Array | None = None,
    pos_weight: Array | None = None,
    *,
    reduction: str = "mean",
    all_inputs: bool = False,
) -> Any:
    """Return ``(s(x) - y) g``; with ``w = pos_weight``, ``((1 - y) - (1 + (w-1) y) s(-x)) g``."""
    scale = grad_output * mean_factor(output.size, reduction)
    if weight is not None:
        scale = weight * scale
    if pos_weight is None:
        grad = (sigmoid(output) - target) * scale
    else:
        log_weight = 1 + (pos_weight - 1) * target
        grad = ((1 - target) - log_weight * sigmoid(-output)) * scale
    if not all_inputs:
        return grad
    grad_target = -output
    if pos_weight is not None:
        grad_target = grad_target + (pos_weight - 1) * softplus(-output)
    return grad, grad_target * scale


class Loss(Module):
    """What losses share: the reduction, and the checks of a pair of equal shapes.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        Average over elements, their sum, or one loss per element.
    """

    def __init__(self, reduction: str = "mean") -> None:
        if reduction not in _REDUCTIONS:
            raise ValueError(
                f"{type(self).__name__} expects reduction to be one of {', '.join(_REDUCTIONS)}; "
                f"got {reduction!r}"
            )
        self.reduction = reduction

    def check_pair(self, output: Array, target: Array) -> Array:
        """Check that output and target are alike in shape, dtype and place."""
        if not (type(target) is np.ndarray is type(output) and target.dtype is output.dtype):
            self.check_device("output", output, output)
            target = self.check_input("target", target, output)
        if output.shape != target.shape:
            raise ValueError(
                f"{describe_layer(self)} expects output and target of one shape; got output "
                f"{output.shape} and target {target.shape}. Reshape the target."
            )
        return target


class MSELoss(Loss):
    """Mean squared error, ``(y_hat - y)^2``.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        The mean is over all elements.

    Notes
    -----
    ``dLoss/dy_hat = 2 (y_hat - y) / n``. Shapes must be equal; nothing is broadcast.
    """

    def forward(self, output: Array, target: Array) -> tuple[Array, Any]:
        """Compare ``output`` with ``target`` of the same shape and dtype."""
        target = self.check_pair(output, target)
        return mse_loss_forward(output, target, reduction=self.reduction)  # type: ignore[no-any-return]

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradient of ``output``; with ``all_inputs`` of both."""
        grad = mse_loss_backward(grad_output, *saved, reduction=self.reduction)
        return (grad, -grad) if all_inputs else grad


class HalfSquaredError(Module):
    """The lesson's loss, ``1/2 (y_hat - y)^2``: summed over outputs, averaged over the batch.

    Notes
    -----
    ``dLoss/dy_hat = (y_hat - y) / batch``; a 1-D sample is a batch of one.
    """

    def forward(self, output: Array, target: Array) -> tuple[Array, Any]:
        """Compare ``output`` with ``target`` of the same shape and dtype."""
        target = Loss.check_pair(self, output, target)  # type: ignore[arg-type]
        return half_squared_error_forward(output, target)  # type: ignore[no-any-return]

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradient of ``output``; with ``all_inputs`` of both."""
        grad = half_squared_error_backward(grad_output, *saved)
        return (grad, -grad) if all_inputs else grad


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
        self._has_weight = weight is not None
        if weight is not None:
            self.register_buffer("weight", asarray(weight))

    def forward(self, logits: Array, target: Array) -> tuple[Array, Any]:
        """Compare logits ``(batch, classes, ...)`` with class indices ``(batch, ...)``."""
        self._check(logits, target)
        weight = self.read_buffer("weight") if self._has_weight else None
        if weight is not None:
            weight = self.check_input("weight", weight, logits)
        return cross_entropy_forward(logits, target, weight, **self._options())  # type: ignore[no-any-return]

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


class BCELoss(Loss):
    """Binary cross-entropy of probabilities, ``-(y log p + (1 - y) log(1 - p))``.

    Parameters
    ----------
    weight : array_like, optional
        Factor of each element; broadcasts against the output.
    reduction : {"mean", "sum", "none"}
        The mean is over all elements.

    Notes
    -----
    ``dLoss/dp = (p - y) / (p (1 - p))``. Logarithms are not taken below -100, as in PyTorch.
    """

    def __init__(self, weight: Any = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self._has_weight = weight is not None
        if weight is not None:
            self.register_buffer("weight", asarray(weight))

    def forward(self, output: Array, target: Array) -> tuple[Array, Any]:
        """Compare probabilities with targets of the same shape, both from 0 to 1."""
        target = self.check_pair(output, target)
        if get_array_module(output) is np and output.size:
            low, high = output.min(), output.max()
            if low < 0 or high > 1:
                raise ValueError(
                    f"{describe_layer(self)} expects probabilities from 0 to 1; got {low:g} to "
                    f"{high:g}. Put Sigmoid before it, or use BCEWithLogitsLoss."
                )
        weight = buffer_beside(self, "weight", output)
        return bce_loss_forward(output, target, weight, reduction=self.reduction)  # type: ignore[no-any-return]

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradient of ``output``; with ``all_inputs`` of both."""
        return bce_loss_backward(
            grad_output, *saved, reduction=self.reduction, all_inputs=all_inputs
        )


class BCEWithLogitsLoss(Loss):
    """Binary cross-entropy of the sigmoid of logits, computed without overflow.

    Parameters
    ----------
    weight : array_like, optional
        Factor of each element; broadcasts against the output.
    reduction : {"mean", "sum", "none"}
        The mean is over all elements.
    pos_weight : array_like, optional
        Factor of the positive class; broadcasts against the output.

    Notes
    -----
    ``dLoss/dx = s(x) - y`` with ``s`` the sigmoid: the ``(y_hat - y)`` of the squared error.
    """

    def __init__(self, weight: Any = None, reduction: str = "mean", pos_weight: Any = None) -> None:
        super().__init__(reduction)
        for name, values in (("weight", weight), ("pos_weight", pos_weight)):
            if values is not None:
                self.register_buffer(name, asarray(values))

    def forward(self, output: Array, target: Array) -> tuple[Array, Any]:
        """Compare logits with targets of the same shape."""
        target = self.check_pair(output, target)
        return bce_with_logits_forward(  # type: ignore[no-any-return]
            output,
            target,
            buffer_beside(self, "weight", output),
            buffer_beside(self, "pos_weight", output),
            reduction=self.reduction,
        )

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradient of ``output``; with ``all_inputs`` of both."""
        return bce_with_logits_backward(
            grad_output, *saved, reduction=self.reduction, all_inputs=all_inputs
        )


def buffer_beside(module: Module, name: str, like: Array) -> Array | None:
    """Return a loss's optional weight, checked against what it will meet."""
    if name not in module.__dict__.get("_buffers", {}):
        return None
    return module.check_input(name, module.read_buffer(name), like)
