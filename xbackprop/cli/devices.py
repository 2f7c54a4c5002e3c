"""Which device a command uses, and the line that says why."""

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import replace

from xbackprop.backend.device import (
    VARIABLE,
    DeviceChoice,
    DeviceError,
    DeviceUnavailableError,
    explain_default_device,
    use_device,
)
from xbackprop.cli.errors import FAILED, CommandError, did_you_mean


def choose_device(name: str | None, asked_by: str = "--device") -> DeviceChoice:
    """Choose the device of a run.

    Parameters
    ----------
    name : str or None
        What was asked for; None leaves it to ``XBACKPROP_DEVICE``.
    asked_by : str
        Where ``name`` comes from.

    Returns
    -------
    DeviceChoice

    Raises
    ------
    CommandError
        For a name that is none, and for a GPU that cannot be used.
    """
    try:
        with _quiet_log():
            if name is None:
                return explain_default_device()
            with use_device(name):
                choice = explain_default_device()
    except DeviceError as error:
        asked = os.environ.get(VARIABLE, "") if name is None else name
        raise CommandError(_in_our_words(error, asked_by) + _suggest(asked)) from error
    except DeviceUnavailableError as error:
        raise CommandError(_in_our_words(error, asked_by), FAILED) from error
    return replace(choice, asked_by=asked_by, reason=_in_our_words(choice.reason, asked_by))


def describe_device(choice: DeviceChoice) -> str:
    """Return the device and why it is used, in one line.

    Parameters
    ----------
    choice : DeviceChoice
        What :func:`choose_device` returned.

    Returns
    -------
    str
    """
    reason = choice.reason
    if choice.asked == "auto" and "not usable" in reason:
        reason += "; `xbackprop doctor` tells more"
    return " ".join(f"{choice.device} ({reason})".splitlines())


@contextlib.contextmanager
def _quiet_log() -> Iterator[None]:
    """Keep the library's log quiet: what it says of the choice is printed anyway."""
    logger = logging.getLogger("xbackprop")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _in_our_words(text: object, asked_by: str) -> str:
    return str(text).replace("use_device()", asked_by)


def _suggest(asked: str) -> str:
    if asked.strip().lower() == "gpu":  # close to cpu in letters only
        return ". Did you mean cuda?"
    suggestion = did_you_mean(asked, ["auto", "cpu", "cuda", "fake"])
    return f".{suggestion}" if suggestion else ""
