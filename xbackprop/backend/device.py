"""Which device to use: the grammar, the precedence, and who asked for it."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.fork import refuse_lost, use

VARIABLE = "XBACKPROP_DEVICE"
GRAMMAR = "auto, cpu, cuda, cuda:N, fake, fake:N"
FAKE_DEVICE_COUNT = 8

logger = logging.getLogger("xbackprop")


class DeviceError(ValueError):
    """A device name that does not follow the grammar."""


class DeviceUnavailableError(RuntimeError):
    """A device that was asked for by name and cannot be had."""


@dataclass(frozen=True)
class Device:
    """One place where arrays live.

    Parameters
    ----------
    kind : {"cpu", "cuda", "fake"}
        What it is; ``fake`` is the strict stand-in GPU.
    index : int
        Which one of its kind.
    """

    kind: str
    index: int = 0

    def __post_init__(self) -> None:
        count = {"cpu": 1, "cuda": sys.maxsize, "fake": FAKE_DEVICE_COUNT}.get(self.kind, 0)
        least = -1 if self.kind == "cuda" else 0  # cuda:-1 is any GPU
        if not least <= self.index < count:
            raise DeviceError(f"no device {self.kind}:{self.index}: expected one of {GRAMMAR}")

    def __str__(self) -> str:
        if self.kind == "cpu" or self.index < 0:  # -1: the choice of the GPU is still open
            return self.kind
        return f"{self.kind}:{self.index}"

    def __reduce__(self) -> tuple[type["Device"], tuple[str, int]]:
        return Device, (self.kind, self.index)  # without the array module, which has no copies

    @cached_property
    def xp(self) -> Any:
        """The array module of this device."""
        if self.kind == "cpu":
            return np
        if self.kind == "fake":
            from xbackprop.backend.fake import xp

            return xp
        import cupy

        return cupy

    def activate(self) -> contextlib.AbstractContextManager[Any]:
        """Make this the device on which its array module creates arrays."""
        if self.kind == "cpu":
            return contextlib.nullcontext()
        use(self.kind)
        if self.kind == "fake":
            from xbackprop.backend.fake import current_device

            return current_device(self.index)
        import cupy

        device: contextlib.AbstractContextManager[Any] = cupy.cuda.Device(self.index)
        return device


@dataclass(frozen=True)
class DeviceChoice:
    """The default device together with the story of its choice."""

    device: Device
    asked: str
    asked_by: str
    reason: str


CPU = Device("cpu")

# use_device is local to a context (a thread, an asyncio task); set_device to the process.
_local_choice: ContextVar[DeviceChoice | None] = ContextVar("xbackprop_device", default=None)
_process_choice: DeviceChoice | None = None
_variable_seen: str | None = None  # the variable's value that _process_choice was made from


def parse_device(name: str | Device) -> Device | None:
    """Read a device name; ``None`` stands for ``auto``.

    Parameters
    ----------
    name : str or Device
        One of ``auto, cpu, cuda, cuda:N, fake, fake:N``. ``cuda`` leaves the choice of the GPU
        open (index -1), ``fake`` is ``fake:0``.

    Returns
    -------
    Device or None

    Raises
    ------
    DeviceError
        When the name does not follow the grammar; the message lists the valid names.
    """
    if isinstance(name, Device):
        return name
    text = name.strip().lower() if isinstance(name, str) else ""
    kind, colon, number = text.partition(":")
    if text == "auto":
        return None
    if text == "cpu":
        return CPU
    if kind in ("cuda", "fake") and not colon:
        return Device(kind, 0 if kind == "fake" else -1)
    is_number = number.isascii() and number.isdigit() and len(number) < 10
    if kind == "cuda" and is_number:
        return Device(kind, int(number))
    if kind == "fake" and is_number and int(number) < FAKE_DEVICE_COUNT:
        return Device(kind, int(number))
    raise DeviceError(
        f"unknown device {name!r}: expected one of {GRAMMAR} "
        f"(the stand-in has fake:0 to fake:{FAKE_DEVICE_COUNT - 1})"
    )


def default_device() -> Device:
    """Return the device on which new arrays are created.

    Precedence: ``with use_device(...)``, then ``set_device(...)``, then the environment variable
    ``XBACKPROP_DEVICE``, then ``auto``. (An explicit ``device=`` argument stands above them all.)
    """
    return explain_default_device().device


def explain_default_device() -> DeviceChoice:
    """Return the default device, what was asked, by whom, and why it was chosen."""
    choice = _local_choice.get()
    if choice is not None:
        return choice
    global _process_choice, _variable_seen
    choice = _process_choice  # once: another thread may set it to None meanwhile
    if choice is None:
        asked = os.environ.get(VARIABLE, "").strip()
        choice = _choose(asked or "auto", VARIABLE if asked else "default")
        _process_choice, _variable_seen = choice, asked
        _make_current(choice.device)
    elif _variable_seen is not None:
        _report_late_change()
    return choice


def _make_current(device: Device) -> None:
    """Let CuPy compute on the process's device in this thread; the stand-in asks for it itself."""
    if device.kind == "cuda":
        sys.modules["cupy"].cuda.runtime.setDevice(device.index)


def process_device() -> Device | None:
    """Return the process's device where it has been chosen already, without choosing."""
    choice = _process_choice
    return choice.device if choice is not None else None


