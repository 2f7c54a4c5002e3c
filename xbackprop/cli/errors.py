"""What a command says when it cannot do what it was asked: one line, and an exit code."""

import difflib
from collections.abc import Iterable

INVALID = 2  # the request makes no sense: mend the command line, or the file it names
FAILED = 1  # the request is fine, and could not be carried out


class CommandError(Exception):
    """Ends a command with one line on standard error.

    Parameters
    ----------
    message : str
        What was expected, what was received, what to do.
    exit_code : int
        ``INVALID`` or ``FAILED``.
    """

    def __init__(self, message: str, exit_code: int = INVALID) -> None:
        super().__init__(" ".join(message.splitlines()))
        self.exit_code = exit_code


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """Return a suggestion to append to a message; nothing when no valid word is close."""
    close = difflib.get_close_matches(word.lower(), list(valid), n=1)
    return f" Did you mean {close[0]}?" if close else ""
