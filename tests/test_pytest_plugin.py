"""The pytest plugin, from outside: small projects that use it, and what pytest says about them."""

import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import xbackprop as xb

# Runs inside this process remove every module that they were the first to import.
import xbackprop.backend.fake
from xbackprop.backend import transfer
from xbackprop.backend.probe import CudaReport, CudaState

PLUGIN = "xbackprop.pytest_plugin"
IS_INSTALLED = bool(importlib.metadata.entry_points(group="pytest11", name="xbackprop"))
USAGE_ERROR = pytest.ExitCode.USAGE_ERROR

Run = Callable[..., pytest.RunResult]

HEAD = """
import numpy as np
import pytest
import xbackprop as xb

"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a test file under the plugin and no other, with every warning an error."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(xb.__file__).parents[1]))  # for subprocesses
    monkeypatch.delenv("XBACKPROP_TEST_REQUIRE", raising=False)
    monkeypatch.delitem(sys.modules, PLUGIN, raising=False)

    def run(source: str, *args: str, subprocess: bool = False) -> pytest.RunResult:
        pytester.makepyfile(test_sample=HEAD + source)
        start = pytester.runpytest_subprocess if subprocess else pytester.runpytest_inprocess
        strict = ["-W", "error", "--strict-markers", "--strict-config"]
        if sys.flags.optimize:
            strict += ["-W", "ignore:assertions not in test modules:pytest.PytestConfigWarning"]
        return start("-p", PLUGIN, "-p", "no:cacheprovider", *strict, "-ra", *args)

    return run


def line_of(pytester: pytest.Pytester, comment: str = "# here") -> int:
    lines = (pytester.path / "test_sample.py").read_text().splitlines()
    (number,) = (number for number, line in enumerate(lines, start=1) if line.endswith(comment))
    return number


def ids(result: pytest.RunResult) -> list[str]:
    """Return the ids of the tests that `--collect-only -q` lists."""
    listed = [line.partition("::")[2] for line in result.outlines if "::" in line]
    return [name.partition("[")[2].removesuffix("]") for name in listed]


# What the plugin is for: three faults that a CPU does not see

AS_ARRAY = """
def test_fault(xb_device):
    x = xb.asarray([1.0, 2.0])
    assert np.asarray(x).sum() == 3  # here
"""

LOSS_IN_LOOP = """
@pytest.mark.xb_budget(uploads=2, downloads=0)
def test_fault(xb_device):
    x, w = xb.asarray([1.0, 2.0]), xb.asarray(0.5)
    losses = []
    for _ in range(3):
        error = x * w - 2 * x
        loss = (error * error).sum()
        w = w - 0.1 * (error * x).sum()
        losses.append(float(loss))  # here
    assert losses[-1] < losses[0]
"""

MIX = """
def scale(x):
    return x * np.array([2.0, 3.0])  # here

def test_fault(xb_device):
    y = scale(xb.asarray([1.0, 2.0]))
    assert y.shape == (2,)
