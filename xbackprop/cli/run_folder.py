"""The folder of a run: a name of its own, and the files in it."""

import contextlib
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO

from xbackprop.cli.errors import FAILED, CommandError

if TYPE_CHECKING:
    from xbackprop.training import EpochMetrics

MODEL, CONFIG, CHECKPOINTS = "model.safetensors", "config.json", "checkpoints"
# How long epochs took stands apart, so that equal runs have equal metrics.
METRICS, TIMING = "metrics.jsonl", "timing.jsonl"
# With --record-statistics: a line per recorded update, and one per epoch.
STATISTICS, TRANSFERS = "statistics.jsonl", "transfers.jsonl"
EVENTS, REPORT = "tensorboard", "report.html"
CURVES, CONFUSION = "curves.png", "confusion.png"
FILTERS, FEATURES, WORST = "filters.png", "features.png", "worst.png"
PICTURES = (CURVES, CONFUSION, FILTERS, FEATURES, WORST)
RUN_FILES = (
    MODEL, CONFIG, METRICS, TIMING, STATISTICS, TRANSFERS, EVENTS, *PICTURES, CHECKPOINTS,
)  # fmt: skip


def make_run_folder(out: str | None, data_name: str) -> Path:
    """Create the folder of a run.

    Parameters
    ----------
    out : str or None
        The folder that was asked for. It may exist, as long as it holds no run.
    data_name : str
        Without ``out``, the folder is ``runs/<data_name>``, or ``runs/<data_name>-2`` and so on.

    Returns
    -------
    Path

    Raises
    ------
    CommandError
        When the folder holds a run, or cannot be created.
    """
    folder = Path("runs") if out is None else Path(out)
    try:
        if out is None:
            return _make_numbered(folder, _file_name(data_name))
        folder.mkdir(parents=True, exist_ok=True)
        taken = [name for name in RUN_FILES if (folder / name).exists()]
        if not taken:
            _check_writable(folder)
            return folder
    except OSError as error:
        place = error.filename or folder
        raise CommandError(
            f"--out: cannot create the run folder {str(folder)!r} "
            f"({place}: {error.strerror or error}). Name a folder that can be written, as in "
            "--out FOLDER"
        ) from error
    raise CommandError(
        f"--out: {str(folder)!r} already holds a run ({', '.join(taken)}), which is kept. "
        "Choose another folder, or leave out --out"
    )


def missing_folders(out: str | None) -> list[Path]:
    """Return the folders that :func:`make_run_folder` will have to make, the inner ones first."""
    folder = Path("runs") if out is None else Path(out)
    return [place for place in (folder, *folder.parents) if not os.path.exists(place)]


def take_back(folder: Path, made: Sequence[Path]) -> None:
    """Remove the folder of a run that has not begun.

    Parameters
    ----------
    folder : Path
        Nothing but its configuration has been written.
    made : sequence of Path
        What was made for it, the inner ones first; only what is empty goes.
    """
    with contextlib.suppress(OSError):  # what went wrong first is what matters
        (folder / CONFIG).unlink()
        for place in made:
            place.rmdir()


def _make_numbered(parent: Path, name: str) -> Path:
    """Create the first folder that is not there; two runs that start at once get two."""
    parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1


def _file_name(data_name: str) -> str:
    """Make a folder name for every system from a data set's or a file's name."""
    stem = Path(data_name).stem
    letters = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in stem)
    return letters.strip("-.") or "run"


def _check_writable(folder: Path) -> None:
    """Find out before the training, not after it."""
    probe = folder / CONFIG
    probe.touch()
    probe.unlink()


