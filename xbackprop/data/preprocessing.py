"""Columns become the numbers a network takes: scikit-learn's ColumnTransformer, kept as plain data.

Numbers: the median where one is missing, then mean 0 and deviation 1. Texts: the most frequent one
where there is none, then one column for each that the training part has.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xbackprop.data.errors import DataError, quote
from xbackprop.data.frames import Frame, require

UNKNOWN = ("ignore", "error")
_MOST_CATEGORIES = 1000
_MOST_NAMED = 5
_LARGEST = 1e140  # of numbers: the sum of the squares of any table's is finite


@dataclass(frozen=True, eq=False)
class Column:
    """What was learned of one column.

    Attributes
    ----------
    name : str
        In the table.
    fill : float or str
        Stands in for a missing cell.
    mean, scale : float
        Of a column of numbers.
    categories : tuple of str or None
        Of a column of texts, sorted; None for numbers.
    """

    name: str
    fill: float | str
    mean: float = 0.0
    scale: float = 1.0
    categories: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """A fitted ColumnTransformer, and what it was fitted to.

    Attributes
    ----------
    columns : tuple of Column
        Numbers first, each kind in the table's order.
    unknown : str
        ``ignore``: a text that the training part has not becomes zeros, with a note; ``error``.
    transformer : sklearn.compose.ColumnTransformer
        Fitted.
    """

    columns: tuple[Column, ...]
    unknown: str
    transformer: Any

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the numbers that come out: ``age``, ``city=Oslo``."""
        return tuple(
            name
            for column in self.columns
            for name in (
                [column.name]
                if column.categories is None
                else [f"{column.name}={category}" for category in column.categories]
            )
        )

    def apply(self, frame: Frame) -> tuple[np.ndarray, list[str]]:
        """Turn the rows of a table into numbers.

        Parameters
        ----------
        frame : Frame
            Its columns may stand in any order; those that are not needed are left alone.

        Returns
        -------
        x : numpy.ndarray of float32, shape (rows, features)
        notes : list of str
            What was out of the ordinary.

        Raises
        ------
        DataError
            Names the columns that are missing, and the cell of what should be a number or lies too
            far away; with ``unknown="error"`` also a text that was not in the training part.
        """
        missing = [column.name for column in self.columns if column.name not in frame.names]
        if missing:
            raise DataError(
                f"{frame.path}: expected the columns of the training data; "
                f"{_named(missing)} {'is' if len(missing) == 1 else 'are'} missing. "
                f"The file has {_named(frame.names)}."
            )
        notes: list[str] = []
        for column in self.columns:
            if column.categories is not None:
                notes += self._check_categories(frame, column)
        with np.errstate(over="ignore"):
            x = self.transformer.transform(_as_pandas(frame, self.columns)).astype(np.float32)
        if not np.isfinite(x).all():
            raise self._too_far(frame, x)
        return x, notes

    def _too_far(self, frame: Frame, x: np.ndarray) -> DataError:
        """Return the error for the first number that is none any more: numbers come first."""
        row, place = np.argwhere(~np.isfinite(x))[0].tolist()
        column = self.columns[place]
        value = frame.numbers(column.name)[row]
        problem = (
            f"{value:g} is too large beside the training data, whose mean is {column.mean:g} and "
            f"deviation {column.scale:g}"
        )
        return frame.refusal(row, column.name, problem)

    def _check_categories(self, frame: Frame, column: Column) -> list[str]:
        cells = frame.texts(column.name)
        known = {"", *(column.categories or ())}
        unknown = [cell for cell in dict.fromkeys(cells) if cell not in known]
        if not unknown:
            return []
        if self.unknown == "error":
            problem = f"{quote(unknown[0])} was not in the training data"
            raise frame.refusal(cells.index(unknown[0]), column.name, problem)
        rows = sum(cell not in known for cell in cells)
        verb = "was" if len(unknown) == 1 else "were"
        return [
            f"column {quote(column.name)}: {_named(unknown)} {verb} not in the training data; "
            f"{rows} row{'s' * (rows > 1)} with zeros there"
        ]

    def config(self) -> dict[str, Any]:
        """Return plain data from which :func:`preprocessing_from_config` makes the same."""
        return {
            "unknown": self.unknown,
            "columns": [
                {"name": column.name, "fill": column.fill, "categories": list(column.categories)}
                if column.categories is not None
                else {
                    "name": column.name,
                    "fill": column.fill,
                    "mean": column.mean,
                    "scale": column.scale,
                }
                for column in self.columns
            ],
        }


