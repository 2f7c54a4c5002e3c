"""Values in general position: where a wrong gradient cannot look right by symmetry."""

from typing import Any

import numpy as np

from xbackprop.backend.device import device_of
from xbackprop.backend.transfer import to_device, to_host
from xbackprop.module import Module
from xbackprop.testing.structures import is_float, transform


def make_generic(module: Module, rng: np.random.Generator) -> None:
    """Move parameters and running statistics away from the values that hide mistakes.

    A normalization that forgets its weight is right while the weight is 1, a bias of 0 hides what
    multiplies it, and running statistics of 0 and 1 hide both.

    Parameters
    ----------
    module : Module
        Changed in place.
    rng : numpy.random.Generator
        Draws the changes.
    """
    for parameter in module.parameters():
        values = _moved_off(to_host(parameter.data), rng, 0.3)
        parameter.data = to_device(values, parameter.device)
    for part in module.modules():
        for name, array in list(part.own_buffers(persistent=True)):
            if is_float(array):
                place = device_of(array)
                with place.activate():
                    values = _moved_off(to_host(array), rng, 0.3)
                    part.commit_buffer(name, to_device(values, place))


def generic_inputs(inputs: Any, rng: np.random.Generator, share: float) -> Any:
    """Return float inputs with noise on them, so that no two elements are equal.

    Parameters
    ----------
    inputs : nested arrays
        Integers and flags stay as they are.
    rng : numpy.random.Generator
        Draws the noise.
    share : float
        How large it is beside the spread of the values.

    Returns
    -------
    nested arrays
        Of the same shapes, dtypes and devices. What is not negative stays so.
    """

    def move(leaf: Any) -> Any:
        if not is_float(leaf):
            return leaf
        return to_device(_moved_off(to_host(leaf), rng, share), device_of(leaf))

    return transform(inputs, move)


def _moved_off(values: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Add noise; a share of the spread, or of 1 where all values are equal."""
    finite = values[np.isfinite(values)]
    spread = float(finite.std()) if finite.size else 0.0
    noise = rng.normal(size=values.shape) * share * (spread or 1.0)
    if finite.size and finite.min() >= 0 and spread + finite.max() > 0:  # a domain, perhaps
        noise = np.abs(noise)
    return np.asarray(values + noise, dtype=values.dtype)
