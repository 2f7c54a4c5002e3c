"""What ``xbackprop train`` keeps beside its metrics: statistics of layers, transfers, events."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from xbackprop.backend.transfer import TransferEvent, TransferLog, open_log
from xbackprop.cli.errors import CommandError
from xbackprop.cli.events import EventWriter
from xbackprop.cli.run import Run
from xbackprop.cli.run_folder import EVENTS, STATISTICS, TRANSFERS, RowsFile
from xbackprop.observe import StatisticsRecorder
from xbackprop.training import EpochMetrics

_COUNTED = ("uploads", "downloads", "bytes_uploaded", "bytes_downloaded")


class _Counts(TransferLog):
    """A log without a list of events, which would grow with the training."""

    def add(self, event: TransferEvent, count: int = 1) -> None:
        """Count an event."""
        super().add(event, count)
        self.events.clear()


class Records:
    """What a run keeps of itself while it trains, as it was asked for.

    Parameters
    ----------
    run : Run
        About to train.
    on_failure : callable
        Called with one line when the disk refuses.

    Raises
    ------
    CommandError
        When a file cannot be begun.
    """

    def __init__(self, run: Run, on_failure: Callable[[str], None]) -> None:
        self._run = run
        self._on_failure = on_failure
        self._statistics: RowsFile | None = None
        self._transfers: RowsFile | None = None
        self._events: EventWriter | None = None
        self._counts = _Counts()
        self._seen = dict.fromkeys(_COUNTED, 0)

    @contextlib.contextmanager
    def writing(self) -> Iterator["Records"]:
        """Record what happens in the block."""
        options, trainer, folder = self._run.options, self._run.trainer, self._run.folder
        with contextlib.ExitStack() as stack:
            if options.tensorboard:
                self._events = stack.enter_context(
                    EventWriter(folder / EVENTS, first_step=trainer.steps + 1)
                )
            if options.record_statistics is not None:
                self._statistics = stack.enter_context(
                    RowsFile(folder / STATISTICS, "step", trainer.steps)
                )
                self._transfers = stack.enter_context(
                    RowsFile(folder / TRANSFERS, "epoch", trainer.epochs)
                )
                trainer.stepper.watcher = StatisticsRecorder(
                    trainer.model,
                    trainer.optimizer,
                    every=options.record_statistics,
                    on_row=self._on_row,
                )
                stack.callback(setattr, trainer.stepper, "watcher", None)
                stack.enter_context(open_log(self._counts))
            yield self

    def on_epoch(self, row: EpochMetrics) -> None:
        """Keep what an epoch moved between host and device, and its events."""
        now = {name: getattr(self._counts, name) for name in _COUNTED}
        moved = {name: now[name] - self._seen[name] for name in _COUNTED}
        self._seen = now
        with self._told():
            if self._transfers is not None:
                self._transfers.write({"epoch": row.epoch, **moved})
            if self._events is not None:
                self._events.write_epoch(row)

    def _on_row(self, row: dict[str, Any]) -> None:
        with self._told():
            if self._statistics is not None:
                self._statistics.write(row)
            if self._events is not None:
                self._events.write_statistics(row)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn the disk's refusal into a reason to stop after the step, which is whole."""
        try:
            yield
        except CommandError as error:
            self._on_failure(str(error))
