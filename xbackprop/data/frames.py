"""Tables with columns of their own kinds, read from CSV, TSV, Parquet, Feather and Arrow files.

CSV is read by ``csv_files`` alone, with the extra ``data`` and without it: pandas fills a short row
in silence, and pyarrow takes a quote that is never closed for the end of the file.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xbackprop.data.csv_files import is_number, read_cells
from xbackprop.data.errors import DataError, quote
from xbackprop.data.files import check_path

TEXT_TABLES = (".csv", ".tsv")
ARROW_TABLES = (".parquet", ".feather", ".arrow")
TABLE_EXTENSIONS = (*TEXT_TABLES, *ARROW_TABLES)

# How a column of numbers says that there is none; in a column of texts only an empty cell does,
# for NA is a country and None a kind of masonry.
_MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none"})
_HOW = 'Install it with: pip install "xbackprop[data]"'


@dataclass(frozen=True, eq=False)
class Frame:
    """A table; what a column holds is asked for by its kind.

    Attributes
    ----------
    path : Path
        The file.
    columns : mapping of str to list of str or numpy.ndarray
        Cells of texts, the empty one where there is none; or numbers, NaN where there is none.
    others : mapping of str to str
        Columns that are neither, with what they hold. They do not matter until they are asked for.
    rows : int
        How many.
    where : callable
        From a row to its place in the file, such as ``line 5``.
    """

    path: Path
    columns: Mapping[str, "list[str] | np.ndarray"]
    others: Mapping[str, str]
    rows: int
    where: Callable[[int], str]

    @property
    def names(self) -> tuple[str, ...]:
        """All columns; those of texts and numbers come first."""
        return (*self.columns, *self.others)

    def _cells(self, name: str) -> "list[str] | np.ndarray":
        if name in self.others:
            raise DataError(
                f"{self.path}, column {quote(name)}: expected numbers or texts; got "
                f"{self.others[name]}. Convert it, or leave the column out with features."
            )
        return self.columns[name]

    def is_number(self, name: str) -> bool:
        """Tell whether all of a column's cells that are not missing are numbers."""
        cells = self._cells(name)
        return isinstance(cells, np.ndarray) or all(map(_may_be_number, set(cells)))

    def first_text(self, name: str) -> int:
        """Return the first row whose cell keeps a column from being one of numbers."""
        return next(row for row, cell in enumerate(self.texts(name)) if not _may_be_number(cell))

    def numbers(self, name: str) -> np.ndarray:
        """Return a column as float64, with NaN for what is missing.

        Parameters
        ----------
        name : str
            The column.

        Returns
        -------
        numpy.ndarray of float64, shape (rows,)

        Raises
        ------
        DataError
            Names the first cell that is no finite number.
        """
        cells = self._cells(name)
        if isinstance(cells, np.ndarray):
            values = cells.astype(np.float64)
        else:
            value_of = {cell: self._number(name, cells, cell) for cell in dict.fromkeys(cells)}
            values = np.array([value_of[cell] for cell in cells], dtype=np.float64)
        if np.isinf(values).any():
            row = int(np.argmax(np.isinf(values)))
            raise self.refusal(row, name, f"expected a finite number; got {values[row]}")
        return values

    def _number(self, name: str, cells: list[str], cell: str) -> float:
        if cell.lower() in _MISSING:
            return math.nan
        if not is_number(cell):
            raise self.refusal(cells.index(cell), name, f"expected a number; got {quote(cell)}")
        return float(cell)

    def texts(self, name: str) -> list[str]:
        """Return a column's cells as texts, empty where there is none."""
        cells = self._cells(name)
        if isinstance(cells, list):
            return cells
        if cells.dtype.kind in "iu":
            return [str(value) for value in cells.tolist()]
        return ["" if math.isnan(value) else f"{value:.17g}" for value in cells.tolist()]

    def refusal(self, row: int, name: str, problem: str) -> DataError:
        """Return the error for one cell."""
        return DataError(f"{self.path}, {self.where(row)}, column {quote(name)}: {problem}.")


