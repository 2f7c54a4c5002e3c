"""The checkpoints of a run: the last few and the best are kept, the others make room."""

import contextlib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xbackprop.training.atomic import remove_leftovers
from xbackprop.training.checkpoint import CheckpointError

if TYPE_CHECKING:
    from xbackprop.training.history import EpochMetrics
    from xbackprop.training.trainer import Trainer

_NAME = re.compile(r"step-(\d{8,})\.safetensors")


class CheckpointFolder:
    """A folder of files named after the step at which they were written.

    Parameters
    ----------
    folder : path
        Made at the first save.
    keep : int, default 2
        How many of the newest files are kept. The best one is kept as well: that of the epoch with
        the smallest test loss, or training loss where nothing was tested.

    Examples
    --------
    >>> import tempfile
    >>> import xbackprop as xb
    >>> from xbackprop.training import CheckpointFolder
    >>> digits = xb.data.load_digits()
    >>> model = xb.nn.Sequential(xb.nn.Linear(64, 10), rng=0)
    >>> trainer = xb.Trainer(model, xb.nn.CrossEntropyLoss(), xb.optim.Adam(model.parameters()))
    >>> checkpoints = CheckpointFolder(tempfile.mkdtemp(), keep=1)
    >>> history = trainer.fit(
    ...     digits.x_train, digits.y_train, epochs=3, rng=0,
    ...     on_epoch=lambda row: checkpoints.save(trainer),
    ... )
    >>> [path.name for path in checkpoints.newest_first()]
    ['step-00000069.safetensors']
    """

    def __init__(self, folder: str | os.PathLike[str], *, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"CheckpointFolder expects keep >= 1; got {keep}")
        self.folder = Path(folder)
        self.keep = keep

    def save(self, trainer: "Trainer", *, counters: dict[str, Any] | None = None) -> Path:
        """Write a checkpoint, then delete those that need not be kept.

        Parameters
        ----------
        trainer : Trainer
            What is saved.
        counters : dict, optional
            As for :meth:`Trainer.save`.

        Returns
        -------
        Path
            The new file.
        """
        self.folder.mkdir(exist_ok=True)
        path = self._path_of(trainer.steps)
        trainer.save(path, counters=counters)
        files = self.newest_first()
        kept = {path, *files[: self.keep], self.best(trainer.history)}
        for old in files:
            if old not in kept:
                # Somebody else may have tidied up; what is left over is deleted the next time.
                with contextlib.suppress(OSError):
                    old.unlink()
        return path

    def newest_first(self) -> list[Path]:
        """Return the files, the latest step first."""
        return [path for _, path in sorted(self._files(), reverse=True)]

    def best(self, history: "list[EpochMetrics]") -> Path | None:
        """Return the file of the best epoch among those that were saved, or None.

        Parameters
        ----------
        history : list of EpochMetrics
            The run's rows.
        """
        there = dict(self._files())
        scored = [(_score(row), row.step) for row in history if row.step in there]
        scored = [(score, step) for score, step in scored if math.isfinite(score)]
        return there[min(scored)[1]] if scored else None

    def resume(self, trainer: "Trainer") -> tuple[Path | None, list[CheckpointError]]:
        """Restore the newest file that is whole.

        Parameters
        ----------
        trainer : Trainer
            Made as the one that was saved.

        Returns
        -------
        path : Path or None
            The file that was read; None when there is none at all.
        damaged : list of CheckpointError
            What was wrong with newer ones.

        Raises
        ------
        CheckpointError
            When there are files and none can be used.
        """
        with contextlib.suppress(FileNotFoundError):
            remove_leftovers(self.folder)
        damaged: list[CheckpointError] = []
        for path in self.newest_first():
            try:
                trainer.resume(path)
                return path, damaged
            except CheckpointError as error:
                damaged.append(error)
        if damaged:
            raise damaged[0]
        return None, []

    def _path_of(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.safetensors"

    def _files(self) -> Iterator[tuple[int, Path]]:
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                match = _NAME.fullmatch(path.name)
                if match:
                    yield int(match[1]), path


def _score(row: "EpochMetrics") -> float:
    """Return what is smallest for the best epoch."""
    return row.train_loss if row.test_loss is None else row.test_loss
