"""The probe itself: import CuPy, count the GPUs, list them, try one."""

import contextvars
import importlib.util
import os
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from xbackprop.backend.fork import LockHolder, explain_loss, use
from xbackprop.backend.probe.checks import check_device
from xbackprop.backend.probe.driver import driver_cuda_version, free_memory
from xbackprop.backend.probe.errors import (
    VISIBLE_DEVICES,
    CudaState,
    Diagnosis,
    Facts,
    diagnose,
    diagnose_import,
    diagnose_wrong_module,
    install_command,
    no_device,
    one_line,
    version_text,
)
from xbackprop.backend.probe.packages import installed_cupy_packages
from xbackprop.backend.probe.report import CudaDeviceInfo, CudaReport, size_text

T = TypeVar("T")

_PROHIBITED = 2  # cudaComputeModeProhibited: no process may make a context


_reports: dict[tuple[int | None, str | None, int], CudaReport] = {}
_probing = LockHolder()


def probe_cuda(index: int | None = None) -> CudaReport:
    """Find out whether CUDA can be used.

    ``cupy.cuda.is_available()`` is no answer: it stays True without the CUDA libraries, and its
    False does not say why.

    Parameters
    ----------
    index : int, optional
        The GPU to try. None takes the one with most free memory, and the next one where that one
        is busy. Only GPUs that are tried are touched.

    Returns
    -------
    CudaReport
        Kept for the process; another ``CUDA_VISIBLE_DEVICES``, a fork or :func:`reset_probe` make
        a new one.
    """
    # A forked child inherits the report and not the right to use CUDA, hence the process id.
    key = (index, os.environ.get(VISIBLE_DEVICES), os.getpid())
    with _probing.lock:
        report = _reports.get(key)
        if report is None:
            report = _probe(index)
            if report.state is not CudaState.BUSY:  # that passes, so the next request asks again
                _reports[key] = report
        return report


def reset_probe() -> None:
    """Forget what was found out, for example after a driver was installed."""
    with _probing.lock:
        _reports.clear()


def _probe(index: int | None) -> CudaReport:
    loss = explain_loss("cuda")
    if loss is not None:
        return CudaReport(CudaState.OTHER, *loss)
    packages = installed_cupy_packages()
    facts = Facts(packages, driver_cuda_version())
    report, messages = _examine_quietly(index, facts)
    conflicts: tuple[str, ...] = ()
    if len(packages) > 1:
        names = ", ".join(f"{name} {version}" for name, version in packages.items())
        cure = install_command(facts)
        conflicts = (f"{names} overwrite each other's files; keep one: {cure}",)
    return replace(
        report,
        cupy_packages=packages,
        conflicts=conflicts,
        driver_version=version_text(facts.driver),
        warnings=tuple(dict.fromkeys(messages)),
    )


def _examine_quietly(index: int | None, facts: Facts) -> tuple[CudaReport, list[str]]:
    """Examine, and collect the warnings: they would stop programs that turn them into errors.

    CuPy warns of double installations and of libraries it cannot load, and that belongs into the
    report. The filters of warnings belong to all threads, so they are left alone without CuPy.
    """
    if "cupy" not in sys.modules and importlib.util.find_spec("cupy") is None:
        return _examine(index, facts), []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = _examine(index, facts)
    return report, [one_line(w.message) for w in caught if isinstance(w.message, Warning)]


def _examine(index: int | None, facts: Facts) -> CudaReport:
    try:
        import cupy
    except Exception as error:  # noqa: BLE001 - a broken package may raise anything
        return _failed(diagnose_import(error, facts), error)
    try:
        runtime, version = cupy.cuda.runtime, str(cupy.__version__)
        facts = replace(facts, runtime=runtime.runtimeGetVersion())
    except Exception as error:  # noqa: BLE001 - a file of that name, or what an uninstall left
        where = getattr(cupy, "__file__", None) or ", ".join(map(str, cupy.__path__))
        return _failed(diagnose_wrong_module(error, where, facts), error)
    if runtime.is_hip:
        reason = "this CuPy is built for AMD GPUs (ROCm); xbackprop needs one built for CUDA"
        report = CudaReport(CudaState.OTHER, reason, install_command(facts))
    else:
        report = _examine_devices(cupy, index, facts)
    return replace(report, cupy_version=version, runtime_version=version_text(facts.runtime))


def _examine_devices(cupy: Any, index: int | None, facts: Facts) -> CudaReport:
    try:
        count = cupy.cuda.runtime.getDeviceCount()
        if count:
            use("cuda")  # counting has started CUDA
        devices = _list_devices(cupy.cuda.runtime, count)
    except Exception as error:  # noqa: BLE001 - every failure is a state
        return _failed(diagnose(error, facts), error)
    if count == 0:
        return _failed(no_device(), None)
    if index is not None and index not in range(count):
        names = ", ".join(f"cuda:{n}" for n in range(count))
        visible = os.environ.get(VISIBLE_DEVICES)
        cause = "" if visible is None else f" with {VISIBLE_DEVICES}={visible!r}"
        reason = f"there is no cuda:{index}; this process sees {names}{cause}"
        fix = f"choose one of {names}"
        return CudaReport(CudaState.NO_DEVICE, reason, fix, devices=tuple(devices))
    return _try_devices(cupy, index, devices, facts)


