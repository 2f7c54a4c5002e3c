"""Where host data meets the model: casts, label checks, and the way to the device."""

from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, is_device_array
from xbackprop.backend.device import Device, resolve_device
from xbackprop.backend.half import is_float_dtype
from xbackprop.backend.transfer import to_device
from xbackprop.data.arrays import as_host_array
from xbackprop.nn import CrossEntropyLoss, Module, NLLLoss, TokenCrossEntropyLoss
from xbackprop.nn.losses import check_class_indices
from xbackprop.training.gradients import as_tuple
from xbackprop.training.metrics import count_classes


class Door:
    """Takes what people have and gives what a model reads.

    Parameters
    ----------
    model : Module
        Says which device and float dtype.
    loss_fn : Module
        Says what labels must be like.
    """

    def __init__(self, model: Module, loss_fn: Module) -> None:
        self.model = model
        self.loss_fn = loss_fn

    @property
    def device(self) -> Device:
        """Where batches go."""
        return self.model.device or resolve_device(None)

    @property
    def dtype(self) -> Any:
        """What floats are cast to."""
        return self.model.dtype or np.dtype(np.float32)

    def place(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Move one batch to the model's device; device arrays pass through."""
        device, dtype = self.device, self.dtype  # found by a walk through the model
        target = _cast(y, "y", dtype)
        if not is_device_array(target) and not is_float_dtype(target.dtype):
            target = target.astype(np.int64, copy=False)  # as batches() does
        self.check_labels(target)
        parts = as_tuple(x)
        moved = tuple(_move(_cast(part, "x", dtype), device) for part in parts)
        return moved if isinstance(x, tuple) else moved[0], _move(target, device)

    def check_labels(self, y: Any) -> None:
        """Look at class indices while they are on the host, before anything moves."""
        if not isinstance(self.loss_fn, (CrossEntropyLoss, NLLLoss)) or is_device_array(y):
            return
        classes = count_classes(self.model)
        labels = np.asarray(y)
        # With further axes the classes lie along axis 1, where only the loss can count them; those
        # of tokens are last, where the last layer has them.
        are_last = labels.ndim <= 1 or isinstance(self.loss_fn, TokenCrossEntropyLoss)
        if classes is not None and labels.dtype.kind in "iu" and are_last:
            name = type(self.loss_fn).__name__
            check_class_indices(name, labels, classes, self.loss_fn.ignore_index)


def _move(array: Array, device: Device) -> Array:
    return array if is_device_array(array) else to_device(array, device)


def _cast(values: Any, name: str, dtype: Any) -> Array:
    """Return a host array, in the model's dtype where it is of floats; device arrays stay."""
    if is_device_array(values):
        return values
    is_scalar = isinstance(values, (bool, int, float)) or getattr(values, "ndim", 1) == 0
    host = np.asarray(values) if is_scalar else as_host_array(values, name, allow_empty=True)
    return host.astype(dtype, copy=False) if is_float_dtype(host.dtype) else host
