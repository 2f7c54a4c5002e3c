"""What ``xbackprop profile`` can be asked for."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from xbackprop.cli.choices import OPTIMIZERS
from xbackprop.cli.errors import CommandError, did_you_mean
from xbackprop.cli.model_words import add_model_argument
from xbackprop.cli.parser import LineParser, column_names, one_of, whole_number

LOSSES = ("auto", "mse", "cross-entropy", "none")
BUDGETED = ("launches", "uploads", "downloads", "synchronizations", "bytes")
BATCH, STEPS, ROWS = 32, 9, 15


@dataclass(frozen=True)
class ProfileOptions:
    """A request.

    Attributes
    ----------
    model : str
        What stands for MODEL.
    shape : tuple of int or None
        Of one sample.
    batch : tuple of int
        Samples; several for a table.
    seed : int
        Of weights and inputs.
    device : str or None
        Where to compute; None is the default device.
    devices : tuple of str
        Those of a table.
    optimizer, loss : str
        Of the step.
    steps, rows : int
        Steps to measure, and rows of a table.
    budget : dict
        Most of each kind that one step may do.
    trace : str or None
        A file.
    json : bool
        Print JSON.
    """

    model: str
    shape: tuple[int, ...] | None = None
    batch: tuple[int, ...] = (BATCH,)
    seed: int = 0
    device: str | None = None
    devices: tuple[str, ...] = ()
    optimizer: str = "sgd"
    loss: str = "auto"
    steps: int = STEPS
    rows: int = ROWS
    budget: dict[str, int] | None = None
    trace: str | None = None
    json: bool = False

    @property
    def is_comparison(self) -> bool:
        """Whether times of whole steps are asked for, by device and batch."""
        return bool(self.devices) or len(self.batch) > 1


def read_profile_options(words: Sequence[str]) -> ProfileOptions:
    """Read a command line.

    Parameters
    ----------
    words : sequence of str
        Without the command's name.

    Returns
    -------
    ProfileOptions

    Raises
    ------
    CommandError
        For what is unknown or does not fit together.
    """
    options = ProfileOptions(**vars(_parser().read(words)))
    if options.is_comparison and (options.trace or options.budget is not None):
        raise CommandError(
            "--trace and --budget are of one step; leave out --devices, and give one --batch"
        )
    if options.devices and options.device:
        raise CommandError("expected --device or --devices; got both")
    return options


def _parser() -> LineParser:
    parser = LineParser(
        "xbackprop profile",
        "Say where the time of a training step goes: forward, backward and update, op by op and\n"
        "layer by layer, beside what the machine can do at most. On fake, which has no time,\n"
        "count launches and transfers, and hold them to a budget.",
        "Exit code: 0; 1 when a step goes beyond the budget; 2 for a mistake in the request.\n"
        "Told is the step of the median time, after two that are not counted.",
    )
    add_model_argument(parser, has_batch=False)
    add = parser.add_argument
    add("--batch", type=_batches, metavar="N[,N]",
        help=f"samples of the inputs made for it (default: {BATCH}); several compare")  # fmt: skip
    add("--device", metavar="NAME", help="where to compute (default: the default device)")
    add("--devices", type=column_names, metavar="A,B",
        help="compare whole steps, such as cpu,cuda: where does the GPU begin to pay?")  # fmt: skip
    add("--optimizer", type=one_of(OPTIMIZERS), metavar="NAME",
        help=f"of the step: {', '.join(OPTIMIZERS)} (default: sgd)")  # fmt: skip
    add("--loss", type=one_of(LOSSES), metavar="NAME",
        help="of the step: mse, cross-entropy, none (a random gradient of the output), or auto:\n"
        "cross-entropy for tokens and for mlp, cnn and resnet, else mse")  # fmt: skip
    add("--steps", type=whole_number(1), metavar="N", help=f"to measure (default: {STEPS})")
    add("--rows", type=whole_number(1), metavar="N", help=f"of a table (default: {ROWS})")
    add("--budget", type=_budget, metavar="KIND=N,...",
        help=f"most of {', '.join(BUDGETED)} in a step, on fake;\n"
        "bytes are those uploaded and downloaded")  # fmt: skip
    add("--trace", metavar="FILE", help="write what chrome://tracing and Perfetto show")
    add("--json", action="store_true", help="print one JSON object")
    return parser


def _batches(text: str) -> tuple[int, ...]:
    convert = whole_number(1)
    return tuple(convert(part) for part in text.split(","))


def _budget(text: str) -> dict[str, int]:
    convert, budget = whole_number(0), {}
    for part in text.split(","):
        kind, sign, number = part.partition("=")
        kind = kind.strip().lower()
        if not sign or kind not in BUDGETED:
            raise argparse.ArgumentTypeError(
                f"expected KIND=N with a kind of {', '.join(BUDGETED)}; got {part!r}."
                f"{did_you_mean(kind, BUDGETED)}"
            )
        budget[kind] = convert(number)
    return budget
