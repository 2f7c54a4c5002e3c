"""The folder of a run: a name of its own, and the files in it."""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self, TextIO

from xbackprop.cli.errors import FAILED, CommandError

MODEL, CONFIG, METRICS = "model.safetensors", "config.json", "metrics.jsonl"
CURVES, CONFUSION = "curves.png", "confusion.png"
RUN_FILES = (MODEL, CONFIG, METRICS, CURVES, CONFUSION)


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
    path = folder / CONFIG
    text = json.dumps(config, indent=2, allow_nan=False)
    with writing(path):
        path.write_text(f"{text}\n", encoding="utf-8", newline="\n")


class MetricsFile:
    """A line of JSON per epoch, each of them on the disk's way when its epoch ends.

    Parameters
    ----------
    folder : Path
        The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / METRICS
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        with writing(self._path):
            self._file = open(self._path, "x", encoding="utf-8", newline="\n")
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            # Nothing is left to be written, unless a write has failed and been reported.
            with contextlib.suppress(OSError):
                self._file.close()

    def write(self, row: dict[str, Any]) -> None:
        """Append a line; what is not finite becomes null, which JSON has and NaN it has not."""
        plain = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in row.items()
        }
        assert self._file is not None
        with writing(self._path):
            self._file.write(json.dumps(plain, allow_nan=False) + "\n")
            self._file.flush()
