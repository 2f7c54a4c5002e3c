"""What ``xbackprop report`` can be asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

from xbackprop.cli.parser import LineParser


@dataclass(frozen=True)
class ReportOptions:
    """A request.

    Attributes
    ----------
    run : str
        The run folder.
    out : str or None
        The file to write; None is ``report.html`` in the run folder.
    device : str or None
        Where the model is asked about its test part; None is what ``XBACKPROP_DEVICE`` says.
    """

    run: str
    out: str | None = None
    device: str | None = None


def read_report_options(words: Sequence[str]) -> ReportOptions:
    """Read a command line.

    Parameters
    ----------
    words : sequence of str
        Without the command's name.

    Returns
    -------
    ReportOptions

    Raises
    ------
    CommandError
        For what is unknown.
    """
    parser = LineParser(
        "xbackprop report",
        "Write what there is to know of a training run into one HTML page: losses, the learning\n"
        "rate, each layer's gradients, updates and outputs, mistakes, time, transfers, and the\n"
        "request. The page loads nothing and needs no script.",
        "What happens in the layers is there for runs of `xbackprop train --record-statistics`.",
    )
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument(
        "--out", metavar="FILE", help="the page (default: report.html in the run folder)"
    )
    parser.add_argument(
        "--device", metavar="NAME",
        help="where the model is asked about its test part (default: what XBACKPROP_DEVICE says)",
    )  # fmt: skip
    return ReportOptions(**vars(parser.read(words)))
