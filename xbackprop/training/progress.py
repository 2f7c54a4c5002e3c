"""How a training run gets on, on the screen: a live bar in a terminal, plain lines elsewhere."""

import os
import sys
import time
from typing import Protocol, Self, TextIO

from xbackprop.training.history import EpochMetrics

_SECONDS_BETWEEN_DRAWS = 0.05


class Progress(Protocol):
    """What :meth:`Trainer.fit` tells about a run; entered before it, left after it."""

    def __enter__(self) -> Self:
        """Start."""

    def __exit__(self, *exception: object) -> None:
        """Leave the screen tidy, whatever happened."""

    def on_batch(self, done: int, total: int) -> None:
        """Take note of a step; ``total`` is 0 when the number of batches is unknown."""

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Take note of an epoch's end."""

    def note(self, lines: list[str]) -> None:
        """Show some lines between the epochs."""


def show_progress(epochs: int, stream: TextIO | None = None) -> Progress:
    """Return a live bar where there are a terminal and rich, and plain lines everywhere else.

    Parameters
    ----------
    epochs : int
        How many epochs the run shall have.
    stream : text file, optional
        Where to; None is standard output.

    Returns
    -------
    Progress

    Examples
    --------
    >>> import xbackprop as xb
    >>> from xbackprop.training.progress import show_progress
    >>> digits = xb.data.load_digits()
    >>> model = xb.nn.Sequential(xb.nn.Linear(64, 10), rng=0)
    >>> trainer = xb.Trainer(model, xb.nn.CrossEntropyLoss(), xb.optim.Adam(model.parameters()))
    >>> with show_progress(epochs=2) as progress:
    ...     history = trainer.fit(
    ...         digits.x_train, digits.y_train, epochs=2, rng=0,
    ...         on_batch=progress.on_batch, on_epoch=progress.on_epoch,
    ...     )
    epoch    train loss  train accuracy  seconds
      1/2       ...           ... %        ...
      2/2       ...           ... %        ...
    """
    stream = sys.stdout if stream is None else stream
    if stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown"):
        try:
            return RichProgress(epochs, stream)
        except ImportError:
            pass
    return PlainProgress(epochs, stream)


class PlainProgress:
    """One line per epoch under a line of headings.

    Parameters
    ----------
    epochs : int
        How many epochs the run shall have.
    stream : text file, optional
        Where to; None is standard output.
    """

    def __init__(self, epochs: int, stream: TextIO | None = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._table = EpochTable(epochs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def on_batch(self, done: int, total: int) -> None:
        """Show nothing: lines are for epochs."""

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Print the epoch's line."""
        self._stream.write("".join(f"{line}\n" for line in self._table.lines(metrics)))
        self._stream.flush()  # a log that is followed shows each epoch when it ends

    def note(self, lines: list[str]) -> None:
        """Print lines between those of the epochs."""
        self._stream.write("".join(f"{line}\n" for line in lines))
        self._stream.flush()


class RichProgress:
    """A live bar below the lines of the epochs; needs rich.

    Parameters
    ----------
    epochs : int
        How many epochs the run shall have.
    stream : text file, optional
        A terminal; None is standard output.

    Raises
    ------
    ImportError
        When rich is not installed.
    """

    def __init__(self, epochs: int, stream: TextIO | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._epochs = epochs
        self._table = EpochTable(epochs)
        self._console = Console(file=stream, highlight=False)
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:3.0f} %  {task.fields[where]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=epochs, where="")
        self._finished = 0
        self._drawn = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def on_batch(self, done: int, total: int) -> None:
        """Move the bar, at most some times a second: a step may take microseconds."""
        now = time.monotonic()
        if now - self._drawn < _SECONDS_BETWEEN_DRAWS:
            return
        self._drawn = now
        share = done / total if total else 0.0
        where = f"epoch {self._finished + 1}/{self._epochs}, step {done}"
        if total:
            where += f"/{total}"
        self._bar.update(self._task, completed=self._finished + share, where=where)

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Print the epoch's line above the bar."""
        self._finished += 1
        self.note(self._table.lines(metrics))
        self._bar.update(self._task, completed=self._finished)

    def note(self, lines: list[str]) -> None:
        """Print lines above the bar."""
        for line in lines:
            self._console.print(line, markup=False, soft_wrap=True)


class EpochTable:
    """Lays out epochs as lines of a table; the columns are those that the first epoch fills.

    Parameters
    ----------
    epochs : int
        How many epochs the run shall have.
    """

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._last_epoch = 0

    def lines(self, metrics: EpochMetrics) -> list[str]:
        """Return the epoch's line; the first time, the headings before it."""
        is_first = not self._last_epoch
        if is_first:  # a trainer that goes on with a run does not begin at epoch 1
            self._last_epoch = metrics.epoch - 1 + self._epochs
        cells = {
            "epoch  ": f"{metrics.epoch}/{self._last_epoch}",
            "train loss": loss_text(metrics.train_loss),
            "train accuracy": _percent(metrics.train_accuracy),
            "test loss": loss_text(metrics.test_loss),
            "test accuracy": _percent(metrics.test_accuracy),
            "seconds": f"{metrics.seconds:.3f}",
        }
        cells = {heading: text for heading, text in cells.items() if text}
        row = "  ".join(text.rjust(len(heading)) for heading, text in cells.items())
        return ["  ".join(cells), row] if is_first else [row]


def loss_text(loss: float | None) -> str:
    """Return a loss with the digits that tell epochs apart; nothing for None."""
    if loss is None:
        return ""
    return f"{loss:.5f}" if loss == 0 or 1e-3 <= abs(loss) < 1e4 else f"{loss:.3e}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f} %"
