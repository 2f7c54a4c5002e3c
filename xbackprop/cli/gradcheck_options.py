"""What ``xbackprop gradcheck`` can be asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

from xbackprop.cli.model_words import add_model_argument
from xbackprop.cli.parser import LineParser


@dataclass(frozen=True)
class GradcheckOptions:
    """A request.

    Attributes
    ----------
    model : str
        What stands for MODEL.
    shape : tuple of int or None
        Of one sample.
    batch, seed : int
        Samples of the inputs that are made, and what draws them.
    eval : bool
        Check evaluation mode.
    device : str or None
        Where to compute; None is the CPU.
    json : bool
        Print JSON.
    """

    model: str
    shape: tuple[int, ...] | None = None
    batch: int = 3
    seed: int = 0
    eval: bool = False
    device: str | None = None
    json: bool = False


def read_gradcheck_options(words: Sequence[str]) -> GradcheckOptions:
    """Read a command line.

    Parameters
    ----------
    words : sequence of str
        Without the command's name.

    Returns
    -------
    GradcheckOptions

    Raises
    ------
    CommandError
        For what is unknown.
    """
    parser = LineParser(
        "xbackprop gradcheck",
        "Compare the backward of every layer with central differences, in float64, where it\n"
        "stands in the network: each input and each parameter, at generic values.",
        "Exit code: 0; 1 when a gradient is wrong; 2 for a mistake in the request.",
    )
    add_model_argument(parser)
    parser.add_argument(
        "--eval", action="store_true", help="check evaluation mode (default: training mode)"
    )
    parser.add_argument("--device", metavar="NAME", help="where to compute (default: cpu)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return GradcheckOptions(**vars(parser.read(words)))
