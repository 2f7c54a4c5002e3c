"""A trained model with what it needs to read tables: columns, scaling, classes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xbackprop import nn
from xbackprop.cli.errors import CommandError
from xbackprop.cli.run_folder import MODEL
from xbackprop.cli.scaling import Scaling
from xbackprop.cli.tasks import LOSSES, Task
from xbackprop.data import DataError
from xbackprop.data.columns import codes_of_texts, read_quantities
from xbackprop.data.files import check_path
from xbackprop.data.frames import TABLE_EXTENSIONS, Frame, read_frame
from xbackprop.data.npz_files import read_npz
from xbackprop.data.preprocessing import Preprocessing, preprocessing_from_config
from xbackprop.data.tables import as_float32
from xbackprop.data.targets import classes_of_array
from xbackprop.ops.softmax import softmax
from xbackprop.training import CheckpointError, load
from xbackprop.training.door import Door
from xbackprop.training.evaluation import predict

_EXTENSIONS = (*TABLE_EXTENSIONS, ".npz")


@dataclass(frozen=True, eq=False)
class Trained:
    """What ``xbackprop train`` made of a table or of images.

    Attributes
    ----------
    path : Path
        The model's file.
    model : Module
        On the default device.
    task : Task
        What its outputs mean.
    features, targets : tuple of str
        Columns; without ``preprocessing`` the features are numbers as they stand.
    classes : tuple of str or int, or None
        None for quantities.
    sample_shape : tuple of int
        Of the network's input.
    preprocessing : Preprocessing or None
        From columns to numbers.
    x_scaling, y_scaling : Scaling or None
        As ``--standardize`` has measured them.
    """

    path: Path
    model: nn.Module
    task: Task
    features: tuple[str, ...]
    targets: tuple[str, ...]
    classes: tuple[str | int, ...] | None
    sample_shape: tuple[int, ...]
    preprocessing: Preprocessing | None
    x_scaling: Scaling | None
    y_scaling: Scaling | None

    def outputs(self, x: np.ndarray) -> np.ndarray:
        """Return what the network makes of its inputs, float64 of shape (rows, outputs)."""
        scaled = x if self.x_scaling is None else self.x_scaling.apply(x)
        found = predict(Door(self.model, self.task.make_loss()), scaled, 1024)
        if found.shape != (len(x), self.task.outputs):
            raise CommandError(f"{self.path}: its network and its description do not fit")
        wide = found.astype(np.float64)
        return wide if self.y_scaling is None else self.y_scaling.undo(wide)

    def probabilities(self, outputs: np.ndarray) -> np.ndarray | None:
        """Return a probability for each class; None where the loss makes none of the outputs."""
        if self.task.num_classes is None:
            return None
        if self.task.loss_name == "cross-entropy":
            return softmax(outputs)
        if self.task.outputs > 1:
            return None
        positive = outputs if self.task.has_probabilities else 0.5 + 0.5 * np.tanh(0.5 * outputs)
        return np.concatenate([1 - positive, positive], axis=1)


@dataclass(frozen=True, eq=False)
class Table:
    """Rows for a trained model.

    Attributes
    ----------
    x : numpy.ndarray of float32
        Inputs of the network.
    frame : Frame or None
        The table; None for an NPZ file.
    y : numpy.ndarray or None
        The targets of an NPZ file, as they stand there.
    notes : list of str
        What was out of the ordinary.
    """

    x: np.ndarray
    frame: Frame | None
    y: np.ndarray | None
    notes: list[str]


def load_trained(name: str) -> Trained:
    """Read a model with its description, on the default device.

    Parameters
    ----------
    name : str
        A run folder, or a model's file.

    Returns
    -------
    Trained

    Raises
    ------
    CommandError
        When it is no model, is damaged, has a newer format, or does not read tables.
    """
    path = Path(name) / MODEL if Path(name).is_dir() else Path(name)
    try:
        checkpoint = load(path)
    except CheckpointError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror or error}") from error
    table = checkpoint.counters.get("table")
    if not isinstance(table, dict):
        what = "a model of texts" if "tokenizer" in checkpoint.counters else "no model of a table"
        raise CommandError(f"{path}: is {what}. Expected one that `xbackprop train DATA` wrote")
    try:
        return _described(path, checkpoint.model, table, checkpoint.counters.get("standardize"))
    except DataError as error:
        raise CommandError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise CommandError(f"{path}: its description cannot be read ({error!r})") from error


def _described(path: Path, model: nn.Module, table: dict[str, Any], scaling: Any) -> Trained:
    classes, loss = table["classes"], table["loss"]
    if loss not in LOSSES:
        raise ValueError(f"loss {loss!r}")
    scaling = scaling or {}
    return Trained(
        path=path,
        model=model,
        task=Task(loss, None if classes is None else len(classes), int(table["outputs"])),
        features=tuple(map(str, table["features"])),
        targets=tuple(map(str, table["targets"])),
        classes=None if classes is None else tuple(classes),
        sample_shape=tuple(map(int, table["sample_shape"])),
        preprocessing=(
            None
            if table["preprocessing"] is None
            else preprocessing_from_config(table["preprocessing"])
        ),
        x_scaling=Scaling.from_dict(scaling.get("x")),
        y_scaling=Scaling.from_dict(scaling.get("y")),
    )


def read_table(trained: Trained, name: str, *, needs_target: bool = False) -> Table:
    """Read rows for a model.

    Parameters
    ----------
    trained : Trained
        The model.
    name : str
        A table, or an ``.npz`` file with ``X``.
    needs_target : bool
        Whether the target has to be there too.

    Returns
    -------
    Table

    Raises
    ------
    DataError
        Whatever is wrong with the file, and where.
    """
    path = check_path(name, _EXTENSIONS)
    if path.suffix.lower() == ".npz":
        return _read_arrays(trained, path, needs_target)
    frame = read_frame(path)
    notes: list[str] = []
    if trained.preprocessing is not None:
        used = tuple(column.name for column in trained.preprocessing.columns)
        x, notes = trained.preprocessing.apply(frame)
    else:
        used = trained.features
        x = _read_numbers(trained, frame)
    extra = [n for n in frame.names if n not in used and n not in trained.targets]
    if extra:
        listed = ", ".join(map(repr, extra[:5])) + (", …" if len(extra) > 5 else "")
        notes.append(f"ignored, since the model has no such column: {listed}")
    return Table(x, frame, None, notes)


def _read_numbers(trained: Trained, frame: Frame) -> np.ndarray:
    """Return the columns of a model that takes numbers as they stand."""
    if not trained.features:
        shape = " x ".join(map(str, trained.sample_shape))
        raise DataError(f"{frame.path}: the model takes samples of {shape}. Expected an .npz file.")
    missing = [repr(name) for name in trained.features if name not in frame.names]
    if missing:
        raise DataError(
            f"{frame.path}: expected the columns of the training data; missing: "
            f"{', '.join(missing[:5])}."
        )
    columns = []
    for name in trained.features:
        values = frame.numbers(name)
        if np.isnan(values).any():
            raise frame.refusal(
                int(np.argmax(np.isnan(values))), name, "expected a number; got none"
            )
        columns.append(values)
    return as_float32(frame.path, np.stack(columns, axis=1), "X")


def _read_arrays(trained: Trained, path: Path, needs_target: bool) -> Table:
    if trained.preprocessing is not None:
        raise DataError(f"{path}: the model reads columns by name. Expected a table.")
    arrays = read_npz(path, needs_target=needs_target)
    part = "_test" if "x_test" in arrays else ""
    x = as_float32(path, arrays[f"x{part}"], f"x{part}" if part else "X")
    if x.ndim == len(trained.sample_shape) and trained.sample_shape[0] == 1:
        x = x[:, np.newaxis]  # images of one channel, as they are given to train
    if x.shape[1:] != trained.sample_shape:
        raise DataError(
            f"{path}: expected samples of shape {trained.sample_shape}; got {x.shape[1:]}."
        )
    return Table(x, None, arrays.get(f"y{part}"), [])


def read_target(trained: Trained, table: Table) -> np.ndarray:
    """Return the true class indices, or quantities of shape (rows, targets).

    Parameters
    ----------
    trained : Trained
        The model.
    table : Table
        Read with its target.

    Returns
    -------
    numpy.ndarray

    Raises
    ------
    DataError
        For a column that is not there, an empty cell, and a class that the model does not know.
    """
    frame = table.frame
    if frame is None:
        y = np.asarray(table.y)
        if len(y) != len(table.x):
            raise DataError(f"expected X and y of equal length; got {len(table.x)} and {len(y)}.")
        if trained.classes is None:
            return as_float32(trained.path, y.reshape(len(y), -1), "y")
        return classes_of_array(Path("y"), y, "y", trained.classes).codes
    if not trained.targets:
        raise DataError(f"{trained.path}: has no target column. Expected an .npz file.")
    missing = [name for name in trained.targets if name not in frame.names]
    if missing:
        raise DataError(
            f"{frame.path}: expected the target column {missing[0]!r}, to compare with; it has "
            f"{', '.join(map(repr, frame.names[:20]))}."
        )
    if trained.classes is None:
        return read_quantities(frame, trained.targets)
    return codes_of_texts(frame, trained.targets[0], trained.classes)
