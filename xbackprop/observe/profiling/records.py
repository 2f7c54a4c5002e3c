"""What a profile is made of: one record for a call of an op, and one for a phase of a step."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Traffic:
    """What happened between host and device during a call, nested calls included.

    Attributes
    ----------
    launches, uploads, downloads, synchronizations : int
        How often; see :class:`xbackprop.TransferLog`.
    bytes_uploaded, bytes_downloaded : int
        How much.
    """

    launches: int = 0
    uploads: int = 0
    downloads: int = 0
    synchronizations: int = 0
    bytes_uploaded: int = 0
    bytes_downloaded: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(*(a + b for a, b in zip(self.counts(), other.counts(), strict=True)))

    def __sub__(self, other: "Traffic") -> "Traffic":
        return Traffic(*(a - b for a, b in zip(self.counts(), other.counts(), strict=True)))

    def counts(self) -> tuple[int, ...]:
        """Return the numbers in the order of the attributes."""
        return (
            self.launches, self.uploads, self.downloads, self.synchronizations,
            self.bytes_uploaded, self.bytes_downloaded,
        )  # fmt: skip


@dataclass(frozen=True)
class OpRecord:
    """One call of an op.

    Attributes
    ----------
    number, parent : int, int or None
        Its place in the order in which calls began, and that of the call that contains it.
    op, layer, phase, device : str
        What ran, for which layer (its path; empty for an optimizer's update), in which phase.
    start, end : float or None
        Seconds; None on ``fake``.
    flops : int or None
        Floating-point operations, nested calls included; None where they are not counted.
    bytes : int
        Read and written.
    traffic : Traffic
        Launches and transfers.
    """

    number: int
    parent: int | None
    op: str
    layer: str
    phase: str
    device: str
    start: float | None
    end: float | None
    flops: int | None
    bytes: int
    traffic: Traffic

    @property
    def seconds(self) -> float | None:
        """How long it took, nested calls included; None on ``fake``."""
        return None if self.start is None or self.end is None else self.end - self.start


@dataclass(frozen=True)
class PhaseRecord:
    """One block of :meth:`Profile.phase`.

    Attributes
    ----------
    name : str
        As it was given.
    start, end : float or None
        Seconds; None on ``fake``.
    traffic : Traffic
        Launches and transfers, also those outside of ops.
    """

    name: str
    start: float | None
    end: float | None
    traffic: Traffic

    @property
    def seconds(self) -> float | None:
        """How long it took; None on ``fake``."""
        return None if self.start is None or self.end is None else self.end - self.start


@dataclass(frozen=True)
class TransferLine:
    """What one source line made happen between host and device.

    Attributes
    ----------
    kind : str
        ``launch``, ``upload``, ``download``, ``synchronization`` or ``peer_copy``.
    filename, line, what : str, int, str
        Where, and by which function or op.
    count, bytes : int
        How often, and how much.
    """

    kind: str
    filename: str
    line: int
    what: str
    count: int
    bytes: int