"""


@pytest.mark.parametrize(
    ("source", "error"),
    [(AS_ARRAY, "TypeError"), (LOSS_IN_LOOP, "TransferError"), (MIX, "TypeError")],
    ids=["asarray", "loss_in_loop", "mix"],
)
@pytest.mark.parametrize("style", ["long", "short", "line"])
def test_a_fault_passes_on_cpu_and_fails_on_fake_at_its_line(
    run: Run, pytester: pytest.Pytester, source: str, error: str, style: str
) -> None:
    result = run(source, "-v", f"--tb={style}", "--xb-devices=cpu,fake")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*::test_fault?cpu? PASSED*", "*::test_fault?fake? FAILED*"])
    location = f"test_sample.py:{line_of(pytester)}:"
    report = "\n".join(result.outlines).partition("= FAILURES =")[2].partition("= short test")[0]
    places = [line for line in report.splitlines() if re.match(r"[^ ]*\.py:\d+:", line)]
    assert location in places[-1]  # the innermost frame
    if style != "short":  # which names the function there
        assert error in places[-1]
    result.stdout.no_fnmatch_line("*xbackprop/backend*")


def test_full_trace_shows_the_shims_frames(run: Run) -> None:
    result = run(LOSS_IN_LOOP, "--full-trace", "--xb-devices=fake")
    result.stdout.fnmatch_lines(["*transfer.py:*: TransferError"])


def test_an_error_that_the_shim_did_not_raise_keeps_its_frames(run: Run) -> None:
    source = "def test_it(xb_device):\n    xb.asarray([1.0, 2.0]).reshape(3)"
    result = run(source, "--xb-devices=fake")
    result.stdout.fnmatch_lines(["*execute.py:*: ValueError"])


# Which devices

TWO_TESTS = """
def test_one(xb_device):
    assert xb.default_device() is xb_device or xb.default_device() == xb_device
    assert isinstance(xb_device, xb.Device)
    x = xb_device.xp.zeros(3)
    assert xb.device_of(x) == xb_device
    assert xb.device_of(xb.asarray([1.0])) == xb_device

def test_two(xb_device):
    pass
"""


def test_the_device_is_the_default_and_the_value(run: Run) -> None:
    run(TWO_TESTS, "--xb-devices=cpu,fake,fake:1").assert_outcomes(passed=6)


def test_ids_name_the_devices_in_the_order_asked_for(run: Run) -> None:
    collect = ("--collect-only", "-q")
    assert ids(run(TWO_TESTS, *collect)) == ["cpu", "fake", "cuda"] * 2
    asked = "--xb-devices=cuda:3, FAKE:1,cpu,fake"
    assert ids(run(TWO_TESTS, *collect, asked)) == ["cuda:3", "fake:1", "cpu", "fake"] * 2
    # fake and fake:0 are one device
    assert ids(run(TWO_TESTS, *collect, "--xb-devices=fake,cpu,fake:0,fake")) == ["fake", "cpu"] * 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pytest.ini", "[pytest]\nxb_devices = cpu, fake:1"),
        ("pytest.ini", "[pytest]\nxb_devices =\n    cpu\n    fake:1"),
        ("pyproject.toml", '[tool.pytest.ini_options]\nxb_devices = ["cpu", "fake:1"]'),
    ],
    ids=["line", "lines", "toml"],
)
def test_the_ini_option_chooses_and_the_command_line_overrides_it(
    run: Run, pytester: pytest.Pytester, name: str, text: str
) -> None:
    (pytester.path / name).write_text(text)
    collect = ("--collect-only", "-q")
    assert ids(run(TWO_TESTS, *collect)) == ["cpu", "fake:1"] * 2
    assert ids(run(TWO_TESTS, *collect, "--xb-devices=fake")) == ["fake"] * 2


MALFORMED = ["gpu", "auto", "fake:8", "cuda:x", "cuda:-1", "cpu:0", "cpu;fake"]


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_name_is_one_line_that_lists_the_valid_ones(run: Run, name: str) -> None:
    result = run(TWO_TESTS, f"--xb-devices=cpu,{name}")
    assert result.ret == USAGE_ERROR
    valid = "cpu, cuda, cuda:N, fake, fake:0 to fake:7"
    expected = f"ERROR: --xb-devices: no device is named {name!r}; expected {valid}"
    assert [line for line in result.errlines if line] == [expected]


def test_an_empty_choice_is_a_usage_error(run: Run, pytester: pytest.Pytester) -> None:
    result = run(TWO_TESTS, "--xb-devices=,")
    assert result.ret == USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --xb-devices is empty; expected cpu, *"])
    pytester.makeini("[pytest]\nxb_devices =\n")
    result = run(TWO_TESTS)
    assert result.ret == USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: ini option xb_devices is empty; expected cpu, *"])


def test_a_malformed_name_in_the_ini_file_is_blamed_on_it(
    run: Run, pytester: pytest.Pytester
) -> None:
    pytester.makeini("[pytest]\nxb_devices = cpu gpu\n")
    result = run(TWO_TESTS)
    assert result.ret == USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: ini option xb_devices: no device is named 'gpu'; *"])


def test_the_device_before_the_test_is_restored(run: Run) -> None:
    source = """
