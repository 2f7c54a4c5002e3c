"""Rows of the training data, on their way to the device: once per fit, or batch by batch."""

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import scipy.sparse
from sklearn.utils import gen_batches

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import CPU, Device
from xbackprop.backend.transfer import to_device
from xbackprop.data import stream_to_device


class ResidentRows:
    """Rows of an array that was moved to the device as a whole.

    Parameters
    ----------
    array : array, shape (rows, ...)
        On the host.
    device : Device
        Where it is moved to.
    """

    def __init__(self, array: np.ndarray, device: Device) -> None:
        self.array = to_device(array, device)

    def take(self, order: Array | None, chosen: slice, host_order: np.ndarray | None) -> Array:
        """Return the rows ``order[chosen]``; without an order, ``chosen`` itself."""
        if order is None:
            return self.array[chosen]
        if type(self.array) is np.ndarray and not self.array.flags.c_contiguous:
            self.array = np.ascontiguousarray(self.array)  # rows are taken again and again
        return self.array.take(order[chosen], axis=0)

    def batches(
        self, slices: Sequence[slice], order: Array | None, host_order: np.ndarray | None
    ) -> Iterator[Array]:
        """Return :meth:`take` of each slice in turn."""
        return (self.take(order, chosen, host_order) for chosen in slices)


class StreamedRows:
    """Rows of a host array or sparse matrix that go to the device batch by batch.

    Parameters
    ----------
    array : array or sparse matrix, shape (rows, ...)
        Stays on the host.
    device : Device
        Where batches are moved to, dense.
    dtype : dtype
        What they are cast to.
    """

    def __init__(self, array: Any, device: Device, dtype: Any) -> None:
        self.array = array.tocsr() if scipy.sparse.issparse(array) else array
        self.device = device
        self.dtype = dtype

    def take(self, order: Array | None, chosen: slice, host_order: np.ndarray | None) -> Array:
        """Return the rows ``host_order[chosen]``; without an order, ``chosen`` itself."""
        return to_device(self._gather(chosen, host_order), self.device)

    def batches(
        self, slices: Sequence[slice], order: Array | None, host_order: np.ndarray | None
    ) -> Iterator[Array]:
        """Return :meth:`take` of each slice, moved while the one before it is computed with."""
        parts = ([self._gather(chosen, host_order)] for chosen in slices)
        # No loop of our own: it would hold a batch longer than its user does.
        return map(itemgetter(0), stream_to_device(parts, self.device))

    def _gather(self, chosen: slice, host_order: np.ndarray | None) -> np.ndarray:
        rows = self.array[chosen if host_order is None else host_order[chosen]]
        dense = rows.toarray() if scipy.sparse.issparse(rows) else rows
        return np.ascontiguousarray(dense, dtype=self.dtype)


def place_rows(array: Any, device: Device, dtype: Any) -> ResidentRows | StreamedRows:
    """Move an array to the device, where it fits; a sparse one is made dense batch by batch.

    It fits where twice its size is free, so that as much is left to compute with.
    """
    if scipy.sparse.issparse(array):
        return StreamedRows(array, device, dtype)
    dense = np.asarray(array, dtype=dtype)
    if device != CPU:
        try:
            with device.activate():
                device.xp.empty(2 * dense.nbytes, dtype=np.uint8)
            return ResidentRows(dense, device)
        except MemoryError:
            return StreamedRows(dense, device, dtype)
    return ResidentRows(dense, device)


def check_numbers(estimator: Any, y: np.ndarray) -> None:
    """Refuse targets that are texts, whose digits a cast would take for numbers, by TypeError."""
    if y.dtype.kind in "SU":
        raise TypeError(
            f"{type(estimator).__name__} expects y of numbers; got texts ({y.dtype}). Convert them "
            "with y.astype(float)."
        )


def sum_of_weights(weight: np.ndarray, chosen: slice, order: np.ndarray | None) -> float:
    """Return what the weights of ``order[chosen]`` sum up to; a sum of 0 is ZeroDivisionError."""
    mass = float(weight[chosen if order is None else order[chosen]].sum())
    if mass == 0:
        raise ZeroDivisionError("Weights sum to zero, can't be normalized")
    return mass


class TrainingRows:
    """Inputs, targets and weights of the samples, in the order of an epoch.

    Parameters
    ----------
    X : array or sparse matrix, shape (rows, features)
        Inputs on the host.
    y : array, shape (rows, outputs)
        Targets on the host: bool, or cast to ``dtype``.
    weight : array, shape (rows,), or None
        Factors of the samples.
    device : Device
        Where batches lie.
    dtype : dtype
        Of the network.
    """

    def __init__(
        self, X: Any, y: np.ndarray, weight: np.ndarray | None, device: Device, dtype: Any
    ) -> None:
        self.device = device
        self.count = X.shape[0]
        self._x = place_rows(X, device, dtype)
        self._y = ResidentRows(y if y.dtype == bool else y.astype(dtype, copy=False), device)
        self._host_weight = weight
        self._weight = (
            None if weight is None else ResidentRows(weight.astype(dtype, copy=False), device)
        )
        self._host_order: np.ndarray | None = None
        self._order: Array | None = None

    def arrange(self, order: np.ndarray | None) -> None:
        """Set the order of the next epoch, one upload; None is the order of the data."""
        self._host_order = order
        self._order = None if order is None else to_device(order, self.device)

    def take(self, chosen: slice) -> tuple[Array, Array, Array | None, float]:
        """Return inputs, targets, weights and the sum of the weights of a part of the order.

        Parameters
        ----------
        chosen : slice
            Places in the order.

        Returns
        -------
        x, y, weight, mass

        Raises
        ------
        ZeroDivisionError
            When all weights are zero: their mean is none.
        """
        return self._beside(self._x.take(self._order, chosen, self._host_order), chosen)

    def at_hand(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Return all inputs, all targets and the order, where they lie on the CPU, unweighted."""
        if self.device != CPU or self._weight is not None or isinstance(self._x, StreamedRows):
            return None
        order = np.arange(self.count) if self._order is None else self._order
        return self._x.array, self._y.array, order

    def batches(self, size: int) -> Iterator[tuple[Array, Array, Array | None, float]]:
        """Return :meth:`take` of one batch after the other; streamed inputs come one ahead."""
        slices = list(gen_batches(self.count, size))
        inputs = self._x.batches(slices, self._order, self._host_order)
        for chosen in slices:
            yield self._beside(next(inputs), chosen)

    def _beside(self, x: Array, chosen: slice) -> tuple[Array, Array, Array | None, float]:
        """Return inputs with the targets, weights and sum of weights of their places."""
        parts = self._order, chosen, self._host_order
        y = self._y.take(*parts)
        if self._weight is None or self._host_weight is None:
            return x, y, None, float(chosen.stop - chosen.start)
        mass = sum_of_weights(self._host_weight, chosen, self._host_order)
        return x, y, self._weight.take(*parts), mass
