"""What losses share: reductions, and the checks of options and of output against target."""

import math
import numbers
from typing import Any, ClassVar, Self

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.module import Module, describe_layer


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


class _WithoutDeprecated(Module):
    """Refuses what PyTorch has deprecated, for every loss in one place.

    Not in Loss itself: inspect.signature shows whichever of ``__new__`` and ``__init__`` a class or
    its bases define first, and that shall be ``__init__``.
    """

    in_half = "float32"

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        for name in ("size_average", "reduce"):
            if name in kwargs:
                raise NotImplementedError(
                    f"{cls.__name__}({name}={kwargs[name]!r}): deprecated in PyTorch; give "
                    f"reduction='mean', 'sum' or 'none'"
                )
        return super().__new__(cls, *args, **kwargs)


class Loss(_WithoutDeprecated):
    """What losses with a choice of reduction share.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        Average over elements, their sum, or one loss per element.

    Notes
    -----
    PyTorch's deprecated ``size_average`` and ``reduce`` are refused by NotImplementedError;
    ``reduction`` says what they said.
    """

    reductions: ClassVar[tuple[str, ...]] = ("mean", "sum", "none")

    def __init__(self, reduction: str = "mean") -> None:
        if reduction not in self.reductions:
            raise ValueError(
                f"{type(self).__name__} expects reduction to be one of "
                f"{', '.join(self.reductions)}; got {reduction!r}"
            )
        self.reduction = reduction


def check_number(loss: Loss, name: str, value: Any, *, above: float = -math.inf) -> Any:
    """Check that an option is a number greater than ``above``; return it."""
    # A bool is refused, for in PyTorch's order of arguments `size_average` may stand in its place.
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{type(loss).__name__} expects {name} to be a number; got {value!r}")
    number = float(value)
    if not number > above:
        wanted = "a number" if above == -math.inf else f"greater than {above:g}"
        raise ValueError(f"{type(loss).__name__} expects {name} to be {wanted}; got {value}")
    return value


def check_at_least_zero(loss: Loss, name: str, value: Any) -> Any:
    """Check that an option is a number and not negative; return it."""
    if check_number(loss, name, value) < 0:
        raise ValueError(f"{type(loss).__name__} expects {name} not to be negative; got {value}")
    return value


def check_index(loss: Loss, name: str, value: Any) -> int:
    """Check that an option is an integer; return it."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{type(loss).__name__} expects {name} to be an integer; got {value!r}")
    return int(value)


def check_floats(loss: Module, name: str, array: Array, like: Array) -> Array:
    """Check that an input is a float array beside ``like`` and of its dtype; return it native."""
    array = loss.check_input(name, array, like)
    if array.dtype.kind != "f":
        raise TypeError(
            f"{describe_layer(loss)} expects {name} of a float dtype; got {array.dtype}. "
            f"Call {name}.astype('float32')."
        )
    return array


def check_labels(loss: Module, name: str, labels: Array, like: Array) -> Array:
    """Check labels beside ``like``: floats of its dtype, or integers; return them native."""
    loss.check_device(name, labels, like)
    return labels if labels.dtype.kind in "iu" else check_floats(loss, name, labels, like)


def check_pair(loss: Module, output: Array, target: Array, *, integers: bool = False) -> Array:
    """Check that output and target are alike in shape, dtype and place; return the target.

    With ``integers`` the target may also be of an integer dtype.
    """
    if not (type(target) is np.ndarray is type(output) and target.dtype is output.dtype):
        loss.check_device("output", output, output)
        if not (integers and getattr(target, "dtype", output.dtype).kind in "iu"):
            target = loss.check_input("target", target, output)
        loss.check_device("target", target, output)
    if output.dtype.kind != "f":
        check_floats(loss, "output", output, output)
    if output.shape != target.shape:
        raise ValueError(
            f"{describe_layer(loss)} expects output and target of one shape; got output "
            f"{output.shape} and target {target.shape}. Reshape the target."
        )
    return target


def as_factor(target: Array, output: Array) -> Array:
    """Return an integer target in the output's dtype, so that a product keeps that dtype."""
    return target if target.dtype == output.dtype else target.astype(output.dtype)


def buffer_beside(module: Module, name: str, like: Array) -> Array | None:
    """Return a loss's optional weight, checked against what it will meet."""
    if name not in module.__dict__.get("_buffers", {}):
        return None
    return module.check_input(name, module.read_buffer(name), like)


def factors_beside(module: Module, name: str, like: Array) -> Array | None:
    """Return a loss's optional weight, which must broadcast to the shape of ``like``."""
    weight = buffer_beside(module, name, like)
    if weight is None or weight.shape == like.shape:
        return weight
    lengths = zip(reversed(weight.shape), reversed(like.shape), strict=False)
    if weight.ndim > like.ndim or any(own not in (1, other) for own, other in lengths):
        raise ValueError(
            f"{describe_layer(module)}: {name} of shape {weight.shape} does not broadcast to the "
            f"output's shape {like.shape}. Reshape it."
        )
    return weight
