"""Statistics of batch normalization for weights that no batch has been through."""

from collections.abc import Iterable
from typing import Any

from xbackprop.backend.device import Device
from xbackprop.backend.transfer import to_device
from xbackprop.module import Module


def update_bn(loader: Iterable[Any], model: Module, device: str | Device | None = None) -> None:
    """Estimate the running statistics of batch normalization anew, from one pass over data.

    Parameters
    ----------
    loader : iterable
        Batches of inputs, or tuples or lists that begin with one.
    model : Module
        Usually an averaged one. Its layers with ``reset_running_stats()`` and ``momentum`` are
        reset, and average all batches equally, as ``momentum=None`` does; those whose attribute
        ``averages_batches`` is False (InstanceNorm) are left alone.
    device : str or Device, optional
        Inputs are moved there; None takes them as they are.

    Notes
    -----
    The forwards are those of training mode, so that random counters move as well. Without such
    layers nothing is done.
    """
    layers: list[Any] = [module for module in model.modules() if is_batch_norm(module)]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    was_training = model.training
    model.train()
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None
        for batch in loader:
            x = batch[0] if isinstance(batch, (list, tuple)) else batch
            model(x if device is None else to_device(x, device))
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        model.train(was_training)


def is_batch_norm(module: Any) -> bool:
    """Tell whether a layer keeps running statistics that ``momentum=None`` averages."""
    keeps_them = hasattr(module, "reset_running_stats") and hasattr(module, "momentum")
    return keeps_them and getattr(module, "averages_batches", True)