from xbackprop.backend.fake import current_index

BEFORE = xb.default_device(), current_index()

def test_passes(xb_device):
    assert current_index() == xb_device.index

def test_fails(xb_device):
    raise RuntimeError

def test_after():
    assert (xb.default_device(), current_index()) == BEFORE
"""
    before = xb.default_device()
    run(source, "--xb-devices=fake:1,fake:2").assert_outcomes(passed=3, failed=2)
    assert xb.default_device() == before


def test_indirect_parametrization_chooses_for_one_test(run: Run) -> None:
    source = """
@pytest.mark.parametrize("xb_device", ["cpu", "fake:1"], indirect=True)
def test_one(xb_device):
    assert str(xb.default_device()) == str(xb_device)
    assert str(xb_device) in ("cpu", "fake:1")

@pytest.mark.parametrize(("n", "xb_device"), [(2, xb.Device("fake", 2))], indirect=["xb_device"])
def test_two(n, xb_device):
    assert xb.default_device().index == n

def test_three(xb_device):
    assert xb_device.kind == "cpu"
"""
    result = run(source, "-v", "--xb-devices=cpu")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*::test_one?cpu? PASSED*", "*::test_one?fake:1? PASSED*"])


@pytest.mark.parametrize("name", ["gpu", "auto"])
def test_a_malformed_parameter_fails_its_test_alone(run: Run, name: str) -> None:
    source = f"""
@pytest.mark.parametrize("xb_device", ["fake", "{name}"], indirect=True)
def test_it(xb_device):
    pass
"""
    result = run(source)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([f'parametrize("xb_device", ...): no device is named {name!r}; *'])
    result.stdout.no_fnmatch_line("*During handling*")


@pytest.mark.parametrize("arguments", ['"xb_device", ["fake"]', '"n, xb_device", [(1, "fake")]'])
def test_direct_parametrization_is_refused(run: Run, arguments: str) -> None:
    source = f"""
@pytest.mark.parametrize({arguments})
def test_it({"n, " * ("n," in arguments)}xb_device):
    pass
"""
    result = run(source)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(['*::test_it: parametrize("xb_device", ...) expects indirect=*'])


def test_a_project_may_replace_the_fixture(run: Run) -> None:
    source = """
@pytest.fixture
def xb_device():
    return "ours"

def test_it(xb_device):
    assert xb_device == "ours"
