"""Files from anywhere: the short form of `python -m tests.reliability.files`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
QUICK = {  # how many inputs at least: a part that reads nothing finds nothing
    "truncation": 60,
    "flips": 400,
    "hostile": 240,
    "mutated checkpoints": 2000,
    "mutated CSV": 1500,
    "mutated NPZ": 1000,
    "audit": 600,
}

pytestmark = pytest.mark.skipif(os.name != "posix", reason="measures in forks, which POSIX has")


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("files") / "figures.json"
    command = [sys.executable, "-m", "tests.reliability.files", "--quick", "--out", str(out)]
    environment = {**os.environ, "XBACKPROP_DEVICE": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert out.exists(), done.stderr
    parts: dict[str, Any] = json.loads(out.read_text("utf-8"))["parts"]
    return parts


@pytest.mark.parametrize("part", QUICK)
def test_files_are_refused_fast_in_little_memory_and_do_nothing(
    part: str, figures: dict[str, Any]
) -> None:
    found = figures[part]
    assert found["findings"] == []
    assert found["inputs"] >= QUICK[part]
    assert found["refused"] + found["loaded"] == found["inputs"]
    assert found["worst_seconds"] > 0


def test_what_is_measured_was_there_to_be_measured(figures: dict[str, Any]) -> None:
    assert figures["hostile"]["worst_megabytes"] > 1
    for part in ("mutated checkpoints", "mutated CSV", "mutated NPZ", "audit"):
        assert figures[part]["loaded"] > figures[part]["inputs"] / 50, "mutations too coarse"
        assert figures[part]["refused"] > figures[part]["inputs"] / 2, "mutations too fine"


def test_second_start_goes_on_where_the_first_was_stopped(tmp_path: Path) -> None:
    from reliability import files

    out, progress = tmp_path / "it.json", tmp_path / "it.json.progress"
    key = files._key("flips", files.PARTS["flips"].quick)
    known = {"inputs": 7, "refused": 7, "worst_seconds": 0.5}
    progress.write_text(json.dumps([key, known]) + '\n["xbackprop', "utf-8")
    arguments = ["--quick", "--parts", "flips", "--out", str(out)]
    assert files.main(arguments) == 0  # nothing is left to run
    found = json.loads(out.read_text("utf-8"))["parts"]
    assert found == {"flips": {**known, "loaded": 0, "worst_megabytes": 0.0, "findings": []}}
    assert list(tmp_path.iterdir()) == [out]
    progress.write_text(json.dumps([key, {**known, "findings": ["one"]}]) + "\n", "utf-8")
    assert files.main(arguments) == 1
