"""A trace for ``chrome://tracing`` and Perfetto: phases, the layers in them, the ops in those.

The format is that of "Trace Event Format" (Google, 2016): complete events (``"ph": "X"``), whose
nesting is that of their times. A layer lasts from the first to the last op of a run of ops that it
and the layers inside it called.
"""

from collections.abc import Sequence
from typing import Any

from xbackprop.observe.profiling.records import OpRecord, PhaseRecord

_MICROSECONDS = 1e6


def trace_events(records: Sequence[OpRecord], phases: Sequence[PhaseRecord]) -> dict[str, Any]:
    """Return the trace as plain data.

    Parameters
    ----------
    records : sequence of OpRecord
        In the order in which they began.
    phases : sequence of PhaseRecord
        Around them.

    Returns
    -------
    dict

    Raises
    ------
    RuntimeError
        When they have no time, as on ``fake``.
    """
    blocks: list[PhaseRecord | OpRecord] = [*phases, *records]
    starts = [block.start for block in blocks if block.start is not None]
    if len(starts) < len(blocks):
        raise RuntimeError(
            "a trace needs times, and calls on the stand-in GPU have none; profile on cpu or cuda"
        )
    origin = min(starts, default=0.0)
    events = [_event(block.name, "phase", block.start, block.end, origin, {}) for block in phases]
    events += [
        _event(layer, "layer", start, end, origin, {}) for layer, start, end in _layers(records)
    ]
    events += [_op_event(record, origin) for record in records]
    name = {"name": "process_name", "ph": "M", "pid": 1, "tid": 1, "args": {"name": "xbackprop"}}
    # Of events that begin together the longest is the outer one; a sort keeps the order of equals.
    events.sort(key=lambda event: (event["ts"], -event["dur"]))
    return {"displayTimeUnit": "ms", "traceEvents": [name, *events]}


def _op_event(record: OpRecord, origin: float) -> dict[str, Any]:
    details = {"layer": record.layer, "phase": record.phase, "device": record.device,
               "flops": record.flops, "bytes": record.bytes, **vars(record.traffic)}  # fmt: skip
    return _event(record.op, "op", record.start, record.end, origin, details)


def _event(
    name: str,
    category: str,
    start: float | None,
    end: float | None,
    origin: float,
    details: dict[str, Any],
) -> dict[str, Any]:
    first, last = start or 0.0, end or 0.0
    return {
        "name": name, "cat": category, "ph": "X", "pid": 1, "tid": 1,
        "ts": (first - origin) * _MICROSECONDS, "dur": max(last - first, 0.0) * _MICROSECONDS,
        "args": details,
    }  # fmt: skip


def _layers(records: Sequence[OpRecord]) -> list[tuple[str, float | None, float | None]]:
    """Return name, start and end of every run of ops that belong to one layer."""
    runs: list[tuple[str, float | None, float | None]] = []
    running: list[tuple[str, float | None]] = []  # path and start, outermost first
    phase, end = "", None
    for record in [record for record in records if record.parent is None]:
        path = record.layer.split(".") if record.layer else []
        paths = [".".join(path[: count + 1]) for count in range(len(path))]
        kept = 0
        while (
            record.phase == phase
            and kept < min(len(paths), len(running))
            and running[kept][0] == paths[kept]
        ):
            kept += 1
        runs += [(name, start, end) for name, start in running[kept:]]
        running = [*running[:kept], *((name, record.start) for name in paths[kept:])]
        phase, end = record.phase, record.end
    return runs + [(name, start, end) for name, start in running]
