"""What ``xbackprop predict`` and ``xbackprop evaluate`` can be asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xbackprop.cli.errors import CommandError
from xbackprop.cli.parser import LineParser

OUTPUTS = (".csv", ".tsv", ".parquet", ".feather", ".arrow", ".npz")


@dataclass(frozen=True)
class UseOptions:
    """A request to use a trained model.

    Attributes
    ----------
    model : str
        A run folder, or a model's file.
    data : str
        The table, or an NPZ file.
    out : str or None
        Of ``predict``: the file to write; None is standard output.
    device : str or None
        None is what ``XBACKPROP_DEVICE`` says.
    json : bool
        Of ``evaluate``: print one JSON object.
    """

    model: str
    data: str
    out: str | None = None
    device: str | None = None
    json: bool = False


def read_use_options(command: str, words: Sequence[str]) -> UseOptions:
    """Read the arguments of ``predict`` or ``evaluate``.

    Parameters
    ----------
    command : str
        Which of them.
    words : sequence of str
        Without the command's name.

    Returns
    -------
    UseOptions

    Raises
    ------
    CommandError
        For what is unknown, missing, or an output of a kind that there is not.
    """
    is_predict = command == "predict"
    parser = LineParser(
        f"xbackprop {command}",
        "Predict the target of each row of a table, with probabilities for classes."
        if is_predict
        else "Compare a model's predictions with the target that a table has.",
    )
    parser.add_argument("model", metavar="MODEL", help="a run folder, or its model.safetensors")
    parser.add_argument(
        "data", metavar="DATA",
        help="a table (.csv, .tsv, .parquet, .feather, .arrow), or .npz with X"
        + ("" if is_predict else " and y"),
    )  # fmt: skip
    if is_predict:
        parser.add_argument(
            "--out", metavar="FILE",
            help=f"what to write: {', '.join(OUTPUTS)} (default: CSV on standard output)",
        )  # fmt: skip
    else:
        parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--device", metavar="NAME", help="auto, cpu, cuda, cuda:N, fake, fake:N (default: auto)"
    )
    options = UseOptions(**vars(parser.read(words)))
    if options.out is not None and Path(options.out).suffix.lower() not in OUTPUTS:
        raise CommandError(f"--out: expected a {', '.join(OUTPUTS)} file; got {options.out}")
    return options
