"""A trainable array: its storage, its gradient, and the version that catches stale backwards."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.device import Device, device_of
from xbackprop.backend.fork import LockHolder
from xbackprop.backend.transfer import to_device, to_host
from xbackprop.initializers import copied


class Clock:
    """Counts the changes of all parameters: while it stands still, no ``saved`` can be stale.

    Attributes
    ----------
    time : int
        The number of changes so far.
    """

    __slots__ = ("_ticking", "time")

    def __init__(self) -> None:
        self.time = 0
        self._ticking = LockHolder()

    def tick(self) -> int:
        """Count a change and return the new time, which no other thread gets."""
        with self._ticking.lock:  # `+= 1` alone may set back what another thread has counted
            self.time = time = self.time + 1
        return time


clock = Clock()


class _Collected(threading.local):
    grads: "dict[Parameter, Array] | None" = None


_collected = _Collected()
_collecting: list[None] = []  # one entry for each block open in any thread; empty costs nothing


@contextlib.contextmanager
def collect_gradients() -> "Iterator[dict[Parameter, Array]]":
    """Let the backwards of this thread leave the parameters alone, and collect what they would add.

    So several threads can go backward through one model, each with a shard of the batch.
    """
    grads: dict[Parameter, Array] = {}
    before, _collected.grads = _collected.grads, grads
    _collecting.append(None)
    try:
        yield grads
    finally:
        _collecting.pop()
        _collected.grads = before


def is_collecting() -> bool:
    """Tell whether this thread is inside :func:`collect_gradients`."""
    return bool(_collecting) and _collected.grads is not None


class Parameter:
    """A trainable array and its gradient.

    Parameters
    ----------
    data : array
        The values, on the device where the parameter shall live.
    requires_grad : bool, default True
        False freezes it: no gradient is computed and no optimizer touches it.

    Attributes
    ----------
    data : array
        The master values.
    value : array
        What layers read: the copy of ``data`` in ``compute_dtype`` where there is one, else
        ``data`` itself, but for a forward that is changing it.
    compute_dtype : dtype or None
        float16 or bfloat16 for a parameter that layers read in half precision; the master and the
        gradient are float32. Set by :meth:`compute_in`.
    grad : array or None
        The gradient collected since ``zero_grad``; None when there is none.
    version : int
        Moves whenever the values change under the eyes of a backward that is still to come.
    contributions : int
        How often ``accumulate`` was called since ``zero_grad``.
    """

    __slots__ = (
        "_data", "_grad", "compute_dtype", "contributions", "has_grad", "requires_grad", "value",
        "version",
    )  # fmt: skip

    def __init__(self, data: Array, requires_grad: bool = True) -> None:
        self.requires_grad = requires_grad
        self._grad: Array | None = None
        self.has_grad = False
        self.contributions = 0
        self.compute_dtype: np.dtype | None = None
        self._data: Array = data
        self.value: Array = data
        self.version = clock.time

    @property
    def data(self) -> Array:
        """The master values; assigning replaces the storage and moves the version."""
        return self._data

    @data.setter
    def data(self, array: Array) -> None:
        if get_array_module(array) is np and not isinstance(array, np.ndarray):
            raise TypeError(f"Parameter.data expects an array; got {type(array).__name__}")
        self.rebind(array)
        self.mark_changed()

    @property
    def grad(self) -> Array | None:
        """The gradient collected since ``zero_grad``, or None."""
        return self._grad if self.has_grad else None

    @grad.setter
    def grad(self, array: Array | None) -> None:
        self.zero_grad()
        if array is not None:
            self.accumulate(array)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the values."""
        shape: tuple[int, ...] = self._data.shape
        return shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the master values."""
        dtype: np.dtype = self._data.dtype
        return dtype

    @property
    def size(self) -> int:
        """Number of elements."""
        size: int = self._data.size
        return size

    @property
    def device(self) -> Device:
        """The device it lives on."""
        return device_of(self._data)

    def accumulate(self, grad: Array) -> None:
        """Add a gradient.

        Parameters
        ----------
        grad : array
            Same shape as the values, and the dtype of ``data`` or of ``value``; the sum is
            ``data``'s. A broadcast is refused: it would hide a layer that forgot to sum over the
            batch.

        Raises
        ------
        ValueError
            For another shape.
        TypeError
            For another dtype.
        """
        if not self.requires_grad:
            return
        if grad.shape != self._data.shape:
            raise ValueError(
                f"gradient of shape {grad.shape} for a parameter of shape {self._data.shape}; "
                "sum it over the batch axes first"
            )
        if grad.dtype != self._data.dtype:
            if self.compute_dtype is None or grad.dtype != self.compute_dtype:
                raise TypeError(f"gradient is {grad.dtype}, the parameter {self._data.dtype}")
            grad = grad.astype(self._data.dtype)
        if _collecting and (grads := _collected.grads) is not None:
            grads[self] = grads[self] + grad if self in grads else grad
            return
        if self.has_grad:
            self._grad += grad
        else:
            if self._grad is None:
                with device_of(self._data).activate():
                    self._grad = get_array_module(self._data).empty_like(self._data)
            if grad is not self._grad:  # else it was computed in its place
                self._grad[...] = grad
            self.has_grad = True
        self.contributions += 1

    def place_of_gradient(self, dtype: np.dtype) -> Array | None:
        """Return the storage of a gradient that is still to come, for it to be computed there.

        Parameters
        ----------
        dtype : dtype
            Of what will be given to :meth:`accumulate`.

        Returns
        -------
        array or None
            None where it is to be added, collected or cast, has no storage yet, or where that is
            on a device or not in C order.
        """
        place = self._grad
        is_free = (
            type(place) is np.ndarray
            and not self.has_grad
            and place.dtype is dtype
            and place.flags.c_contiguous
            and not is_collecting()
        )
        return place if is_free else None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradient, or with False fill it with zeros; its memory is kept."""
        self.contributions = 0
        if set_to_none:
            self.has_grad = False
        elif self.has_grad and self._grad is not None:
            with device_of(self._data).activate():
                self._grad[...] = 0

    def mark_changed(self) -> None:
        """Move the version after the values were written, and round them anew."""
        if self.compute_dtype is not None:
            self.value[...] = self._data
        self.version = clock.tick()

    def compute_in(self, dtype: np.dtype | None) -> None:
        """Let layers read the values rounded to a half dtype, or with None as they are.

        Parameters
        ----------
        dtype : dtype or None
            float16 or bfloat16.

        Raises
        ------
        TypeError
            When the values are not float32, of which alone half copies are kept.
        """
        if dtype is not None and self._data.dtype != np.float32:
            raise TypeError(
                f"a parameter is read in {dtype} beside a float32 master; this one is {self.dtype}"
            )
        if dtype is not self.compute_dtype:  # NumPy takes None for float64 in a comparison
            self.compute_dtype = dtype
            self.rebind(self._data)
            self.version = clock.tick()

    def rebind(self, data: Array, grad: Array | None = None, value: Array | None = None) -> None:
        """Put the same values into other storage (an optimizer's flat buffers)."""
        self._data = data
        if value is None and self.compute_dtype is not None:
            with device_of(data).activate():
                value = data.astype(self.compute_dtype)
        self.value = data if value is None else value
        if grad is not None:
            self._grad = grad
        elif self._grad is not None and (
            self._grad.shape != data.shape
            or self._grad.dtype != data.dtype
            or device_of(self._grad) != device_of(data)
        ):
            self._grad = None
            self.zero_grad()

    def to(self, device: str | Device | None = None, dtype: Any = None) -> None:
        """Move the values and the gradient to a device, or cast them.

        Parameters
        ----------
        device : str or Device, optional
            Where to; None stays.
        dtype : dtype, optional
            None keeps the dtype.
        """
        data = self._data if device is None else to_device(self._data, device)
        grad = None if self._grad is None else to_device(self._grad, device_of(data))
        if dtype is not None and data.dtype != np.dtype(dtype):
            if self.compute_dtype is not None:
                raise RuntimeError(
                    f"to({np.dtype(dtype)}): the parameter is read in {self.compute_dtype} beside "
                    "a float32 master. Call xbackprop.set_precision(model, 'float32') first."
                )
            with device_of(data).activate():
                data = data.astype(dtype)
                grad = None if grad is None else grad.astype(dtype)
        if data is not self._data:
            self.rebind(data, grad)
            self.mark_changed()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Parameter":
        # Stays on its device, in storage of its own: never a view of an optimizer's buffer.
        with device_of(self._data).activate():
            fresh = Parameter(copied(self._data), self.requires_grad)
            fresh.compute_in(self.compute_dtype)
            if self.has_grad:
                fresh.accumulate(self._grad)
        memo[id(self)] = fresh
        return fresh

    def __reduce__(self) -> tuple[Any, ...]:
        # Plain host arrays: a pickle made beside a GPU opens on a machine without one.
        grad = to_host(self._grad).copy() if self.has_grad else None
        return _unpickle, (
            to_host(self._data).copy(), grad, self.requires_grad, self.compute_dtype,
        )  # fmt: skip

    def __repr__(self) -> str:
        frozen = "" if self.requires_grad else ", frozen"
        return f"Parameter(shape={self.shape}, dtype={self.dtype}, device={self.device}{frozen})"

    def _repr_html_(self) -> str:
        from xbackprop.module.notebook import parameter_html

        return parameter_html(self)


def _unpickle(
    data: np.ndarray,
    grad: np.ndarray | None,
    requires_grad: bool,
    compute_dtype: np.dtype | None = None,  # pickles from before there was one
) -> Parameter:
    parameter = Parameter(data, requires_grad)
    parameter.compute_in(compute_dtype)
    if grad is not None:
        parameter._grad, parameter.has_grad, parameter.contributions = grad, True, 1
    return parameter
