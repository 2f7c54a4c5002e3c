"""``xbackprop predict``: what a trained model makes of new rows."""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np

from xbackprop.backend.device import use_device
from xbackprop.cli.datasets import in_words_of_a_model
from xbackprop.cli.devices import choose_device
from xbackprop.cli.errors import CommandError
from xbackprop.cli.run_folder import check_place, writing
from xbackprop.cli.trained import Trained, load_trained, read_table
from xbackprop.cli.use_options import UseOptions
from xbackprop.data import DataError
from xbackprop.data.frames import require
from xbackprop.training.atomic import write_atomically


def run_predict(options: UseOptions) -> int:
    """Write predictions.

    Parameters
    ----------
    options : UseOptions
        The request.

    Returns
    -------
    int
        Exit code 0.

    Raises
    ------
    CommandError
        For a model, table or place that cannot be used, and a disk that refuses; nothing is
        half-written.
    """
    if options.out is not None:
        check_place(Path(options.out))
    _refuse_to_overwrite(options)
    choice = choose_device(options.device)
    with use_device(choice.device):
        trained = load_trained(options.model)
        try:
            table = read_table(trained, options.data)
            columns, notes = predicted_columns(trained, trained.outputs(table.x))
            content = _serialized(columns, options.out)
        except DataError as error:
            raise CommandError(in_words_of_a_model(error)) from error
    for note in (*table.notes, *notes):
        print(f"note: {note}", file=sys.stderr)
    if options.out is None:
        sys.stdout.write(content.decode("utf-8"))
        return 0
    with writing(Path(options.out)), write_atomically(options.out) as file:
        file.write(content)
    print(f"{len(table.x)} prediction{'s' * (len(table.x) != 1)} in {options.out}")
    return 0


def _refuse_to_overwrite(options: UseOptions) -> None:
    """Refuse to write over the table that is read."""
    out, data = options.out, Path(options.data)
    if out is not None and Path(out).exists() and data.exists() and data.samefile(out):
        raise CommandError(f"--out {out}: is the table that is read. Name another file")


def predicted_columns(
    trained: Trained, outputs: np.ndarray
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return predictions as named columns: classes with their probabilities, or quantities.

    Parameters
    ----------
    trained : Trained
        The model.
    outputs : numpy.ndarray, shape (rows, outputs)
        What it said.

    Returns
    -------
    columns : dict of str to numpy.ndarray
    notes : list of str
    """
    if trained.classes is None:
        width = outputs.shape[1]
        targets = trained.targets or tuple(map(str, range(width)))
        names = ["prediction"] if width == 1 else [f"prediction:{name}" for name in targets]
        return {name: outputs[:, place] for place, name in enumerate(names)}, []
    codes = np.asarray(trained.task.decode(outputs))
    columns = {"prediction": np.array(trained.classes)[codes]}
    probabilities = trained.probabilities(outputs)
    if probabilities is None:
        return columns, [f"the loss {trained.task.loss_name} gives classes, no probabilities"]
    for place, label in enumerate(trained.classes):
        columns[f"probability:{label}"] = probabilities[:, place]
    return columns, []


def _serialized(columns: dict[str, np.ndarray], out: str | None) -> bytes:
    """Return the bytes of a file of the kind that its name says; CSV for standard output."""
    kind = ".csv" if out is None else Path(out).suffix.lower()
    file = io.BytesIO()
    if kind in (".csv", ".tsv"):
        return _as_text(columns, "\t" if kind == ".tsv" else ",").encode("utf-8")
    if kind == ".npz":
        names: dict[str, str] = {}
        for column in columns:
            name = _array_name(column)
            if name in names:
                raise CommandError(
                    f"--out {out}: {names[name]!r} and {column!r} would both be the array "
                    f"{name!r}. Name a .csv or .parquet file"
                )
            names[name] = column
        np.savez(file, allow_pickle=False, **{n: columns[column] for n, column in names.items()})
        return file.getvalue()
    pyarrow: Any = require("pyarrow", f"{out}: a {kind} file")
    table = pyarrow.table({name: pyarrow.array(values) for name, values in columns.items()})
    if kind == ".parquet":
        require("pyarrow.parquet", f"{out}: Parquet").write_table(table, file)
    else:
        with pyarrow.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    return file.getvalue()


def _as_text(columns: dict[str, np.ndarray], delimiter: str) -> str:
    import csv

    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(values.tolist() for values in columns.values()), strict=True))
    return text.getvalue()


def _array_name(column: str) -> str:
    """Return a name that is a file's in an archive too."""
    return "".join(letter if letter.isalnum() or letter in "-_. " else "_" for letter in column)