"""
    run(source).assert_outcomes(passed=1)


# A device that cannot be had


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """Let every probe find a busy GPU, whatever the machine has; return the GPUs asked for."""
    asked: list[int | None] = []

    def probe_cuda(index: int | None = None) -> CudaReport:
        asked.append(index)
        return CudaReport(CudaState.BUSY, "it is full", "empty it")

    monkeypatch.setattr("xbackprop.backend.probe.probe_cuda", probe_cuda)
    return asked


REASON = "device 'cuda' (asked for by xb_device) cannot be used: busy: it is full. Fix: empty it"


def test_an_absent_device_is_skipped_with_its_reason_in_one_line(
    run: Run, probed: list[int | None]
) -> None:
    result = run(TWO_TESTS)
    result.assert_outcomes(passed=4, skipped=2)
    (summary,) = (line for line in result.outlines if line.startswith("SKIPPED"))
    assert summary.startswith("SKIPPED [2] ")
    assert summary.endswith(f": {REASON}")
    assert "pytest_plugin.py:" in summary
    assert probed == [None]  # once for all tests


def test_cuda_is_not_probed_unless_a_test_runs_on_it(run: Run, probed: list[int | None]) -> None:
    run(TWO_TESTS, "--xb-devices=cpu,fake").assert_outcomes(passed=4)
    run("def test_it(): pass").assert_outcomes(passed=1)
    run(TWO_TESTS, "-k", "not cuda").assert_outcomes(passed=4, deselected=2)
    assert probed == []


def test_other_skips_keep_their_place(run: Run, pytester: pytest.Pytester) -> None:
    source = "def test_it(xb_device):\n    pytest.skip('not today')  # here"
    result = run(source, "--xb-devices=cpu")
    result.stdout.fnmatch_lines([f"SKIPPED ?1? test_sample.py:{line_of(pytester)}: not today"])


@pytest.mark.parametrize("required", ["cuda", "torch, cuda"])
def test_a_required_device_that_is_absent_fails(
    run: Run, probed: list[int | None], monkeypatch: pytest.MonkeyPatch, required: str
) -> None:
    monkeypatch.setenv("XBACKPROP_TEST_REQUIRE", required)
    result = run(TWO_TESTS)
    result.assert_outcomes(passed=4, errors=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert f"XBACKPROP_TEST_REQUIRE=cuda: {REASON}" in result.outlines


def test_a_requirement_is_about_the_device_named(
    run: Run, probed: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XBACKPROP_TEST_REQUIRE", "cuda:1,cpu")
    result = run(TWO_TESTS, "--xb-devices=cpu,cuda,cuda:1")
    result.assert_outcomes(passed=2, skipped=2, errors=2)
    monkeypatch.setenv("XBACKPROP_TEST_REQUIRE", "cuda")  # the kind
    result = run(TWO_TESTS, "--xb-devices=cpu,cuda,cuda:1")
    result.assert_outcomes(passed=2, errors=4)
    assert probed == [None, 1, None, 1]


def test_a_requirement_of_other_things_leaves_the_skip(
    run: Run, probed: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XBACKPROP_TEST_REQUIRE", "torch")
    run(TWO_TESTS).assert_outcomes(passed=4, skipped=2)


@pytest.mark.parametrize(
    ("required", "message"),
    [
        ("cuda", "names cuda, but the tests run on cpu, fake only; add cuda to --xb-devices *"),
        ("cudda", ": no device is named 'cudda'; expected cpu, *, torch"),
    ],
)
def test_a_requirement_that_nothing_could_meet_is_a_usage_error(
    run: Run, monkeypatch: pytest.MonkeyPatch, required: str, message: str
) -> None:
    monkeypatch.setenv("XBACKPROP_TEST_REQUIRE", required)
    result = run(TWO_TESTS, "--xb-devices=cpu,fake")
    assert result.ret == USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: XBACKPROP_TEST_REQUIRE*{message}"])


# The budget

USES = {
    "uploads": "xb.to_device(np.ones(2))",
    "downloads": "xb.to_host(x)",
    "synchronizations": "bool(x.any())",
}


@pytest.mark.parametrize("kind", USES)
@pytest.mark.parametrize("limit", [0, 1, 2])
def test_a_budget_allows_its_count_and_no_more(
    run: Run, pytester: pytest.Pytester, kind: str, limit: int
) -> None:
    source = f"""
@pytest.fixture
def x(xb_device):
    x = xb.asarray([1.0, 2.0])  # an upload that does not count
    {USES[kind]}
    yield x
    {USES[kind]}

@pytest.mark.xb_budget({kind}={limit})
def test_within(x):
    for _ in range({limit}):
        {USES[kind]}

@pytest.mark.xb_budget({kind}={limit})
def test_beyond(x):
    for _ in range({limit}):
        {USES[kind]}
    {USES[kind]}  # here
"""
    result = run(source, "--xb-devices=cpu,fake:1", "-v")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*::test_beyond?fake:1? FAILED*",
            f"E *.TransferError: *test_sample.py:{line_of(pytester)}: {kind[:-1]} *allowed here: "
            f"{limit or 'no'} {kind[:-1] if limit == 1 else kind}",
            f"test_sample.py:{line_of(pytester)}: TransferError",
        ]
    )


def test_a_budget_needs_no_xb_device(run: Run, pytester: pytest.Pytester) -> None:
    source = """
