"""The frames that the slider walks through, and what each of them lights up."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from xbackprop.observe.explanation import Check, Explanation, Quantity
from xbackprop.observe.expression import to_text
from xbackprop.observe.page.network import symbols_in
from xbackprop.observe.render import outline
from xbackprop.observe.wording import OUTLINE

_LOCAL = re.compile("d(?!Loss)(.+)/d(.+)")  # no number of the figure, but of two that are there


@dataclass(frozen=True)
class Frame:
    """What is seen at a time.

    Attributes
    ----------
    step, section : str
        Keys of headings; equal for a step of one section.
    opens : list of str
        Keys of the headings that stand above it when all frames are read in sequence.
    subject : str
        The arrays it computes, such as ``dLoss/dw2, dLoss/db2``.
    quantities : list of Quantity
        Its formulas.
    checks : list of Check
        Its table.
    """

    step: str
    section: str
    opens: list[str]
    subject: str = ""
    quantities: list[Quantity] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    @property
    def lights(self) -> list[str]:
        """The quantities that it computes and uses, each once."""
        names = []
        for quantity in self.quantities:
            names.append(to_text(quantity.symbol))
            names += map(to_text, symbols_in(quantity.formula))
        for check in self.checks:
            names += [to_text(check.parameter), to_text(check.gradient.symbol)]
        ends = (local.groups() if (local := _LOCAL.fullmatch(name)) else [name] for name in names)
        return list(dict.fromkeys(name for group in ends for name in group))


def frames_of(explanation: Explanation) -> list[Frame]:
    """Return the frames: the network, one for each array of each section, and the summary."""
    frames = [Frame("network", "network", ["network"])]
    step = ""
    for titles, section in outline(explanation):
        step = next((key for key in titles if key in OUTLINE), step)
        if section is None:
            frames.append(Frame("summary", "summary", titles))
            continue
        opens = titles
        for quantities in _by_layer(section.quantities):
            subject = ", ".join(dict.fromkeys(_stem(quantity) for quantity in quantities))
            frames.append(Frame(step, section.key, opens, subject, quantities))
            opens = []
        if section.checks:
            frames.append(Frame(step, "check", opens, checks=section.checks))
    return frames


def known_since(frames: list[Frame], first: int = 0) -> dict[str, int]:
    """Return the number of the frame that computes each quantity."""
    known: dict[str, int] = {}
    for number, frame in enumerate(frames, start=first):
        for quantity in frame.quantities:
            known.setdefault(to_text(quantity.symbol), number)
    return known


def _stem(quantity: Quantity) -> str:
    """Return the name of a quantity without the places of its numbers."""
    return re.sub(r"\[[\d,]+\]", "", to_text(quantity.symbol))


def _by_layer(quantities: list[Quantity]) -> Iterator[list[Quantity]]:
    """Yield neighbours of one array, weights together with their bias."""
    group: list[Quantity] = []
    last = None
    for quantity in quantities:
        key = re.sub(r"b(?=\d)", "w", _stem(quantity))
        if group and key != last:
            yield group
            group = []
        group.append(quantity)
        last = key
    if group:
        yield group
