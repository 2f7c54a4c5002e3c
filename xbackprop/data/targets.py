"""Class labels of a table become indices 0 .. C - 1 into its sorted classes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xbackprop.data.errors import DataError, quote


@dataclass(frozen=True, eq=False)
class ClassLabels:
    """Labels as class indices.

    Parameters
    ----------
    codes : numpy.ndarray of int64, shape (samples,)
        Indices into ``classes``.
    classes : tuple of str or int
        Sorted.
    """

    codes: np.ndarray
    classes: tuple[str | int, ...]


def classes_of_cells(path: Path, cells: list[str], locate: Callable[[int], str]) -> ClassLabels:
    """Read labels from the cells of a CSV column.

    Parameters
    ----------
    path : Path
        For messages.
    cells : list of str
        Stripped and not empty. Integers when all of them are (``1`` and ``1.0`` are the same
        class), otherwise text.
    locate : callable
        From a row to its line and column in the file.

    Returns
    -------
    ClassLabels

    Raises
    ------
    DataError
        For NaN and infinities, for numbers with a fraction, and for a single class.
    """
    numbers: dict[str, float | None] = {}
    for cell in dict.fromkeys(cells):  # in the file's order, so the first bad cell is named
        try:
            number = None if "_" in cell else float(cell)  # 1_000 is text
        except ValueError:
            number = None
        numbers[cell] = number
        if number is not None and not math.isfinite(number):
            raise DataError(
                f"{path}, {locate(cells.index(cell))}: expected a class; got {quote(cell)}."
            )
    labels: dict[str, Any] = {cell: cell for cell in numbers}
    if all(number is not None for number in numbers.values()):
        for cell in numbers:
            labels[cell] = as_integer(cell)
            if labels[cell] is None:
                raise DataError(
                    f"{path}, {locate(cells.index(cell))}: expected a class (text or an integer); "
                    f"got {quote(cell)}. Pass regression=True if the target is a quantity."
                )
    classes = tuple(sorted(set(labels.values())))
    if len(classes) == 1:
        raise DataError(f"{path}, {locate(0)}: only one class, {quote(classes[0])}, in all rows.")
    code_of = {label: code for code, label in enumerate(classes)}
    codes = np.array([code_of[labels[cell]] for cell in cells], dtype=np.int64)
    return ClassLabels(codes, classes)


def as_integer(cell: str) -> int | None:
    """Return the integer that a cell stands for, ``1.0`` included; None for all else."""
    try:
        return int(cell)  # exact beyond 2**53
    except ValueError:
        pass
    try:
        number = float(cell)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def classes_of_array(
    path: Path, y: np.ndarray, name: str, known: tuple[str | int, ...] | None
) -> ClassLabels:
    """Read labels from an array of integers, booleans, text, or floats that are integers.

    Parameters
    ----------
    path : Path
        For messages.
    y : numpy.ndarray of shape (samples,)
        The labels.
    name : str
        For messages.
    known : tuple of str or int, optional
        The classes of the training part; None takes those in ``y``.

    Returns
    -------
    ClassLabels

    Raises
    ------
    DataError
        Names the array and the index.
    """
    if y.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            whole = np.isfinite(y) & (y == np.floor(y))
        if not whole.all():
            row = int(np.argmin(whole))
            raise DataError(
                f"{path}, array {name!r}: expected classes (integers or text); "
                f"got {name}[{row}] = {y[row]}. Pass regression=True if the target is a quantity."
            )
    if y.dtype.kind == "U" and (y == "").any():
        raise DataError(f"{path}, array {name!r}: empty label at index {int(np.argmax(y == ''))}.")
    found, codes = np.unique(y, return_inverse=True)
    labels = tuple(str(v) if y.dtype.kind == "U" else int(v) for v in found)
    if known is None:
        if len(labels) == 1:
            raise DataError(f"{path}, array {name!r}: only one class, {quote(labels[0])}.")
        return ClassLabels(codes.astype(np.int64), labels)
    code_of = {label: code for code, label in enumerate(known)}
    for label in labels:
        if label not in code_of:
            row = int(np.argmax(codes == labels.index(label)))
            raise DataError(
                f"{path}, array {name!r}: class {quote(label)} at index {row} is not in y_train, "
                f"whose classes are {', '.join(quote(c) for c in known[:20])}."
            )
    mapping = np.array([code_of[label] for label in labels], dtype=np.int64)
    return ClassLabels(mapping[codes], known)


def check_class_sizes(path: Path, labels: ClassLabels, locate: Callable[[int], str]) -> None:
    """Refuse a class of one row, which no stratified split can put into both parts."""
    counts = np.bincount(labels.codes)
    if counts.min() < 2:
        code = int(np.argmin(counts))
        row = int(np.argmax(labels.codes == code))
        raise DataError(
            f"{path}, {locate(row)}: class {quote(labels.classes[code])} has this one row only, "
            "and a stratified split needs two of each class. Pass stratify=False, or "
            "regression=True if the target is a quantity."
        )
