"""What a training step may do at most, and the lines that went beyond it."""

import os
from collections.abc import Mapping
from typing import Any

from xbackprop.observe.profiling.profile import Profile

_KINDS = {
    "launches": ("launch",),
    "uploads": ("upload",),
    "downloads": ("download",),
    "synchronizations": ("synchronization",),
    "bytes": ("upload", "download"),
}
_LINES_SHOWN = 10


def used_of(found: Profile, kind: str) -> int:
    """Return what a profile counted of one kind.

    Parameters
    ----------
    found : Profile
        Of one step.
    kind : str
        One of ``BUDGETED``.

    Returns
    -------
    int
    """
    if kind == "bytes":
        return found.traffic.bytes_uploaded + found.traffic.bytes_downloaded
    return int(getattr(found.traffic, kind))


def excess_of(found: Profile, budget: Mapping[str, int]) -> dict[str, int]:
    """Return by how much a profile goes beyond a budget, of those kinds that do.

    Parameters
    ----------
    found : Profile
        Of one step.
    budget : mapping of str to int
        Most of each kind.

    Returns
    -------
    dict
    """
    over = {kind: used_of(found, kind) - limit for kind, limit in budget.items()}
    return {kind: number for kind, number in over.items() if number > 0}


def budget_lines(found: Profile, budget: Mapping[str, int], excess: Mapping[str, int]) -> list[str]:
    """Return a line for each kind, and behind those that went beyond it their source lines.

    Parameters
    ----------
    found : Profile
        Of one step.
    budget, excess : mapping of str to int
        What was allowed, and by how much it was not kept.

    Returns
    -------
    list of str
    """
    lines = []
    for kind, limit in budget.items():
        used = used_of(found, kind)
        if kind not in excess:
            lines.append(f"ok     {kind}: {used} of {limit}")
            continue
        lines.append(f"OVER   {kind}: {used} of {limit}, {excess[kind]} too many")
        lines += [f"         {text}" for text in _sources(found, kind)]
    return lines


def _sources(found: Profile, kind: str) -> list[str]:
    """Return where it was done, what was done most often first."""
    chosen = [each for each in found.transfers if each.kind in _KINDS[kind]]

    def amount(each: Any) -> int:
        return int(each.bytes if kind == "bytes" else each.count)

    chosen.sort(key=lambda each: (-amount(each), each.filename, each.line))
    unit = "bytes at" if kind == "bytes" else "x"
    shown = [
        f"{amount(each)} {unit} {place_of(each.filename)}:{each.line} ({each.what})"
        for each in chosen[:_LINES_SHOWN]
    ]
    rest = sum(amount(each) for each in chosen[_LINES_SHOWN:])
    return [*shown, f"{rest} {unit.removesuffix(' at')} elsewhere"] if rest else shown


def place_of(filename: str) -> str:
    """Return a file name as short as it can be told: below the working folder, or the package.

    Parameters
    ----------
    filename : str
        Absolute.

    Returns
    -------
    str
    """
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for folder in (os.getcwd(), os.path.dirname(package)):
        if filename.startswith(folder + os.sep):
            return os.path.relpath(filename, folder)
    return filename
