"""Runs the command line in a process that can be killed; with SLOW_DISK_PIPE its disk is slow.

The environment variable holds a descriptor. A byte "(" is written to it when a save begins, ")"
when it is over; in between every 4 KiB, every fsync and every rename takes its time.
"""

import os
import signal
import sys
import time
from typing import Any

sys.modules["matplotlib"] = None  # type: ignore[assignment]  # plots are not what this is about

CHUNK_BYTES = 4096
SECONDS = {"write": 0.0005, "fsync": 0.01, "replace": 0.005}


class SlowFile:
    def __init__(self, file: Any) -> None:
        self.file = file

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for first in range(0, len(view), CHUNK_BYTES):
            time.sleep(SECONDS["write"])
            self.file.write(view[first : first + CHUNK_BYTES])
            self.file.flush()
        return len(view)

    def __enter__(self) -> "SlowFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def slow_down_the_disk(pipe: int) -> None:
    from xbackprop.training import atomic
    from xbackprop.training.trainer import Trainer

    fsync, replace, save = os.fsync, os.replace, Trainer.save

    def slow_fsync(descriptor: int) -> None:
        time.sleep(SECONDS["fsync"])
        fsync(descriptor)
        time.sleep(SECONDS["fsync"])

    def slow_replace(source: Any, target: Any) -> None:
        time.sleep(SECONDS["replace"])
        replace(source, target)
        time.sleep(SECONDS["replace"])

    def slow_open(*arguments: Any, **options: Any) -> Any:
        return SlowFile(open(*arguments, **options))

    def marked_save(self: Trainer, *arguments: Any, **options: Any) -> None:
        os.write(pipe, b"(")
        save(self, *arguments, **options)
        os.write(pipe, b")")

    os.fsync, os.replace = slow_fsync, slow_replace
    atomic.open = slow_open  # type: ignore[attr-defined]
    Trainer.save = marked_save  # type: ignore[method-assign]


if __name__ == "__main__":
    # A shell that starts this in the background has it ignore Ctrl-C, and so would the command.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if "SLOW_DISK_PIPE" in os.environ:
        slow_down_the_disk(int(os.environ["SLOW_DISK_PIPE"]))
    from xbackprop.cli.main import main

    sys.exit(main())