def _may_be_number(cell: str) -> bool:
    return is_number(cell) or cell.lower() in _MISSING


def read_frame(
    path: str | Path, *, target: str | None = None, delimiter: str | None = None
) -> Frame:
    """Read a table; nothing in its file is executed.

    Parameters
    ----------
    path : str or Path
        A ``.csv`` or ``.tsv`` file in UTF-8 with a header row, or a ``.parquet``, ``.feather`` or
        ``.arrow`` file.
    target : str, optional
        A column that a CSV file is known to have, which helps to find its delimiter.
    delimiter : str, optional
        Of the CSV file; None finds out.

    Returns
    -------
    Frame

    Raises
    ------
    DataError
        Whatever is wrong with the file, and where.
    """
    checked = check_path(path, TABLE_EXTENSIONS)
    try:
        if checked.suffix.lower() in ARROW_TABLES:
            return _read_arrow(checked)
        chosen = "\t" if checked.suffix.lower() == ".tsv" else delimiter
        cells = read_cells(checked, target=target, delimiter=chosen)
    except OSError as error:
        raise DataError(f"{checked}: cannot be read ({error.strerror or error}).") from error
    return Frame(
        checked, cells.columns, {}, len(cells.lines), lambda row: f"line {cells.lines[row]}"
    )


def require(package: str, purpose: str) -> Any:
    """Import a package of the extra ``data``; DataError says how to get it."""
    import importlib

    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        missing = (error.name or package).partition(".")[0]
        raise DataError(f"{purpose} needs {missing}, which is not installed. {_HOW}.") from error


def _read_arrow(path: Path) -> Frame:
    pyarrow = require("pyarrow", f"{path}: a {path.suffix} file")
    try:
        if path.suffix.lower() == ".parquet":
            # Not read_table, for which two columns of one name are a damaged file.
            with require("pyarrow.parquet", f"{path}: Parquet").ParquetFile(path) as file:
                table = file.read()
        else:
            table = _read_ipc(pyarrow, path)
        table.validate(full=True)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise
        kind = "Parquet" if path.suffix.lower() == ".parquet" else "Arrow"
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{path}: no {kind} file, damaged or cut short ({reason}).") from error
    if len(set(table.column_names)) < len(table.column_names):
        twice = next(n for n in table.column_names if table.column_names.count(n) > 1)
        raise DataError(f"{path}: two columns have the name {quote(twice)}. Rename one.")
    if not table.num_rows:
        raise DataError(f"{path}: no rows.")
    columns = {name: _cells_of(pyarrow, table[name]) for name in table.column_names}
    others = {name: str(table[name].type) for name, cells in columns.items() if cells is None}
    known = {name: cells for name, cells in columns.items() if cells is not None}
    return Frame(path, known, others, table.num_rows, lambda row: f"row {row + 1}")


def _read_ipc(pyarrow: Any, path: Path) -> Any:
    """Read Arrow's format of files, which Feather's second version is, or its format of streams."""
    with pyarrow.OSFile(str(path)) as file:
        is_file = file.read(6) == b"ARROW1"
        file.seek(0)
        opened = pyarrow.ipc.open_file(file) if is_file else pyarrow.ipc.open_stream(file)
        return opened.read_all()


def _cells_of(pyarrow: Any, column: Any) -> "list[str] | np.ndarray | None":
    """Return the cells of a column of Arrow's; None for what is neither numbers nor texts."""
    types, kind = pyarrow.types, column.type
    if types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if types.is_integer(kind) and not column.null_count:
        return np.asarray(column.to_numpy())
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        wide = column.cast(pyarrow.float64(), safe=False)
        return np.array([math.nan if v is None else v for v in wide.to_pylist()], np.float64)
    if types.is_null(kind):
        return np.full(len(column), math.nan)
    if types.is_boolean(kind) or types.is_string(kind) or types.is_large_string(kind):
        return [(cell or "").strip() for cell in column.cast(pyarrow.string()).to_pylist()]
    return None
