"""The one way up to a device and the one way down, both counted."""

import contextlib
import os
import sys
import types
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module, is_array
from xbackprop.backend.capture import CaptureError, captured_device
from xbackprop.backend.device import CPU, Device, device_of, resolve_device
from xbackprop.backend.fork import use
from xbackprop.backend.half import is_float_dtype
from xbackprop.backend.memory import free_unused_memory, is_out_of_memory

Kind = Literal["upload", "download", "synchronization", "launch", "peer_copy"]

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
# Between the line that causes an event and `record` stand only these: the shim, the machinery of
# its `with` blocks, and dispatch, which books the launches of kernels.
_NOT_THE_CAUSE = (
    _HERE,
    os.path.abspath(contextlib.__file__),
    os.path.join(os.path.dirname(_HERE.rstrip(os.sep)), "dispatch.py"),
)


class TransferError(RuntimeError):
    """More crossed between host and device than a :func:`transfer_guard` allows."""


@dataclass(frozen=True)
class TransferEvent:
    """One thing that happened between host and device, with the source line that caused it."""

    kind: Kind
    size_bytes: int
    device: str
    filename: str
    line: int
    what: str

    def __str__(self) -> str:
        size = f" of {self.size_bytes} bytes" if self.size_bytes else ""
        where = f"{self.filename}:{self.line}"
        return f"{where}: {self.kind}{size} on {self.device} by {self.what}"


@dataclass
class TransferLog:
    """What crossed between host and device while the log was open.

    On ``fake`` everything is counted. On ``cuda`` uploads and downloads are those of
    :func:`to_device` and :func:`to_host`, and launches are those that ops declare: CuPy offers no
    hook for ``float(x)`` or for single kernels. Arrays that stay on the CPU count nothing.
    """

    uploads: int = 0
    downloads: int = 0
    bytes_uploaded: int = 0
    bytes_downloaded: int = 0
    synchronizations: int = 0
    launches: int = 0
    events: list[TransferEvent] = field(default_factory=list)
    limits: dict[str, int] = field(default_factory=dict, repr=False)

    def add(self, event: TransferEvent, count: int = 1) -> None:
        """Count an event."""
        self.events.append(event)
        if event.kind == "upload":
            self.uploads += count
            self.bytes_uploaded += event.size_bytes
        elif event.kind == "download":
            self.downloads += count
            self.bytes_downloaded += event.size_bytes
        elif event.kind == "synchronization":
            self.synchronizations += count
        elif event.kind == "launch":
            self.launches += count

    def enforce(self, event: TransferEvent) -> None:
        """Raise TransferError where an event went beyond the limits."""
        limit = self.limits.get(event.kind)
        if limit is not None and self.count(event.kind) > limit:
            raise TransferError(describe_excess(event, limit))

    def count(self, kind: Kind) -> int:
        """Return how many events of one kind were counted."""
        counters = {
            "upload": self.uploads,
            "download": self.downloads,
            "synchronization": self.synchronizations,
            "launch": self.launches,
        }
        return counters.get(kind, 0)


def describe_excess(event: TransferEvent, limit: int) -> str:
    """Say of the first event beyond a limit what it was and what was allowed."""
    plural = "" if limit == 1 else "s"
    return f"{event}; allowed here: {limit or 'no'} {event.kind}{plural}"


# Context-local, as the device choice is: a log sees its own thread, not its neighbours.
_open_logs: ContextVar[tuple[TransferLog, ...]] = ContextVar("xbackprop_transfer_logs", default=())


@contextlib.contextmanager
def transfer_log() -> Iterator[TransferLog]:
    """Count uploads, downloads, bytes, synchronisations and launches in a ``with`` block.

    Yields
    ------
    TransferLog

    Examples
    --------
    >>> import xbackprop as xb
    >>> with xb.use_device("fake"), xb.transfer_log() as log:
    ...     x = xb.asarray([1.0, 2.0])
    ...     total = float(x.sum())
    >>> log.uploads, log.downloads, log.synchronizations
    (1, 1, 1)
    """
    with open_log(TransferLog()) as log:
        yield log


