"""What reading a file led to, how long it took, how much memory, and what else it did."""

import json
import os
import resource
import signal
import sys
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xbackprop as xb
from reliability.mutations import FIXTURES, good_tables
from xbackprop.data import DataError
from xbackprop.training import CheckpointError

SECONDS, BYTES = 2.0, 200 * 10**6
ABANDONED_AFTER = 60  # seconds


@dataclass
class Outcome:
    """`result`: loaded, refused, or what else was raised. Time is that of the processor."""

    result: str
    message: str
    seconds: float
    size_bytes: int = 0

    def finding(self, *, must_be_refused: bool) -> str | None:
        """Say what is wrong with it, if anything is."""
        if self.result not in ("loaded", "refused"):
            return f"{self.result}: {self.message}"
        if must_be_refused and self.result == "loaded":
            return "was loaded"
        if self.seconds > SECONDS:
            return f"took {self.seconds:.1f} s"
        if self.size_bytes > BYTES:
            return f"took {self.size_bytes / 10**6:.0f} MB"
        return None


def attempt(path: Path, options: dict[str, Any]) -> Outcome:
    """Read a file as its kind is read."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outcome = _attempt(path, options)
    if caught:
        outcome.result = f"warning {caught[0].message}"
    return outcome


def _attempt(path: Path, options: dict[str, Any]) -> Outcome:
    start = time.process_time()
    try:
        if path.suffix == ".safetensors":
            xb.load(path, device="cpu")
        else:
            xb.data.load_table(path, **options)
        result, message = "loaded", ""
    except (CheckpointError, DataError) as error:
        result, message = "refused", str(error)
        if str(path) not in message:
            result = f"{type(error).__name__} without the path"
    except Exception as error:  # noqa: BLE001  (every other kind is a finding)
        result, message = type(error).__name__, str(error)
    return Outcome(result, message[:300], time.process_time() - start)


# --- memory -------------------------------------------------------------------------------


def attempt_alone(path: Path, options: dict[str, Any]) -> Outcome:
    """Read a file in a fork of this process, and measure the memory that it takes on top.

    Memory is the growth of `ru_maxrss`, the most that was ever resident: in a fork it starts at
    what was inherited, so the growth is what reading took.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            signal.alarm(ABANDONED_AFTER)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            outcome = attempt(path, options)
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            unit = 1 if sys.platform == "darwin" else 1024
            outcome.size_bytes = (after - before) * unit
            os.write(writing, json.dumps(asdict(outcome)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if answer:
        return Outcome(**json.loads(answer))
    result = "hang" if code == -signal.SIGALRM else f"the process ended with {code}"
    return Outcome(result, "", float(ABANDONED_AFTER))


# --- what else it did ---------------------------------------------------------------------

_FORBIDDEN = {"pickle.find_class", "exec", "os.system", "subprocess.Popen", "os.exec", "os.fork"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_seen: list[str] | None = None
_is_watching = False


def attempt_watched(path: Path, options: dict[str, Any]) -> Outcome:
    """Read a file under an audit hook; what must not happen is the result."""
    global _seen, _is_watching
    if _seen is None:
        _seen = []
        _warm_up()  # the first use imports modules, which is an `exec`
        sys.addaudithook(_hook)
    _seen.clear()
    _is_watching = True
    outcome = attempt(path, options)
    _is_watching = False
    if _seen:
        outcome.result = f"event {_seen[0]}"
    return outcome


def _warm_up() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for path in FIXTURES.glob("*.safetensors"):
            attempt(path, {})
        for suffix, content in good_tables().items():
            path = Path(folder) / f"it{suffix}"
            path.write_bytes(content)
            attempt(path, {"target": "y"} if suffix == ".csv" else {})


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _is_watching and _seen is not None and _is_forbidden(event, arguments):
        _seen.append(f"{event} {arguments!r}"[:200])


def _is_forbidden(event: str, arguments: tuple[Any, ...]) -> bool:
    if event == "open":
        _, mode, flags = arguments
        return bool(set(mode or "") & set("wax+")) or bool((flags or 0) & _WRITING)
    return event in _FORBIDDEN or event.startswith(("socket.", "ctypes.", "shutil.", "os.re"))
