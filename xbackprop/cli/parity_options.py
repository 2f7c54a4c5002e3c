"""What ``xbackprop parity`` can be asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

from xbackprop.cli.errors import CommandError
from xbackprop.cli.model_words import add_model_argument
from xbackprop.cli.parser import LineParser, column_names, positive_number

OWN_TOLERANCE, ACCUMULATED_TOLERANCE = 100.0, 1000.0


@dataclass(frozen=True)
class ParityOptions:
    """A request.

    Attributes
    ----------
    model : str or None
        What stands for MODEL; None for a replay.
    shape : tuple of int or None
        Of one sample.
    batch, seed : int
        Samples of the inputs that are made, and what draws them.
    devices : tuple of str
        Beside the CPU; for a recording the one that is recorded.
    tolerance, accumulated_tolerance : float
        In units.
    record, replay : str or None
        A file.
    ops, json : bool
        Print every op; print JSON.
    """

    model: str | None = None
    shape: tuple[int, ...] | None = None
    batch: int = 4
    seed: int = 0
    devices: tuple[str, ...] = ()
    tolerance: float = OWN_TOLERANCE
    accumulated_tolerance: float = ACCUMULATED_TOLERANCE
    record: str | None = None
    replay: str | None = None
    ops: bool = False
    json: bool = False


def read_parity_options(words: Sequence[str]) -> ParityOptions:
    """Read a command line.

    Parameters
    ----------
    words : sequence of str
        Without the command's name.

    Returns
    -------
    ParityOptions

    Raises
    ------
    CommandError
        For what is unknown or does not fit together.
    """
    options = ParityOptions(**vars(_parser().read(words)))
    if options.replay is None and options.model is None:
        raise CommandError("expected MODEL, or --replay FILE; got neither")
    if options.replay is not None and (options.model or options.record or options.devices):
        raise CommandError(
            "--replay FILE holds the ops and their device; leave out MODEL, --record and --devices"
        )
    if options.record is not None and len(options.devices) > 1:
        raise CommandError(f"--record: expected one device; got {len(options.devices)}")
    return options


def _parser() -> LineParser:
    parser = LineParser(
        "xbackprop parity",
        "Compare float32 on the CPU, and both precisions on devices, with float64 on the CPU, op\n"
        "by op, forward and backward: the error that each op makes itself on the same inputs, and\n"
        "the error that has accumulated. A unit is the last place of the largest element of a\n"
        "result, or what changing the inputs in their last place does to it, where that is more.",
        "Exit code: 0; 1 when an op is out of tolerance; 2 for a mistake in the request.\n"
        "--record beside a GPU, and --replay in a CI without one, check its numbers.",
    )
    add_model_argument(parser, is_required=False)
    add = parser.add_argument
    add("--devices", type=column_names, metavar="A,B",
        help="beside the CPU, such as cuda or fake (default: the default device)")  # fmt: skip
    add("--tolerance", type=positive_number, metavar="X",
        help=f"of an op's own error, in units (default: {OWN_TOLERANCE:g})")  # fmt: skip
    add("--accumulated-tolerance", type=positive_number, metavar="X",
        help=f"of the accumulated error (default: {ACCUMULATED_TOLERANCE:g})")  # fmt: skip
    add("--record", metavar="FILE", help="write down what each op gives on the device, in float32")
    add("--replay", metavar="FILE", help="check such a file on the CPU; needs no MODEL")
    add("--ops", action="store_true", help="print every op")
    add("--json", action="store_true", help="print one JSON object")
    return parser
