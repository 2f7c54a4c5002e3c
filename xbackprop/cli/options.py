"""What ``xbackprop train`` can be asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

from xbackprop.cli.parser import (
    LineParser,
    column_names,
    layer_widths,
    one_of,
    positive_number,
    whole_number,
)

ACTIVATIONS = ("relu", "sigmoid", "tanh")
LOSSES = ("cross-entropy", "mse", "half-squared-error", "bce-with-logits", "bce")
OPTIMIZERS = ("adam", "adamw", "sgd")

_EPILOG = """\
examples:
  xbackprop train
  xbackprop train --hidden 64,32 --activation tanh --optimizer sgd --lr 0.1
  xbackprop train --data flowers.csv --target species --standardize
  xbackprop train --data houses.csv --target price --regression --standardize

Ctrl-C ends the run after the current step and keeps what there is; a second one leaves at once.
Exit code: 0; 1 when the run failed; 2 for a mistake in the request; 130 or 143 when it was stopped.
"""


@dataclass(frozen=True)
class TrainOptions:
    """A request for a training run; None leaves the choice to the program.

    Attributes
    ----------
    data : str
        ``digits``, or the path of a CSV or NPZ file.
    target : str or None
        Column of a CSV file.
    features : tuple of str or None
        Columns of a CSV file; None takes all but the target.
    regression : bool
        The target is a quantity.
    standardize : bool
        Scale each feature, and the target of a regression.
    hidden : tuple of int
        Widths of the hidden layers.
    activation, optimizer : str
        One of ``ACTIVATIONS``, ``OPTIMIZERS``.
    loss : str or None
        One of ``LOSSES``.
    lr : float or None
        Learning rate.
    epochs, batch_size, seed : int
        As their names say.
    device : str or None
        None is what ``XBACKPROP_DEVICE`` says.
    out : str or None
        The run folder.
    quiet : bool
        Print the result only.
    """

    data: str = "digits"
    target: str | None = None
    features: tuple[str, ...] | None = None
    regression: bool = False
    standardize: bool = False
    hidden: tuple[int, ...] = (256,)
    activation: str = "relu"
    loss: str | None = None
    optimizer: str = "adam"
    lr: float | None = None
    epochs: int = 30
    # With 256 hidden units, products of so few rows are done by one thread of NumPy's OpenBLAS:
    # threads that wait for each other cost more than they save, above all on a busy machine.
    batch_size: int = 16
    seed: int = 0
    device: str | None = None
    out: str | None = None
    quiet: bool = False


def read_options(arguments: Sequence[str]) -> TrainOptions:
    """Read the arguments of ``xbackprop train``.

    Parameters
    ----------
    arguments : sequence of str
        Without ``xbackprop train``.

    Returns
    -------
    TrainOptions

    Raises
    ------
    CommandError
        One line that lists what is valid.
    """
    return TrainOptions(**vars(_make_parser().read(arguments)))


def _make_parser() -> LineParser:
    default = TrainOptions()
    parser = LineParser(
        "xbackprop train",
        "Train a network of fully connected layers: on the UCI handwritten digits that come with\n"
        "the package, or on a table of yours. Writes a run folder with the model, its settings,\n"
        "its metrics and plots.",
        _EPILOG,
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data", default=default.data, metavar="DATA",
        help="digits (default), or a .csv file with a header row, or an .npz file with X and y",
    )  # fmt: skip
    data.add_argument("--target", metavar="COLUMN", help="what to predict; required for a CSV file")
    data.add_argument(
        "--features", type=column_names, metavar="A,B",
        help="the columns of a CSV file to predict it from (default: all others)",
    )  # fmt: skip
    data.add_argument(
        "--regression", action="store_true", help="the target is a quantity, not a class"
    )
    data.add_argument(
        "--standardize", action="store_true",
        help="bring each feature, and the target of a regression, to mean 0 and deviation 1",
    )  # fmt: skip
    network = parser.add_argument_group("network and training")
    network.add_argument(
        "--hidden", type=layer_widths, default=default.hidden, metavar="64,32",
        help="widths of the hidden layers, or none (default: 256)",
    )  # fmt: skip
    network.add_argument(
        "--activation", type=one_of(ACTIVATIONS), default=default.activation, metavar="NAME",
        help=f"after each hidden layer: {', '.join(ACTIVATIONS)} (default: relu)",
    )  # fmt: skip
    network.add_argument(
        "--loss", type=one_of(LOSSES), metavar="NAME",
        help=f"{', '.join(LOSSES)} (default: cross-entropy; for a quantity mse)",
    )  # fmt: skip
    network.add_argument(
        "--optimizer", type=one_of(OPTIMIZERS), default=default.optimizer, metavar="NAME",
        help=f"{', '.join(OPTIMIZERS)} (default: adam)",
    )  # fmt: skip
    network.add_argument(
        "--lr", type=positive_number, metavar="RATE",
        help="learning rate (default: 0.002; for sgd one that suits the loss)",
    )  # fmt: skip
    network.add_argument(
        "--epochs", type=whole_number(1), default=default.epochs, metavar="N",
        help="how often to go through the data (default: %(default)s)",
    )  # fmt: skip
    network.add_argument(
        "--batch-size", type=whole_number(1), default=default.batch_size, metavar="N",
        help="samples per step (default: %(default)s)",
    )  # fmt: skip
    network.add_argument(
        "--seed", type=whole_number(0), default=default.seed, metavar="N",
        help="of the initial weights and the order of the samples (default: %(default)s); "
        "the same seed gives the same numbers",
    )  # fmt: skip
    run = parser.add_argument_group("run")
    run.add_argument(
        "--device", metavar="NAME",
        help="auto, cpu, cuda, cuda:N, fake, fake:N (default: what XBACKPROP_DEVICE says, or auto)",
    )  # fmt: skip
    run.add_argument(
        "--out", metavar="FOLDER",
        help="the run folder (default: runs/ and the name of the data, numbered when taken)",
    )  # fmt: skip
    run.add_argument("--quiet", action="store_true", help="print the result only")
    return parser