def _report_late_change() -> None:
    """Tell once per new value that the variable was changed after it had been read."""
    global _variable_seen
    now = os.environ.get(VARIABLE, "").strip()
    if now != _variable_seen:
        logger.warning(
            "%s changed from %r to %r after it was read; the device stays %s. "
            "Call xbackprop.set_device(None) to read the variable again.",
            VARIABLE, _variable_seen, now, _process_choice.device if _process_choice else "?",
        )  # fmt: skip
        _variable_seen = now


def set_device(name: str | Device | None) -> Device:
    """Set the default device of the whole process.

    Parameters
    ----------
    name : str, Device or None
        A device name; None forgets the choice and reads ``XBACKPROP_DEVICE`` again.

    Returns
    -------
    Device
        The device now in force.

    Raises
    ------
    DeviceError
        For a name outside the grammar.
    DeviceUnavailableError
        For a CUDA device that cannot be used; names the reason and the fix.
    """
    global _process_choice, _variable_seen
    choice = None if name is None else _choose(name, "set_device()")
    _process_choice, _variable_seen = choice, None
    if choice is not None:
        _make_current(choice.device)
    return default_device()


@contextlib.contextmanager
def use_device(name: str | Device) -> Iterator[Device]:
    """Use a device inside a ``with`` block, in this thread or task only.

    Parameters
    ----------
    name : str or Device
        A device name, see :func:`parse_device`.

    Yields
    ------
    Device

    Raises
    ------
    DeviceError, DeviceUnavailableError
        As :func:`set_device`.

    Examples
    --------
    >>> import xbackprop as xb
    >>> with xb.use_device("fake"):
    ...     print(xb.asarray([1.0, 2.0]).device)
    fake:0
    """
    choice = _choose(name, "use_device()")
    token = _local_choice.set(choice)
    try:
        with choice.device.activate():
            yield choice.device
    finally:
        _local_choice.reset(token)


def resolve_device(name: str | Device | None, asked_by: str = "argument") -> Device:
    """Turn a ``device=`` argument into a device; None means the default device."""
    if name is None:
        return default_device()
    if isinstance(name, Device) and name.index >= 0:
        return name
    return _choose(name, asked_by).device


def device_of(array: Array) -> Device:
    """Return the device that ``array`` lives on.

    Parameters
    ----------
    array : array or scalar
        Host arrays and scalars live on ``cpu``.

    Returns
    -------
    Device
    """
    if get_array_module(array) is np:
        return CPU
    device = array.device
    return device if isinstance(device, Device) else Device("cuda", int(device.id))


def _choose(name: str | Device, asked_by: str) -> DeviceChoice:
    """Decide on a device; an explicit request is granted or refused, never replaced."""
    try:
        device = parse_device(name)
    except DeviceError as error:
        raise DeviceError(f"{error}; asked for by {asked_by}") from None
    asked = str(name) if device is None or device.index >= 0 else "cuda"
    if device is None:
        return _choose_automatically(asked_by)
    if device.kind == "cpu":
        return DeviceChoice(device, asked, asked_by, f"asked for by {asked_by}")
    refuse_lost(device.kind)
    if device.kind == "fake":
        reason = f"the stand-in GPU, asked for by {asked_by}"
        return DeviceChoice(device, asked, asked_by, reason)
    from xbackprop.backend.probe import probe_cuda

    report = probe_cuda(None if device.index < 0 else device.index)
    if report.device_index is None or report.state != "usable":
        raise DeviceUnavailableError(
            f"device {asked!r} (asked for by {asked_by}) cannot be used: {report.state}: "
            f"{report.reason}. Fix: {report.fix}"
        ) from report.exception
    device = Device("cuda", report.device_index)
    _limit_memory(device)
    return DeviceChoice(device, asked, asked_by, f"asked for by {asked_by}; {report.reason}")


def _limit_memory(device: Device) -> None:
    from xbackprop.backend.memory import limit_memory

    limit_memory(device)


def _choose_automatically(asked_by: str) -> DeviceChoice:
    """Take the GPU if one is usable, else the CPU, and say so in the log."""
    from xbackprop.backend.probe import CudaState, probe_cuda

    report = probe_cuda(None)
    if report.state == CudaState.USABLE and report.device_index is not None:
        device = Device("cuda", report.device_index)
        _limit_memory(device)
        return DeviceChoice(device, "auto", asked_by, f"auto: {report.reason}")
    if report.state == CudaState.NOT_INSTALLED:
        reason = "auto: CuPy is not installed"
        logger.info("using the CPU: CuPy is not installed")
    else:
        reason = f"auto: CUDA is not usable ({report.state}: {report.reason})"
        logger.warning(
            "using the CPU: CuPy is installed but CUDA is not usable: %s: %s. Fix: %s",
            report.state, report.reason, report.fix,
        )  # fmt: skip
    return DeviceChoice(CPU, "auto", asked_by, reason)


def synchronize(device: str | Device | None = None) -> None:
    """Wait until a device has finished its work (nothing to wait for on the CPU)."""
    place = resolve_device(device)
    if place.kind == "cuda":
        with place.activate():
            sys.modules["cupy"].cuda.get_current_stream().synchronize()
    elif place.kind == "fake":
        from xbackprop.backend.transfer import record

        record("synchronization", 0, place, "synchronize()")
