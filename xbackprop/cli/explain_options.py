"""What ``xbackprop explain`` can be asked for."""

import argparse
import itertools
import locale
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from xbackprop.cli.errors import CommandError
from xbackprop.cli.parser import LineParser, one_of, positive_number, whole_number

HIDDEN = ("sigmoid", "relu", "tanh")
OUTPUTS = ("linear", "sigmoid")
LOSSES = ("half_squared", "mse", "bce", "cross_entropy")
OPTIMIZERS = ("sgd", "momentum", "adam")
FORMATS = ("text", "markdown", "latex", "html", "json")
OF_BARE_MODEL = ("inputs", "target", "loss")  # with a model file that belongs to no run
_MOST_WEIGHTS = 200  # beyond that nobody reads every number


@dataclass(frozen=True)
class ExplainOptions:
    """A request; the defaults are the lesson of 2 inputs, 2 hidden units and 1 output.

    With ``model`` it is a trained network instead, on one sample of its data.
    """

    inputs: tuple[float, ...] | None = None
    target: tuple[float, ...] | None = None
    lr: float = 0.5
    hidden: str = "sigmoid"
    output: str = "linear"
    loss: str | None = "half_squared"  # None, with a model: that of its run
    optimizer: str = "sgd"
    layers: tuple[int, ...] | None = None
    weights: str | None = None
    seed: int | None = None
    steps: int = 1
    format: str = "text"
    lang: str = "en"
    device: str | None = None
    model: str | None = None
    sample: int | None = None


def read_explain_options(words: Sequence[str]) -> ExplainOptions:
    """Read a command line.

    Parameters
    ----------
    words : sequence of str
        Without the command's name.

    Returns
    -------
    ExplainOptions

    Raises
    ------
    CommandError
        For what is unknown or does not fit together.
    """
    given = vars(_parser().read(_joined(words)))
    _refuse_meaningless(given)
    if "model" in given:
        given.setdefault("loss", None)
    options = ExplainOptions(**{"lang": _language_of_locale(), **given})
    if options.weights is not None and options.seed is not None:
        raise CommandError("--weights and --seed: expected one of them; got both")
    layers = options.layers
    if layers is not None:
        count = sum((a + 1) * b for a, b in itertools.pairwise(layers))
        if count > _MOST_WEIGHTS:
            raise CommandError(
                f"--layers: expected at most {_MOST_WEIGHTS} weights, to be read one by one; "
                f"got {count}"
            )
    return options


def _joined(words: Sequence[str]) -> list[str]:
    """Join ``--inputs`` with numbers that begin with a minus, which would pass for an option."""
    joined: list[str] = []
    for word in words:
        is_number = (word[:1] == "-" and word[1:2].isdecimal()) or word[:2] == "-."
        if is_number and joined and joined[-1] in ("--inputs", "--target"):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _refuse_meaningless(given: dict[str, object]) -> None:
    """Refuse what says nothing about a trained model, or needs one."""
    if "model" not in given:
        if "sample" in given:
            raise CommandError("--sample: is a sample of a run. Add --model RUN")
        return
    allowed = ("model", "sample", *OF_BARE_MODEL, "format", "lang", "device")
    for name in given:
        if name not in allowed:
            raise CommandError(
                f"--{name}: means nothing with --model, which is a trained network. Beside it "
                f"there may be {', '.join(f'--{key}' for key in allowed[1:])}"
            )


def _parser() -> LineParser:
    parser = LineParser(
        "xbackprop explain",
        "Explain backpropagation on one sample, with every formula and its numbers.\n"
        "Without options: 2 inputs, 2 hidden units, 1 output.",
    )
    add = parser.add_argument
    add("--inputs", type=_numbers, metavar="X,...", help="the sample (default 0.05,0.10)")
    text = "what the output should be; for cross_entropy a class from 0 on (default 1)"
    add("--target", type=_numbers, metavar="Y,...", help=text)
    add("--lr", type=positive_number, metavar="ETA", help="learning rate (default 0.5)")
    for name, valid, text in (
        ("--hidden", HIDDEN, "activation of the hidden units (default sigmoid)"),
        ("--output", OUTPUTS, "the output unit (default linear)"),
        ("--loss", LOSSES, "loss (default half_squared); bce takes a linear output as a logit"),
        ("--optimizer", OPTIMIZERS, "update (default sgd); momentum is 0.9"),
        ("--format", FORMATS, "of what is printed (default text)"),
        ("--lang", ("en", "zh"), "language (default: that of the locale, else en)"),
    ):
        add(name, type=one_of(valid), metavar="|".join(valid), help=text)
    text = "inputs, hidden units, ..., outputs (default 2,2,1; for cross_entropy 2,2,2)"
    add("--layers", type=_widths, metavar="N,...", help=text)
    add("--weights", metavar="FILE", help="JSON with W1, b1, W2, b2, ... as nested lists")
    add("--seed", type=whole_number(0), metavar="N", help="draw the weights")
    add("--steps", type=whole_number(1), metavar="N", help="repeat (default 1)")
    trained = parser.add_argument_group("a trained model, layer by layer")
    trained.add_argument(
        "--model", metavar="RUN",
        help="the folder of a run of `xbackprop train`, or a model file: shapes, norms and "
        "largest contributions of each layer; a file without its run needs --inputs, --target "
        "and --loss",
    )  # fmt: skip
    trained.add_argument(
        "--sample", type=whole_number(0), metavar="N",
        help="of the run's test part, counted from 0 (default 0)",
    )  # fmt: skip
    add("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:N or fake")
    return parser


def _numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(word) for word in text.split(","))
    except ValueError:
        numbers = (math.nan,)
    if not all(map(math.isfinite, numbers)):
        raise argparse.ArgumentTypeError(
            f"expected finite numbers with commas, such as 0.05,0.10; got {text!r}"
        )
    return numbers


def _widths(text: str) -> tuple[int, ...]:
    try:
        widths = tuple(int(word) for word in text.split(","))
    except ValueError:
        widths = (0,)
    if min(widths) < 1 or len(widths) < 2:
        raise argparse.ArgumentTypeError(
            f"expected inputs, hidden units and outputs, such as 2,3,3,1; got {text!r}"
        )
    return widths


def _language_of_locale() -> str:
    """Return the language that the environment asks for, where we have it."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(name):
            return "zh" if value.lower().startswith("zh") else "en"
    return "zh" if (locale.getlocale()[0] or "").lower().startswith(("zh", "chinese")) else "en"
