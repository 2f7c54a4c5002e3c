"""Joining many small arrays, in a way that a recorded step may do."""

from collections.abc import Sequence

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.capture import is_recording

_MOST_RECORDED = 8  # arrays in one join: CuPy uploads the addresses of more


def join(arrays: Sequence[Array]) -> Array:
    """Join arrays of one dimension; in a recorded step a few at a time.

    Parameters
    ----------
    arrays : sequence of array, shapes (n,)
        At least one, of one dtype.

    Returns
    -------
    array, shape (sum of the lengths,)
    """
    xp = get_array_module(arrays[0])
    while is_recording() and len(arrays) > _MOST_RECORDED:
        starts = range(0, len(arrays), _MOST_RECORDED)
        arrays = [xp.concatenate(arrays[start : start + _MOST_RECORDED]) for start in starts]
    return xp.concatenate(arrays)