@pytest.mark.xb_budget(uploads=0)
def test_host():
    xb.asarray([1.0], device="cpu")

@pytest.mark.xb_budget(uploads=0)
def test_device():
    with xb.use_device("fake"):
        xb.asarray([1.0])  # here
"""
    result = run(source)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines([f"test_sample.py:{line_of(pytester)}: TransferError"])


@pytest.mark.parametrize("style", ["long", "line"])
def test_a_budget_holds_in_a_unittest_testcase(
    run: Run, pytester: pytest.Pytester, style: str
) -> None:
    source = """
import unittest

class TestIt(unittest.TestCase):
    @pytest.mark.xb_budget(uploads=0)
    def test_it(self):
        xb.asarray([1.0], device="fake")  # here
"""
    result = run(source, f"--tb={style}")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"*test_sample.py:{line_of(pytester)}: *TransferError*"])
    result.stdout.no_fnmatch_line("*xbackprop/backend*")


def test_marks_add_up_and_the_closest_has_the_last_word(run: Run) -> None:
    source = """
@pytest.mark.xb_budget(uploads=0, downloads=0)
class TestClass:
    def test_class(self, xb_device):
        xb.asarray([1.0])

    @pytest.mark.xb_budget(uploads=1)
    def test_closest(self, xb_device):
        xb.asarray([1.0])

    @pytest.mark.xb_budget(uploads=1)
    def test_both(self, xb_device):
        xb.to_host(xb.asarray([1.0]))
"""
    result = run(source, "--xb-devices=fake")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(["FAILED *::test_class*", "FAILED *::test_both*"])


def test_a_failed_guard_leaves_nothing_behind(run: Run) -> None:
    source = """
@pytest.mark.xb_budget(uploads=0)
def test_fails(xb_device):
    xb.asarray([1.0])

def test_free(xb_device):
    with xb.transfer_log() as log:
        xb.to_host(xb.asarray([1.0]))
    assert (log.uploads, log.downloads) == (1, 1)
"""
    run(source, "--xb-devices=fake").assert_outcomes(passed=1, failed=1)
    assert transfer._open_logs.get() == ()


def test_an_error_that_the_test_caught_fails_it_in_the_end(
    run: Run, pytester: pytest.Pytester
) -> None:
    source = """
@pytest.mark.xb_budget(downloads=1)
def test_it(xb_device):
    x = xb.asarray([1.0])
    for _ in range(3):
        try:
            float(x[0])  # here
        except Exception:
            pass
"""
    result = run(source, "--xb-devices=cpu,fake")
    result.assert_outcomes(passed=1, failed=1)
    place = f"*test_sample.py:{line_of(pytester)}: download of 4 bytes on fake:0 by float()"
    result.stdout.fnmatch_lines([f"{place}; allowed here: 1 download. The error * was caught"])


@pytest.mark.parametrize("outcome", ["skip", "xfail"])
def test_other_outcomes_pass_through_the_guard(run: Run, outcome: str) -> None:
    source = f"""
@pytest.mark.xb_budget(uploads=0)
def test_it():
    pytest.{outcome}("not today")
