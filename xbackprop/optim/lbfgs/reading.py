"""Numbers that the host decides by."""

from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module, is_device_array
from xbackprop.backend.transfer import to_host


def largest_of(array: Array) -> Array:
    """Return the largest magnitude, on the device."""
    return abs(array).max()


def read(*values: Any) -> tuple[float, ...]:
    """Return numbers as floats, all that are on a device by one download."""
    arrays = [value for value in values if is_device_array(value)]
    if not arrays:
        return tuple(map(float, values))
    xp = get_array_module(arrays[0])
    stacked = xp.stack([array.reshape(()).astype(np.float64) for array in arrays])
    numbers = iter(to_host(stacked).tolist())
    return tuple(next(numbers) if is_device_array(value) else float(value) for value in values)
