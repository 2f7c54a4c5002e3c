"""Which device is used: the grammar, the precedence, the story of the choice, the fallbacks."""

import asyncio
import copy
import logging
import os
import pickle
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.backend import device as devices
from xbackprop.backend import probe
from xbackprop.backend.device import Device, parse_device, resolve_device
from xbackprop.backend.fake import FakeArray, xp
from xbackprop.backend.probe import CudaReport, CudaState

VARIABLE = "XBACKPROP_DEVICE"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin as a new process does, without any choice and any GPU."""
    monkeypatch.setattr(devices, "_process_choice", None)
    monkeypatch.setattr(devices, "_variable_seen", None)
    monkeypatch.delenv(VARIABLE, raising=False)
    report_cuda(monkeypatch, CudaReport(CudaState.NOT_INSTALLED, "CuPy is not installed", "pip"))


def report_cuda(monkeypatch: pytest.MonkeyPatch, report: CudaReport) -> list[int | None]:
    """Let the probe find this; return what it is asked for."""
    asked: list[int | None] = []

    def probe_cuda(index: int | None = None) -> CudaReport:
        asked.append(index)
        return report

    monkeypatch.setattr(probe, "probe_cuda", probe_cuda)
    return asked


@pytest.fixture
def current_gpu(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Stand in for the part of CuPy that makes a GPU current."""
    current: list[int] = []
    runtime = types.SimpleNamespace(setDevice=current.append)
    cupy = types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return current


def usable(index: int) -> CudaReport:
    return CudaReport(CudaState.USABLE, f"cuda:{index} has most free memory", device_index=index)


# --- Grammar.


@pytest.mark.parametrize(
    ("name", "device"),
    [("cpu", Device("cpu")), ("fake", Device("fake", 0)), ("fake:3", Device("fake", 3)),
     ("cuda", Device("cuda", -1)), ("cuda:0", Device("cuda", 0)), ("cuda:12", Device("cuda", 12)),
     (" FAKE:1 ", Device("fake", 1)), ("Auto", None), (Device("fake", 2), Device("fake", 2))],
)  # fmt: skip
def test_names_of_the_grammar(name: Any, device: Device | None) -> None:
    assert parse_device(name) == device


BAD_NAMES = ["", "gpu", "cpu:0", "cuda:", "cuda:-1", "cuda:x", "cuda:1.0", "cuda: 1", "fake:8",
             "fake:", "fake:٣", "fake:²", "auto:1", "cuda,fake", "mps", "fake:0:1", "none", None, 3,
             b"cpu", 1.5, "cuda:" + "9" * 5000, "fake:" + "9" * 5000]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: str(name)[:12])
