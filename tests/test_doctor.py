import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cupy_stand_in import CUDARuntimeError, DynamicLibNotFoundError, Gpu, make_cupy

import xbackprop as xb
from xbackprop.backend import device
from xbackprop.backend.probe import probing, reset_probe
from xbackprop.cli import doctor

NVRTC = DynamicLibNotFoundError('Failure finding "libnvrtc.so.12"\nNo such file: libnvrtc.so.12')
Machine = Callable[..., Any]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Pretend a machine: its GPUs, its packages, its driver, and what the variable asks for."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def pretend(
        *gpus: Gpu,
        asked: str | None = None,
        packages: dict[str, str] | None = None,
        driver_version: int | None = 12090,
        installed: bool = True,
        **options: Any,
    ) -> Any:
        module = make_cupy(*gpus, **options) if installed else None
        if packages is None:
            packages = {"cupy-cuda12x": "14.2.0"} if installed else {}
        monkeypatch.setitem(sys.modules, "cupy", module)
        monkeypatch.setattr(probing, "installed_cupy_packages", lambda: packages)
        monkeypatch.setattr(probing, "driver_cuda_version", lambda: driver_version)
        monkeypatch.setattr(probing, "free_memory", lambda bus_ids: {})
        # A process in which the device has not been asked for yet.
        monkeypatch.setattr(device, "_process_choice", None)
        monkeypatch.setattr(device, "_variable_seen", None)
        if asked is None:
            monkeypatch.delenv("XBACKPROP_DEVICE", raising=False)
        else:
            monkeypatch.setenv("XBACKPROP_DEVICE", asked)
        reset_probe()
        return module

    yield pretend
    reset_probe()


def as_text() -> tuple[int, str]:
    stream = io.StringIO()
    return doctor.run(as_json=False, stream=stream), stream.getvalue()


def as_json() -> tuple[int, dict[str, Any]]:
    stream = io.StringIO()
    return doctor.run(as_json=True, stream=stream), json.loads(stream.getvalue())


def value_of(text: str, label: str) -> str:
    """Return the value behind a label of the text form, its continuation lines joined."""
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"  {label} "))
    value = [lines[start][18:]]
    for line in lines[start + 1 :]:
        if not line.startswith(" " * 18):
            break
        value.append(line.strip())
    return " ".join(value)


# Asked, GPUs (None: no CuPy), what is given, exit code.
REQUESTS = [
    (None, None, "cpu", 0),
    (None, [Gpu()], "cuda:0", 0),
    ("auto", [Gpu(kernel=NVRTC)], "cpu", 0),
    ("cpu", [Gpu()], "cpu", 0),
    ("fake", None, "fake:0", 0),
    ("fake:1", [Gpu()], "fake:1", 0),
    ("cuda", [Gpu()], "cuda:0", 0),
    ("cuda:1", [Gpu(), Gpu()], "cuda:1", 0),
    ("cuda", None, None, 1),
    ("cuda:3", [Gpu(), Gpu()], None, 1),
    ("cuda:0", [Gpu(context=CUDARuntimeError(46)), Gpu()], None, 1),
    ("gpu", [Gpu()], None, 2),
    ("cuda:x", [Gpu()], None, 2),
    ("fake:99", None, None, 2),
]


@pytest.mark.parametrize(("asked", "gpus", "given", "exit_code"), REQUESTS)
def test_exit_code_and_device(
    machine: Machine,
    asked: str | None,
    gpus: list[Gpu] | None,
    given: str | None,
    exit_code: int,
) -> None:
    machine(*(gpus or []), asked=asked, installed=gpus is not None)
    code, found = as_json()
    assert (code, found["exit_code"]) == (exit_code, exit_code)
    assert found["request"]["device"] == given
    assert found["request"]["asked"] == (asked or "auto")
    assert found["request"]["asked_by"] == ("XBACKPROP_DEVICE" if asked else "default")
    code, text = as_text()
    assert code == exit_code
    assert value_of(text, "gets") == (given or "nothing")
    assert value_of(text, "asked for").startswith(asked or "auto, the default")
    verdict = {
        0: f"xbackprop uses {given}.",
        1: f"xbackprop cannot use {asked}, which XBACKPROP_DEVICE asks for.",
        2: f"xbackprop knows no device {asked!r}, which XBACKPROP_DEVICE asks for.",
    }
    assert text.splitlines()[0] == verdict[exit_code]


def test_a_malformed_request_lists_the_valid_names(machine: Machine) -> None:
    machine(Gpu(), asked="gpu")
    _, text = as_text()
    assert "auto, cpu, cuda, cuda:N, fake, fake:N" in value_of(text, "because")
    assert value_of(text, "state") == "usable"  # the rest is told all the same


def test_who_asked_in_the_program(machine: Machine) -> None:
    machine(Gpu(), asked="cpu")
    with xb.use_device("fake:1"):
        _, found = as_json()
        _, text = as_text()
    assert (found["request"]["asked"], found["request"]["asked_by"]) == ("fake:1", "use_device()")
    assert value_of(text, "asked for") == "fake:1, by use_device()"


def test_only_the_gpu_that_was_asked_for_is_touched(machine: Machine) -> None:
    cupy = machine(Gpu(), Gpu(), Gpu(), asked="cuda:1")
    as_text()
    assert cupy.journal.contexts == [1]


