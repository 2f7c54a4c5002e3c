"""Every row of the table of real bugs behaves on the stand-in GPU as the table says."""

import importlib.util
import traceback
import warnings
from pathlib import Path

import numpy as np
import pytest
import real_bugs
from real_bugs import ROWS, RealBug

import xbackprop as xb

EVENT = {"synchronizes": "synchronization", "downloads": "download", "uploads": "upload"}
PAGE = Path(xb.__file__).parent / "docs" / "real_bugs.md"


def each(chosen: list[RealBug]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", chosen, ids=[row.run.__name__ for row in chosen])


def run(row: RealBug, device: str) -> object:
    if row.needs and importlib.util.find_spec(row.needs) is None:
        pytest.skip(f"the snippet needs {row.needs}")
    with xb.use_device(device), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("error")
        return row.run(xb.get_array_module(xb.asarray([0.0])), xb)


def line_of(error: BaseException) -> int | None:
    """Return the deepest line of the table that the error passed through."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == real_bugs.__file__]
    return lines[-1]


@each(ROWS)
def test_a_cpu_run_does_not_see_the_bug(row: RealBug) -> None:
    if row.on_cpu == "raises":
        with pytest.raises((IndexError, ValueError)) as caught:
            run(row, "cpu")
        assert line_of(caught.value) == row.faulty_line
    else:
        run(row, "cpu")


@each(ROWS)
def test_the_stand_in_does_what_the_table_says(row: RealBug) -> None:
    if row.how == "raises":
        with pytest.raises(Exception) as caught:  # noqa: PT011  (which one is in the row's hands)
            run(row, "fake")
        assert line_of(caught.value) == row.faulty_line, caught.value
        return
    with xb.transfer_log() as log:
        result = run(row, "fake")
    if row.how in EVENT:
        lines = [
            event.line
            for event in log.events
            if event.kind == EVENT[row.how] and event.filename == real_bugs.__file__
        ]
        assert lines.count(row.faulty_line) == row.count
    elif row.how == "changes the result":
        assert str(result) == row.result
    else:  # silent: nothing comes down, and a wait is the code's own, not a sign of the bug
        assert log.downloads == 0


@each([row for row in ROWS if row.how in ("synchronizes", "downloads")])
def test_a_budget_turns_a_count_into_a_failure(row: RealBug) -> None:
    with pytest.raises(xb.TransferError) as caught, xb.transfer_guard(**{EVENT[row.how] + "s": 0}):
        run(row, "fake")
    assert line_of(caught.value) == row.faulty_line


@each(ROWS)
def test_rows_are_complete(row: RealBug) -> None:
    owner, _, number = row.source.partition("#")
    assert owner.count("/") == 1
    assert number.isdigit()
    assert row.faulty_code
    assert (row.how == "changes the result") == bool(row.result)
    if row.result:
        assert str(run(row, "cpu")) != row.result


def test_the_page_of_the_documentation_is_the_generated_one() -> None:
    assert PAGE.read_text(encoding="utf-8") == real_bugs.documentation(), (
        "run: python tests/real_bugs.py > xbackprop/docs/real_bugs.md"
    )
