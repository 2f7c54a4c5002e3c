"""table: the whole suite on a device, in chunks; a run goes on where the last one stopped."""

import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from benchmarks.gpu import results
from benchmarks.gpu.guard import Guard
from benchmarks.gpu.rows import TESTS
from xbackprop.backend.device import Device

_QUICK = ("test_labels.py",)
_CHUNK = 8  # files in one pytest; a start costs seconds


def measure(device: Device, guard: Guard, *, quick: bool, out: Path) -> dict[str, Any]:
    """Return a row for each chunk of files, with those of earlier runs of this part."""
    names = _QUICK if quick else sorted(path.name for path in TESTS.glob("test_*.py"))
    chunks = [names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)]
    done = {
        tuple(row["files"]): row
        for entry in results.read(out)
        if entry["part"] == "table" and entry["device"] == str(device)
        for row in entry["rows"]
        if row["complete"] and row["passed"]
    }
    rows = []
    for chunk in chunks:
        if tuple(chunk) in done:
            rows.append(done[tuple(chunk)])
        elif not guard.is_over:
            rows.append(run_pytest(chunk, device, guard))
    counts = {kind: sum(row[kind] for row in rows) for kind in ("tests", "failures", "skipped")}
    return {
        "passed": all(row["passed"] for row in rows) and bool(rows),
        "complete": len(rows) == len(chunks) and all(row["complete"] for row in rows),
        "summary": f"{counts['tests']:,} tests, {counts['failures']} failed, "
        f"{counts['skipped']} skipped, {len(rows)} of {len(chunks)} groups of files",
        "rows": rows,
    }


def run_pytest(files: Any, device: Device, guard: Guard) -> dict[str, Any]:
    """Run some files on the device, which must be there; stop them when the time is over."""
    env = {**os.environ, "XBACKPROP_DEVICE": str(device)}
    env["XBACKPROP_TEST_REQUIRE"] = str(device)
    paths = (str(TESTS.parent), os.environ.get("PYTHONPATH"))  # these sources, in its children too
    env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
            "--xb-devices", str(device), "--junitxml", str(report), *files,
        ]  # fmt: skip
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=TESTS, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            output, _ = process.communicate(timeout=max(guard.left, 1))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # pytest writes its report then
            try:
                output, _ = process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                output, _ = process.communicate()
        row = {"files": list(files), "tests": 0, "failures": 0, "skipped": 0}
        if report.exists():
            suite = ElementTree.parse(report).getroot().find("testsuite")
            found = {} if suite is None else suite.attrib
            row["tests"] = int(found.get("tests", 0))
            row["failures"] = int(found.get("failures", 0)) + int(found.get("errors", 0))
            row["skipped"] = int(found.get("skipped", 0))
    is_complete = process.returncode in (0, 1)
    return row | {
        "complete": is_complete,
        "passed": process.returncode == 0 or (not is_complete and not row["failures"]),
        "seconds": time.perf_counter() - started,
        "tail": "" if process.returncode == 0 else output[-4000:],
    }
