"""Files from anywhere: the short form of `nox -s reliability -- files`."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
QUICK = {  # how many inputs at least: a part that reads nothing finds nothing
    "cut short": 60,
    "flipped bit": 400,
    "hostile files": 240,
    "fuzzed checkpoints": 2000,
    "fuzzed CSV": 1500,
    "fuzzed NPZ": 1000,
    "audit hook": 600,
}

pytestmark = pytest.mark.skipif(os.name != "posix", reason="measures in forks, which POSIX has")


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("files") / "figures.json"
    command = [sys.executable, "-m", "reliability.files", "--quick", "--out", str(out)]
    path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "XBACKPROP_DEVICE": "cpu", "PYTHONPATH": path}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert out.exists(), done.stderr
    return {row["bar"]: row for row in json.loads(out.read_text("utf-8"))["figures"]}


@pytest.mark.parametrize("part", QUICK)
def test_files_are_refused_fast_in_little_memory_and_do_nothing(
    part: str, figures: dict[str, Any]
) -> None:
    found = figures[part]
    assert found["result"] == "passed", found
    assert found["count"] >= QUICK[part]


def test_what_is_measured_was_there_to_be_measured(figures: dict[str, Any]) -> None:
    megabytes = re.search(r"at most (\d+) MB", figures["hostile files"]["worst"])
    assert megabytes is not None
    assert int(megabytes[1]) > 1
    for part in ("fuzzed checkpoints", "fuzzed CSV", "fuzzed NPZ", "audit hook"):
        count, refused = figures[part]["count"], figures[part]["worst"].split()[0]
        share = int(refused.replace(",", "")) / count
        assert 0.5 < share < 0.98, "mutations too coarse or too fine"