"""
    run(source).assert_outcomes(**{"skip": {"skipped": 1}, "xfail": {"xfailed": 1}}[outcome])


MISUSED = {
    "xb_budget": "xb_budget()",
    "xb_budget()": "xb_budget()",
    "xb_budget(1)": "xb_budget(1)",
    "xb_budget(1, uploads=1)": "xb_budget(1, uploads=1)",
    "xb_budget(upload=1)": "xb_budget(upload=1)",
    "xb_budget(uploads=1, launches=1)": "xb_budget(uploads=1, launches=1)",
    "xb_budget(downloads=None)": "xb_budget(downloads=None)",
    "xb_budget(downloads=-1)": "xb_budget(downloads=-1)",
    "xb_budget(downloads=True)": "xb_budget(downloads=True)",
    "xb_budget(downloads=1.0)": "xb_budget(downloads=1.0)",
}


@pytest.mark.parametrize("mark", MISUSED)
def test_a_misused_mark_stops_the_collection(run: Run, mark: str) -> None:
    result = run(f"@pytest.mark.{mark}\ndef test_it(): pass\n\ndef test_other(): pass")
    result.assert_outcomes(errors=1)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    expected = "one or more of uploads=, downloads=, synchronizations=, each a count from 0 up"
    result.stdout.fnmatch_lines(
        [f"test_sample.py::test_it: xb_budget expects {expected}; got {MISUSED[mark]}"]
    )


def test_a_misused_mark_of_a_parameter_fails_its_test(run: Run) -> None:
    source = """
WRONG = pytest.param(2, marks=pytest.mark.xb_budget(upload=1))

@pytest.mark.parametrize("n", [1, WRONG])
def test_it(n): pass
"""
    result = run(source)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["test_sample.py::test_it?2?: xb_budget expects *"])


def test_the_mark_is_documented(run: Run) -> None:
    run("", "--markers").stdout.fnmatch_lines(["@pytest.mark.xb_budget(uploads=N, *"])


# The log


def test_the_log_counts_the_test_and_not_its_fixtures(run: Run) -> None:
    source = """
@pytest.fixture
def x(xb_transfers, xb_device):
    x = xb.asarray([1.0, 2.0])
    yield x
    xb.to_host(x)
    n = 1 if xb_device.kind == "fake" else 0
    assert (xb_transfers.uploads, xb_transfers.downloads) == (2 * n, n)

def test_it(x, xb_transfers, xb_device):
    n = 1 if xb_device.kind == "fake" else 0
    assert (xb_transfers.uploads, xb_transfers.downloads) == (0, 0)
    xb.to_device(np.ones(2)), xb.to_device(np.ones(2))
    assert (xb_transfers.uploads, xb_transfers.bytes_uploaded) == (2 * n, 32 * n)
    xb.to_host(x)
    assert xb_transfers.downloads == n
    assert len(xb_transfers.events) == 4 * n
"""
    run(source, "--xb-devices=cpu,fake").assert_outcomes(passed=2)


def test_the_log_holds_the_transfer_beyond_the_budget(run: Run) -> None:
    source = """
@pytest.fixture
def check(xb_transfers):
    yield
    assert xb_transfers.uploads == 2

@pytest.mark.xb_budget(uploads=1)
def test_it(check):
    for _ in range(3):
        xb.asarray([1.0], device="fake")
"""
    run(source).assert_outcomes(failed=1)


# Under pytest-xdist: what the workers find is told by another process


@pytest.fixture
def run_in_workers(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a test file in two processes that find no GPU."""
    pytest.importorskip("xdist")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def run_in_workers(source: str, *args: str) -> pytest.RunResult:
        return run(source, "-p", "xdist", "-n", "2", *args, subprocess=True)

    return run_in_workers


def test_workers_tell_a_reason_once(run_in_workers: Run) -> None:
    result = run_in_workers(TWO_TESTS)
    result.assert_outcomes(passed=4, skipped=2)
    (summary,) = (line for line in result.outlines if line.startswith("SKIPPED"))
    assert summary.startswith("SKIPPED [2] ")
    assert ": device 'cuda' (asked for by xb_device) cannot be used: " in summary


