"""`python -m benchmarks.gpu` works on the stand-in and the CPU: known before there is a card."""

import functools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.backend.device import Device

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _beside_the_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def ask(monkeypatch: pytest.MonkeyPatch, out: Path, *arguments: str) -> tuple[int, Any]:
    from benchmarks.gpu.__main__ import main

    command = ["gpu", "--quick", "--out", str(out), *arguments]
    monkeypatch.setattr(sys, "argv", command)
    status = main()
    return status, json.loads((out / "results.json").read_text(encoding="utf-8"))[-1]


@pytest.mark.parametrize("part", ["parity", "kernels", "speed", "soak", "table"])
def test_every_part_runs(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Fewer runs than on a card: here the code is checked, and not a device.
    monkeypatch.setattr("benchmarks.gpu.parity.RUNS", 2)
    status, entry = ask(monkeypatch, tmp_path, "--part", part, "--device", "fake")
    assert status == 0
    assert entry["complete"]
    assert entry["rows"]
    assert entry["environment"]["card"] == "none: the stand-in"
    table = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert f"| {part} (quick) | fake:0 | none: the stand-in |" in table
    if part == "speed":
        assert entry["summary"] == "no timing on the stand-in"
        assert entry["passed"] is None
    else:
        assert entry["passed"]
    if part == "parity":
        check_replay(tmp_path, monkeypatch)


def check_replay(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = out / "trace-fake.npz"
    replay = ("--part", "parity", "--device", "cpu", "--replay")
    status, entry = ask(monkeypatch, out, *replay, str(file))
    assert (status, entry["part"]) == (0, "replay")
    assert len(entry["rows"]) > 8
    with np.load(file) as content:
        arrays = dict(content)
    name = next(n for n in arrays if arrays[n].dtype == np.float32 and arrays[n].size > 1)
    arrays[name] = arrays[name] + 1
    np.savez(out / "changed.npz", **arrays)
    with pytest.raises(ValueError, match="are not those that were recorded"):
        ask(monkeypatch, out, *replay, str(out / "changed.npz"))


def test_times_are_taken_where_there_is_a_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, entry = ask(monkeypatch, tmp_path, "--part", "speed", "--device", "cpu")
    assert status == 0
    kinds = {row["kind"] for row in entry["rows"]}
    assert kinds == {"card", "network", "op"}
    assert all(row["of_copy_bandwidth"] > 0 for row in entry["rows"] if row["kind"] == "op")


def test_a_part_out_of_time_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("parity", "soak", "table"):
        arguments = ("--part", part, "--device", "fake", "--minutes", "0")
        _, entry = ask(monkeypatch, tmp_path, *arguments)
        assert not entry["complete"]
    assert "out of time" in (tmp_path / "results.md").read_text(encoding="utf-8")


def test_an_error_of_the_device_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One op of the stand-in that is wrong in the fourth digit."""
    from benchmarks.gpu import parity
    from xbackprop.nn.activations.gates import gelu_forward

    monkeypatch.setattr("benchmarks.gpu.parity.RUNS", 2)
    reference = gelu_forward.reference

    @functools.wraps(reference)  # an op is named after its reference
    def wrong(x: Any, *rest: Any) -> Any:
        output, saved = reference(x, *rest)
        return (output if xb.get_array_module(x) is np else output * 1.0001), saved

    monkeypatch.setattr(gelu_forward, "reference", wrong)
    status, entry = ask(monkeypatch, tmp_path, "--part", "parity", "--device", "fake")
    assert status == 1
    failed = {row["name"] for row in entry["rows"] if not row["passed"]}
    assert failed == {"GELU", "xbackprop.nn.activations.gates.gelu_forward"}
    assert parity.ALLOWED < 1e-4


def test_differences_count_in_units_in_the_last_place() -> None:
    from benchmarks.gpu.rows import difference

    one = np.float32([1.0, 0.0])
    assert difference(one, one) == (0.0, 0.0)
    relative, ulps = difference(np.nextafter(one, np.float32(2)), one)
    assert relative == pytest.approx(2**-23)
    assert ulps == pytest.approx(1.0)
    for other in (one[:1], one.astype("f8"), np.float32([np.nan, 0]), np.float32([np.inf, 0])):
        assert difference(other, one) == (float("inf"), float("inf"))
    assert difference(np.array([1, 2]), np.array([1, 3]))[0] == float("inf")


def test_what_no_card_has_shown_is_not_claimed() -> None:
    from benchmarks.gpu import results

    readme = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert results.committed_table() in readme
    committed = list(results.COMMITTED.glob("gpu*/results.json"))
    if not committed:
        assert results.committed_table().count("not yet measured on a GPU") == len(results.PARTS)


@pytest.mark.parametrize("device", [Device("cpu"), Device("fake")], ids=str)
def test_the_timer(device: Device) -> None:
    from benchmarks.gpu.guard import timer

    seconds_of = timer(device)
    assert (seconds_of is None) == (device.kind == "fake")
    if seconds_of is not None:
        assert seconds_of(lambda: sum(range(1000))) > 0
