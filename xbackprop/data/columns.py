"""Load a table with columns of all kinds: what to predict from which columns, in two parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np

from xbackprop.data.csv_files import find_column, is_number
from xbackprop.data.errors import DataError, quote
from xbackprop.data.frames import Frame, read_frame
from xbackprop.data.preprocessing import Preprocessing, fit_preprocessing
from xbackprop.data.splits import Split, split_indices
from xbackprop.data.targets import ClassLabels, as_integer, check_class_sizes, classes_of_cells

TASKS = ("classification", "regression")
_FEWEST_STEPS = 1024  # so that rounding is within 0.05 % of the spread
_MOST_CLASSES = 20  # whole numbers of more different values are a quantity, unless told otherwise


@dataclass(frozen=True, eq=False, repr=False)
class TableSplit(Split):
    """A table in two parts, as the numbers that its columns became.

    Parameters
    ----------
    x_train, y_train, x_test, y_test, classes, feature_names, name
        As for :class:`xbackprop.data.Split`; quantities are float64, not yet scaled.
    preprocessing : Preprocessing
        Learned from the training part.
    targets : tuple of str
        The target's columns.
    reason : str
        Why it is this task, for those who did not choose it; else empty.
    notes : tuple of str
        What was out of the ordinary: numbers that are read as texts, and texts of the test part
        that the training part has not.
    """

    preprocessing: Preprocessing
    targets: tuple[str, ...]
    reason: str
    notes: tuple[str, ...]


def load_columns(
    path: str | Path,
    *,
    target: str | None,
    features: Sequence[str] | None = None,
    task: str | None = None,
    unknown: str = "ignore",
    test_size: float = 0.2,
    rng: int | np.random.Generator = 0,
) -> TableSplit:
    """Load a table, learn from its training part how its columns become numbers, and split it.

    Parameters
    ----------
    path : str or Path
        See :func:`xbackprop.data.frames.read_frame`.
    target : str or None
        The column to predict; several quantities are separated by commas. None is an error that
        lists the columns.
    features : sequence of str, optional
        The columns to predict it from; None takes all others.
    task : str, optional
        One of ``TASKS``; None finds out by the target: texts and up to 20 different whole numbers
        are classes, other numbers are quantities.
    unknown : str
        See :class:`xbackprop.data.preprocessing.Preprocessing`.
    test_size : float or int
        As for :func:`xbackprop.data.train_test_split`.
    rng : int or numpy.random.Generator
        Of the split, which keeps the proportions of classes.

    Returns
    -------
    TableSplit

    Raises
    ------
    DataError
        Whatever is wrong with the file, and where.
    """
    frame = read_frame(path, target=target)
    targets = find_targets(frame, target)
    names = _find_features(frame, targets, features)
    reason = ""
    if task is None:
        task, reason = infer_task(frame, targets)
    if task == "classification":
        labels = read_classes(frame, targets)
        y, classes = labels.codes, labels.classes

        def locate(row: int) -> str:
            return f"{frame.where(row)}, column {quote(targets[0])}"

        check_class_sizes(frame.path, labels, locate)
    else:
        y, classes = read_quantities(frame, targets), None
        _check_resolution(frame, targets, y)
    try:
        train, test = split_indices(frame.rows, test_size, y if classes else None, rng)
    except ValueError as error:
        raise DataError(f"{frame.path}: {error}") from error
    learned = fit_preprocessing(frame, names, train, unknown=unknown)
    x, notes = learned.apply(frame)
    notes = [*_numbers_among_texts(frame, names), *notes]
    return TableSplit(
        x[train], y[train], x[test], y[test], classes, learned.feature_names, frame.path.name,
        learned, targets, reason, tuple(notes),
    )  # fmt: skip


def find_targets(frame: Frame, target: str | None) -> tuple[str, ...]:
    """Return the target's columns: the one of that name, else those between the commas."""
    if not target:
        names = ", ".join(quote(name) for name in frame.names[:20])
        raise DataError(f"{frame.path}: which column is the target? Name one of {names}.")
    if target in frame.names:
        return (target,)
    parts = [part.strip() for part in target.split(",")]
    if len(parts) < 2 or not any(part in frame.names for part in parts):
        parts = [target]
    found = tuple(_find(frame, part, "target column") for part in parts)
    if len(set(found)) < len(found):
        raise DataError(f"{frame.path}: a target column is named twice in {quote(target)}.")
    return found


