"""Reading a command line: every mistake is one line that names what would be valid.

Nothing here imports what trains, so that ``--help`` and a mistyped option answer at once.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from typing import NoReturn

from xbackprop.cli.errors import CommandError, did_you_mean


class LineParser(argparse.ArgumentParser):
    """An argument parser whose errors are :class:`CommandError`; options are not abbreviated.

    Parameters
    ----------
    prog : str
        How the command is called.
    description : str
        For ``--help``.
    epilog : str
        For ``--help``, below the options.
    """

    def __init__(self, prog: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            # A script with `--hid 64` would break when `--hidden-dropout` came to be.
            allow_abbrev=False,
            # What was not given is not there: --resume must tell it from what was.
            argument_default=argparse.SUPPRESS,
        )

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found, without the word "argument" before an option's name."""
        raise CommandError(message.removeprefix("argument "))

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse arguments, all of which must be known.

        Parameters
        ----------
        arguments : sequence of str
            Without the command's name.

        Returns
        -------
        argparse.Namespace

        Raises
        ------
        CommandError
            For an unknown option it lists those that exist.
        """
        namespace, unknown = self.parse_known_args(arguments)
        if not unknown:
            return namespace
        valid = [name for action in self._actions for name in action.option_strings]
        first = next((word for word in unknown if word.startswith("-")), None)
        if first is None:
            raise CommandError(f"expected options only; got {unknown[0]!r}. {_listed(valid)}")
        name = first.partition("=")[0]
        suggestion = did_you_mean(name, valid)
        raise CommandError(f"unknown option {name!r}.{suggestion} {_listed(valid)}")


def _listed(names: Sequence[str]) -> str:
    return f"The options are {', '.join(names)}"


def one_of(valid: Sequence[str]) -> Callable[[str], str]:
    """Return a converter that accepts some words, in either case."""

    def convert(text: str) -> str:
        word = text.strip().lower()
        if word in valid:
            return word
        raise argparse.ArgumentTypeError(
            f"expected one of {', '.join(valid)}; got {text!r}.{did_you_mean(word, valid)}"
        )

    return convert


def whole_number(minimum: int) -> Callable[[str], int]:
    """Return a converter that accepts whole numbers from ``minimum`` on."""

    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or number < minimum:
            raise argparse.ArgumentTypeError(
                f"expected a whole number of at least {minimum}; got {text!r}"
            )
        return number

    return convert


def odd_number(text: str) -> int:
    """Convert an odd whole number, such as the side of a kernel that has a middle."""
    number = whole_number(1)(text)
    if number % 2 == 0:
        raise argparse.ArgumentTypeError(f"expected an odd number; got {text!r}")
    return number


def share(text: str) -> float:
    """Convert a number from 0 to below 1."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to below 1; got {text!r}")
    return number


def number_from_zero(text: str) -> float:
    """Convert a finite number that is not negative."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number from 0 on; got {text!r}")
    return number


def positive_number(text: str) -> float:
    """Convert a finite number above zero."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, such as 0.01; got {text!r}")
    return number


def layer_widths(text: str) -> tuple[int, ...]:
    """Convert ``64,32`` to widths; ``none`` is a network without hidden layers."""
    if text.strip().lower() == "none":
        return ()
    try:
        widths = tuple(int(width) for width in text.split(","))
    except ValueError:
        widths = (0,)
    if min(widths) < 1:
        raise argparse.ArgumentTypeError(
            f"expected whole numbers above 0, such as 64,32, or none; got {text!r}"
        )
    return widths


def column_names(text: str) -> tuple[str, ...]:
    """Convert ``length,width`` to the names of columns."""
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(
            f"expected names of columns, such as length,width; got {text!r}"
        )
    return names
