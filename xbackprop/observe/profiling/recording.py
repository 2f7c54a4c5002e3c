"""The observer that keeps a record of every call of an op, and its own time out of them."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from xbackprop.backend.device import Device, resolve_device
from xbackprop.backend.timing import Stopwatch
from xbackprop.backend.transfer import TransferEvent, TransferLog, open_log
from xbackprop.dispatch import OpCall, observe
from xbackprop.module import Module, current_frame
from xbackprop.module.frame import layer_path
from xbackprop.observe.profiling.profile import Profile
from xbackprop.observe.profiling.records import OpRecord, PhaseRecord, Traffic, TransferLine
from xbackprop.observe.profiling.work import count_bytes, count_flops
from xbackprop.observe.record import direction_of


@contextlib.contextmanager
def profile(device: str | Device | None = None) -> Iterator[Profile]:
    """Record every call of an op in a ``with`` block: time, operations, bytes, transfers.

    Results do not change, but for the rounding of small networks in ``value_and_grad``, which run
    as one op where nobody watches. What the observer itself takes on the host is taken out of all
    times and told as ``overhead_seconds``; what dispatch needs to tell an observer of a call
    remains, one or two microseconds. On ``cuda`` times are those of events in the stream (not yet
    measured on a GPU), and nothing waits before the block ends; on ``fake`` there are none.

    Parameters
    ----------
    device : str or Device, optional
        Whose clock times the phases; None is the default device. Calls of ops are timed where
        their arrays are.

    Yields
    ------
    Profile
        Its records are there when the block has ended.

    Examples
    --------
    >>> import numpy as np
    >>> import xbackprop as xb
    >>> model = xb.nn.Linear(3, 2, device="cpu", rng=0)
    >>> x = np.ones((4, 3), np.float32)
    >>> with xb.observe.profile() as p:
    ...     output, saved = model.forward(x)
    ...     grad_x = model.backward(output, saved)
    >>> [(record.op, record.phase, record.flops) for record in p.records]
    [('linear_forward', 'forward', 48), ('linear_backward', 'backward', 96)]
    """
    recorder = _Recorder(resolve_device(device))
    with open_log(recorder.log), observe(recorder):
        try:
            yield recorder.profile
        finally:
            recorder.finish()


@dataclass
class _LineLog(TransferLog):
    """A log that counts by source line as well."""

    lines: dict[tuple[str, str, int, str], list[int]] = field(default_factory=dict)

    def add(self, event: TransferEvent, count: int = 1) -> None:
        """Count an event."""
        super().add(event, count)
        self.events.clear()  # one for each launch of a whole training would take much memory
        place = (event.kind, event.filename, event.line, event.what)
        sums = self.lines.setdefault(place, [0, 0])
        sums[0] += count
        sums[1] += event.size_bytes

    def traffic(self) -> Traffic:
        """Return what has happened so far."""
        return Traffic(
            self.launches, self.uploads, self.downloads, self.synchronizations,
            self.bytes_uploaded, self.bytes_downloaded,
        )  # fmt: skip


@dataclass
class _Open:
    """A call that has begun."""

    number: int
    parent: int | None
    layer: str
    phase: str
    before: Traffic
    start: Any = None


class _Recorder:
    """Watches calls of ops; its own time goes into ``watch.taken_out``."""

    def __init__(self, device: Device) -> None:
        self.log = _LineLog()
        self.profile = Profile(self)
        self._device = device
        self._watch = Stopwatch()
        self._calls: list[tuple[_Open, OpCall, Any, int | None, int, Traffic]] = []
        self._phases: list[tuple[str, Any, Any, Traffic]] = []
        self._open: dict[int, _Open] = {}  # by depth
        self._count = 0
        self._phase: str | None = None
        self._direction = ""
        # The modules themselves are kept too, so that no other one gets the id of one of them.
        self._paths: dict[tuple[int, ...], tuple[str, list[Module]]] = {}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Name what runs in a block."""
        outer, self._phase = self._phase, name
        before, start = self.log.traffic(), self._watch.mark(self._device)
        try:
            yield
        finally:
            end = self._watch.mark(self._device)
            self._phases.append((name, start, end, self.log.traffic() - before))
            self._phase = outer

    def before(self, call: OpCall) -> None:
        """Note that a call begins."""
        entered = time.perf_counter()
        outer = self._open.get(call.depth - 1)
        parent = outer.number if outer else None  # none too where an op opened this block
        if not call.depth:
            before = self._direction if current_frame().stack else ""
            self._direction = direction_of(call.op, before)
        self._open[call.depth] = begun = _Open(
            self._count, parent, self._path(), self._phase or self._direction, self.log.traffic()
        )
        self._count += 1
        self._watch.taken_out += time.perf_counter() - entered
        begun.start = self._watch.mark(call.device)

    def after(self, call: OpCall, result: Any) -> None:
        """Note that it has ended."""
        end = self._watch.mark(call.device)
        entered = time.perf_counter()
        begun = self._open.pop(call.depth)
        traffic = self.log.traffic() - begun.before
        done = OpCall(call.op, (), {}, call.device, call.depth)  # without its arrays
        self._calls.append(
            (begun, done, end, count_flops(call), count_bytes(call, result), traffic)
        )
        self._watch.taken_out += time.perf_counter() - entered

    def _path(self) -> str:
        stack = current_frame().stack
        key = tuple(map(id, stack))
        if key not in self._paths:
            self._paths[key] = (layer_path(), list(stack))
        return self._paths[key][0]

    def finish(self) -> None:
        """Turn moments into seconds, which waits for the device."""
        seconds = self._watch.seconds
        for begun, call, end, flops, size, traffic in self._calls:
            self.profile.records.append(OpRecord(
                begun.number, begun.parent, call.op.name, begun.layer, begun.phase,
                str(call.device), seconds(begun.start), seconds(end), flops, size, traffic,
            ))  # fmt: skip
        self.profile.records.sort(key=lambda record: record.number)
        for name, start, end, traffic in self._phases:
            self.profile.phases.append(PhaseRecord(name, seconds(start), seconds(end), traffic))
        self.profile.overhead_seconds = self._watch.taken_out
        self.profile.traffic = self.log.traffic()
        self.profile.transfers += [
            TransferLine(kind, filename, line, what, count, size)
            for (kind, filename, line, what), (count, size) in self.log.lines.items()
        ]
        self._paths.clear()
        self._calls.clear()
