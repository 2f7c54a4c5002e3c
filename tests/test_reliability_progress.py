"""The long checks can be interrupted and go on; their table says what held and what did not."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from reliability.progress import Figure, Progress, run
from reliability.table import README, documents, render, section


def test_a_second_start_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, computed = tmp_path / "table.json", []

    def squares(progress: Progress, quick: bool) -> Iterable[Figure]:
        values = [progress.part(f"square {n}", lambda n=n: square(n)) for n in range(4)]
        yield Figure("squares", "four numbers", 4, sum(v >= 0 for v in values), f"{max(values)}")

    def square(n: int) -> int:
        computed.append(n)
        if computed == [0, 1, 2]:
            raise KeyboardInterrupt
        return n * n

    with pytest.raises(KeyboardInterrupt):
        run([squares], "test", ["--out", str(out)])
    with (tmp_path / "table.progress").open("a") as file:
        file.write('["square 2", ')  # cut off in the middle of a line
    assert run([squares], "test", ["--out", str(out)]) == 0
    assert computed == [0, 1, 2, 2, 3]
    table = json.loads(out.read_text())
    assert table["figures"] == [
        {"bar": "squares", "what": "four numbers", "count": 4, "passed": 4, "worst": "9",
         "result": "passed"}
    ]  # fmt: skip
    assert not (tmp_path / "table.progress").exists()
    assert "passed squares: 4 of 4" in capsys.readouterr().out


def test_parts_of_other_settings_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "progress"
    assert Progress(path, {"quick": True}).part("a", lambda: 1) == 1
    assert Progress(path, {"quick": True}).part("a", lambda: 2) == 1
    assert Progress(path, {"quick": False}).part("a", lambda: 3) == 3


@pytest.mark.parametrize(("count", "passed"), [(3, 2), (0, 0)])
def test_a_bar_that_fails_or_checks_nothing_is_reported(
    tmp_path: Path, count: int, passed: int
) -> None:
    def bar(progress: Progress, quick: bool) -> Iterable[Figure]:
        yield Figure("bar", "things", count, passed)

    assert run([bar], "test", ["--out", str(tmp_path / "t.json")]) == 1
    assert json.loads((tmp_path / "t.json").read_text())["figures"][0]["result"] == "FAILED"


def test_readme_shows_what_was_measured() -> None:
    """Every figure of README's table is one that a script has written."""
    found = documents()
    assert section(README.read_text(encoding="utf-8")) == (render(found) if found else "")
    assert [document["title"] for document in found if document["quick"]] == []
