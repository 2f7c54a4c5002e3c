"""Cross-entropy of tokens: the classes lie along the last axis."""

import math
from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.module import describe_layer
from xbackprop.nn.losses.base import check_floats
from xbackprop.nn.losses.class_indices import check_class_target, class_weight_beside
from xbackprop.nn.losses.cross_entropy import (
    CrossEntropyLoss,
    cross_entropy_backward,
    cross_entropy_forward,
)


class TokenCrossEntropyLoss(CrossEntropyLoss):
    """Cross-entropy of tokens, whose classes lie along the last axis, as language models have them.

    :class:`CrossEntropyLoss` of ``logits.reshape(-1, classes)`` and ``target.reshape(-1)``, number
    for number.

    Parameters
    ----------
    weight : array_like, shape (classes,), optional
        Factor of each class.
    ignore_index : int, default -100
        Targets of this value count nothing.
    reduction : {"mean", "sum", "none"}
        The mean divides by the sum of the targets' weights: it is over all tokens of the batch, and
        not a mean of the samples' means. "none" gives the target's shape.
    label_smoothing : float, default 0.0
        Share of the target spread evenly over all classes, 0 to 1.

    Notes
    -----
    ``logsumexp(x) - x[target]`` for each token, so of the mean over ``n`` tokens
    ``dLoss/dx = (softmax(x) - one_hot(target)) / n``. PyTorch has no such class: its
    ``torch.nn.CrossEntropyLoss`` of the flattened rows gives these numbers. Probabilities as
    targets are refused by NotImplementedError; :class:`CrossEntropyLoss` takes them.

    Labels out of range are refused where looking costs nothing (host arrays); on a device they make
    the loss NaN.

    References
    ----------
    Szegedy et al., "Rethinking the Inception architecture", CVPR 2016 (label smoothing).
    """

    samples_apart = True

    def forward(self, logits: Array, target: Array) -> tuple[Array, Any]:
        """Compare logits ``(..., classes)`` with class indices ``(...)``."""
        logits = check_floats(self, "logits", logits, logits)
        self.check_device("target", target, logits)
        if target.dtype.kind == "f" and target.shape == logits.shape:
            raise NotImplementedError(
                f"{describe_layer(self)}: probabilities as targets. Give class indices, or use "
                "CrossEntropyLoss, whose classes lie along axis 1."
            )
        check_class_target(self, logits, target, self.ignore_index, axis=-1)
        rows = logits.reshape(math.prod(target.shape), logits.shape[-1])
        weight = class_weight_beside(self, rows)
        loss, saved = cross_entropy_forward(
            rows, target.reshape(-1), weight, ignore_index=self.ignore_index, **self._options()
        )
        return (loss if loss.ndim == 0 else loss.reshape(target.shape)), (logits.shape, saved)

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradient of the logits; the integer target has none."""
        shape, saved_rows = saved
        if self.reduction == "none":
            if grad_output.shape != shape[:-1]:  # flattened, another order would pass
                raise ValueError(
                    f"{describe_layer(self)} expects grad_output of the losses' shape "
                    f"{shape[:-1]}; got {grad_output.shape}"
                )
            grad_output = grad_output.reshape(-1)
        grad = cross_entropy_backward(
            grad_output, *saved_rows, ignore_index=self.ignore_index, **self._options()
        ).reshape(shape)
        return (grad, None) if all_inputs else grad
