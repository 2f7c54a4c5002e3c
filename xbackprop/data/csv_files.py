"""Read a CSV file into numbers and labels, and name the line and the column of what is wrong."""

import array
import contextlib
import csv
import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from xbackprop.data.errors import DataError, quote
from xbackprop.data.files import explain_encoding

DELIMITERS = (",", ";", "\t")
_LARGEST = float(np.finfo(np.float32).max)

# A record is held whole, and takes up to twenty times its letters; this one would have half a
# million columns of three digits.
_LONGEST_RECORD = 2_000_000
_MOST_COMPARED, _LONGEST_COMPARED = 1000, 100  # names, and letters in one: in "Did you mean"


@dataclass(frozen=True)
class CsvTable:
    """What a CSV file holds: numbers as float32, labels as the text of their cells.

    Parameters
    ----------
    numbers : numpy.ndarray of float32, shape (rows, columns)
        The features, in the order of ``names``; a numeric target comes last.
    labels : list of str
        The target's cells, stripped; empty when the target is numeric.
    names : tuple of str
        The features' columns.
    lines : sequence of int
        The line in the file on which each row begins.
    """

    numbers: np.ndarray
    labels: list[str]
    names: tuple[str, ...]
    lines: Sequence[int]


def read_csv(
    path: Path,
    *,
    target: str | None,
    features: Sequence[str] | None,
    has_numeric_target: bool,
    delimiter: str | None,
) -> CsvTable:
    """Read a CSV file with a header row, in UTF-8.

    Parameters
    ----------
    path : Path
        The file.
    target : str or None
        Name of the target's column; None is an error that lists the columns.
    features : sequence of str, optional
        Names of the columns to use; None takes all but the target.
    has_numeric_target : bool
        Read the target as numbers too.
    delimiter : str, optional
        None finds out which of comma, semicolon and tab it is.

    Returns
    -------
    CsvTable

    Raises
    ------
    DataError
        Names file, line and column.
    OSError
        When the file cannot be opened or read.
    """
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n '):
        raise DataError(f"delimiter expects one character, such as ';'; got {quote(delimiter)}.")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            chosen = delimiter or _sniff_delimiter(path, file, target)
            file.seek(0)
            records = _records(path, file, chosen)
            header_line, header = _read_header(path, records)
            where = f"{path}, line {header_line}"
            target_index = _find_target(where, header, target)
            columns = _find_features(where, header, target_index, features)
            if has_numeric_target:
                columns = [*columns, target_index]
            return _read_rows(path, records, header, columns, target_index, has_numeric_target)
    except UnicodeDecodeError:
        raise explain_encoding(path) from None


@dataclass(frozen=True)
class CsvCells:
    """The cells of a CSV file as they stand there, without the blanks around them.

    Parameters
    ----------
    columns : dict of str to list of str
        By name, in the file's order.
    lines : sequence of int
        The line on which each row begins.
    """

    columns: dict[str, list[str]]
    lines: Sequence[int]


def read_cells(path: Path, *, target: str | None = None, delimiter: str | None = None) -> CsvCells:
    """Read a CSV file with a header row, in UTF-8, and leave open what its cells mean.

    Parameters
    ----------
    path : Path
        The file.
    target : str, optional
        A column that it is known to have, which helps to find the delimiter.
    delimiter : str, optional
        None finds out which of comma, semicolon and tab it is.

    Returns
    -------
    CsvCells

    Raises
    ------
    DataError
        Names file, line and column.
    OSError
        When the file cannot be opened or read.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            chosen = delimiter or _sniff_delimiter(path, file, target)
            file.seek(0)
            records = _records(path, file, chosen)
            header_line, header = _read_header(path, records)
            for number, name in enumerate(header, 1):
                if not name:
                    raise DataError(
                        f"{path}, line {header_line}, column {number}: this column has no name. "
                        "Name it (an index that pandas wrote is left out with index=False)."
                    )
            columns: list[list[str]] = [[] for _ in header]
            known: dict[str, str] = {}  # one string object per different cell, not per row
            lines = array.array("q")
            for line, cells in records:
                if len(cells) != len(header):
                    raise _explain_ragged(path, line, cells, header)
                for column, cell in zip(columns, cells, strict=True):
                    text = cell.strip()
                    column.append(known.setdefault(text, text))
                lines.append(line)
    except UnicodeDecodeError:
        raise explain_encoding(path) from None
    if not lines:
        raise DataError(f"{path}: a header and no rows.")
    return CsvCells(dict(zip(header, columns, strict=True)), lines)


class _BoundedLines:
    """The lines of a file; refuses the one with which a record becomes too long."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path, self._file = path, file
        self._left = _LONGEST_RECORD

    def __iter__(self) -> "_BoundedLines":
        return self

    def __next__(self) -> str:
        line = self._file.readline(self._left + 1)
        self._left -= len(line)
        if self._left < 0:
            raise DataError(
                f"{self._path}: a record of more than {_LONGEST_RECORD} letters. Expected one line "
                "for each sample."
            )
        if not line:
            raise StopIteration
        return line

    def start_record(self) -> None:
        """Begin to count anew."""
        self._left = _LONGEST_RECORD


