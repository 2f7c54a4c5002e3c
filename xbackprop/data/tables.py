"""Load a table of one's own: a CSV or NPZ file becomes features, targets and a split."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from xbackprop.data.arrays import check_finite
from xbackprop.data.csv_files import read_csv
from xbackprop.data.errors import DataError, quote
from xbackprop.data.files import check_path
from xbackprop.data.npz_files import read_npz
from xbackprop.data.splits import Split, split_indices
from xbackprop.data.targets import (
    ClassLabels,
    check_class_sizes,
    classes_of_array,
    classes_of_cells,
)

EXTENSIONS = (".csv", ".npz")
_FLOAT32 = np.dtype(np.float32)


def load_table(
    path: str | os.PathLike[str],
    *,
    target: str | None = None,
    features: Sequence[str] | None = None,
    regression: bool = False,
    test_size: float | None = None,
    stratify: bool | None = None,
    rng: int | np.random.Generator | None = None,
    delimiter: str | None = None,
) -> Split:
    """Load a CSV or NPZ file as a data set in two parts.

    Nothing in a file is ever executed; pickled content is refused.

    Parameters
    ----------
    path : str or path
        A ``.csv`` file: UTF-8, with a header row, separated by comma, semicolon or tab. Or an
        ``.npz`` file with the arrays ``X`` of shape (samples, ...) and ``y`` of shape (samples,),
        or ``x_train``, ``y_train``, ``x_test`` and ``y_test``.
    target : str, optional
        The target's column; required for CSV, and only there.
    features : sequence of str, optional
        CSV columns to use, in this order; None takes all but the target.
    regression : bool, default False
        The target is a number. Otherwise it is a class: text or integers.
    test_size : float or int, optional
        Fraction or number of rows in the test part; None is 0.2.
    stratify : bool, optional
        Keep the proportions of the classes; None does for classes.
    rng : int or numpy.random.Generator, optional
        Seed or generator of the split; None is seed 0, so a file always gives the same split.
    delimiter : str, optional
        Of the CSV file; None finds out.

    Returns
    -------
    Split
        Features as float32. Classes as int64 indices into ``classes``, which is sorted (integers
        by value, text by code point). Regression targets as float32 of shape (samples, outputs),
        where a plain column has one output.

    Raises
    ------
    DataError
        Whatever is wrong with the file; names the file and, where there is one, line and column.
    """
    checked = check_path(path, EXTENSIONS)
    if regression and stratify:
        raise DataError(f"{checked}: stratify=True needs classes, and regression=True has none.")
    should_stratify = not regression if stratify is None else stratify
    try:
        if checked.suffix.lower() == ".csv":
            x, y, names, locate = _load_csv(checked, target, features, regression, delimiter)
        else:
            _refuse_options(checked, target=target, features=features, delimiter=delimiter)
            arrays = read_npz(checked)
            if "x" not in arrays:
                _refuse_options(checked, test_size=test_size, stratify=stratify, rng=rng)
                return _use_given_split(checked, arrays, regression)
            x, y, names = _check_arrays(checked, arrays, "", regression)
            locate = "y[{}]".format
    except OSError as error:
        raise DataError(f"{checked}: cannot be read ({error.strerror or error}).") from error
    labels = y if isinstance(y, ClassLabels) else None
    if labels and should_stratify:
        check_class_sizes(checked, labels, locate)
    try:
        train, test = split_indices(
            len(x),
            0.2 if test_size is None else test_size,
            labels.codes if labels and should_stratify else None,
            0 if rng is None else rng,
        )
    except ValueError as error:
        raise DataError(f"{checked}: {error}") from error
    values = y.codes if isinstance(y, ClassLabels) else y
    return Split(
        x_train=x[train],
        y_train=values[train],
        x_test=x[test],
        y_test=values[test],
        classes=labels.classes if labels else None,
        feature_names=names,
        name=checked.name,
    )


def _refuse_options(path: Path, **options: object) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise DataError(f"{path}: {', '.join(given)} cannot apply to this file. Leave it out.")


def _load_csv(
    path: Path,
    target: str | None,
    features: Sequence[str] | None,
    regression: bool,
    delimiter: str | None,
) -> tuple[np.ndarray, np.ndarray | ClassLabels, tuple[str, ...], Callable[[int], str]]:
    table = read_csv(
        path,
        target=target,
        features=features,
        has_numeric_target=regression,
        delimiter=delimiter,
    )

    def locate(row: int) -> str:
        return f"line {table.lines[row]}, column {quote(target)}"

    if regression:
        return table.numbers[:, :-1], table.numbers[:, -1:], table.names, locate
    return table.numbers, classes_of_cells(path, table.labels, locate), table.names, locate


def _use_given_split(path: Path, arrays: dict[str, np.ndarray], regression: bool) -> Split:
    x_train, train, names = _check_arrays(path, arrays, "_train", regression)
    known = train.classes if isinstance(train, ClassLabels) else None
    x_test, test, _ = _check_arrays(path, arrays, "_test", regression, known)
    if x_train.shape[1:] != x_test.shape[1:]:
        raise DataError(
            f"{path}: expected x_train and x_test with samples of one shape; "
            f"got {x_train.shape} and {x_test.shape}."
        )
    y_train = train.codes if isinstance(train, ClassLabels) else train
    y_test = test.codes if isinstance(test, ClassLabels) else test
    if y_train.shape[1:] != y_test.shape[1:]:
        raise DataError(
            f"{path}: expected y_train and y_test of equal width; "
            f"got {y_train.shape} and {y_test.shape}."
        )
    return Split(x_train, y_train, x_test, y_test, known, names, path.name)


def _check_arrays(
    path: Path,
    arrays: dict[str, np.ndarray],
    suffix: str,
    regression: bool,
    known: tuple[str | int, ...] | None = None,
) -> tuple[np.ndarray, np.ndarray | ClassLabels, tuple[str, ...]]:
    """Return features, targets and names of one part of an .npz file."""
    x, y = arrays[f"x{suffix}"], arrays[f"y{suffix}"]
    x_name, y_name = (f"x{suffix}", f"y{suffix}") if suffix else ("X", "y")
    if x.ndim < 2:
        raise DataError(
            f"{path}, array {x_name!r}: expected shape (samples, features) or more axes; "
            f"got {x.shape}."
        )
    if y.ndim != 1 and not (regression and y.ndim == 2):
        expected = "(samples,) or (samples, outputs)" if regression else "(samples,)"
        raise DataError(f"{path}, array {y_name!r}: expected shape {expected}; got {y.shape}.")
    if len(x) != len(y):
        raise DataError(
            f"{path}: expected {x_name} and {y_name} of equal length; got {len(x)} and {len(y)}."
        )
    if x.size == 0 or y.size == 0:
        raise DataError(f"{path}, array {x_name!r}: no rows; its shape is {x.shape}.")
    features = as_float32(path, x, x_name)
    names = tuple(f"x{i}" for i in range(x.shape[1])) if x.ndim == 2 else ()
    if regression:
        return features, as_float32(path, y.reshape(len(y), -1), y_name), names
    return features, classes_of_array(path, y, y_name, known), names


def as_float32(path: Path, array: np.ndarray, name: str) -> np.ndarray:
    """Return an array as float32; DataError names the first entry that is no finite number."""
    if array.dtype.kind == "U":
        raise DataError(f"{path}, array {name!r}: expected numbers; got text ({array.dtype}).")
    try:
        check_finite(array, name, _FLOAT32)
    except ValueError as error:
        raise DataError(f"{path}, array {name!r}: {error}") from error
    return array.astype(np.float32)
