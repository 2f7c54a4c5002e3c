"""Records added up: by op, and by layer."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from xbackprop.observe.profiling.records import OpRecord, Traffic


@dataclass
class Total:
    """Calls of one op, or of the ops of one layer.

    Attributes
    ----------
    name : str
        Of the op, or the path of the layer.
    calls : int
        Of the op; of a layer, of all ops inside it that no other op called.
    seconds : float or None
        With what they contain; None on ``fake``.
    self_seconds : float or None
        Without the ops that an op called, or without the layers inside the layer.
    flops : int or None
        Of those calls that are counted; None when none is.
    uncounted : int
        Calls without a count of operations.
    bytes : int
        Read and written.
    traffic : Traffic
        Launches and transfers.
    phases : dict
        Seconds of each phase; empty on ``fake``.
    """

    name: str
    calls: int = 0
    seconds: float | None = None
    self_seconds: float | None = None
    flops: int | None = None
    uncounted: int = 0
    bytes: int = 0
    traffic: Traffic = field(default_factory=Traffic)
    phases: dict[str, float] = field(default_factory=dict)

    def add(self, record: OpRecord, self_seconds: float | None) -> None:
        """Add a call, and how much of its time was its own."""
        self.calls += 1
        self.bytes += record.bytes
        self.traffic += record.traffic
        if record.flops is None:
            self.uncounted += 1
        else:
            self.flops = (self.flops or 0) + record.flops
        if record.seconds is not None:
            self.seconds = (self.seconds or 0.0) + record.seconds
            self.phases[record.phase] = self.phases.get(record.phase, 0.0) + record.seconds
        if self_seconds is not None:
            self.self_seconds = (self.self_seconds or 0.0) + self_seconds

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {**vars(self), "traffic": dict(vars(self.traffic)), "phases": dict(self.phases)}


def op_totals(records: Iterable[OpRecord]) -> list[Total]:
    """Add up by op; the time of its own is without that of the calls inside it.

    Parameters
    ----------
    records : iterable of OpRecord
        Of whole calls.

    Returns
    -------
    list of Total
        The longest first.
    """
    records = list(records)
    inside: dict[int, float] = {}
    for record in records:
        if record.parent is not None and record.seconds is not None:
            inside[record.parent] = inside.get(record.parent, 0.0) + record.seconds
    totals: dict[str, Total] = {}
    for record in records:
        own = record.seconds and record.seconds - inside.get(record.number, 0.0)
        totals.setdefault(record.op, Total(record.op)).add(record, own)
    return _longest_first(totals)


def layer_totals(records: Iterable[OpRecord]) -> list[Total]:
    """Add up by layer; the time of its own is without that of the layers inside it.

    Parameters
    ----------
    records : iterable of OpRecord
        Those inside of other ops are left out.

    Returns
    -------
    list of Total
        The longest first. What ran for no layer has the name of its phase in parentheses.
    """
    totals: dict[str, Total] = {}
    for record in records:
        if record.parent is not None:
            continue
        path = record.layer or f"({record.phase})"
        totals.setdefault(path, Total(path)).add(record, record.seconds)
        for end in (place for place, letter in enumerate(path) if letter == "."):
            totals.setdefault(path[:end], Total(path[:end])).add(record, record.seconds and 0.0)
    return _longest_first(totals)


def outermost_total(records: Iterable[OpRecord], name: str) -> Total:
    """Add up all calls that no other op made.

    Parameters
    ----------
    records : iterable of OpRecord
        Any.
    name : str
        Of the result.

    Returns
    -------
    Total
    """
    total = Total(name)
    for record in records:
        if record.parent is None:
            total.add(record, record.seconds)
    return total


def _longest_first(totals: dict[str, Total]) -> list[Total]:
    return sorted(
        totals.values(),
        key=lambda total: (-(total.self_seconds or 0.0), -total.traffic.launches, total.name),
    )
