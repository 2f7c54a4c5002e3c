"""Recording on CUDA: stream capture into a graph, with a memory pool of its own.

Not yet measured on a GPU.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.backend.capture import CaptureError, recording
from xbackprop.backend.device import Device


class GraphRecorder:
    """Captures a function on a stream of its own and launches the graph on the current one.

    The pool belongs to the graph: what the function allocates keeps its address, and nobody else
    gets that memory as long as this object lives.

    Parameters
    ----------
    device : Device
        Where.
    """

    def __init__(self, device: Device) -> None:
        import cupy

        self.device = device
        with device.activate():
            self.stream = cupy.cuda.Stream(non_blocking=True)
            self.pool = cupy.cuda.MemoryPool()
        self._graph: Any = None
        self._held: list[Any] = []

    def warm_up(self, function: Callable[[], Any]) -> Any:
        """Run ``function`` on this stream: kernels are compiled and memory is taken here."""
        with self._own_stream(), recording():
            return function()

    def capture(self, function: Callable[[], Any], held: Sequence[Array]) -> Any:
        """Note what ``function`` does; see :class:`xbackprop.backend.capture.Recorder`."""
        with self._own_stream():
            self.stream.begin_capture()
            try:
                with recording(self.device):
                    result = function()
            except BaseException as error:
                # Leaves the capture mode in any case, and complains when the capture is broken.
                with contextlib.suppress(RuntimeError):
                    self.stream.end_capture()
                if isinstance(error, (RuntimeError, NotImplementedError)):
                    raise _explain(error) from error
                raise
            try:
                self._graph = self.stream.end_capture()
            except RuntimeError as error:
                raise _explain(error) from error
        self._held = [result, *held]
        return result

    def replay(self) -> None:
        """Launch the graph on the current stream, in order with what was started there before."""
        with self.device.activate():
            self._graph.launch()

    @contextlib.contextmanager
    def _own_stream(self) -> Iterator[None]:
        """Work on this stream and pool, after what was started before and before what comes."""
        import cupy

        with self.device.activate():
            outer = cupy.cuda.get_current_stream()
            self.stream.wait_event(outer.record())
            try:
                with cupy.cuda.using_allocator(self.pool.malloc), self.stream:
                    yield
            finally:
                outer.wait_event(self.stream.record())


def _explain(error: Exception) -> CaptureError:
    """Say that a step cannot be recorded, in the words of what CuPy or CUDA refused."""
    if isinstance(error, CaptureError):
        return error
    return CaptureError(f"{type(error).__name__}: {error}")