def _list_devices(runtime: Any, count: int) -> list[CudaDeviceInfo]:
    """Describe the GPUs by means that make no context on them."""
    free: dict[str, int] = {}
    bus_ids: list[str] = []
    if count > 1:  # with one GPU there is nothing to choose
        bus_ids = [runtime.deviceGetPCIBusId(index) for index in range(count)]
        free = free_memory(bus_ids)
    devices = []
    for index in range(count):
        properties = runtime.getDeviceProperties(index)
        prohibited = properties["computeMode"] == _PROHIBITED
        devices.append(
            CudaDeviceInfo(
                index=index,
                name=properties["name"].decode(errors="replace"),
                compute_capability=f"{properties['major']}.{properties['minor']}",
                free_bytes=free.get(bus_ids[index]) if bus_ids else None,
                total_bytes=properties["totalGlobalMem"],
                state=CudaState.BUSY if prohibited else None,
                reason="its compute mode prohibits use" if prohibited else "not tried",
            )
        )
    return devices


def _try_devices(
    cupy: Any, index: int | None, devices: list[CudaDeviceInfo], facts: Facts
) -> CudaReport:
    """Check the GPU that was asked for, or one after the other by free memory."""
    if index is None:
        # Sorting is stable: without NVML, which knows the free memory, CUDA's own order decides
        # (fastest first).
        order = sorted(devices, key=lambda device: -(device.free_bytes or 0))
    else:
        order = [devices[index]]
    first_failure: CudaReport | None = None
    for device in order:
        report = _try_device(cupy, device, facts)
        devices[device.index] = report.devices[0]
        if report.state is CudaState.USABLE:
            reason = _why_chosen(report.devices[0], order)
            return replace(report, reason=reason, devices=tuple(devices))
        first_failure = first_failure or report
        if report.state not in (CudaState.BUSY, CudaState.OTHER):
            break  # missing libraries and an old driver are missing and old for every GPU
    assert first_failure is not None
    reason = first_failure.reason
    if len(devices) > 1:
        reason = f"cuda:{first_failure.device_index}: {reason}"
        if index is None:
            reason = f"none of {len(devices)} GPUs can be used; {reason}"
    return replace(first_failure, reason=reason, devices=tuple(devices))


def _try_device(cupy: Any, device: CudaDeviceInfo, facts: Facts) -> CudaReport:
    if device.state is CudaState.BUSY:
        fix = f"sudo nvidia-smi -i {device.index} -c DEFAULT"
        report = CudaReport(CudaState.BUSY, device.reason, fix)
        return replace(report, devices=(device,), device_index=device.index)
    checks, free_bytes, error = _in_own_thread(lambda: check_device(cupy, device.index))
    if error is None:
        report = CudaReport(CudaState.USABLE, "usable")
    else:
        report = _failed(diagnose(error, facts), error)
    if free_bytes is None:
        free_bytes = device.free_bytes
    device = replace(device, state=report.state, reason=report.reason, free_bytes=free_bytes)
    return replace(report, checks=checks, device_index=device.index, devices=(device,))


def _in_own_thread(function: Callable[[], T]) -> T:
    """Call ``function`` in a thread of its own, for the sake of CUDA's current device.

    The current device belongs to a thread, so the caller's stays what it is. To set and restore it
    in the caller's thread would not do: from CUDA 12 on, the ``cudaSetDevice`` that restores it
    makes a context on that GPU, though it may be one that shall not be touched.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            outcome.append(function())
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            failure.append(error)

    # In a copy of the context: free-threaded Python 3.14 keeps the warnings filter there.
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(work,), name="xbackprop-probe", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)  # in pieces: on Windows a join without timeout is deaf to Ctrl-C
    if failure:
        raise failure[0]
    return outcome[0]


def _why_chosen(device: CudaDeviceInfo, order: list[CudaDeviceInfo]) -> str:
    """Say in one line which GPU was chosen and why it, given the order of trial."""
    memory = f"{size_text(device.free_bytes)} free of {size_text(device.total_bytes)}"
    reason = f"cuda:{device.index} is {device.name}, {memory}"
    if len(order) == 1:
        return reason
    if order[0].free_bytes is not None:
        reason += f"; most free memory of {len(order)} GPUs"
    else:
        reason += f"; first of {len(order)} GPUs, whose free memory is unknown without NVML"
    passed_over = [f"cuda:{d.index}" for d in order[: [d.index for d in order].index(device.index)]]
    return f"{reason} after {', '.join(passed_over)}, unusable" if passed_over else reason


def _failed(diagnosis: Diagnosis, error: BaseException | None) -> CudaReport:
    return CudaReport(diagnosis.state, diagnosis.reason, diagnosis.fix, error)
