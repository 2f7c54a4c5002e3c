"""Keeping gradients within bounds, without waiting for the device."""

import math
from collections.abc import Iterable

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import device_of
from xbackprop.backend.transfer import to_device
from xbackprop.module import Parameter


def clip_grad_norm_(
    parameters: Parameter | Iterable[Parameter], max_norm: float, norm_type: float = 2.0
) -> Array:
    """Scale all gradients together so that their norm is at most ``max_norm``.

    Parameters
    ----------
    parameters : Parameter or iterable of Parameter
        Those without a gradient are passed over.
    max_norm : float
        Largest norm that is left alone.
    norm_type : float, default 2.0
        Order of the norm, above 0; ``inf`` for the largest element.

    Returns
    -------
    array, shape ()
        The norm before scaling, on the device of the first gradient; not downloaded.

    Raises
    ------
    ValueError
        For a negative ``max_norm``, a ``norm_type`` not above 0, and when there is no gradient.

    Notes
    -----
    ``g *= min(1, max_norm / (norm + 1e-6))``, as ``torch.nn.utils.clip_grad_norm_`` does.
    """
    if not max_norm >= 0:
        raise ValueError(f"clip_grad_norm_ expects max_norm >= 0; got {max_norm}")
    if not norm_type > 0:
        raise ValueError(f"clip_grad_norm_ expects norm_type > 0; got {norm_type}")
    if isinstance(parameters, Parameter):
        parameters = [parameters]
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not grads:
        raise ValueError("clip_grad_norm_ got no parameter with a gradient; call backward first")
    place = device_of(grads[0])
    xp = place.xp
    norms = []
    with np.errstate(all="ignore"):  # an infinite gradient is no warning on a GPU either
        for grad in grads:
            with device_of(grad).activate():
                norms.append(_norm(grad, norm_type))
        with place.activate():
            norms = [xp.asarray(to_device(norm, place)) for norm in norms]
            total = _norm(xp.stack(norms), norm_type)
            factor = xp.minimum(max_norm / (total + 1e-6), 1.0)
        for grad in grads:
            here = device_of(grad)
            with here.activate():
                grad *= to_device(factor, here).astype(grad.dtype)
    return total


def _norm(array: Array, norm_type: float) -> Array:
    xp = device_of(array).xp
    if array.size == 0:
        return xp.zeros((), dtype=array.dtype)
    if norm_type == 2.0:
        flat = array.reshape(-1)
        return xp.sqrt(flat.dot(flat))
    if math.isinf(norm_type):
        return xp.abs(array).max()
    return (xp.abs(array) ** norm_type).sum() ** (1.0 / norm_type)
