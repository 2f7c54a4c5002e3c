"""What losses share: reductions, and the checks of output against target."""

import math

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.module import Module, describe_layer

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


class Loss(Module):
    """What losses with a choice of reduction share.

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


def check_pair(loss: Module, output: Array, target: Array) -> Array:
    """Check that output and target are alike in shape, dtype and place; return the target."""
    if not (type(target) is np.ndarray is type(output) and target.dtype is output.dtype):
        loss.check_device("output", output, output)
        target = loss.check_input("target", target, output)
    if output.shape != target.shape:
        raise ValueError(
            f"{describe_layer(loss)} expects output and target of one shape; got output "
            f"{output.shape} and target {target.shape}. Reshape the target."
        )
    return target


def buffer_beside(module: Module, name: str, like: Array) -> Array | None:
    """Return a loss's optional weight, checked against what it will meet."""
    if name not in module.__dict__.get("_buffers", {}):
        return None
    return module.check_input(name, module.read_buffer(name), like)
