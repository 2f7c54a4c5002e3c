"""The stand-in's stream capture: a tape of NumPy calls, played again on the same arrays.

A replay asks no Python, as on a GPU: a number that the host had worked out is the one of the
capture, and an array that a step put in another's place is not found again. So a recorded step
gives the bits of an ordinary one only where it would on a GPU.

CuPy's memory pool may allocate during a capture (its capture mode is relaxed), and its sorts do not
wait, so neither is refused.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.backend.capture import MOST_JOINED, captured_device, recording
from xbackprop.backend.device import Device
from xbackprop.backend.fake import execute
from xbackprop.backend.transfer import record, refuse_in_capture

_CUBLAS = frozenset(
    "dot matmul vdot vecdot matvec vecmat inner tensordot einsum cov corrcoef matrix_power".split()
)
_CUSOLVER = frozenset(
    "cholesky cond det eig eigh eigvals eigvalsh inv lstsq matrix_rank pinv qr slogdet solve svd "
    "svdvals tensorinv tensorsolve".split()
)
_JOINING = frozenset("concatenate concat stack vstack hstack dstack column_stack block".split())


class Entry(NamedTuple):
    """One call on the tape: what to run, and where its fresh results belong."""

    call: Callable[[], Any]
    results: list[np.ndarray | None]


class TapeRecorder:
    """Records on the stand-in GPU; see :class:`xbackprop.backend.capture.Recorder`."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._tape: list[Entry] = []
        self._held: list[Any] = []

    def warm_up(self, function: Callable[[], Any]) -> Any:
        """Run ``function``."""
        with recording():
            return function()

    def capture(self, function: Callable[[], Any], held: Sequence[Array]) -> Any:
        """Note what ``function`` does, and undo it."""
        before = [array._array.copy() for array in held]
        self._tape = []
        token = execute.tape.set(self)
        try:
            with recording(self.device):
                result = function()
        finally:
            execute.tape.reset(token)
            for array, values in zip(held, before, strict=True):
                array._array[...] = values
        self._held = [result, *held]
        return result

    def replay(self) -> None:
        """Play the tape: one launch, however long it is."""
        for call, results in self._tape:
            produced = call()
            parts = produced if isinstance(produced, (tuple, list)) else (produced,)
            for target, values in zip(results, parts, strict=False):
                if target is not None:
                    target[...] = values
        record("launch", 0, self.device, "graph")

    def check(self, name: str, index: int, sources: Sequence[Any]) -> None:
        """Refuse what CuPy refuses while a stream is capturing."""
        place = captured_device()
        if place is None:  # a kernel's reference
            return
        if execute.device_at(index) != place:
            refuse_in_capture(
                f"{name} on {execute.device_at(index)}", "another device is not part of the graph"
            )
        if name in _CUBLAS:
            refuse_in_capture(name, "CuPy refuses cuBLAS there; use xbackprop.ops.matmul.product")
        if name in _CUSOLVER:
            refuse_in_capture(name, "CuPy refuses cuSOLVER there")
        if name in _JOINING and len(sources) > MOST_JOINED:
            refuse_in_capture(
                f"{name} of {len(sources)} arrays",
                f"CuPy uploads the addresses of more than {MOST_JOINED} arrays",
            )

    def note(self, call: Callable[[], Any], results: list[np.ndarray | None]) -> None:
        """Put a call on the tape."""
        self._tape.append(Entry(call, results))