def fit_preprocessing(
    frame: Frame, names: Sequence[str], rows: np.ndarray, *, unknown: str = "ignore"
) -> Preprocessing:
    """Learn from the training rows of a table how its columns become numbers.

    Parameters
    ----------
    frame : Frame
        The table.
    names : sequence of str
        The columns to use.
    rows : numpy.ndarray of int
        The training part.
    unknown : str
        See :class:`Preprocessing`.

    Returns
    -------
    Preprocessing

    Raises
    ------
    DataError
        Names a column without any value, one of other kinds, one of so many texts that it must be a
        name or a date, and the cell of a number whose square is none.
    """
    require("pandas", "Preprocessing of columns")
    require("sklearn", "Preprocessing of columns")
    kinds = {name: frame.is_number(name) for name in names}
    numbers = [name for name in names if kinds[name]]
    texts = [name for name in names if not kinds[name]]
    columns = [Column(name, 0.0) for name in numbers]
    columns += [Column(name, "", categories=()) for name in texts]
    raw = _as_pandas(frame, columns).iloc[rows]
    for name in names:
        if raw[name].isna().all():
            raise DataError(
                f"{frame.path}, column {quote(name)}: no value in the whole training part. "
                "Leave the column out with features."
            )
        if name in texts and raw[name].nunique() > _MOST_CATEGORIES:
            raise DataError(
                f"{frame.path}, column {quote(name)}: {raw[name].nunique()} different texts, and "
                f"each would be a column of its own; at most {_MOST_CATEGORIES}. Leave the column "
                "out with features."
            )
    for name in numbers:
        _check_size(frame, name)
    transformer = _new_transformer(numbers, texts).fit(raw)
    return Preprocessing(_learned(transformer, numbers, texts), unknown, transformer)


def _check_size(frame: Frame, name: str) -> None:
    """Refuse numbers whose deviation would be infinite."""
    sizes = np.nan_to_num(np.abs(frame.numbers(name)))
    row = int(np.argmax(sizes))
    if sizes[row] > _LARGEST:
        raise frame.refusal(row, name, f"{frame.numbers(name)[row]:g} is too large to be scaled")


def preprocessing_from_config(config: Any) -> Preprocessing:
    """Rebuild a preprocessing; nothing in ``config`` is executed.

    Parameters
    ----------
    config : dict
        What :meth:`Preprocessing.config` returned; it may come out of a file.

    Returns
    -------
    Preprocessing
        Whose transformer gives the same numbers, bit by bit.

    Raises
    ------
    DataError
        For what is no such thing.
    """
    require("pandas", "Preprocessing of columns")
    require("sklearn", "Preprocessing of columns")
    try:
        columns = tuple(_read_column(entry) for entry in config["columns"])
        unknown = config["unknown"]
        names = [column.name for column in columns]
        is_number = [column.categories is None for column in columns]
        if unknown not in UNKNOWN or not columns or len(set(names)) < len(names):
            raise ValueError("expected columns of different names, and ignore or error")
        if sorted(is_number, reverse=True) != is_number:
            raise ValueError("expected numbers first")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the model's preprocessing cannot be read ({error}).") from error
    return Preprocessing(columns, unknown, _rebuilt(columns))