@contextlib.contextmanager
def transfer_guard(
    *,
    uploads: int | None = None,
    downloads: int | None = None,
    synchronizations: int | None = None,
) -> Iterator[TransferLog]:
    """Refuse transfers beyond a budget, at the line that makes them.

    Parameters
    ----------
    uploads, downloads, synchronizations : int, optional
        How many of each are allowed in the block. None leaves that kind free; without any
        argument nothing may cross at all.

    Yields
    ------
    TransferLog

    Raises
    ------
    TransferError
        At the transfer that exceeds the budget; names the line.
    """
    limits = {"upload": uploads, "download": downloads, "synchronization": synchronizations}
    if all(limit is None for limit in limits.values()):
        limits = dict.fromkeys(limits, 0)
    budget = {kind: limit for kind, limit in limits.items() if limit is not None}
    with open_log(TransferLog(limits=budget)) as log:
        yield log


@contextlib.contextmanager
def open_log(log: TransferLog) -> Iterator[TransferLog]:
    """Count into a log that the caller holds."""
    token = _open_logs.set((*_open_logs.get(), log))
    try:
        yield log
    finally:
        _open_logs.reset(token)


# Set while a kernel runs whose launches are booked as one declared number.
_muted: ContextVar[bool] = ContextVar("xbackprop_launches_muted", default=False)


@contextlib.contextmanager
def launches_booked_by(name: str, device: Device, launches: int) -> Iterator[None]:
    """Book a kernel's declared launches in place of those its reference makes."""
    if device.kind != "cpu" and not _muted.get():
        record("launch", 0, device, name, launches)
    token = _muted.set(True)
    try:
        yield
    finally:
        _muted.reset(token)


def record(kind: Kind, size_bytes: int, device: Device, what: str, count: int = 1) -> None:
    """Write an event into every open log; free when none is open.

    A captured step may hold launches and nothing else.
    """
    if kind != "launch" and captured_device() is not None:
        refuse_in_capture(f"{kind} by {what}", "nothing may cross or wait there")
    logs = _open_logs.get()
    if not logs or (kind == "launch" and _muted.get()):
        return
    frame = _calling_frame()
    event = TransferEvent(
        kind, size_bytes, str(device), frame.f_code.co_filename, frame.f_lineno, what
    )
    for log in logs:
        log.add(event, count)
    for log in logs:
        log.enforce(event)


def refuse_in_capture(what: str, reason: str) -> NoReturn:
    """Refuse what a recorded step may not do, and say in which line it is done."""
    frame = _calling_frame()
    raise CaptureError(
        f"{frame.f_code.co_filename}:{frame.f_lineno}: {what} cannot be recorded: {reason}"
    )


