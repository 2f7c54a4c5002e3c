"""README's figures of parity are those of the last whole run, which compared all there is."""

import json
import os
from pathlib import Path

import pytest
from layer_cases import CASES
from optimizer_cases import OPTIMIZERS
from parity.names import OTHERS, made_by
from parity.table import SECTION, read_counts, render
from readme_section import read_section

import xbackprop as xb
from xbackprop.docs.entries import entries

AGAIN = "run `nox -s torch_parity`, which writes tests/parity/counts.json and README"


def test_readme_shows_what_was_counted():
    assert read_section(*SECTION) == render(read_counts()), AGAIN


def test_everything_was_compared_and_nothing_differs():
    rows = {row["name"]: row for row in read_counts()["modules"] if row["family"] != OTHERS}
    public = {entry.name for entry in entries() if not entry.is_base}
    assert public - set(rows) == set(), f"new; {AGAIN}"
    assert set(rows) - public == set(), f"gone; {AGAIN}"
    assert [name for name, row in rows.items() if row["mismatch"]] == []
    uncompared = [name for name, row in rows.items() if row["pytorch"] and not row["match"]]
    assert uncompared == [], "PyTorch has these; add rows"


def test_rows_name_what_they_make():
    public = {entry.name for entry in entries()}
    # Users' own composites, which rows have too, are counted under their tests' names.
    own = {type(case.make()) for case in CASES} - set(xb.nn.catalogue().values())
    assert all(cls.__module__.startswith("layer_cases") for cls in own)
    named = {made_by(case) for case in (*CASES, *OPTIMIZERS)}
    assert named - {cls.__name__ for cls in own} <= public
    assert made_by("ReLU") == "ReLU"
    assert made_by(0.5) == ""


COMPARISONS = """
import pytest

pytestmark = pytest.mark.torch_parity

@pytest.fixture
def broken():
    raise OSError

@pytest.mark.parametrize("name", ["ReLU", "Tanh", "no name of a layer"])
def test_by_name(name):
    assert name != "Tanh"

@pytest.mark.torch_parity("ReLU", "Tanh")
def test_two():
    pass

@pytest.mark.torch_parity("SGD")
def test_skipped():
    pytest.skip("no reason")

@pytest.mark.torch_parity("SGD")
def test_cannot_start(broken):
    pass
"""


@pytest.mark.parametrize("workers", [0, 2], ids=["one process", "workers"])
def test_counting(pytester, monkeypatch, tmp_path, workers):
    """Alike in one process and in those of pytest-xdist, whose reports travel as plain data."""
    pytester.makeini("[pytest]\nmarkers = torch_parity(*names)")
    pytester.makeconftest(Path(__file__).with_name("conftest.py").read_text(encoding="utf-8"))
    pytester.makepyfile(COMPARISONS)
    places = (Path(__file__).parent, Path(xb.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, places)))
    path = tmp_path / "counts.json"
    options = ["-m", "torch_parity", "--parity-counts", str(path)]
    if workers:
        pytest.importorskip("xdist")
        options += ["-n", str(workers)]
    result = pytester.runpytest_subprocess(*options)
    assert result.ret == 1
    rows = {row["name"]: row for row in json.loads(path.read_text())["modules"]}
    words = ("family", "match", "mismatch", "skipped", "why skipped")
    found = {name: [row[word] for word in words] for name, row in rows.items()}
    assert found.pop("Linear") == ["linear maps", 0, 0, 0, {}]  # what was not compared is there too
    assert {name: row for name, row in found.items() if any(row[1:])} == {
        "ReLU": ["activations", 2, 0, 0, {}],
        "Tanh": ["activations", 1, 1, 0, {}],
        "SGD": ["optimizers", 0, 1, 1, {"no reason": 1}],
        "test_by_name": [OTHERS, 1, 0, 0, {}],
    }


def test_rendering():
    row = {"name": "A", "family": "one", "match": 1200, "mismatch": 1, "skipped": 0}
    other = {**row, "name": "B", "match": 3, "mismatch": 0, "skipped": 2}
    loader = {**row, "name": "test_loader", "family": OTHERS}
    text = render({"versions": {"PyTorch": "9.9"}, "modules": [row, other, loader]})
    assert "| one | 2 | 1,203 of 1,204, 2 skipped |\n| all | 2 |" in text
    assert "PyTorch 9.9" in text


@pytest.mark.parametrize("name", ["parity", "reliability"])
def test_marks_stand_once(name):
    from readme_section import README

    assert README.read_text(encoding="utf-8").count(f"<!-- {name}: ") == 2