def test_other_names_are_errors_that_list_the_valid_ones(
    name: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in (parse_device, resolve_device, lambda n: xb.use_device(n).__enter__()):
        if name is None and call is resolve_device:
            continue  # None is the default device there
        with pytest.raises(xb.DeviceError) as caught:
            call(name)
        for valid in ("auto", "cpu", "cuda", "cuda:N", "fake", "fake:N", "fake:7"):
            assert valid in str(caught.value)
    if isinstance(name, str) and name:
        monkeypatch.setenv(VARIABLE, name)
        with pytest.raises(xb.DeviceError, match=f"auto, cpu.*asked for by {VARIABLE}"):
            xb.default_device()
        with pytest.raises(xb.DeviceError, match=r"asked for by set_device\(\)"):
            xb.set_device(name)


@pytest.mark.parametrize(
    "arguments", [("tpu",), ("cpu", 1), ("fake", 8), ("fake", -1), ("cuda", -2)]
)
def test_there_are_no_other_devices(arguments: Any) -> None:
    with pytest.raises(xb.DeviceError, match="auto, cpu, cuda"):
        Device(*arguments)


def test_a_device_has_a_name_and_a_module() -> None:
    assert [str(Device("cpu")), str(Device("fake", 1)), str(Device("cuda", 2))] == [
        "cpu", "fake:1", "cuda:2"]  # fmt: skip
    assert Device("cpu").xp is np
    assert Device("fake", 1).xp is xp
    assert len({Device("fake"), Device("fake", 0), Device("fake", 1)}) == 2
    for device in (Device("cpu"), Device("fake", 1)):
        assert device.xp is not None  # from now on the device holds a module
        assert copy.deepcopy(device) == pickle.loads(pickle.dumps(device)) == device
    with pytest.raises(AttributeError):
        Device("cpu").kind = "fake"  # type: ignore[misc]


# --- Precedence.


def test_argument_above_use_above_set_above_variable_above_auto(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def asked() -> tuple[str, str]:
        choice = xb.explain_default_device()
        assert choice.device == xb.default_device()
        assert choice.reason
        return choice.asked, choice.asked_by

    assert asked() == ("auto", "default")
    assert str(xb.default_device()) == "cpu"
    monkeypatch.setenv(VARIABLE, "fake:1")
    xb.set_device(None)
    assert asked() == ("fake:1", VARIABLE)
    assert str(xb.set_device("fake:2")) == "fake:2"
    assert asked() == ("fake:2", "set_device()")
    with xb.use_device("fake:3") as device:
        assert str(device) == "fake:3"
        assert asked() == ("fake:3", "use_device()")
        with xb.use_device(Device("fake", 4)):
            assert asked() == ("fake:4", "use_device()")
            assert str(xb.asarray([1.0], device="fake:5").device) == "fake:5"
            assert str(resolve_device("fake:5")) == "fake:5"
            assert str(xb.asarray([1.0]).device) == "fake:4"
        assert asked()[0] == "fake:3"
    assert str(xb.asarray([1.0]).device) == "fake:2"
    assert str(xb.set_device(None)) == "fake:1"
    with xb.use_device("cpu"):
        assert type(xb.asarray([1.0])) is np.ndarray


def test_use_device_ends_with_an_error_too() -> None:
    with pytest.raises(ZeroDivisionError), xb.use_device("fake:1"):
        raise ZeroDivisionError
    assert str(xb.default_device()) == "cpu"
    assert str(xp.zeros(1).device) == "fake:0"


def test_a_refused_set_device_changes_nothing() -> None:
    xb.set_device("fake:1")
    for name in ("nothing", "cuda"):
        with pytest.raises((xb.DeviceError, xb.DeviceUnavailableError)):
            xb.set_device(name)
    assert str(xb.default_device()) == "fake:1"


@pytest.mark.parametrize("how", ["variable", "set_device"])
def test_code_without_a_with_block_computes_on_the_device_of_the_process(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "variable":
        monkeypatch.setenv(VARIABLE, "fake:1")
    else:
        xb.set_device("fake:1")
    x = xb.asarray([1.0, 2.0])
    results = [x + 1, xb.get_array_module(x).zeros(2) + x, x.sum()]
    assert {str(result.device) for result in results} == {"fake:1"}
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(x * 2))
    thread.start()
    thread.join()
    assert type(seen[0]) is FakeArray


def test_use_device_is_local_to_a_thread() -> None:
    inside, done = threading.Barrier(3, timeout=20), threading.Barrier(3, timeout=20)
    seen: dict[int, str] = {}

    def run(index: int) -> None:
        with xb.use_device(f"fake:{index}"):
            inside.wait()
            seen[index] = f"{xb.default_device()} {xp.zeros(1).device} {xb.asarray([1.0]).device}"
            done.wait()

    threads = [threading.Thread(target=run, args=(index,)) for index in (1, 2)]
    for thread in threads:
        thread.start()
    inside.wait()
    assert str(xb.default_device()) == "cpu"
    done.wait()
    for thread in threads:
        thread.join()
    assert seen == {1: "fake:1 fake:1 fake:1", 2: "fake:2 fake:2 fake:2"}


def test_use_device_is_local_to_a_task() -> None:
    async def run(name: str) -> str:
        with xb.use_device(name):
            await asyncio.sleep(0.01)
            return f"{xb.default_device()} {xp.zeros(1).device}"

    async def both() -> list[str]:
        return await asyncio.gather(run("fake:1"), run("fake:2"))

    assert asyncio.run(both()) == ["fake:1 fake:1", "fake:2 fake:2"]


def test_set_device_is_for_all_threads() -> None:
    xb.set_device("fake:1")
    seen: list[str] = []
    thread = threading.Thread(target=lambda: seen.append(str(xb.default_device())))
    thread.start()
    thread.join()
    assert seen == ["fake:1"]


# --- The variable.


def test_the_variable_is_read_at_first_use_and_a_change_is_reported_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(VARIABLE, "fake:1")
    assert str(xb.default_device()) == "fake:1"
    assert caplog.records == []
    monkeypatch.setenv(VARIABLE, "fake:2")
    for _ in range(3):
        assert str(xb.default_device()) == "fake:1"
    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.WARNING, "xbackprop")
    for word in ("'fake:1'", "'fake:2'", "stays fake:1", "set_device(None)"):
        assert word in record.getMessage()
    assert str(xb.set_device(None)) == "fake:2"
    monkeypatch.delenv(VARIABLE)
    xb.default_device()
    assert len(caplog.records) == 2
    assert "''" in caplog.records[1].getMessage()


def test_a_change_of_the_variable_means_nothing_after_set_device(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    xb.set_device("fake:1")
    monkeypatch.setenv(VARIABLE, "fake:2")
    assert str(xb.default_device()) == "fake:1"
    assert caplog.records == []


def test_an_empty_variable_is_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "  ")
    assert xb.explain_default_device().asked_by == "default"


# --- auto and cuda.


def test_auto_takes_the_gpu_that_the_probe_chose(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, current_gpu: list[int]
) -> None:
    asked = report_cuda(monkeypatch, usable(2))
    caplog.set_level(logging.DEBUG)
    choice = xb.explain_default_device()
    assert (str(choice.device), choice.asked, choice.asked_by) == ("cuda:2", "auto", "default")
    assert "most free memory" in choice.reason
    assert (asked, current_gpu, caplog.records) == ([None], [2], [])


@pytest.mark.parametrize("asked_by", ["default", VARIABLE, "set_device()"])
@pytest.mark.filterwarnings("error")
def test_auto_without_cupy_is_the_cpu_and_says_so_in_the_log(
    asked_by: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    if asked_by == VARIABLE:
        monkeypatch.setenv(VARIABLE, "auto")
    if asked_by == "set_device()":
        xb.set_device("auto")
    choice = xb.explain_default_device()
    assert (str(choice.device), choice.asked, choice.asked_by) == ("cpu", "auto", asked_by)
    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.INFO, "xbackprop")
    assert "CuPy is not installed" in record.getMessage()


@pytest.mark.parametrize(
    "state", [s for s in CudaState if s not in (CudaState.USABLE, CudaState.NOT_INSTALLED)]
)
@pytest.mark.filterwarnings("error")
def test_auto_with_a_cupy_that_cannot_be_used_warns_in_the_log(
    state: CudaState, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    report_cuda(monkeypatch, CudaReport(state, "the reason", "the fix", device_index=0))
    choice = xb.explain_default_device()
    assert str(choice.device) == "cpu"
    assert state.value in choice.reason
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    for word in (state.value, "the reason", "the fix"):
        assert word in record.getMessage()


@pytest.mark.parametrize("state", [state for state in CudaState if state != CudaState.USABLE])
@pytest.mark.parametrize("name", ["cuda", "cuda:1", Device("cuda", -1)], ids=str)
def test_an_explicit_gpu_that_cannot_be_had_is_an_error(
    name: Any, state: CudaState, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = OSError("libcublas.so.12: cannot open shared object file")
    report = CudaReport(state, "the reason", "the fix", original)
    asked = report_cuda(monkeypatch, report)
    calls = {"use_device()": lambda: xb.use_device(name).__enter__(), "set_device()": lambda:
             xb.set_device(name), "argument": lambda: xb.asarray([1.0], device=name)}  # fmt: skip
    for asked_by, call in calls.items():
        with pytest.raises(xb.DeviceUnavailableError) as caught:
            call()
        assert caught.value.__cause__ is original
        for word in (state.value, "the reason", "Fix: the fix", asked_by, "cuda"):
            assert word in str(caught.value)
    assert set(asked) == {1 if name == "cuda:1" else None}
    assert caplog.records == []  # nothing is replaced silently, nor by a word in the log
    if isinstance(name, str):
        monkeypatch.setenv(VARIABLE, name)
        with pytest.raises(xb.DeviceUnavailableError, match=f"{VARIABLE}.*the fix"):
            xb.default_device()


def test_an_explicit_gpu_is_granted(
    monkeypatch: pytest.MonkeyPatch, current_gpu: list[int]
) -> None:
    asked = report_cuda(monkeypatch, usable(1))
    assert str(xb.set_device("cuda")) == "cuda:1"
    assert str(resolve_device("cuda:1")) == "cuda:1"
    assert (asked, current_gpu) == ([None, 1], [1])
    assert "most free memory" in xb.explain_default_device().reason


def test_cpu_and_fake_do_not_ask_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = report_cuda(monkeypatch, usable(0))
    for name in ("cpu", "fake", "fake:1"):
        with xb.use_device(name):
            xb.asarray([1.0])
    assert asked == []


# --- What is imported, and how long it takes.


def run_python(code: str, *options: str, **environment: str) -> str:
    """Run code in a new process that finds this package first."""
    root = str(Path(xb.__file__).parents[1])
    result = subprocess.run(
        [sys.executable, *options, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": root, **environment},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


FOREIGN = "cupy matplotlib rich numba torch sklearn pytest".split()
LOADED = f"import sys; print([name for name in {FOREIGN} if name in sys.modules])"


@pytest.mark.parametrize("name", ["cpu", "fake", "fake:1"])
def test_a_run_without_a_gpu_imports_no_cupy(name: str) -> None:
    code = (
        "import xbackprop as xb; x = xb.asarray([[1.0, 2.0]])\n"
        "model = xb.nn.Sequential(xb.nn.Linear(2, 2, rng=0), xb.nn.ReLU())\n"
        "output, saved = model.forward(x); model.backward(output, saved); xb.to_host(output)\n"
        f"assert str(xb.default_device()).startswith({name!r})\n"
    )
    assert run_python(code + LOADED, "-W", "error", **{VARIABLE: name}).strip() == "[]"


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import xbackprop; " + LOADED
    assert run_python(code, "-W", "error").strip() == "[]"
    later = ["xbackprop.nn", "xbackprop.data", "xbackprop.backend.fake", "xbackprop.backend.probe"]
    loaded = f"[name for name in {later} if name in sys.modules]"
    assert run_python(f"import sys, xbackprop; print({loaded})").strip() == "[]"


def test_importing_the_package_is_quick() -> None:
    code = (
        "import numpy, time; start = time.process_time(); import xbackprop\n"
        "print(time.process_time() - start)"
    )
    seconds = min(float(run_python(code)) for _ in range(3))
    assert seconds < 0.25
