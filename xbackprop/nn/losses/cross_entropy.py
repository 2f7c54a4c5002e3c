"""Cross-entropy of classes."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.initializers import given
from xbackprop.module import describe_layer
from xbackprop.nn.losses.base import Loss, check_floats, check_index, check_number, mean_factor
from xbackprop.nn.losses.class_indices import (
    along_classes,
    check_class_target,
    class_axis,
    class_weight_beside,
    one_hot_and_weight,
    over_classes,
)
from xbackprop.ops.softmax import shifted_logsumexp


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
    """Compute ``logsumexp(x) - x[target]``; saves logits, target and the logsumexp in two parts.

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
    saved : (logits, target, shift, log_total, weight)

    Notes
    -----
    ``dLoss/dx = softmax(x) - one_hot(target)``, times the target's weight.
    """
    axis = class_axis(logits)
    shift, log_total = shifted_logsumexp(logits, axis)
    one_hot, sample_weight = one_hot_and_weight(logits, target, weight, ignore_index)
    xp = get_array_module(logits)
    counted = target != ignore_index
    log_probability = (logits - shift) - log_total
    losses = -xp.where(one_hot, log_probability, 0).sum(axis=axis) * sample_weight
    if label_smoothing:
        weighted = log_probability * _class_factor(weight, logits)
        share = label_smoothing / logits.shape[axis]
        losses = losses * (1 - label_smoothing) - weighted.sum(axis=axis) * share
    losses = xp.where(counted, losses, 0)  # whatever the logits are: -inf * 0 is NaN
    if reduction == "mean":
        losses = losses.sum() / sample_weight.sum()
    elif reduction == "sum":
        losses = losses.sum()
    return losses, (logits, target, shift, log_total, weight)


@op(
    formula="grad = grad_output / len(target) * (exp(logits - shift - log_total) "
    "- (target[:, None] == arange(logits.shape[1])))",
)
def cross_entropy_backward(
    grad_output: Array,
    logits: Array,
    target: Array,
    shift: Array,
    log_total: Array,
    weight: Array | None = None,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Array:
    """Return ``(softmax(x) - one_hot(target)) g``, weighted and averaged as the loss was."""
    axis = class_axis(logits)
    xp = get_array_module(logits)
    one_hot, sample_weight = one_hot_and_weight(logits, target, weight, ignore_index)
    probability = xp.exp((logits - shift) - log_total)
    grad = (probability - one_hot) * over_classes(sample_weight, axis)
    if label_smoothing:
        counted = over_classes((target != ignore_index).astype(logits.dtype), axis)
        if weight is None:
            smooth = probability * logits.shape[axis] - 1
        else:
            smooth = probability * weight.sum() - along_classes(weight, logits)
        share = label_smoothing / logits.shape[axis]
        grad = grad * (1 - label_smoothing) + smooth * counted * share
    if reduction == "none":
        return grad * over_classes(grad_output, axis)
    if reduction == "mean":
        total = sample_weight.sum()
        # Where every label is ignored the loss is NaN and its gradient 0, as in PyTorch.
        grad_output = xp.where(total == 0, 0, grad_output / total)
    return (grad * grad_output).astype(logits.dtype)


@op(
    formula="loss = (target * (log(exp(logits).sum(1, keepdims=True)) - logits)).sum() "
    "/ len(logits)",
)
def soft_cross_entropy_forward(
    logits: Array,
    target: Array,
    weight: Array | None = None,
    *,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> tuple[Array, Any]:
    """Compute ``-sum(weight * y * log_softmax(x))`` over the classes, ``y`` being probabilities."""
    axis = class_axis(logits)
    shift, log_total = shifted_logsumexp(logits, axis)
    log_probability = (logits - shift) - log_total
    weighted = _smoothed(target, label_smoothing) * _class_factor(weight, logits)
    losses = -(log_probability * weighted).sum(axis=axis)
    if reduction != "none":
        losses = losses.sum() * mean_factor(_sample_count(logits), reduction)
    return losses, (logits, target, shift, log_total, weight)


@op(
    formula="grad = grad_output / len(logits) * (exp(logits - shift - log_total) "
    "* target.sum(1, keepdims=True) - target)",
)
def soft_cross_entropy_backward(
    grad_output: Array,
    logits: Array,
    target: Array,
    shift: Array,
    log_total: Array,
    weight: Array | None = None,
    *,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    all_inputs: bool = False,
) -> Any:
    """Return ``(softmax(x) sum(w y) - w y) g`` and, for the target, ``-w log_softmax(x) g``."""
    axis = class_axis(logits)
    xp = get_array_module(logits)
    log_probability = (logits - shift) - log_total
    factor = _class_factor(weight, logits)
    weighted = _smoothed(target, label_smoothing) * factor
    if reduction == "none":
        scale = over_classes(grad_output, axis)
    else:
        scale = grad_output * mean_factor(_sample_count(logits), reduction)
    grad = (xp.exp(log_probability) * weighted.sum(axis=axis, keepdims=True) - weighted) * scale
    if not all_inputs:
        return grad
    return grad, log_probability * factor * (scale * (label_smoothing - 1))


def _smoothed(target: Array, label_smoothing: float) -> Array:
    if not label_smoothing:
        return target
    return target * (1 - label_smoothing) + label_smoothing / target.shape[class_axis(target)]


def _class_factor(weight: Array | None, logits: Array) -> Any:
    return 1.0 if weight is None else along_classes(weight, logits)


def _sample_count(logits: Array) -> int:
    classes = logits.shape[class_axis(logits)]
    return logits.size // classes if classes else 0


class CrossEntropyLoss(Loss):
    """Cross-entropy of classes under the softmax of logits.

    Parameters
    ----------
    weight : array_like, shape (classes,), optional
        Factor of each class.
    ignore_index : int, default -100
        Target indices of this value count nothing.
    reduction : {"mean", "sum", "none"}
        The mean divides by the sum of the targets' weights where targets are indices, by the number
        of samples where they are probabilities.
    label_smoothing : float, default 0.0
        Share of the target spread evenly over all classes, 0 to 1.

    Notes
    -----
    Of class indices ``dLoss/dx = (softmax(x) - one_hot(target)) / batch``. A float target of the
    logits' shape holds class probabilities ``y``: the loss is ``-sum(w y log_softmax(x))``, so
    ``dLoss/dx = softmax(x) sum(w y) - w y`` and ``dLoss/dy = -w log_softmax(x)``; they are taken as
    they are, whether or not they sum up to 1.

    Labels out of range are refused where looking costs nothing (host arrays); on a device they make
    the loss NaN.

    References
    ----------
    Szegedy et al., "Rethinking the Inception architecture", CVPR 2016 (label smoothing).
    """

    samples_apart = True

    def __init__(
        self,
        weight: Any = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction)
        if not 0 <= check_number(self, "label_smoothing", label_smoothing) <= 1:
            raise ValueError(
                f"CrossEntropyLoss expects label_smoothing from 0 to 1; got {label_smoothing}"
            )
        self.ignore_index = check_index(self, "ignore_index", ignore_index)
        self.label_smoothing = label_smoothing
        if weight is not None:
            self.register_buffer("weight", given(weight))

    def forward(self, logits: Array, target: Array) -> tuple[Array, Any]:
        """Compare logits ``(batch, classes, ...)`` with class indices ``(batch, ...)``.

        A float target of the logits' shape holds the probabilities of the classes.
        """
        self.check_device("logits", logits, logits)
        self.check_device("target", target, logits)
        check_floats(self, "logits", logits, logits)
        if target.dtype.kind == "f" and target.shape == logits.shape:
            return self._of_probabilities(logits, target)
        check_class_target(self, logits, target, self.ignore_index)
        weight = class_weight_beside(self, logits)
        return cross_entropy_forward(
            logits, target, weight, ignore_index=self.ignore_index, **self._options()
        )

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradient of the logits; with ``all_inputs`` of probabilities too."""
        if saved[1].dtype.kind == "f":
            return soft_cross_entropy_backward(
                grad_output, *saved, **self._options(), all_inputs=all_inputs
            )
        grad = cross_entropy_backward(
            grad_output, *saved, ignore_index=self.ignore_index, **self._options()
        )
        return (grad, None) if all_inputs else grad

    def _options(self) -> dict[str, Any]:
        return {"label_smoothing": self.label_smoothing, "reduction": self.reduction}

    def _of_probabilities(self, logits: Array, target: Array) -> tuple[Array, Any]:
        target = self.check_input("target", target, logits)
        name = describe_layer(self)
        if logits.ndim == 0:
            raise ValueError(f"{name} expects logits of shape (batch, classes); got ()")
        if self.ignore_index >= 0:
            raise ValueError(
                f"{name}: ignore_index={self.ignore_index} names a class index, and the target "
                "holds probabilities. Leave ignore_index out, or give class indices."
            )
        weight = class_weight_beside(self, logits)
        return soft_cross_entropy_forward(logits, target, weight, **self._options())
