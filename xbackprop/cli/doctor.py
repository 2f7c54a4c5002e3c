"""``xbackprop doctor``: which device is used and why, and what keeps CUDA from working."""

import contextlib
import json
import logging
import os
import platform
import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, TextIO

import numpy as np

import xbackprop
from xbackprop.backend.device import (
    VARIABLE,
    DeviceError,
    DeviceUnavailableError,
    explain_default_device,
    parse_device,
)
from xbackprop.backend.probe import CudaDeviceInfo, CudaReport, CudaState, probe_cuda, size_text

SCHEMA = 1  # of the JSON form; grows when a key is renamed or removed, not when one is added

_LABEL_WIDTH = 16
_PIPE_WIDTH = 100


@dataclass(frozen=True)
class Request:
    """What was asked for and what came of it; ``device`` is None when it cannot be had."""

    asked: str
    asked_by: str
    device: str | None
    reason: str
    exit_code: int


def run(as_json: bool, stream: TextIO | None = None) -> int:
    """Print a diagnosis of the devices.

    CUDA is probed whatever device was asked for, ``cpu`` included: this command is the question
    whether it works.

    Parameters
    ----------
    as_json : bool
        Print one JSON object instead of text.
    stream : text file, optional
        Where to; None is standard output.

    Returns
    -------
    int
        Exit code: 0 when the device that was asked for can be used (``auto`` always gets one), 1
        when it cannot be had, 2 when the request names no device.
    """
    stream = sys.stdout if stream is None else stream
    request = _read_request()
    report = probe_cuda(_index_asked_for(request.asked))
    if as_json:
        json.dump(_as_plain_data(request, report), stream, indent=2)
        stream.write("\n")
    else:
        stream.write("\n".join(_text_lines(request, report, _text_width(stream))) + "\n")
    return request.exit_code


def _read_request() -> Request:
    try:
        with _quiet_log():
            choice = explain_default_device()
    except (DeviceError, DeviceUnavailableError) as error:
        # Other sources refuse a device when they are given it, so this request is the variable's.
        asked = os.environ.get(VARIABLE, "").strip()
        exit_code = 2 if isinstance(error, DeviceError) else 1
        return Request(asked, VARIABLE, None, str(error), exit_code)
    return Request(choice.asked, choice.asked_by, str(choice.device), choice.reason, 0)


@contextlib.contextmanager
def _quiet_log() -> Iterator[None]:
    """Keep the library's log quiet: what it says about the choice is printed here anyway."""
    logger = logging.getLogger("xbackprop")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _index_asked_for(asked: str) -> int | None:
    """Return the number in ``cuda:N``, so that this GPU is probed and no other one."""
    try:
        device = parse_device(asked)
    except DeviceError:
        return None
    return (
        device.index if device is not None and device.kind == "cuda" and device.index >= 0 else None
    )


def _as_plain_data(request: Request, report: CudaReport) -> dict[str, Any]:
    error = report.exception
    return {
        "schema": SCHEMA,
        "exit_code": request.exit_code,
        "request": {
            "asked": request.asked,
            "asked_by": request.asked_by,
            "device": request.device,
            "reason": request.reason,
        },
        "software": {
            "xbackprop": xbackprop.__version__,
            "python": platform.python_version(),
            "executable": sys.executable,
            "numpy": np.__version__,
            "platform": platform.platform(),
        },
        "cuda": {
            "usable": report.state is CudaState.USABLE,
            "state": report.state.value,
            "reason": report.reason,
            "fix": report.fix or None,
            "device_index": report.device_index,
            "cupy_packages": dict(report.cupy_packages),
            "conflicts": list(report.conflicts),
            "warnings": list(report.warnings),
            "cupy_version": report.cupy_version,
            "driver_version": report.driver_version,
            "runtime_version": report.runtime_version,
            "devices": [asdict(device) for device in report.devices],
            "checks": [asdict(check) for check in report.checks],
            "exception": None
            if error is None
            else {"type": _type_name(error), "message": str(error)},
        },
    }


