"""The probe and a real CuPy on a machine without a GPU, with and without a stand-in driver."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from xbackprop.backend.probe import CudaState
from xbackprop.backend.probe.driver import driver_cuda_version
from xbackprop.backend.probe.errors import Facts, diagnose

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("cupy") is None,
    reason="CuPy is not installed here; nox -s gpu_less_cupy installs it",
)

PROBE = """
import json, sys
from xbackprop.backend.probe import probe_cuda
report = probe_cuda()
error = report.exception
json.dump({
    "state": report.state, "reason": report.reason, "fix": report.fix,
    "error": type(error).__name__, "status": getattr(error, "status", None),
    "driver_version": report.driver_version, "runtime_version": report.runtime_version,
    "packages": dict(report.cupy_packages), "devices": len(report.devices),
}, sys.stdout)
"""


@pytest.fixture(scope="module")
def stub_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the stand-in for the driver."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("the stand-in driver needs Linux and a C compiler (cc, gcc or clang)")
    folder = tmp_path_factory.mktemp("driver")
    source = Path(__file__).with_name("driver_stub.c")
    library = folder / "libcuda.so.1"
    # Warnings are errors here too.
    flags = ["-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, "-o", str(library), str(source)], check=True)
    shutil.copy(library, folder / "libnvidia-ml.so.1")
    return folder


def run_python(code: str, folder: Path | None = None, **variables: str) -> Any:
    """Run code in a fresh process, with the stand-in driver first when a folder is given."""
    environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"} | variables
    if folder is not None:
        paths = [str(folder), environment.get("LD_LIBRARY_PATH", "")]
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, paths))
    # -W error: nothing that CuPy warns of may escape.
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return json.loads(result.stdout)


def test_no_driver() -> None:
    if driver_cuda_version() is not None:
        pytest.skip("this machine has an NVIDIA driver")
    found = run_python(PROBE)
    assert found["state"] == CudaState.NO_DRIVER
    assert "no NVIDIA driver" in found["reason"]
    assert "install the NVIDIA driver" in found["fix"]
    assert (found["error"], found["status"]) == ("CUDARuntimeError", 35)
    assert found["driver_version"] is None
    assert found["runtime_version"] is not None
    assert len(found["packages"]) == 1


@pytest.mark.parametrize(
    ("variables", "state", "status", "reason"),
    [
        ({"STUB_DRIVER_VERSION": "11040"}, CudaState.DRIVER_TOO_OLD, 35, "up to 11.4"),
        ({"STUB_INIT_STATUS": "36"}, CudaState.DRIVER_TOO_OLD, 36, "lacks a function"),
        ({"STUB_INIT_STATUS": "100"}, CudaState.NO_DEVICE, 100, "finds no GPU"),
        ({"CUDA_VISIBLE_DEVICES": ""}, CudaState.NO_DEVICE, 100, "CUDA_VISIBLE_DEVICES=''"),
        ({"STUB_INIT_STATUS": "46"}, CudaState.BUSY, 46, "held by another process"),
        ({"STUB_INIT_STATUS": "2"}, CudaState.BUSY, 2, "no memory left"),
        ({"STUB_INIT_STATUS": "34"}, CudaState.NO_DRIVER, 34, "stub"),
        ({"STUB_INIT_STATUS": "803"}, CudaState.OTHER, 803, "different versions"),
        ({"STUB_INIT_STATUS": "804"}, CudaState.OTHER, 804, "forward-compatibility"),
        ({"STUB_INIT_STATUS": "999"}, CudaState.OTHER, 999, "does not answer"),
    ],
)
def test_what_the_driver_answers(
    stub_folder: Path, variables: dict[str, str], state: CudaState, status: int, reason: str
) -> None:
    found = run_python(PROBE, stub_folder, **variables)
    assert found["state"] == state
    assert reason in found["reason"]
    assert found["fix"] != ""
    assert (found["error"], found["status"]) == ("CUDARuntimeError", status)
    assert found["driver_version"] == ("11.4" if "STUB_DRIVER_VERSION" in variables else "12.9")
    assert found["devices"] == 0


def test_a_state_is_not_hidden_as_it_is_by_is_available(stub_folder: Path) -> None:
    code = "import cupy, json; print(json.dumps(cupy.cuda.is_available()))"
    assert run_python(code, stub_folder, STUB_INIT_STATUS="46") is False


def test_free_memory_by_nvml(stub_folder: Path) -> None:
    code = """
import json
from xbackprop.backend.probe.driver import free_memory
print(json.dumps(free_memory(["0000:02:00.0", "0000:01:00.0", "0000:09:00.0"])))
"""
    found = run_python(code, stub_folder, STUB_FREE_BYTES="1000,80000000000")
    assert found == {"0000:01:00.0": 1000, "0000:02:00.0": 80_000_000_000}


@pytest.mark.parametrize(
    ("module", "call", "library"),
    [("nvrtc", "getVersion", "libnvrtc"), ("cublas", "getVersion", "libcublas")],
)
def test_what_cupy_raises_without_a_cuda_library(module: str, call: str, library: str) -> None:
    """Without a device CuPy gets this far only when its library wrappers are called directly."""
    try:
        wrapper = importlib.import_module(f"cupy_backends.cuda.libs.{module}")
        getattr(wrapper, call)(*([0] if module == "cublas" else []))
    except Exception as error:  # noqa: BLE001 - which one is raised is the question
        found = diagnose(error, Facts({"cupy-cuda12x": "14"}, 12090, 12090))
        assert found.state is CudaState.LIBRARIES_MISSING
        assert f"{library} is missing" in found.reason
        assert found.fix == 'pip install "xbackprop[cuda12]"'
    else:
        pytest.skip(f"{library} is installed here")


def test_auto_falls_back_to_the_cpu_and_cuda_is_refused(stub_folder: Path) -> None:
    code = """
import json, logging
logging.getLogger("xbackprop").addHandler(logging.NullHandler())
import xbackprop as xb
got = str(xb.default_device())
try:
    xb.set_device("cuda")
except xb.DeviceUnavailableError as error:
    print(json.dumps([got, str(error), type(error.__cause__).__name__]))
"""
    environment = {"STUB_INIT_STATUS": "46", "XBACKPROP_DEVICE": "auto"}
    device, message, cause = run_python(code, stub_folder, **environment)
    assert device == "cpu"
    assert "busy: the GPU is held by another process" in message
    assert "nvidia-smi" in message
    assert cause == "CUDARuntimeError"
