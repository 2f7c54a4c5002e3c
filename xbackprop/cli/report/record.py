"""What a run folder tells of a run."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xbackprop.cli.run_folder import (
    METRICS,
    MODEL,
    STATISTICS,
    TIMING,
    TRANSFERS,
    read_config,
    read_rows,
)

Row = dict[str, Any]


@dataclass(frozen=True)
class RunRecord:
    """The files of a run as plain data.

    Attributes
    ----------
    folder : Path
        The run folder.
    config : dict
        The request, and where it was carried out.
    metrics, timing, statistics, transfers : list of dict
        Rows of the files of these names.
    has_ended : bool
        Whether there is a model, which the end of a run writes.
    """

    folder: Path
    config: Row
    metrics: list[Row]
    timing: list[Row]
    statistics: list[Row]
    transfers: list[Row]
    has_ended: bool

    @property
    def arguments(self) -> Row:
        """The options of the command line, completed."""
        arguments: Row = self.config.get("arguments", {})
        return arguments

    @property
    def name(self) -> str:
        """Of the data, or of the folder where the request does not tell."""
        return str(self.config.get("data", {}).get("name", self.folder.name))

    @functools.cached_property
    def seconds(self) -> dict[int, float]:
        """What each epoch took, with its evaluation."""
        return {row["epoch"]: row["seconds"] for row in self.timing if row.get("seconds")}

    def updates_of(self, place: int) -> int:
        """Return how many updates the epoch at a place in the metrics has."""
        before = self.metrics[place - 1]["step"] if place else 0
        return int(self.metrics[place]["step"] - before)


def read_record(folder: Path) -> RunRecord:
    """Read the files of a run.

    Parameters
    ----------
    folder : Path
        The run folder.

    Returns
    -------
    RunRecord

    Raises
    ------
    CommandError
        When the folder holds no run.
    """
    config = read_config(folder, "RUN")
    metrics, timing, statistics, transfers = (
        read_rows(folder / name) for name in (METRICS, TIMING, STATISTICS, TRANSFERS)
    )
    has_ended = (folder / MODEL).exists()
    return RunRecord(folder, config, metrics, timing, statistics, transfers, has_ended)