def test_text_of_a_machine_with_gpus(machine: Machine) -> None:
    machine(Gpu("Example Small", total=8 * 2**30, free=3 * 2**29), Gpu("Example Large XL"))
    _, text = as_text()
    lines = text.splitlines()
    assert value_of(text, "state") == "usable"
    assert "to use CUDA" not in text  # nothing to do
    assert value_of(text, "CuPy packages") == "cupy-cuda12x 14.2.0"
    assert value_of(text, "NVIDIA driver") == "supports CUDA up to 12.9"
    assert value_of(text, "CUDA toolkit").startswith("12.9")
    assert value_of(text, "xbackprop") == xb.__version__
    assert value_of(text, "Python").startswith(sys.version.split()[0])
    gpus = lines.index("GPUs")
    assert lines[gpus + 1 : gpus + 3] == [
        "  cuda:0          Example Small      1.5 GiB free of 8.0 GiB   "
        "compute capability 9.0   usable",
        "  cuda:1          Example Large XL   80.0 GiB, free unknown    "
        "compute capability 9.0   not tried",
    ]
    checks = lines.index("Checks on cuda:0")
    assert [line.split() for line in lines[checks + 1 : checks + 4]] == [
        ["allocation", "passed"],
        ["kernel", "passed"],
        ["product", "passed"],
    ]
    assert "Original error" not in text
    assert "CuPy imported" not in text  # it is the one package that is installed


def test_text_of_a_failure(machine: Machine) -> None:
    machine(Gpu(kernel=NVRTC), packages={"cupy-cuda11x": "13.6", "cupy-cuda12x": "14.2"})
    _, text = as_text()
    lines = text.splitlines()
    assert value_of(text, "state") == "libraries missing"
    assert value_of(text, "reason") == "the CUDA library libnvrtc is missing"
    # On one line, so that it can be copied.
    fix = 'pip uninstall -y cupy-cuda11x cupy-cuda12x && pip install "xbackprop[cuda12]"'
    assert f"  to use CUDA     {fix}" in lines
    assert value_of(text, "CuPy packages") == "cupy-cuda11x 13.6, cupy-cuda12x 14.2"
    assert value_of(text, "CuPy imported") == "14.2.0"
    assert "overwrite each other's files" in value_of(text, "conflict")
    assert value_of(text, "allocation") == "passed"
    assert value_of(text, "kernel").startswith("FAILED: DynamicLibNotFoundError: Failure finding")
    assert value_of(text, "product") == "passed"
    error = lines.index("Original error")
    assert lines[error + 1 :] == [
        '  cupy_stand_in.DynamicLibNotFoundError: Failure finding "libnvrtc.so.12"',
        "  No such file: libnvrtc.so.12",
    ]


def test_text_of_checks_that_were_not_run(machine: Machine) -> None:
    machine(Gpu(context=CUDARuntimeError(46)))
    _, text = as_text()
    assert value_of(text, "allocation").startswith("FAILED: CUDARuntimeError")
    assert value_of(text, "kernel") == "not run, because the allocation failed"
    assert value_of(text, "product") == "not run, because the allocation failed"


def test_a_path_is_not_broken_in_two(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine()
    path = "/opt/" + "deep-folder/" * 12 + "python"
    monkeypatch.setattr(sys, "executable", path)
    _, text = as_text()
    assert f"({path})" in text


def test_text_fits_the_width(machine: Machine) -> None:
    machine(count=CUDARuntimeError(803), asked="cuda")
    _, text = as_text()
    for line in text.splitlines():
        if not line.startswith(("  to use CUDA", "  Python", "  cupy_stand_in")):
            assert len(line) <= 100, line
        assert line == line.rstrip()
        assert "\x1b" not in line


def test_json_has_the_keys_of_schema_1(machine: Machine) -> None:
    machine(Gpu(kernel=NVRTC), Gpu())
    _, found = as_json()
    assert found["schema"] == 1
    assert {key: set(value) for key, value in found.items() if isinstance(value, dict)} == {
        "request": {"asked", "asked_by", "device", "reason"},
        "software": {"xbackprop", "python", "executable", "numpy", "platform"},
        "cuda": {
            *("usable", "state", "reason", "fix", "device_index", "cupy_packages", "conflicts"),
            *("warnings", "cupy_version", "driver_version", "runtime_version", "devices"),
            *("checks", "exception"),
        },
    }
    cuda = found["cuda"]
    assert cuda["usable"] is False
    assert cuda["state"] == "libraries missing"
    assert cuda["fix"] == 'pip install "xbackprop[cuda12]"'
    assert cuda["exception"] == {
        "type": "cupy_stand_in.DynamicLibNotFoundError",
        "message": str(NVRTC),
    }
    assert cuda["devices"][0] == {
        "index": 0,
        "name": "Example GPU",
        "compute_capability": "9.0",
        "free_bytes": 70 * 2**30,
        "total_bytes": 80 * 2**30,
        "state": "libraries missing",
        "reason": "the CUDA library libnvrtc is missing",
    }
    assert cuda["devices"][1]["state"] is None
    assert [check["ok"] for check in cuda["checks"]] == [True, False, True]


def test_json_of_a_usable_machine(machine: Machine) -> None:
    machine(Gpu())
    _, found = as_json()
    assert found["cuda"]["usable"] is True
    assert (found["cuda"]["fix"], found["cuda"]["exception"]) == (None, None)


def test_nothing_but_the_diagnosis_is_printed(
    machine: Machine, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    machine(count=CUDARuntimeError(46))  # `auto` logs a warning about this
    assert doctor.run(as_json=True) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["cuda"]["state"] == "busy"
    assert output.err == ""
    assert caplog.records == []
    assert not logging.getLogger("xbackprop").disabled
