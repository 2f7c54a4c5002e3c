"""Ctrl-C and SIGTERM: the first asks for an end in good order, the second leaves at once."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class StopRequest:
    """Whether the run shall end, and because of which signal.

    Attributes
    ----------
    signal : signal.Signals or None
        The last one that came.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @property
    def name(self) -> str:
        """What a user calls the signal."""
        return "" if self.signal is None else _NAMES[self.signal]

    @property
    def exit_code(self) -> int:
        """What a shell reports for a program ended by the signal; 0 without one."""
        return 0 if self.signal is None else 128 + self.signal

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Take note of a signal; the second one raises KeyboardInterrupt.

        So files are closed and the terminal is left as it was found.
        """
        is_second = self.signal is not None
        self.signal = signal.Signals(number)
        if is_second:
            raise KeyboardInterrupt


@contextlib.contextmanager
def catch_signals() -> Iterator[StopRequest]:
    """Catch Ctrl-C and SIGTERM inside a ``with`` block, and give the handlers back after it.

    A signal that is ignored (``nohup``, a job in the background of a script) stays ignored. Outside
    the main thread Python has no signal handlers, and nothing is caught.

    Yields
    ------
    StopRequest
    """
    request = StopRequest()
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in _NAMES:
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):  # None: not installed by Python
                before[number] = handler
    try:
        for number in before:
            signal.signal(number, request.handle)
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