def check_place(path: Path) -> None:
    """Find out before the work whether ``--out`` can name a file there.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    CommandError
        When it is a folder, or its folder is not there.
    """
    if path.is_dir():
        example = path / f"file{path.suffix}"
        raise CommandError(f"--out: {path} is a folder. Expected a file, such as {example}")
    if not path.parent.is_dir():
        raise CommandError(f"--out {path}: no such folder: {path.parent}. Create it first")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the disk's refusal to write a file into one line.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    CommandError
        Instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror or error}", FAILED) from error


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write what is needed to repeat a run.

    Parameters
    ----------
    folder : Path
        The run folder.
    config : dict
        Plain data.

    Raises
    ------
    CommandError
        When the disk refuses.
    """
    write_whole(folder / CONFIG, json.dumps(config, indent=2, allow_nan=False) + "\n")


def read_config(folder: Path, asked_by: str = "--resume") -> dict[str, Any]:
    """Read what :func:`write_config` wrote.

    Parameters
    ----------
    folder : Path
        The run folder.
    asked_by : str
        The option that named it, for messages.

    Returns
    -------
    dict

    Raises
    ------
    CommandError
        When there is no run in the folder.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        what = "no such folder" if not folder.is_dir() else f"holds no run: it has no {CONFIG}"
        raise CommandError(f"{asked_by}: {folder}: {what}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CommandError(f"{asked_by}: {path}: cannot be read ({error})") from error
    if not isinstance(config, dict):
        raise CommandError(f"{asked_by}: {path}: does not describe a run")
    return config


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second process out of a run folder, where the system can lock a folder.

    The lock is gone with the process, however it ends.

    Parameters
    ----------
    folder : Path
        The run folder.

    Raises
    ------
    CommandError
        When another process has it.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise CommandError(f"--resume: {folder}: this run is still going on") from None
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(descriptor)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of JSON lines; what a killed run left unfinished is left out.

    Parameters
    ----------
    path : Path
        The file; one that is not there has no rows.

    Returns
    -------
    list of dict
    """
    rows = []
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                row = json.loads(line)
                if isinstance(row, dict):
                    rows.append(row)
    return rows


class RowsFile:
    """A file of JSON lines, each of them on the disk's way when it is written.

    Parameters
    ----------
    path : Path
        The file.
    counter : str
        Key of the number by which the rows are ordered.
    done : int
        Rows of a number up to this are kept. The checkpoint that a resumed run goes on from is
        older than the file may be, so the file is written anew.
    """

    def __init__(self, path: Path, counter: str, done: int) -> None:
        self._path, self._counter, self._done = path, counter, done

    def __enter__(self) -> Self:
        kept = [row for row in read_rows(self._path) if row.get(self._counter, 0) <= self._done]
        write_whole(self._path, "".join(map(_line, kept)))
        with writing(self._path):
            self._file = open(self._path, "a", encoding="utf-8", newline="\n")
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):  # nothing is left to be written
            self._file.close()

    def write(self, row: dict[str, Any]) -> None:
        """Append a row."""
        with writing(self._path):
            self._file.write(_line(row))
            self._file.flush()


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


class MetricsFile:
    """A line of JSON per epoch, each of them on the disk's way when its epoch ends.

    What a run took goes into a file of its own: it differs between runs that are equal.

    Parameters
    ----------
    folder : Path
        The run folder.
    rows : sequence of EpochMetrics
        Those of a resumed run. The checkpoint that it goes on from is older than the files may be,
        so the files are written anew.
    """

    def __init__(self, folder: Path, rows: "Sequence[EpochMetrics]" = ()) -> None:
        self._paths = (folder / METRICS, folder / TIMING)
        self._rows = rows
        self._files: list[TextIO] = []

    def __enter__(self) -> Self:
        texts = zip(*map(_lines, self._rows), strict=True) if self._rows else ((), ())
        for path, lines in zip(self._paths, texts, strict=True):
            write_whole(path, "".join(lines))
            with writing(path):
                self._files.append(open(path, "a", encoding="utf-8", newline="\n"))
        return self

    def __exit__(self, *exception: object) -> None:
        for file in self._files:
            # Nothing is left to be written, unless a write has failed and been reported.
            with contextlib.suppress(OSError):
                file.close()

    def write(self, row: "EpochMetrics") -> None:
        """Append an epoch."""
        for path, file, line in zip(self._paths, self._files, _lines(row), strict=True):
            with writing(path):
                file.write(line)
                file.flush()


def _lines(row: "EpochMetrics") -> tuple[str, str]:
    """Return an epoch's metrics and its time as lines; null for what JSON has no number for."""
    plain = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.as_dict().items()
    }
    timing = {"epoch": plain["epoch"], "seconds": plain.pop("seconds")}
    return _line(plain), _line(timing)


def write_whole(path: Path, text: str) -> None:
    """Write a text file in one move; a CommandError when the disk refuses."""
    from xbackprop.training.atomic import write_atomically  # it trains: not for --help

    with writing(path), write_atomically(path) as file:
        file.write(text.encode("utf-8"))
