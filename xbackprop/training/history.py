"""What a run tells of itself: one row an epoch, and the same rows as arrays for a file."""

from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, fields
from typing import Any

import numpy as np


@dataclass(frozen=True)
class EpochMetrics:
    """One row of a run's history."""

    epoch: int
    step: int
    train_loss: float
    train_accuracy: float | None
    test_loss: float | None
    test_accuracy: float | None
    lr: float
    skipped_steps: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return the row as plain data."""
        return asdict(self)


_WHOLE_NUMBERS = ("epoch", "step", "skipped_steps")


def history_arrays(rows: Sequence[EpochMetrics]) -> dict[str, np.ndarray]:
    """Return rows as a table of float64, and which of its cells there are (others were None).

    Whole numbers are exact in float64 up to 2**53.
    """
    shape = (len(rows), len(fields(EpochMetrics)))
    cells = [[np.nan if cell is None else cell for cell in astuple(row)] for row in rows]
    known = [[cell is not None for cell in astuple(row)] for row in rows]
    return {
        "history": np.array(cells, dtype=np.float64).reshape(shape),
        "history_known": np.array(known, dtype=bool).reshape(shape),
    }


def history_rows(arrays: dict[str, np.ndarray]) -> list[EpochMetrics]:
    """Return the rows that :func:`history_arrays` was given."""
    names = [field.name for field in fields(EpochMetrics)]
    rows = []
    for cells, known in zip(arrays["history"], arrays["history_known"], strict=True):
        values: dict[str, Any] = {
            name: float(cell) if is_known else None
            for name, cell, is_known in zip(names, cells, known, strict=True)
        }
        rows.append(EpochMetrics(**values | {name: int(values[name]) for name in _WHOLE_NUMBERS}))
    return rows