def _records(path: Path, file: TextIO, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the records that are not blank, with the line on which each begins."""
    lines = _BoundedLines(path, file)
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
    while True:
        line = reader.line_num + 1
        lines.start_record()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{path}, line {line}: not a valid CSV record ({error}).") from error
        if len(cells) > 1 or (cells and cells[0].strip()):
            yield line, cells


def _sniff_delimiter(path: Path, file: TextIO, target: str | None) -> str:
    """Return the delimiter that splits the header into most columns and the first row alike."""
    best, best_score = DELIMITERS[0], (False, False, 0)
    for delimiter in DELIMITERS:
        file.seek(0)
        header: list[str] = []
        fits = False
        with contextlib.suppress(DataError):  # reading the table with the best one tells where
            filled = (
                cells
                for _, cells in _records(path, file, delimiter)
                if any(cell.strip() for cell in cells)
            )
            header = next(filled, [])
            fits = len(next(filled, header)) == len(header) > 1
        score = (target in [cell.strip() for cell in header], fits, len(header))
        if score > best_score:
            best, best_score = delimiter, score
    return best


def _read_header(path: Path, records: Iterator[tuple[int, list[str]]]) -> tuple[int, list[str]]:
    line, cells = next(records, (1, None))
    if cells is None:
        raise DataError(f"{path}, line 1: no header and no rows; the file is empty.")
    header = [cell.strip() for cell in cells]
    if all(is_number(name) for name in header):
        raise DataError(
            f"{path}, line {line}: expected a header with the names of the columns; "
            f"got numbers only ({list_names(header)}). Add a first line with names."
        )
    first_seen: dict[str, int] = {}
    for number, name in enumerate(header, 1):
        if name and name in first_seen:
            raise DataError(
                f"{path}, line {line}, column {number}: duplicate header {quote(name)}, also the "
                f"name of column {first_seen[name]}. Rename one."
            )
        first_seen[name] = number
    return line, header


def _find_target(where: str, header: list[str], target: str | None) -> int:
    if not target:
        raise DataError(f"{where}: which column is the target? Name one of {list_names(header)}.")
    return find_column(where, header, target, "target column")


def find_column(where: str, header: Sequence[str], name: str, role: str) -> int:
    """Return the place of a column; DataError names those that there are, and one that is close."""
    if name in header:
        return list(header).index(name)
    compared = [other for other in header[:_MOST_COMPARED] if len(other) <= _LONGEST_COMPARED]
    close = difflib.get_close_matches(name, compared, n=1) or [
        other for other in header if other.lower() == name.lower()
    ]
    hint = f" Did you mean {quote(close[0])}?" if close else ""
    if len(header) == 1:
        hint += " Expected columns separated by a comma, a semicolon or a tab."
    if any(is_number(other) for other in header):
        hint += " This line looks like data: the first line must hold the names of the columns."
    raise DataError(
        f"{where}: no {role} {quote(name)}. The columns are {list_names(header)}.{hint}"
    )


def _find_features(
    where: str, header: list[str], target: int, features: Sequence[str] | None
) -> list[int]:
    if features is None:
        columns = [index for index in range(len(header)) if index != target]
        for index in columns:
            if not header[index]:
                raise DataError(
                    f"{where}, column {index + 1}: this column has no name. Name it (an index "
                    "that pandas wrote is left out with index=False), or list features."
                )
        if not columns:
            raise DataError(
                f"{where}: only one column, {quote(header[target])}, and no features. "
                "Expected columns separated by a comma, a semicolon or a tab."
            )
        return columns
    if isinstance(features, str):
        raise TypeError(f"features expects a list of column names; got the text {quote(features)}.")
    columns = [find_column(where, header, name, "feature column") for name in features]
    if not columns:
        raise DataError(f"{where}: the list of features is empty. Name at least one column.")
    if target in columns:
        raise DataError(
            f"{where}: column {quote(header[target])} is the target and a feature as well."
        )
    for index in columns:
        if columns.count(index) > 1:
            raise DataError(f"{where}: column {quote(header[index])} is listed as a feature twice.")
    return columns


def _read_rows(
    path: Path,
    records: Iterator[tuple[int, list[str]]],
    header: list[str],
    columns: list[int],
    target: int,
    has_numeric_target: bool,
) -> CsvTable:
    numbers, lines = array.array("f"), array.array("q")
    labels: list[str] = []
    known: dict[str, str] = {}  # one string object per class, not per row
    for line, cells in records:
        if len(cells) != len(header):
            raise _explain_ragged(path, line, cells, header)
        texts = [cells[index] for index in columns]
        try:
            values = list(map(float, texts))
        except ValueError:
            values = [math.nan]
        # min and max may step over a NaN, a sum never does. float() reads 1_000 as a number.
        if (
            not (min(values) >= -_LARGEST and max(values) <= _LARGEST)
            or math.isnan(sum(values))
            or "_" in "".join(texts)
        ):
            raise _explain_number(path, line, header, columns, texts)
        if not has_numeric_target:
            label = cells[target].strip()
            if not label:
                raise DataError(f"{path}, line {line}, column {quote(header[target])}: empty cell.")
            labels.append(known.setdefault(label, label))
        numbers.extend(array.array("f", values))
        lines.append(line)
    if not lines:
        raise DataError(f"{path}: a header and no rows.")
    names = tuple(header[index] for index in columns if index != target)
    matrix = np.frombuffer(numbers, np.float32).reshape(len(lines), len(columns))
    return CsvTable(matrix, labels, names, lines)


def _explain_number(
    path: Path, line: int, header: list[str], columns: list[int], texts: list[str]
) -> DataError:
    for index, text in zip(columns, texts, strict=True):
        problem = _describe_bad_number(text)
        if problem:
            column = quote(header[index]) if header[index] else str(index + 1)
            return DataError(f"{path}, line {line}, column {column}: {problem}")
    return DataError(f"{path}, line {line}: expected finite numbers.")


def _describe_bad_number(text: str) -> str | None:
    stripped = text.strip()
    if not stripped:
        return "empty cell. Fill in a number or leave out the row."
    if not is_number(stripped):
        comma = stripped.count(",") == 1 and is_number(stripped.replace(",", "."))
        hint = (
            "Write decimals with a point."
            if comma
            else "Encode it as a number or leave the column out with features."
        )
        return f"expected a number; got {quote(stripped)}. {hint}"
    value = float(stripped)
    if not math.isfinite(value):
        return f"expected a finite number; got {quote(stripped)}."
    if abs(value) > _LARGEST:
        return f"{quote(stripped)} is too large for float32."
    return None


def _explain_ragged(path: Path, line: int, cells: list[str], header: list[str]) -> DataError:
    if len(cells) < len(header):
        column = f"column {quote(header[len(cells)])}"
    else:
        column = f"column {len(header) + 1}"
    return DataError(
        f"{path}, line {line}, {column}: expected {len(header)} cells as in the header; "
        f"got {len(cells)}."
    )


def is_number(text: str) -> bool:
    """Tell whether a cell is a number; ``1_000`` is text."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def list_names(names: Sequence[str], limit: int = 20) -> str:
    """Return names for a message, quoted, the first of them when they are many."""
    listed = ", ".join(quote(name) for name in names[:limit])
    return listed if len(names) <= limit else f"{listed}, … ({len(names)} in all)"
