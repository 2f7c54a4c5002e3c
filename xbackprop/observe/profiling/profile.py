"""A profile: the records of a block, and what can be made of them."""

from contextlib import AbstractContextManager
from typing import Any, Protocol

from xbackprop.observe.profiling.records import OpRecord, PhaseRecord, Traffic, TransferLine
from xbackprop.observe.profiling.totals import Total, layer_totals, op_totals
from xbackprop.observe.profiling.trace import trace_events


class NamesPhases(Protocol):
    """What a profile asks to name a phase of a running block."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Name what runs in a ``with`` block."""


class Profile:
    """What :func:`profile` recorded.

    Parameters
    ----------
    recorder : NamesPhases
        What fills it.

    Attributes
    ----------
    records : list of OpRecord
        Every call of an op, in the order in which they began.
    phases : list of PhaseRecord
        The blocks of :meth:`phase`.
    transfers : list of TransferLine
        Launches and transfers by source line.
    traffic : Traffic
        Their sums.
    overhead_seconds : float
        What the observer took on the host, and took out of all times.
    """

    def __init__(self, recorder: NamesPhases) -> None:
        self.records: list[OpRecord] = []
        self.phases: list[PhaseRecord] = []
        self.transfers: list[TransferLine] = []
        self.traffic = Traffic()
        self.overhead_seconds = 0.0
        self._recorder = recorder

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Name what runs in a ``with`` block.

        Without one a call belongs to ``forward``, ``backward`` or ``update`` by the name of its op.

        Parameters
        ----------
        name : str
            Of the phase.

        Returns
        -------
        context manager
        """
        return self._recorder.phase(name)

    def by_op(self) -> list[Total]:
        """Return one total for each op, the longest first (on ``fake``: most launches)."""
        return op_totals(self.records)

    def by_layer(self) -> list[Total]:
        """Return one total for each layer, with what it contains, the longest first."""
        return layer_totals(self.records)

    def trace(self) -> dict[str, Any]:
        """Return a trace that ``chrome://tracing`` and Perfetto show: phases, layers, ops.

        Returns
        -------
        dict
            Plain data, for ``json.dump``.

        Raises
        ------
        RuntimeError
            When the calls have no time, as on ``fake``.
        """
        return trace_events(self.records, self.phases)
