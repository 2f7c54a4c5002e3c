"""Class indices as targets: which entries they name, how they weigh, and which are refused."""

import math

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.module import Module, describe_layer
from xbackprop.nn.losses.base import buffer_beside


def class_axis(scores: Array) -> int:
    """Return the axis of the classes: 1 in ``(batch, classes, ...)``, 0 for one sample."""
    return 1 if scores.ndim > 1 else 0


def along_classes(weight: Array, scores: Array) -> Array:
    """Shape class weights so that they broadcast along the class axis."""
    axis = class_axis(scores)
    return weight.reshape([-1 if position == axis else 1 for position in range(scores.ndim)])


def over_classes(values: Array, axis: int) -> Array:
    """Give per-sample values a class axis of length one."""
    return get_array_module(values).expand_dims(values, axis)


def one_hot_and_weight(
    scores: Array, target: Array, weight: Array | None, ignore_index: int | None = None
) -> tuple[Array, Array]:
    """Return the one-hot mask and each target's weight: 0 where ignored, NaN out of range.

    The mask is a comparison, not an indexed read: CuPy wraps an index that is out of range.
    """
    xp = get_array_module(scores)
    axis = class_axis(scores)
    number = scores.shape[axis]
    classes = along_classes(xp.arange(number), scores)  # not in target's dtype: uint8 ends at 255
    one_hot = xp.expand_dims(target, axis) == classes
    if weight is None:
        sample_weight = xp.ones(target.shape, dtype=scores.dtype)
    else:
        sample_weight = xp.where(one_hot, along_classes(weight, scores), 0).sum(axis=axis)
    valid = (target >= 0) & (target < number)
    sample_weight = xp.where(valid, sample_weight, math.nan)
    if ignore_index is None:
        return one_hot, sample_weight
    return one_hot, xp.where(target != ignore_index, sample_weight, 0)


def check_class_target(
    loss: Module,
    scores: Array,
    target: Array,
    ignore_index: int | None = None,
    *,
    axis: int | None = None,
) -> None:
    """Check the shapes, dtype and, on the host, the range of class indices.

    ``axis`` is that of the classes; None is :func:`class_axis`.
    """
    name = describe_layer(loss)
    if target.dtype.kind not in "iu":
        raise TypeError(f"{name} expects integer class indices as target; got {target.dtype}")
    if scores.ndim == 0:
        raise ValueError(f"{name} expects logits of shape (batch, classes); got ()")
    axis = class_axis(scores) if axis is None else axis % scores.ndim
    expected = scores.shape[:axis] + scores.shape[axis + 1 :]
    if target.shape != expected:
        raise ValueError(
            f"{name}: logits of shape {scores.shape} expect a target of shape {expected}; "
            f"got {target.shape}"
        )
    if get_array_module(target) is np:
        check_class_indices(name, np.asarray(target), scores.shape[axis], ignore_index)


def check_class_indices(
    name: str, target: np.ndarray, classes: int, ignore_index: int | None = -100
) -> None:
    """Refuse labels outside ``0 .. classes - 1``; for host arrays, where looking costs nothing."""
    if target.size == 0 or (target.min() >= 0 and target.max() < classes):
        return
    wrong = (target < 0) | (target >= classes)
    if ignore_index is not None:
        wrong &= target != ignore_index
    if wrong.any():
        first = np.argwhere(wrong)[0]
        place = ", ".join(str(number) for number in first)
        raise ValueError(
            f"{name}: label {target[tuple(first)]} at index ({place}) is out of range; expected "
            f"0 to {classes - 1}. Give the network {int(target.max()) + 1} outputs, or check "
            "the labels."
        )


def class_weight_beside(loss: Module, scores: Array) -> Array | None:
    """Return a loss's optional weight, one number per class."""
    weight = buffer_beside(loss, "weight", scores)
    classes = scores.shape[class_axis(scores)]
    if weight is not None and weight.shape != (classes,):
        raise ValueError(
            f"{describe_layer(loss)} expects weight of shape ({classes},), one per class; "
            f"got {weight.shape}"
        )
    return weight
