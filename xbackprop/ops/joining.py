"""Joining many small arrays, in a way that a recorded step may do."""

from collections.abc import Sequence

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.capture import MOST_JOINED, is_recording


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
    while is_recording() and len(arrays) > MOST_JOINED:
        starts = range(0, len(arrays), MOST_JOINED)
        arrays = [xp.concatenate(arrays[start : start + MOST_JOINED]) for start in starts]
    return xp.concatenate(arrays)