def _read_column(entry: Any) -> Column:
    name, fill, categories = entry["name"], entry["fill"], entry.get("categories")
    if not isinstance(name, str):
        raise ValueError("expected the name of a column")
    if categories is None:
        numbers = [entry[key] for key in ("fill", "mean", "scale")]
        if not all(type(n) in (int, float) and math.isfinite(n) for n in numbers) or not numbers[2]:
            raise ValueError(f"column {quote(name)}: expected finite numbers")
        fill, mean, scale = map(float, numbers)
        return Column(name, fill, mean, scale)
    if not (
        isinstance(categories, list)
        and all(isinstance(category, str) and category for category in categories)
        and categories == sorted(set(categories))
        and fill in categories
    ):
        raise ValueError(f"column {quote(name)}: expected sorted texts, and one of them to fill in")
    return Column(name, fill, categories=tuple(categories))


def _new_transformer(numbers: Sequence[str], texts: Sequence[str], categories: Any = "auto") -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    number = Pipeline([("impute", SimpleImputer(strategy="median")), ("scale", StandardScaler())])
    text = Pipeline(
        [
            ("impute", SimpleImputer(missing_values=None, strategy="most_frequent")),
            (
                "onehot",
                OneHotEncoder(categories=categories, handle_unknown="ignore", sparse_output=False),
            ),
        ]
    )
    parts = [("number", number, list(numbers)), ("text", text, list(texts))]
    return ColumnTransformer([part for part in parts if part[2]])


def _learned(transformer: Any, numbers: list[str], texts: list[str]) -> tuple[Column, ...]:
    """Return what a fitted transformer knows, by its public attributes."""
    columns = []
    if numbers:
        steps = transformer.named_transformers_["number"].named_steps
        columns += [
            Column(name, float(fill), float(mean), float(scale))
            for name, fill, mean, scale in zip(
                numbers, steps["impute"].statistics_, steps["scale"].mean_, steps["scale"].scale_,
                strict=True,
            )
        ]  # fmt: skip
    if texts:
        steps = transformer.named_transformers_["text"].named_steps
        columns += [
            Column(name, str(fill), categories=tuple(map(str, categories)))
            for name, fill, categories in zip(
                texts, steps["impute"].statistics_, steps["onehot"].categories_, strict=True
            )
        ]
    return tuple(columns)


def _rebuilt(columns: Sequence[Column]) -> Any:
    """Return a transformer that was fitted to one row, and then told what had been learned."""
    import pandas

    numbers = [column for column in columns if column.categories is None]
    texts = [column for column in columns if column.categories is not None]
    row = {
        column.name: pandas.Series(
            [column.fill], dtype=np.float64 if column.categories is None else object
        )
        for column in columns
    }
    known = [np.array(column.categories, dtype=object) for column in texts]
    transformer = _new_transformer(
        [column.name for column in numbers], [column.name for column in texts], known
    ).fit(pandas.DataFrame(row))
    if numbers:
        steps = transformer.named_transformers_["number"].named_steps
        steps["impute"].statistics_ = np.array([column.fill for column in numbers])
        scaler = steps["scale"]
        scaler.mean_ = np.array([column.mean for column in numbers])
        scaler.scale_ = np.array([column.scale for column in numbers])
        scaler.var_ = scaler.scale_ * scaler.scale_
    return transformer


def _as_pandas(frame: Frame, columns: Sequence[Column]) -> Any:
    """Return the columns as scikit-learn takes them, with NaN or None for what is missing."""
    import pandas

    return pandas.DataFrame(
        {
            column.name: frame.numbers(column.name)
            if column.categories is None
            else pandas.Series([cell or None for cell in frame.texts(column.name)], dtype=object)
            for column in columns
        }
    )


def _named(names: Sequence[str]) -> str:
    listed = ", ".join(quote(name) for name in names[:_MOST_NAMED])
    return listed if len(names) <= _MOST_NAMED else f"{listed} and {len(names) - _MOST_NAMED} more"
