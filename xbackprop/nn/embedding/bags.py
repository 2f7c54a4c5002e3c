"""Which bag each index is in."""

import math
from typing import Any, NamedTuple

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.module import Module, describe_layer


class Bags(NamedTuple):
    """Indices that stand one bag after the other."""

    numbers: Array  # (n,): the bag of each index; outside 0 .. num_bags - 1 for none
    num_bags: int
    is_valid: Array | None  # device scalar of bool: offsets start at 0, never fall, end within


def find_bags(module: Module, indices: Array, offsets: Any, include_last_offset: bool) -> Bags:
    """Check the shapes of indices and offsets; return which bag each index is in.

    Parameters
    ----------
    module : Module
        Whose input it is.
    indices : array of int64, shape (bags, length) or (n,)
        A bag in each row; or all bags one after the other.
    offsets : array of int, shape (bags,), or None
        With one axis: where each bag begins.
    include_last_offset : bool
        The last offset is the end of the last bag.

    Returns
    -------
    Bags

    Raises
    ------
    TypeError, ValueError
        For offsets that cannot be, on the host for their values too.
    """
    layer = describe_layer(module)
    if indices.ndim == 2:
        if offsets is not None:
            raise ValueError(
                f"{layer}: x of shape {indices.shape} has a bag in each row and takes no "
                "offsets. Leave them out, or call x.reshape(-1)."
            )
        return _bags_of_rows(indices)
    if indices.ndim != 1:
        raise ValueError(
            f"{layer} expects x of shape (bags, length), or (n,) with offsets; got {indices.shape}"
        )
    if offsets is None:
        raise ValueError(
            f"{layer} expects offsets with x of shape {indices.shape}: where each bag begins. "
            "Give x the shape (bags, length) if all bags are equally long."
        )
    module.check_device("offsets", offsets, indices)
    if offsets.dtype.kind not in "iu":
        raise TypeError(f"{layer} expects offsets of an integer dtype; got {offsets.dtype}")
    if offsets.ndim != 1 or offsets.shape[0] < include_last_offset:
        least = "bags + 1" if include_last_offset else "bags"
        raise ValueError(f"{layer} expects offsets of shape ({least},); got {offsets.shape}")
    if indices.size and offsets.shape[0] == include_last_offset:
        raise ValueError(
            f"{layer}: offsets of shape {offsets.shape} make no bag for {indices.size} indices"
        )
    offsets = offsets if offsets.dtype == np.int64 else offsets.astype(np.int64)
    if get_array_module(offsets) is np:
        _check_offsets(layer, np.asarray(offsets), indices.size)
    return _bags_between(offsets, indices.size, include_last_offset)


def _check_offsets(layer: str, offsets: np.ndarray, size: int) -> None:
    """Refuse offsets on the host that name no bags; looking costs nothing there."""
    if not offsets.size:
        return
    if offsets[0] != 0 or (offsets[1:] < offsets[:-1]).any() or offsets[-1] > size:
        raise ValueError(
            f"{layer} expects offsets that start at 0, never fall, and end within the {size} "
            f"indices; got {offsets.tolist()[:10]}{' ...' if offsets.size > 10 else ''}"
        )


def _bags_of_rows(indices: Array) -> Bags:
    """Return the bags of a matrix, which are its rows."""
    xp = get_array_module(indices)
    count, length = indices.shape
    numbers = xp.broadcast_to(xp.arange(count)[:, None], (count, length))
    return Bags(numbers.reshape(-1), count, None)


def _bags_between(offsets: Array, size: int, include_last_offset: bool) -> Bags:
    """Return the bags that begin at the offsets; with the last included, that one is an end."""
    xp = get_array_module(offsets)
    numbers = xp.searchsorted(offsets, xp.arange(size), side="right") - 1
    count = offsets.shape[0] - include_last_offset
    if xp is np or offsets.shape[0] == 0:  # then they have been looked at
        return Bags(numbers, count, None)
    is_rising = (offsets[1:] >= offsets[:-1]).all()
    return Bags(numbers, count, is_rising & (offsets[0] == 0) & (offsets[-1] <= size))


def nan_unless(is_valid: Array | None, output: Array) -> Array:
    """Return the output, or NaN where offsets turned out to be none."""
    if is_valid is None:
        return output
    return get_array_module(output).where(is_valid, output, math.nan)
