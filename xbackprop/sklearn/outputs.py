"""What a network gives for many rows: computed in pieces, and read back."""

from collections.abc import Callable

import numpy as np
from sklearn.utils import gen_batches

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device
from xbackprop.backend.transfer import to_host
from xbackprop.nn import Module
from xbackprop.sklearn.rows import ResidentRows, StreamedRows

_AT_ONCE = 1024  # rows: bounds what is dense of a sparse X, and stays in the CPU's cache


def outputs_of(
    network: Module,
    activate: Callable[[Array], Array],
    rows: ResidentRows | StreamedRows,
    count: int,
    device: Device,
) -> np.ndarray:
    """Return the activated outputs of a network.

    Parameters
    ----------
    network : Module
        In evaluation mode.
    activate : callable
        Applied to its outputs, where they are.
    rows : ResidentRows or StreamedRows
        The inputs.
    count : int
        How many they are.
    device : Device
        Where to compute.

    Returns
    -------
    numpy.ndarray, shape (count, ...)
    """
    slices = list(gen_batches(count, _AT_ONCE))
    with np.errstate(all="ignore"), device.activate():
        parts = [to_host(activate(network(x))) for x in rows.batches(slices, None, None)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