def test_workers_know_what_is_required(
    run_in_workers: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XBACKPROP_TEST_REQUIRE", "cuda")
    result = run_in_workers(TWO_TESTS)
    result.assert_outcomes(passed=4, errors=2)
    told = "XBACKPROP_TEST_REQUIRE=cuda: device 'cuda' (asked for by xb_device) cannot be used: "
    assert sum(line.startswith(told) for line in result.outlines) == 2


def test_workers_take_the_choice_of_devices(run_in_workers: Run, pytester: pytest.Pytester) -> None:
    result = run_in_workers(TWO_TESTS, "-v", "--xb-devices=cpu,fake:1")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines_random(["*PASSED*::test_one?cpu?*", "*PASSED*::test_two?fake:1?*"])
    pytester.makeini("[pytest]\nxb_devices = fake:2")
    run_in_workers(TWO_TESTS).assert_outcomes(passed=2)


def test_a_usage_error_comes_before_the_workers(run_in_workers: Run) -> None:
    result = run_in_workers(TWO_TESTS, "--xb-devices=gpu")
    assert result.ret == USAGE_ERROR
    (error,) = (line for line in result.errlines if line)
    assert error.startswith("ERROR: --xb-devices: no device is named 'gpu'; expected cpu, ")


@pytest.mark.parametrize(
    ("source", "error"), [(LOSS_IN_LOOP, "TransferError"), (MIX, "TypeError")], ids=["loop", "mix"]
)
def test_workers_name_the_line_of_a_fault(
    run_in_workers: Run, pytester: pytest.Pytester, source: str, error: str
) -> None:
    result = run_in_workers(source, "--xb-devices=cpu,fake")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines([f"test_sample.py:{line_of(pytester)}: {error}"])
    result.stdout.no_fnmatch_line("*xbackprop/backend*")


# How it is loaded

LAZY = ["cupy", "matplotlib", "rich", "safetensors"] + [
    f"xbackprop.{name}" for name in ("backend.fake", "backend.probe", "nn", "cli", "training")
]


def test_loading_the_plugin_loads_little(run: Run) -> None:
    code = f"import sys, {PLUGIN}; print(*sorted(set({LAZY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(("devices", "imports"), [("cpu,fake", False), ("cpu,fake,cuda", True)])
def test_cupy_is_imported_only_for_cuda(
    run: Run, pytester: pytest.Pytester, devices: str, imports: bool
) -> None:
    # Stands in the place of a CuPy that may be installed.
    pytester.makepyfile(cupy="open('cupy_was_imported', 'w').close(); raise ImportError('broken')")
    result = run(TWO_TESTS, f"--xb-devices={devices}", subprocess=True)
    result.assert_outcomes(passed=4, skipped=2 if imports else 0)
    assert (pytester.path / "cupy_was_imported").exists() == imports


def test_without_the_plugin_other_tests_run(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    pytester.makepyfile("def test_it(): pass")
    pytester.runpytest_subprocess("-p", "no:xbackprop").assert_outcomes(passed=1)
    result = pytester.runpytest_subprocess("-p", "no:xbackprop", "--xb-devices=cpu")
    assert result.ret == USAGE_ERROR


@pytest.mark.skipif(not IS_INSTALLED, reason="xbackprop is not installed: no entry point")
def test_the_entry_point_loads_it(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    pytester.makepyfile(HEAD + TWO_TESTS)
    pytester.runpytest_subprocess("--xb-devices=cpu,fake").assert_outcomes(passed=4)


@pytest.mark.parametrize("autoload", [True, False])
def test_our_conftest_loads_it_once_however_it_is_loaded(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, autoload: bool
) -> None:
    if autoload:
        monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    pytester.makeconftest(Path(__file__).with_name("conftest.py").read_text())
    pytester.makepyfile(HEAD + TWO_TESTS)
    collect = ("--collect-only", "-q")
    result = pytester.runpytest_subprocess(*collect)
    assert ids(result) == ["cpu", "fake", "cuda", "fake:1"] * 2
    result = pytester.runpytest_subprocess(*collect, "--xb-devices=cpu,fake")
    assert ids(result) == ["cpu", "fake"] * 2
    if not autoload:
        result = pytester.runpytest_subprocess(*collect, "-p", PLUGIN)
        assert ids(result) == ["cpu", "fake", "cuda", "fake:1"] * 2