def _calling_frame() -> types.FrameType:
    """Find the line outside the shim that caused an event."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_NOT_THE_CAUSE):
        frame = frame.f_back
    return frame


def to_device(array: Array, device: str | Device | None = None) -> Array:
    """Return ``array`` on a device; the array itself when it is there already.

    Parameters
    ----------
    array : array
        A NumPy array (or scalar), CuPy array or stand-in array.
    device : str or Device, optional
        Where to; None is the default device.

    Returns
    -------
    array
        Shape and dtype are kept; byte order becomes native.

    Raises
    ------
    TypeError
        For dtypes that no GPU holds (object, text, dates) and for lists (use :func:`asarray`).
    MemoryError
        When the device has no room, also after its pool gave back what no array uses.
    """
    target = resolve_device(device)
    if not is_array(array):
        if not isinstance(array, np.generic):
            raise TypeError(
                f"to_device expects an array; got {type(array).__name__}. "
                "Call xbackprop.asarray(...) for lists and numbers."
            )
        array = np.asarray(array)
    source = device_of(array)
    if source == target:
        return array
    if target == CPU:
        return to_host(array)
    if source != CPU:
        return _copy_to_peer(array, target)
    host = uploadable(array)
    if host.dtype.char in "gG":
        raise TypeError(f"no GPU holds {host.dtype}; convert with .astype('float64') first")
    record("upload", host.nbytes, target, "to_device()")
    try:
        return _upload(host, target)
    except MemoryError as error:
        if not is_out_of_memory(error, target):
            raise
    free_unused_memory(target)
    return _upload(host, target)


def _upload(host: np.ndarray, target: Device) -> Array:
    if target.kind == "fake":
        from xbackprop.backend.fake import upload

        return upload(host, target.index)
    with target.activate():
        return target.xp.asarray(host)


def to_host(array: Array) -> np.ndarray:
    """Return ``array`` as a NumPy array; host arrays pass through.

    Parameters
    ----------
    array : array
        Any array or scalar.

    Returns
    -------
    numpy.ndarray
        From a device: a fresh copy, after waiting for the device.
    """
    if get_array_module(array) is np:
        return np.asarray(array)
    device = device_of(array)
    host: np.ndarray
    if device.kind == "fake":
        host = array.get()  # books the download itself
    else:
        use(device.kind)
        record("download", array.nbytes, device, "to_host()")
        record("synchronization", 0, device, "to_host()")
        host = array.get()
    return host


def asarray(
    values: Any, dtype: Any = None, device: str | Device | None = None, *, copy: bool = False
) -> Array:
    """Make an array on a device from lists, numbers or arrays.

    Parameters
    ----------
    values : array_like
        Nested lists, numbers, NumPy arrays, objects with DLPack or ``__array__``, device arrays.
    dtype : dtype, optional
        None turns host floats into float32 (there is no silent float64), keeps integers and bool.
        A device array keeps its dtype unless one is given.
    device : str or Device, optional
        None is the default device for host values, and "where it is" for device arrays.
    copy : bool, default False
        Copy even when the array could be returned as it is.

    Returns
    -------
    array

    Examples
    --------
    >>> import xbackprop as xb
    >>> xb.asarray([[1, 2]]).dtype, xb.asarray([0.5], device="cpu").dtype
    (dtype('int64'), dtype('float32'))
    """
    if get_array_module(values) is not np:
        array = values if device is None else to_device(values, device)
        with device_of(array).activate():
            if dtype is not None and array.dtype != np.dtype(dtype):
                return array.astype(dtype)
            return array.copy() if copy and array is values else array
    only_dlpack = hasattr(values, "__dlpack__") and not hasattr(values, "__array__")
    host = np.from_dlpack(values) if only_dlpack else np.asarray(values)
    if dtype is None and host.dtype.kind == "f" and host.dtype != np.float16:
        dtype = np.float32
    host = np.array(host, dtype=dtype, copy=True if copy else None)
    return to_device(uploadable(host), device)


def uploadable(host: np.ndarray) -> np.ndarray:
    """Refuse what is no array of numbers; make the byte order native."""
    if host.dtype.kind not in "biuc" and not is_float_dtype(host.dtype):
        raise TypeError(
            f"expected numbers; got an array of dtype {host.dtype}. "
            "Convert it with .astype(...) or encode it as integers first."
        )
    return host if host.dtype.isnative else host.astype(host.dtype.newbyteorder("="))


def _copy_to_peer(array: Array, target: Device) -> Array:
    """Copy between two devices of one kind without a detour over the host."""
    source = device_of(array)
    if source.kind != target.kind:
        raise TypeError(f"cannot copy from {source} to {target} directly; call to_host() first")
    record("peer_copy", array.nbytes, target, "to_device()")
    if target.kind == "fake":
        from xbackprop.backend.fake import copy_to_peer

        return copy_to_peer(array, target.index)
    with target.activate():
        return target.xp.array(array, copy=True)
