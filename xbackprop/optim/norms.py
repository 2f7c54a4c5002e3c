"""Square norms of many gradients at once."""

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op


@op
def sums_of_squares(*arrays: Array) -> Array:
    """Return ``sum(x * x)`` of each array.

    Parameters
    ----------
    *arrays : array of float
        At least one; of one dtype, on one device, of any shapes.

    Returns
    -------
    array, shape (len(arrays),)
    """
    xp = get_array_module(arrays[0])
    flat = [array.reshape(-1) for array in arrays]
    return xp.stack([xp.asarray(array.dot(array)) for array in flat])
