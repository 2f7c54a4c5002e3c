"""Keeping gradients within bounds, without waiting for the device."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from xbackprop.backend.array_module import Array, is_array
from xbackprop.backend.device import Device, device_of, resolve_device
from xbackprop.backend.transfer import to_device, to_host
from xbackprop.module import Parameter
from xbackprop.optim.norms import sums_of_squares

Parameters = Parameter | Iterable[Parameter]


def clip_grad_norm_(
    parameters: Parameters,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
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
    error_if_nonfinite : bool, default False
        Raise for a norm that is NaN or infinite. On a device that downloads one number, and waits.
    foreach : bool, optional
        Without effect.

    Returns
    -------
    array, shape ()
        The norm before scaling, on the device of the first gradient, and not downloaded; 0 where
        there is no gradient.

    Raises
    ------
    ValueError
        For a negative ``max_norm`` and a ``norm_type`` not above 0.
    RuntimeError
        With ``error_if_nonfinite``, for a norm that is not finite; no gradient was scaled then.

    Notes
    -----
    ``g *= min(1, max_norm / (norm + 1e-6))``, as ``torch.nn.utils.clip_grad_norm_`` does.
    """
    parameters = _listed(parameters)
    _check_max_norm("clip_grad_norm_", max_norm)
    total = get_total_norm(_gradients(parameters), norm_type, error_if_nonfinite, foreach)
    clip_grads_with_norm_(parameters, max_norm, total, foreach)
    return total


def get_total_norm(
    tensors: Array | Iterable[Array],
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Array:
    """Compute the norm of all elements together, ``(sum |x|^p)^(1/p)``.

    Parameters
    ----------
    tensors : array or iterable of array
        Usually gradients; they may lie on several devices.
    norm_type : float, default 2.0
        Order ``p`` of the norm, above 0; ``inf`` for the largest element.
    error_if_nonfinite : bool, default False
        Raise for a norm that is NaN or infinite. On a device that downloads one number, and waits.
    foreach : bool, optional
        Without effect.

    Returns
    -------
    array, shape ()
        On the device of the first array, and not downloaded; 0 on the default device where there is
        none.

    Raises
    ------
    ValueError
        For a ``norm_type`` not above 0.
    RuntimeError
        With ``error_if_nonfinite``, for a norm that is not finite.
    """
    if not norm_type > 0:
        raise ValueError(f"the order of a norm is expected above 0; got norm_type={norm_type}")
    arrays: list[Array] = [tensors] if is_array(tensors) else list(tensors)
    if not arrays:
        place = resolve_device(None)
        with place.activate():
            return place.xp.zeros((), dtype=np.float32)
    place = device_of(arrays[0])
    with np.errstate(all="ignore"):  # an infinite gradient is no warning on a GPU either
        if norm_type == 2.0 and len({(device_of(array), array.dtype) for array in arrays}) == 1:
            with place.activate():
                norms = place.xp.sqrt(sums_of_squares(*arrays))
                total = place.xp.sqrt(sums_of_squares(norms)[0])
        else:
            total = _norm_of_each(arrays, norm_type, place)
    if error_if_nonfinite and not math.isfinite(float(to_host(total))):
        raise RuntimeError(
            f"the total norm of order {norm_type} of the gradients is NaN or infinite, so they "
            "cannot be clipped; error_if_nonfinite=False scales them all the same"
        )
    return total


def clip_grads_with_norm_(
    parameters: Parameters, max_norm: float, total_norm: Array, foreach: bool | None = None
) -> None:
    """Scale all gradients by ``min(1, max_norm / (total_norm + 1e-6))``.

    Parameters
    ----------
    parameters : Parameter or iterable of Parameter
        Those without a gradient are passed over.
    max_norm : float
        Largest norm that is left alone.
    total_norm : array, shape ()
        The norm, as :func:`get_total_norm` computes it.
    foreach : bool, optional
        Without effect.

    Raises
    ------
    ValueError
        For a negative ``max_norm``.
    """
    _check_max_norm("clip_grads_with_norm_", max_norm)
    grads = _gradients(_listed(parameters))
    if not grads:
        return
    place = device_of(total_norm)
    with np.errstate(all="ignore"):
        with place.activate():
            factor = place.xp.minimum(max_norm / (total_norm + 1e-6), 1.0)
        for grad in grads:
            here = device_of(grad)
            with here.activate():
                grad *= to_device(factor, here).astype(grad.dtype, copy=False)


def clip_grad_value_(
    parameters: Parameters, clip_value: float, foreach: bool | None = None
) -> None:
    """Clip every element of every gradient, ``g = min(max(g, -clip_value), clip_value)``.

    Parameters
    ----------
    parameters : Parameter or iterable of Parameter
        Those without a gradient are passed over.
    clip_value : float
        Largest magnitude, not negative.
    foreach : bool, optional
        Without effect.

    Raises
    ------
    ValueError
        For a negative ``clip_value``.
    """
    if not clip_value >= 0:
        raise ValueError(f"clip_grad_value_ expects clip_value >= 0; got {clip_value}")
    for grad in _gradients(_listed(parameters)):
        place = device_of(grad)
        with place.activate():
            place.xp.clip(grad, -clip_value, clip_value, out=grad)


def _listed(parameters: Parameters) -> list[Parameter]:
    return [parameters] if isinstance(parameters, Parameter) else list(parameters)


def _gradients(parameters: Sequence[Parameter]) -> list[Array]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _check_max_norm(name: str, max_norm: float) -> None:
    if not max_norm >= 0:
        raise ValueError(f"{name} expects max_norm >= 0; got {max_norm}")


def _norm_of_each(arrays: list[Array], norm_type: float, place: Device) -> Array:
    """Return the norm of norms, of arrays of several dtypes and devices."""
    norms = []
    for array in arrays:
        with device_of(array).activate():
            norms.append(_norm(array, norm_type))
    with place.activate():
        xp = place.xp
        return _norm(xp.stack([xp.asarray(to_device(norm, place)) for norm in norms]), norm_type)


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
