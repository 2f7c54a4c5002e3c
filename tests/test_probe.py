import ctypes
import importlib.metadata
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cupy_stand_in import (
    CompileException,
    CUBLASError,
    CUDADriverError,
    CUDARuntimeError,
    DynamicLibNotFoundError,
    Gpu,
    OutOfMemoryError,
    make_cupy,
)

from xbackprop.backend.probe import (
    CudaState,
    driver,
    installed_cupy_packages,
    probe_cuda,
    probing,
    reset_probe,
    size_text,
)

CUDA12 = {"cupy-cuda12x": "14.2.0"}
NVRTC = DynamicLibNotFoundError('Failure finding "libnvrtc.so.12": No such file: libnvrtc.so.12')
GIB = 2**30


@pytest.fixture(autouse=True)
def _fresh_probe(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep this machine's driver, CuPy and variables out, and leave no report behind."""
    modules = {name: module for name, module in sys.modules.items() if _is_cupy(name)}
    for name in modules:
        del sys.modules[name]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(driver, "_load", lambda name: None)
    reset_probe()
    yield
    reset_probe()
    for name in list(filter(_is_cupy, sys.modules)):
        del sys.modules[name]
    sys.modules.update(modules)


def _is_cupy(name: str) -> bool:
    return name.partition(".")[0] in ("cupy", "cupy_backends", "cupyx")


Install = Callable[..., Any]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install the stand-in for CuPy, with the driver and packages that go with it."""

    def install(
        *gpus: Gpu,
        packages: dict[str, str] = CUDA12,
        driver_version: int | None = 12090,
        free: dict[str, int] | None = None,
        **options: Any,
    ) -> Any:
        module = make_cupy(*gpus, **options)
        monkeypatch.setitem(sys.modules, "cupy", module)
        monkeypatch.setattr(probing, "installed_cupy_packages", lambda: dict(packages))
        monkeypatch.setattr(probing, "driver_cuda_version", lambda: driver_version)
        monkeypatch.setattr(probing, "free_memory", lambda bus_ids: free or {})
        return module

    return install


# What cudaGetDeviceCount may say: status, driver version, state, words of the reason, of the fix.
RUNTIME_ERRORS = [
    (35, None, CudaState.NO_DRIVER, "no NVIDIA driver", "install the NVIDIA driver"),
    (35, 0, CudaState.NO_DRIVER, "stub", "LD_LIBRARY_PATH"),
    (34, 12090, CudaState.NO_DRIVER, "stub", "LD_LIBRARY_PATH"),
    (35, 11040, CudaState.DRIVER_TOO_OLD, "to 11.4, this CuPy is built for CUDA 12.9", "update"),
    (36, 12000, CudaState.DRIVER_TOO_OLD, "lacks", "update the NVIDIA driver"),
    (222, 12000, CudaState.DRIVER_TOO_OLD, "older", "update the NVIDIA driver"),
    (35, 12090, CudaState.OTHER, "refuses the NVIDIA driver", "nvidia-smi"),
    (100, 12090, CudaState.NO_DEVICE, "finds no GPU", "nvidia-smi -L"),
    (101, 12090, CudaState.NO_DEVICE, "no GPU of that number", "nvidia-smi -L"),
    (46, 12090, CudaState.BUSY, "held by another process", "-c DEFAULT"),
    (2, 12090, CudaState.BUSY, "no memory left", "nvidia-smi"),
    (3, 12090, CudaState.OTHER, "forked", "spawn"),
    (209, 12090, CudaState.OTHER, "generation of GPU", "supports this GPU"),
    (802, 12090, CudaState.OTHER, "not ready", "nvidia-fabricmanager"),
    (803, 12090, CudaState.OTHER, "different versions", "restart"),
    (804, 12090, CudaState.OTHER, "forward-compatibility", "compat out of"),
    (999, 12090, CudaState.OTHER, "does not answer", "modprobe"),
    (719, 12090, CudaState.OTHER, "cudaError719", "original error"),
]


@pytest.mark.parametrize(("status", "driver_version", "state", "reason", "fix"), RUNTIME_ERRORS)
def test_a_status_of_the_runtime_becomes_a_state(
    install: Install,
    status: int,
    driver_version: int | None,
    state: CudaState,
    reason: str,
    fix: str,
) -> None:
    error = CUDARuntimeError(status)
    install(count=error, driver_version=driver_version)
    report = probe_cuda()
    assert report.state == state
    assert reason in report.reason
    assert fix in report.fix
    assert report.exception is error
    assert report.device_index is None
    assert "\n" not in report.reason + report.fix


# What may go wrong on a GPU that is there: step, exception, state, words of the reason.
FULL = OutOfMemoryError("Out of memory allocating 512 bytes")
WRONG = CompileException('k.cu(1): error: identifier "nope" is undefined')
CLASH = ImportError("undefined symbol: cublasLtMatmul, version libcublas.so.12")
# Texts of CuPy 14, of NVRTC 12.9 and of the loaders of Linux and Windows.
CUBLAS = ImportError("libcublas.so.12: cannot open shared object file: No such file or directory")
NVVM = DynamicLibNotFoundError('Failure finding "libnvvm.so.4"')
WINDOWS = ImportError("DLL load failed while importing nvrtc: The specified module ...")
BUILTINS = CompileException("nvrtc: error: failed to open libnvrtc-builtins.so.12.9.\n  Make sure")
HEADER = CompileException('k.cu(1): error: could not open source file "cuda_fp16.h" (no dir')
HEADERS = RuntimeError("Failed to find CUDA headers. Please install CUDA toolkit headers")
DEVICE_ERRORS = [
    ("context", CUDARuntimeError(46), CudaState.BUSY, "held by another process"),
    ("context", CUDADriverError(2), CudaState.BUSY, "no memory left"),
    ("allocation", FULL, CudaState.BUSY, "no memory left"),
    ("product", CUBLASError(3), CudaState.BUSY, "cuBLAS got no memory"),
    ("product", CUBLASError(2), CudaState.OTHER, "CUBLASError"),
    ("kernel", WRONG, CudaState.OTHER, "is undefined"),
    ("product", CLASH, CudaState.OTHER, "undefined symbol"),
    ("kernel", NVRTC, CudaState.LIBRARIES_MISSING, "library libnvrtc is missing"),
    ("kernel", WINDOWS, CudaState.LIBRARIES_MISSING, "library nvrtc is missing"),
    ("kernel", BUILTINS, CudaState.LIBRARIES_MISSING, "library libnvrtc-builtins is missing"),
    ("kernel", HEADER, CudaState.LIBRARIES_MISSING, "header cuda_fp16.h is missing"),
    ("kernel", HEADERS, CudaState.LIBRARIES_MISSING, "headers are missing"),
    ("kernel", NVVM, CudaState.LIBRARIES_MISSING, "a CUDA library is missing"),
    ("product", CUBLAS, CudaState.LIBRARIES_MISSING, "library libcublas is missing"),
]
FIXES = {
    CudaState.BUSY: "nvidia-smi",
    CudaState.OTHER: "original error",
    CudaState.LIBRARIES_MISSING: 'pip install "xbackprop[cuda12]"',
}
OUTCOMES = {
    "context": (False, None, None),
    "allocation": (False, None, None),
    "kernel": (True, False, True),
    "product": (True, True, False),
}


@pytest.mark.parametrize(("step", "error", "state", "reason"), DEVICE_ERRORS)
def test_an_error_on_the_gpu_becomes_a_state(
    install: Install, step: str, error: Exception, state: CudaState, reason: str
) -> None:
    install(Gpu(**{step: error}))
    report = probe_cuda()
    assert report.state == state
    assert reason in report.reason
    assert FIXES[state] in report.fix
    assert report.exception is error
    assert report.device_index == 0
    assert report.devices[0].state == state
    assert [check.name for check in report.checks] == ["allocation", "kernel", "product"]
    assert tuple(check.ok for check in report.checks) == OUTCOMES[step]
    assert all("\n" not in check.detail for check in report.checks)


def test_a_usable_device(install: Install) -> None:
    install(Gpu("Example GPU", total=80 * GIB, free=70 * GIB))
    report = probe_cuda()
    assert report.state is CudaState.USABLE
    assert report.reason == "cuda:0 is Example GPU, 70.0 GiB free of 80.0 GiB"
    assert (report.fix, report.exception, report.conflicts, report.warnings) == ("", None, (), ())
    assert report.device_index == 0
    assert [check.ok for check in report.checks] == [True, True, True]
    assert report.cupy_version == "14.2.0"
    assert report.driver_version == report.runtime_version == "12.9"
    (device,) = report.devices
    assert device.compute_capability == "9.0"
    assert (device.free_bytes, device.total_bytes) == (70 * GIB, 80 * GIB)


@pytest.mark.parametrize("step", ["kernel", "product"])
def test_a_wrong_result_is_not_usable(
    install: Install, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    cupy = install(Gpu(kernel=(lambda x: x) if step == "kernel" else None))
    if step == "product":
        monkeypatch.setattr(cupy, "dot", lambda left, right: left)
    report = probe_cuda()
    assert report.state is CudaState.OTHER
    assert "instead of" in report.reason
    assert {check.name: check.ok for check in report.checks}[step] is False


def test_a_failing_memory_query_does_not_hide_the_error(install: Install) -> None:
    error = CUDARuntimeError(719)
    install(Gpu(kernel=error, memory_info=error))
    report = probe_cuda()
    assert report.exception is error
    assert report.devices[0].free_bytes is None


def test_the_first_error_is_the_one_that_is_reported(install: Install) -> None:
    install(Gpu(kernel=NVRTC, product=CUDARuntimeError(719)))
    report = probe_cuda()
    assert report.exception is NVRTC
    assert [check.ok for check in report.checks] == [True, False, False]


def test_memory_is_not_asked_for_on_a_gpu_that_was_not_entered(install: Install) -> None:
    # The thread is still on device 0 then: the question would make a context there.
    install(Gpu(context=CUDARuntimeError(46)))
    assert probe_cuda().devices[0].free_bytes is None


def test_a_cause_further_up_the_chain_is_found(install: Install) -> None:
    error = RuntimeError("the kernel could not be built")
    error.__cause__ = NVRTC
    install(Gpu(kernel=error))
    report = probe_cuda()
    assert report.state is CudaState.LIBRARIES_MISSING
    assert report.exception is error


# --- CuPy absent, broken, or twice


def test_cupy_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(probing, "installed_cupy_packages", dict)
    monkeypatch.setattr(probing, "driver_cuda_version", lambda: 12040)
    monkeypatch.setattr(sys, "platform", "linux")
    report = probe_cuda()
    assert report.state is CudaState.NOT_INSTALLED
    assert report.reason == "CuPy is not installed"
    assert report.fix == 'pip install "xbackprop[cuda12]"'
    assert isinstance(report.exception, ModuleNotFoundError)
    assert report.driver_version == "12.4"


@pytest.mark.parametrize(
    ("system", "driver_version", "reason", "fix"),
    [
        ("linux", 13000, "not installed", 'pip install "xbackprop[cuda13]"'),
        ("linux", None, "no NVIDIA driver either", "with an NVIDIA GPU and its driver: pip"),
        ("darwin", None, "no CUDA on macOS", "XBACKPROP_DEVICE=cpu"),
    ],
)
def test_what_is_advised_without_cupy(
    monkeypatch: pytest.MonkeyPatch,
    system: str,
    driver_version: int | None,
    reason: str,
    fix: str,
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(probing, "installed_cupy_packages", dict)
    monkeypatch.setattr(probing, "driver_cuda_version", lambda: driver_version)
    monkeypatch.setattr(sys, "platform", system)
    report = probe_cuda()
    assert report.state is CudaState.NOT_INSTALLED
    assert reason in report.reason
    assert fix in report.fix


def test_a_package_whose_files_are_gone_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(probing, "installed_cupy_packages", lambda: CUDA12)
    report = probe_cuda()
    assert report.state is CudaState.BROKEN
    assert "cupy-cuda12x is listed as installed, but its files are missing" in report.reason
    assert report.fix == "pip install --upgrade --force-reinstall cupy-cuda12x"


BANNER = """
try:
    raise ImportError("GLIBC_2.99 not found")
except ImportError as error:
    raise ImportError("=======\\nFailed to import CuPy\\n=======") from error
"""
BROKEN_IMPORTS = [
    ("raise ValueError('numpy.dtype size changed')", ValueError, "numpy.dtype size changed"),
    ("import sys; sys.nothing", AttributeError, "AttributeError: module 'sys' has no"),
    ("import cupy._core", ModuleNotFoundError, "No module named 'cupy._core'"),
    (BANNER, ImportError, "ImportError: GLIBC_2.99 not found"),
]


@pytest.mark.parametrize(("source", "error_type", "reason"), BROKEN_IMPORTS)
def test_an_import_that_raises(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    source: str,
    error_type: type,
    reason: str,
) -> None:
    _write_package(tmp_path, source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(probing, "installed_cupy_packages", lambda: CUDA12)
    report = probe_cuda()
    assert report.state is CudaState.BROKEN
    assert reason in report.reason
    assert type(report.exception) is error_type
    assert report.fix == "pip install --upgrade --force-reinstall cupy-cuda12x"


def test_an_import_that_lacks_a_cuda_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _write_package(tmp_path, f"raise ImportError({str(CUBLAS)!r})")  # CuPy 13 and older
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(probing, "installed_cupy_packages", lambda: CUDA12)
    report = probe_cuda()
    assert report.state is CudaState.LIBRARIES_MISSING
    assert "library libcublas is missing" in report.reason
    assert str(report.exception) == str(CUBLAS)
    assert report.fix == 'pip install "xbackprop[cuda12]"'


def test_something_else_called_cupy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _write_package(tmp_path, "")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(probing, "installed_cupy_packages", dict)
    report = probe_cuda()
    where = str(tmp_path / "cupy" / "__init__.py")
    assert report.state is CudaState.BROKEN
    assert where in report.reason
    assert report.fix == f"rename or remove {where}"
    assert isinstance(report.exception, AttributeError)


def test_the_empty_folder_an_uninstall_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cupy").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    report = probe_cuda()
    assert report.state is CudaState.BROKEN
    assert report.fix == f"rename or remove {tmp_path / 'cupy'}"


def _write_package(folder: Path, source: str) -> None:
    (folder / "cupy").mkdir()
    (folder / "cupy" / "__init__.py").write_text(source, encoding="utf-8")


def test_two_packages_are_a_conflict(install: Install) -> None:
    install(Gpu(), packages={"cupy-cuda11x": "13.6.0", "cupy-cuda12x": "14.2.0"})
    report = probe_cuda()
    assert report.state is CudaState.USABLE
    (conflict,) = report.conflicts
    assert "cupy-cuda11x 13.6.0, cupy-cuda12x 14.2.0 overwrite each other's files" in conflict
    assert conflict.endswith(
        'pip uninstall -y cupy-cuda11x cupy-cuda12x && pip install "xbackprop[cuda12]"'
    )


@pytest.mark.parametrize(
    ("packages", "driver_version", "fix"),
    [
        ({"cupy-cuda12x": "14"}, 13000, 'pip install "xbackprop[cuda12]"'),
        ({"cupy-cuda13x": "14"}, 13000, 'pip install "xbackprop[cuda13]"'),
        ({"cupy": "14"}, 13000, 'pip uninstall -y cupy && pip install "xbackprop[cuda13]"'),
        (
            {"cupy-cuda11x": "13"},
            12040,
            'pip uninstall -y cupy-cuda11x && pip install "xbackprop[cuda12]"',
        ),
    ],
)
def test_the_extra_that_is_advised_fits_package_and_driver(
    install: Install, packages: dict[str, str], driver_version: int, fix: str
) -> None:
    install(Gpu(kernel=NVRTC), packages=packages, driver_version=driver_version)
    assert probe_cuda().fix == fix


def test_a_driver_for_cuda_12_under_a_cupy_for_13_is_helped_without_a_new_driver(
    install: Install,
) -> None:
    packages = {"cupy-cuda13x": "14.2.0"}
    error = CUDARuntimeError(35)
    install(count=error, packages=packages, driver_version=12040, runtime_version=13000)
    report = probe_cuda()
    assert report.state is CudaState.DRIVER_TOO_OLD
    assert report.fix == 'pip uninstall -y cupy-cuda13x && pip install "xbackprop[cuda12]"'


def test_rocm_is_named(install: Install) -> None:
    install(Gpu(), packages={"cupy-rocm-5-0": "13"}, is_hip=True)
    report = probe_cuda()
    assert report.state is CudaState.OTHER
    assert "ROCm" in report.reason
    assert report.fix.startswith("pip uninstall -y cupy-rocm-5-0 && ")


def test_installed_packages_are_found_by_their_metadata(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert importlib.metadata  # imported while sys.path is whole
    for name, version in [
        ("cupy-cuda12x", "14.2.0"),
        ("cupy_rocm_5_0", "13.0"),
        ("cupy-cuda14x", "15.0"),
        ("cupy-xarray", "0.1"),
        ("fakecupy", "9"),
    ]:
        info = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8"
        )
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "absent"), str(tmp_path)])
    assert installed_cupy_packages() == {
        "cupy-cuda12x": "14.2.0",
        "cupy-cuda14x": "15.0",
        "cupy-rocm-5-0": "13.0",
    }


def test_warnings_stay_in_the_report(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = install(Gpu())

    def warn_and_list(index: int) -> Any:  # in the caller's thread
        warnings.warn("multiple CuPy packages\n  are installed", UserWarning, stacklevel=1)
        return properties(index)

    def warn_and_multiply(left: Any, right: Any) -> Any:  # in the probe's thread
        warnings.warn("slow product", RuntimeWarning, stacklevel=1)
        return dot(left, right)

    properties, dot = cupy.cuda.runtime.getDeviceProperties, cupy.dot
    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceProperties", warn_and_list)
    monkeypatch.setattr(cupy, "dot", warn_and_multiply)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = probe_cuda()
    assert report.state is CudaState.USABLE
    assert report.warnings == (
        "UserWarning: multiple CuPy packages are installed",
        "RuntimeWarning: slow product",
    )


# --- which GPU


def test_the_gpu_with_most_free_memory_is_taken_and_no_other_touched(install: Install) -> None:
    free = {"0000:01:00.0": 10 * GIB, "0000:02:00.0": 60 * GIB, "0000:03:00.0": 30 * GIB}
    cupy = install(Gpu(), Gpu("Big", free=59 * GIB), Gpu(), free=free)
    report = probe_cuda()
    assert report.device_index == 1
    assert report.reason == ("cuda:1 is Big, 59.0 GiB free of 80.0 GiB; most free memory of 3 GPUs")
    assert cupy.journal.contexts == [1]
    assert [device.state for device in report.devices] == [None, CudaState.USABLE, None]
    assert [device.free_bytes for device in report.devices] == [10 * GIB, 59 * GIB, 30 * GIB]


def test_two_gpus_are_enough_to_choose(install: Install) -> None:
    install(Gpu(), Gpu(), free={"0000:01:00.0": 10 * GIB, "0000:02:00.0": 60 * GIB})
    assert probe_cuda().device_index == 1


def test_without_nvml_cudas_own_order_decides(install: Install) -> None:
    cupy = install(Gpu(), Gpu())
    report = probe_cuda()
    assert report.device_index == 0
    assert "first of 2 GPUs" in report.reason
    assert "NVML" in report.reason
    assert cupy.journal.contexts == [0]
    assert [device.free_bytes for device in report.devices] == [70 * GIB, None]


def test_nvml_is_not_asked_about_a_single_gpu(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(Gpu())
    monkeypatch.setattr(probing, "free_memory", lambda bus_ids: pytest.fail("asked"))
    assert probe_cuda().state is CudaState.USABLE


@pytest.mark.parametrize(
    "busy",
    [
        Gpu(context=CUDARuntimeError(46)),
        Gpu(allocation=OutOfMemoryError("full")),
        Gpu(compute_mode=2),
        Gpu(kernel=CUDARuntimeError(209)),
    ],
    ids=["exclusive", "full", "prohibited", "unsupported"],
)
def test_an_unusable_gpu_is_passed_over(install: Install, busy: Gpu) -> None:
    install(busy, Gpu())
    report = probe_cuda()
    assert (report.state, report.device_index) == (CudaState.USABLE, 1)
    assert "after cuda:0, unusable" in report.reason
    assert report.devices[0].state not in (None, CudaState.USABLE)


def test_a_prohibited_gpu_is_never_touched(install: Install) -> None:
    cupy = install(Gpu(compute_mode=2))
    report = probe_cuda()
    assert report.state is CudaState.BUSY
    assert "compute mode" in report.reason
    assert report.fix == "sudo nvidia-smi -i 0 -c DEFAULT"
    assert cupy.journal.contexts == []


def test_missing_libraries_are_not_looked_for_on_every_gpu(install: Install) -> None:
    cupy = install(Gpu(kernel=NVRTC), Gpu(kernel=NVRTC))
    report = probe_cuda()
    assert report.state is CudaState.LIBRARIES_MISSING
    assert cupy.journal.contexts == [0]


def test_all_gpus_busy(install: Install) -> None:
    install(Gpu(context=CUDARuntimeError(46)), Gpu(allocation=OutOfMemoryError("full")))
    report = probe_cuda()
    assert report.state is CudaState.BUSY
    assert report.reason.startswith("none of 2 GPUs can be used; cuda:0: the GPU is held")
    assert [device.state for device in report.devices] == [CudaState.BUSY, CudaState.BUSY]


def test_an_explicit_gpu_is_never_replaced(install: Install) -> None:
    cupy = install(Gpu(), Gpu(context=CUDARuntimeError(46)))
    report = probe_cuda(1)
    assert (report.state, report.device_index) == (CudaState.BUSY, 1)
    assert report.reason.startswith("cuda:1: ")
    assert cupy.journal.contexts == [1]
    assert probe_cuda(0).device_index == 0


@pytest.mark.parametrize("visible", [None, "4,7"])
def test_a_number_beyond_the_gpus_lists_the_valid_ones(
    install: Install, monkeypatch: pytest.MonkeyPatch, visible: str | None
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    cupy = install(Gpu(), Gpu())
    report = probe_cuda(2)
    assert report.state is CudaState.NO_DEVICE
    assert "no cuda:2; this process sees cuda:0, cuda:1" in report.reason
    assert ("CUDA_VISIBLE_DEVICES='4,7'" in report.reason) is (visible is not None)
    assert report.fix == "choose one of cuda:0, cuda:1"
    assert len(report.devices) == 2
    assert cupy.journal.contexts == []


@pytest.mark.parametrize("visible", ["", "-1", "9"])
@pytest.mark.parametrize("count", [CUDARuntimeError(100), None], ids=["error", "zero"])
def test_the_variable_that_hides_every_gpu_is_named(
    install: Install, monkeypatch: pytest.MonkeyPatch, visible: str, count: BaseException | None
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(sys, "platform", "linux")
    install(count=count)
    report = probe_cuda()
    assert report.state is CudaState.NO_DEVICE
    assert f"CUDA_VISIBLE_DEVICES={visible!r} leaves no GPU visible" in report.reason
    assert report.fix == "unset CUDA_VISIBLE_DEVICES"


def test_the_callers_current_device_is_left_alone(install: Install) -> None:
    cupy = install(Gpu(), Gpu(), Gpu())
    cupy.cuda.runtime.setDevice(2)
    cupy.journal.contexts.clear()
    probe_cuda(1)
    assert cupy.cuda.runtime.getDevice() == 2
    assert cupy.journal.contexts == [1]


# --- once per process


def test_a_report_is_kept_per_index_and_variable(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(Gpu(), Gpu())
    first = probe_cuda()
    assert probe_cuda() is first
    assert probe_cuda(0) is not first
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert probe_cuda() is not first
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert probe_cuda() is first
    reset_probe()
    assert probe_cuda() is not first


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_asks_again(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(Gpu())
    first = probe_cuda()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert probe_cuda() is not first


def test_a_busy_gpu_is_asked_again(install: Install) -> None:
    gpu = Gpu(context=CUDARuntimeError(46))
    install(gpu)
    assert probe_cuda().state is CudaState.BUSY
    gpu.context = None
    assert probe_cuda().state is CudaState.USABLE


def test_threads_share_one_probe(install: Install) -> None:
    calls = []
    cupy = install(Gpu(kernel=lambda x: (calls.append(1), 2 * x + 1)[1]))
    threads = [threading.Thread(target=probe_cuda) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert cupy.journal.threads == {"xbackprop-probe"}


@pytest.mark.parametrize("where", ["import", "count", "kernel"])
def test_ctrl_c_passes_through_and_is_not_kept(
    install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    if where == "count":
        install(Gpu(), count=KeyboardInterrupt())
    elif where == "kernel":
        install(Gpu(kernel=KeyboardInterrupt()))
    else:
        _write_package(tmp_path, "raise KeyboardInterrupt")
        monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        probe_cuda()
    install(Gpu())
    assert probe_cuda().state is CudaState.USABLE


def test_importing_the_probe_imports_no_cupy() -> None:
    code = (
        "import sys, xbackprop.backend.probe\n"
        "heavy = {'cupy', 'cuda', 'importlib.metadata'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- the driver asked directly


class Library:
    """A driver or NVML library in Python; ctypes' byref gives the object in `_obj`."""

    def __init__(self, version: int = 12040, status: int = 0) -> None:
        self.version, self.status, self.shut_down = version, status, False

    def cuDriverGetVersion(self, pointer: Any) -> int:
        pointer._obj.value = self.version
        return self.status

    def nvmlInit_v2(self) -> int:
        return self.status

    def nvmlShutdown(self) -> int:
        self.shut_down = True
        return 0

    def nvmlDeviceGetHandleByPciBusId_v2(self, address: ctypes.c_char_p, handle: Any) -> int:
        handle._obj.value = {b"0000:01:00.0": 11, b"0000:02:00.0": 22}.get(address.value, 0)
        return 0 if handle._obj.value else 6

    def nvmlDeviceGetMemoryInfo(self, handle: ctypes.c_void_p, memory: Any) -> int:
        memory._obj.total, memory._obj.free = 100, handle.value
        return 0 if handle.value != 22 else 3


@pytest.mark.parametrize(
    ("library", "version"),
    [(Library(), 12040), (Library(status=34), 0), (object(), 0), (None, None)],
    ids=["answers", "stub", "another library", "absent"],
)
def test_the_version_of_the_driver(
    monkeypatch: pytest.MonkeyPatch, library: Any, version: int | None
) -> None:
    monkeypatch.setattr(driver, "_load", lambda name: library)
    assert driver.driver_cuda_version() == version


def test_free_memory_by_pci_address(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(driver, "_load", lambda name: library)
    addresses = ["0000:01:00.0", "0000:02:00.0", "0000:07:00.0"]
    assert driver.free_memory(addresses) == {"0000:01:00.0": 11}
    assert library.shut_down


@pytest.mark.parametrize("library", [None, Library(status=9), object()])
def test_free_memory_is_unknown_without_nvml(monkeypatch: pytest.MonkeyPatch, library: Any) -> None:
    monkeypatch.setattr(driver, "_load", lambda name: library)
    assert driver.free_memory(["0000:01:00.0"]) == {}


def test_sizes_are_for_people() -> None:
    texts = [size_text(size) for size in (None, 300 * 2**20, 80 * GIB)]
    assert texts == ["unknown", "300 MiB", "80.0 GiB"]
