"""The command ``xbackprop``: finds the subcommand, and ends every way a program can end."""

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator, Sequence

import xbackprop
from xbackprop.cli.errors import FAILED, CommandError, did_you_mean
from xbackprop.cli.parser import LineParser

# What a shell reports for a program that the signal ended: 128 + its number.
_INTERRUPTED = 130
_BROKEN_PIPE = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the program's name; None takes those of the process.

    Returns
    -------
    int
        Exit code: 0, 1 when something failed, 2 for what makes no sense, 130 or 143 when stopped
        by Ctrl-C or SIGTERM, 141 when nobody reads the output any more.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    program = " ".join(["xbackprop", *(word for word in words[:1] if word in COMMANDS)])
    with _tolerant_streams():
        try:
            exit_code = _dispatch(words)
            sys.stdout.flush()  # here, where a closed pipe can be told from a failure
            return exit_code
        except CommandError as error:
            print(f"{program}: error: {error}", file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt:
            print(f"{program}: interrupted", file=sys.stderr)
            return _INTERRUPTED
        except OSError as error:
            if error.filename is None:
                _drop_output()
            if _is_broken_pipe(error):
                return _BROKEN_PIPE
            where = "standard output" if error.filename is None else error.filename
            print(f"{program}: error: {where}: {error.strerror or error}", file=sys.stderr)
            return FAILED


def _dispatch(words: list[str]) -> int:
    if words and words[0] in COMMANDS:
        try:
            return COMMANDS[words[0]](words[1:])
        except SystemExit as exit_:  # argparse, after --help
            return int(exit_.code or 0)
    if not words or words[0] in ("-h", "--help"):
        _top_parser().print_help(sys.stdout)
        return 0
    if words[0] == "--version":
        print(f"xbackprop {xbackprop.__version__}")
        return 0
    valid = ", ".join((*COMMANDS, "--help", "--version"))
    suggestion = did_you_mean(words[0], [*COMMANDS, "--help", "--version"])
    raise CommandError(f"expected one of {valid}; got {words[0]!r}.{suggestion}")


def _train(words: list[str]) -> int:
    from xbackprop.cli.options import read_options

    options = read_options(words)
    from xbackprop.cli.train import train

    return train(options)


def _doctor(words: list[str]) -> int:
    parser = LineParser(
        "xbackprop doctor",
        "Say which device is used and why, and what keeps CUDA from working, with its fix.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    as_json = "json" in parser.read(words)
    from xbackprop.cli.doctor import run

    return run(as_json)


def _explain(words: list[str]) -> int:
    from xbackprop.cli.explain_options import read_explain_options

    options = read_explain_options(words)
    from xbackprop.cli.explain import run_explain

    return run_explain(options)


def _gradcheck(words: list[str]) -> int:
    from xbackprop.cli.gradcheck_options import read_gradcheck_options

    options = read_gradcheck_options(words)
    from xbackprop.cli.gradcheck import run_gradcheck

    return run_gradcheck(options)


def _parity(words: list[str]) -> int:
    from xbackprop.cli.parity_options import read_parity_options

    options = read_parity_options(words)
    from xbackprop.cli.parity import run_parity

    return run_parity(options)


def _report(words: list[str]) -> int:
    from xbackprop.cli.report_options import read_report_options

    options = read_report_options(words)
    from xbackprop.cli.report.command import run_report

    return run_report(options)


def _predict(words: list[str]) -> int:
    from xbackprop.cli.use_options import read_use_options

    options = read_use_options("predict", words)
    from xbackprop.cli.predict import run_predict

    return run_predict(options)


def _evaluate(words: list[str]) -> int:
    from xbackprop.cli.use_options import read_use_options

    options = read_use_options("evaluate", words)
    from xbackprop.cli.evaluate import run_evaluate

    return run_evaluate(options)


def _export(words: list[str]) -> int:
    from xbackprop.cli.export import read_export_options, run_export

    return run_export(read_export_options(words))


def _profile(words: list[str]) -> int:
    from xbackprop.cli.profile_options import read_profile_options

    options = read_profile_options(words)
    from xbackprop.cli.profile import run_profile

    return run_profile(options)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "report": _report,
    "predict": _predict,
    "evaluate": _evaluate,
    "export": _export,
    "explain": _explain,
    "gradcheck": _gradcheck,
    "parity": _parity,
    "profile": _profile,
    "doctor": _doctor,
}


def _top_parser() -> LineParser:
    parser = LineParser(
        "xbackprop",
        "Neural networks with hand-written backward passes, on a CPU or a GPU.",
        "commands:\n"
        "  train            train a network on images, on texts, or on a table of yours\n"
        "  report           write a run's curves, layers and mistakes into one HTML page\n"
        "  predict          predict the target of each row of a table\n"
        "  evaluate         compare predictions with the target that a table has\n"
        "  export           write a trained network for ONNX, or for NumPy alone\n"
        "  explain          show backpropagation on one sample, with all its numbers\n"
        "  gradcheck        compare every layer's backward with central differences\n"
        "  parity           compare devices and precisions op by op\n"
        "  profile          say where the time of a training step goes, op by op\n"
        "  doctor           say which device is used and why, and what keeps CUDA from working\n"
        "\n"
        "`xbackprop train --help` lists what can be chosen.",
    )
    parser.usage = "xbackprop [--help] [--version] COMMAND ..."
    parser.add_argument("--version", action="store_true", help="print the version")
    return parser


@contextlib.contextmanager
def _tolerant_streams() -> Iterator[None]:
    """Let every text be printed, whatever the encoding: a file name may hold any character.

    A stream that the caller closed (``>&-``) is None in Python, and swallows all.
    """
    with contextlib.ExitStack() as stack:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is None:
                stream = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                setattr(sys, name, stream)
                stack.callback(setattr, sys, name, None)
            elif hasattr(stream, "reconfigure"):
                errors = stream.errors
                stream.reconfigure(errors="backslashreplace")
                stack.callback(stream.reconfigure, errors=errors)
        yield


def _is_broken_pipe(error: OSError) -> bool:
    """Tell whether the reader of the output went away; Windows says so in another way."""
    is_nameless_refusal = error.errno == errno.EINVAL and error.filename is None
    return isinstance(error, BrokenPipeError) or (os.name == "nt" and is_nameless_refusal)


def _drop_output() -> None:
    """Give the interpreter's last flush somewhere to go.

    See "Note on SIGPIPE" in the documentation of Python's ``signal``.
    """
    with contextlib.suppress(OSError, ValueError):  # a stream without a descriptor
        descriptor = sys.stdout.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
