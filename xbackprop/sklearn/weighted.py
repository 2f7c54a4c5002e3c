"""A loss with a factor for each sample: the weighted mean, and its gradient."""

import copy
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.device import device_of
from xbackprop.backend.transfer import to_device
from xbackprop.dispatch import op
from xbackprop.nn import Module
from xbackprop.training.metrics import label_weights

_REDUCTIONS = ("mean", "sum", "batchmean")


@op
def weighted_mean_forward(
    losses: Array, weight: Array, counts: Array | None = None, *, reduction: str = "mean"
) -> tuple[Array, Any]:
    """Compute the mean of losses with a weight for each row, ``sum(w l) / sum(w)``.

    Parameters
    ----------
    losses : array, shape (rows, ...)
        The losses of the rows, or of their elements.
    weight : array, shape (rows,)
        Factor of each row.
    counts : array, shape (rows, ...), or None
        What the elements count in a mean without weights: the denominator is ``sum(w counts)``.
    reduction : {"mean", "sum", "batchmean"}
        The mean is over all elements; "sum" divides by nothing, "batchmean" by ``sum(w)``.

    Returns
    -------
    loss : array, shape ()
    saved : (factor,)

    Notes
    -----
    ``dLoss/dl = w / sum(w)``, for a mean of elements divided by their number in a row.
    """
    factor = weight.reshape(-1, *[1] * (losses.ndim - 1))
    if reduction == "mean" and counts is not None:
        factor = factor / (factor * counts).sum()
    elif reduction == "mean":
        factor = factor / (weight.sum() * (losses.size / len(weight)))
    elif reduction == "batchmean":
        factor = factor / weight.sum()
    factor = get_array_module(losses).broadcast_to(factor, losses.shape)
    return (losses * factor).sum(), (factor,)


@op
def weighted_mean_backward(grad_output: Any, factor: Array) -> Array:
    """Return ``g w / sum(w)``, one number per loss."""
    return factor * grad_output


class WeightedLoss(Module):
    """A loss averaged with a weight for each sample, as ``numpy.average`` does.

    It holds the targets and weights of all samples, and is called with the numbers of those in the
    batch: so its target is one array, which whoever trains may cut, move and count.

    Parameters
    ----------
    loss : Module
        A copy of it is asked for one loss per sample, by ``reduction="none"``.
    target : array, shape (samples, ...)
        Targets of ``loss``, where it is computed.
    weight : numpy.ndarray, shape (samples,)
        Factors of the samples, on the host; of a batch whose factors sum up to 0 the mean is NaN.
    dtype : dtype
        Of the outputs.

    Raises
    ------
    NotImplementedError
        For a loss that has no ``reduction``, here; for one that does not obey it, in the forward.
    ValueError
        For a ``reduction`` that is none of "mean", "sum" and "batchmean".

    Notes
    -----
    Where the mean without weights counts labels by their class, the one with them counts each by
    both: a weight of 2 is what the sample twice would be.
    """

    in_half = "float32"

    def __init__(self, loss: Module, target: Array, weight: np.ndarray, dtype: Any) -> None:
        reduction = getattr(loss, "reduction", None)
        if reduction is None:
            raise _refusal(loss, "it has no attribute 'reduction'")
        if reduction not in _REDUCTIONS:
            raise ValueError(
                f"sample_weight expects the loss {type(loss).__name__} to have a reduction of "
                f"'mean' or 'sum'; got {reduction!r}"
            )
        self.reduction: str = reduction
        apart: Any = copy.deepcopy(loss)
        apart.reduction = "none"
        self.loss: Module = apart
        self.target = target
        if reduction != "sum":  # in a mean their scale is free, and this one cannot overflow
            weight = weight / np.abs(weight).max()
        self.weight = to_device(weight.astype(dtype), device_of(target))

    def forward(self, output: Array, samples: Array) -> tuple[Array, Any]:
        """Compare outputs with the targets of the samples of these numbers."""
        target = self.target.take(samples, axis=0)
        losses, saved = self.loss.forward(output, target)
        if losses.shape[:1] != samples.shape:
            raise _refusal(
                self.loss,
                f"with reduction='none' it gives the shape {losses.shape} for {len(samples)} "
                "samples",
            )
        loss, weighted = weighted_mean_forward(
            losses,
            self.weight.take(samples),
            label_weights(self.loss, target),
            reduction=self.reduction,
        )
        return loss, (saved, weighted)

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        """Return the gradient of the outputs."""
        losses_saved, weighted = saved
        grad_losses = weighted_mean_backward(grad_output, *weighted)
        return self.loss.backward(grad_losses, losses_saved) if input_grad else None


def _refusal(loss: Module, why: str) -> NotImplementedError:
    return NotImplementedError(
        f"sample_weight with the loss {type(loss).__name__}: {why}. Take a loss that gives one "
        "number per sample with reduction='none', as those of xbackprop.nn do, or leave "
        "sample_weight out."
    )
