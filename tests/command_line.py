"""What tests of the command line call, and what they read in a run folder."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xbackprop as xb
from xbackprop.cli.main import main


def folder_of_its_own(tmp_path: Path, monkeypatch: Any) -> Iterator[None]:
    """What a fixture of such tests yields from: an empty folder, the CPU, and no plots."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XBACKPROP_DEVICE", "cpu")
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # plots are not what this is about
    before = xb.default_device()
    xb.set_device(None)
    yield
    monkeypatch.undo()
    xb.set_device(before)


def call(capsys: Any, *arguments: str) -> tuple[int, str, str]:
    """Run a command in this process; return exit code, output and errors."""
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def stop_after(monkeypatch: Any, steps: int, number: int = signal.SIGINT) -> Any:
    """Send a signal to this process after so many steps of training."""
    from xbackprop.training.stepping import Stepper

    original = Stepper.run

    def run(self: Any, x: Any, y: Any) -> Any:
        answer = original(self, x, y)
        if self.steps == steps:
            os.kill(os.getpid(), number)
        return answer

    monkeypatch.setattr(Stepper, "run", run)
    # What a shell starts in the background ignores Ctrl-C, and so would the command.
    return signal.signal(number, signal.default_int_handler)