def infer_task(frame: Frame, targets: Sequence[str]) -> tuple[str, str]:
    """Return the task that the target's columns look like, and why."""
    if len(targets) > 1:
        return "regression", f"{len(targets)} targets"
    (target,) = targets
    if not frame.is_number(target):
        return "classification", f"{quote(target)} holds texts"
    values = frame.numbers(target)
    known = np.unique(values[~np.isnan(values)])
    if (known != np.floor(known)).any():
        return "regression", f"{quote(target)} holds numbers with fractions"
    count = f"{len(known)} different whole numbers"
    if len(known) <= _MOST_CLASSES:
        return "classification", f"{quote(target)} holds {count}"
    return "regression", f"{quote(target)} holds {count}, more than {_MOST_CLASSES}"


def read_classes(frame: Frame, targets: Sequence[str]) -> ClassLabels:
    """Read the target as classes; DataError names an empty cell."""
    if len(targets) > 1:
        raise DataError(f"{frame.path}: classes stand in one column; got {len(targets)} targets.")
    (target,) = targets
    cells = frame.texts(target)
    if "" in cells:
        raise frame.refusal(cells.index(""), target, "expected a class; the cell is empty")
    return classes_of_cells(
        frame.path, cells, lambda row: f"{frame.where(row)}, column {quote(target)}"
    )


def codes_of_texts(frame: Frame, target: str, classes: Sequence[str | int]) -> np.ndarray:
    """Read the target as indices into known classes; DataError names a cell of another one."""
    code_of: dict[str | int, int] = {label: code for code, label in enumerate(classes)}
    cells = frame.texts(target)
    codes = {}
    for cell in dict.fromkeys(cells):
        label = as_integer(cell) if isinstance(classes[0], int) else cell
        if not cell:
            raise frame.refusal(cells.index(""), target, "expected a class; the cell is empty")
        if label is None or label not in code_of:
            known = ", ".join(quote(label) for label in classes[:20])
            problem = f"class {quote(cell)} is none of the model's, {known}"
            raise frame.refusal(cells.index(cell), target, problem)
        codes[cell] = code_of[label]
    return np.array([codes[cell] for cell in cells], dtype=np.int64)


def read_quantities(frame: Frame, targets: Sequence[str]) -> np.ndarray:
    """Read the target as float64 of shape (rows, targets), in the range of float32.

    Whoever scales it does so before it is rounded. DataError names a cell without a number.
    """
    columns = []
    for target in targets:
        values = frame.numbers(target)
        if np.isnan(values).any():
            row = int(np.argmax(np.isnan(values)))
            raise frame.refusal(row, target, "expected a number; the cell is empty")
        with np.errstate(over="ignore"):
            is_far = np.isinf(values.astype(np.float32))
        if is_far.any():
            row = int(np.argmax(is_far))
            raise frame.refusal(row, target, f"{values[row]} is too large for float32")
        columns.append(values)
    return np.stack(columns, axis=1)


def _check_resolution(frame: Frame, targets: Sequence[str], y: np.ndarray) -> None:
    """Refuse different quantities with fewer steps of float64 between them than train well."""
    for name, values in zip(targets, y.T, strict=True):
        spread, step = np.ptp(values), np.spacing(np.abs(values).max())
        if spread >= _FEWEST_STEPS * step or len(set(map(Decimal, frame.texts(name)))) == 1:
            continue
        raise DataError(
            f"{frame.path}, column {quote(name)}: the numbers, near {values[0]:.17g}, differ by "
            "too little for float64. Subtract what they have in common."
        )


def _find_features(
    frame: Frame, targets: Sequence[str], features: Sequence[str] | None
) -> list[str]:
    if features is None:
        names = [name for name in frame.names if name not in targets]
        if not names:
            raise DataError(
                f"{frame.path}: no columns beside the target, so nothing to learn from."
            )
        return names
    names = [_find(frame, name, "feature column") for name in features]
    for name in names:
        if name in targets:
            raise DataError(
                f"{frame.path}: column {quote(name)} is the target and a feature as well."
            )
        if names.count(name) > 1:
            raise DataError(f"{frame.path}: column {quote(name)} is listed as a feature twice.")
    return names


def _numbers_among_texts(frame: Frame, names: Sequence[str]) -> list[str]:
    """Say which columns of texts look like numbers, and the first cell that is none."""
    notes = []
    for name in names:
        if frame.is_number(name):
            continue
        cells = frame.texts(name)
        different = dict.fromkeys(cell for cell in cells if cell)
        if 2 * sum(is_number(cell.replace(",", ".")) for cell in different) > len(different):
            row = frame.first_text(name)
            hint = " Numbers have a point, as 1234.5." if "," in cells[row] else ""
            notes.append(
                f"column {quote(name)}: most of it looks like numbers, but it is read as texts, "
                f"since {frame.where(row)} holds {quote(cells[row])}.{hint}"
            )
    return notes


def _find(frame: Frame, name: str, role: str) -> str:
    return frame.names[find_column(str(frame.path), frame.names, name, role)]