def _text_lines(request: Request, report: CudaReport, width: int) -> Iterator[str]:
    yield _verdict(request)
    yield ""
    yield "Device"
    yield from _field("asked for", f"{request.asked}, {_by_whom(request)}", width)
    yield from _field("gets", request.device or "nothing", width)
    yield from _field("because", request.reason, width)
    yield ""
    yield "CUDA"
    yield from _field("state", report.state.value, width)
    yield from _field("reason", report.reason, width)
    if report.fix:
        yield f"  {'to use CUDA':<{_LABEL_WIDTH}}{report.fix}"  # unbroken, so that it can be copied
    yield ""
    yield from _software_lines(report, width)
    yield ""
    yield "GPUs"
    yield from _device_lines(report)
    if report.checks:
        yield ""
        yield f"Checks on cuda:{report.device_index}"
        for check in report.checks:
            yield from _field(check.name, _check_text(check.ok, check.detail), width)
    if report.exception is not None:
        yield ""
        yield "Original error"
        message = f"{_type_name(report.exception)}: {report.exception}"
        yield from textwrap.indent(message, "  ").splitlines()


def _verdict(request: Request) -> str:
    if request.exit_code == 0:
        return f"xbackprop uses {request.device}."
    if request.exit_code == 1:
        return f"xbackprop cannot use {request.asked}, which {request.asked_by} asks for."
    return f"xbackprop knows no device {request.asked!r}, which {request.asked_by} asks for."


def _by_whom(request: Request) -> str:
    if request.asked_by == "default":
        return f"the default ({VARIABLE} is not set)"
    return f"by {request.asked_by}"


def _software_lines(report: CudaReport, width: int) -> Iterator[str]:
    packages = [f"{name} {version}" for name, version in report.cupy_packages.items()]
    driver, runtime = report.driver_version, report.runtime_version
    yield "Software"
    yield from _field("xbackprop", xbackprop.__version__, width)
    yield from _field("Python", f"{platform.python_version()} ({sys.executable})", width)
    yield from _field("NumPy", np.__version__, width)
    yield from _field("platform", platform.platform(), width)
    yield from _field("CuPy packages", ", ".join(packages) or "none", width)
    if report.cupy_version is not None and len(packages) != 1:
        yield from _field("CuPy imported", report.cupy_version, width)
    for conflict in report.conflicts:
        yield from _field("conflict", conflict, width)
    for warning in report.warnings:
        yield from _field("CuPy warns", warning, width)
    supports = f"supports CUDA up to {driver}" if driver else "not found"
    yield from _field("NVIDIA driver", supports, width)
    if runtime is not None:
        yield from _field("CUDA toolkit", f"{runtime} (the runtime inside CuPy)", width)


def _device_lines(report: CudaReport) -> Iterator[str]:
    if not report.devices:
        yield "  none seen"
        return
    rows = [
        (
            device.name,
            _memory_text(device),
            f"compute capability {device.compute_capability}",
            "not tried" if device.state is None else device.state.value,
        )
        for device in report.devices
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for device, row in zip(report.devices, rows, strict=True):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        yield f"  {f'cuda:{device.index}':<{_LABEL_WIDTH}}{'   '.join(cells)}".rstrip()


def _memory_text(device: CudaDeviceInfo) -> str:
    if device.free_bytes is None:
        return f"{size_text(device.total_bytes)}, free unknown"
    return f"{size_text(device.free_bytes)} free of {size_text(device.total_bytes)}"


def _check_text(ok: bool | None, detail: str) -> str:
    return f"FAILED: {detail}" if ok is False else detail


def _field(label: str, text: str, width: int) -> list[str]:
    """Lay out one labelled value, continued under itself when it is long."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=f"  {label:<{_LABEL_WIDTH}}",
        subsequent_indent=" " * (2 + _LABEL_WIDTH),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _text_width(stream: TextIO) -> int:
    if stream.isatty():
        return max(60, min(_PIPE_WIDTH, shutil.get_terminal_size().columns))
    return _PIPE_WIDTH


def _type_name(error: BaseException) -> str:
    cls = type(error)
    return cls.__name__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__name__}"
