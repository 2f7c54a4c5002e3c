"""Runs that are killed, interrupted and gone on with: each must end as the one left in peace.

`nox -s reliability -- crash` runs all of it.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import xbackprop as xb
from reliability.progress import Figure, Progress, run
from xbackprop.training import CheckpointFolder

LAUNCHER = Path(__file__).with_name("launcher.py")
# Short epochs, checkpoints between them, and a last group of batches that is not full.
OPTIONS = [
    "train", "--hidden", "32", "--batch-size", "32", "--accumulate", "2", "--epochs", "40",
    "--save-steps", "7", "--quiet", "--device", "cpu",
]  # fmt: skip
WORKERS = 2
PATIENCE_SECONDS = 120  # a process that takes longer hangs
LEAVES_WITHIN_SECONDS = 5.0
LEAVES_AT_ONCE_SECONDS = 1.0


@dataclass(frozen=True)
class Reference:
    """The run left in peace: what it ends with, and how long it takes from its first file on."""

    bits: Any
    seconds: float


def start(arguments: list[str], pipe: int | None = None) -> subprocess.Popen[str]:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    if pipe is not None:
        environment["SLOW_DISK_PIPE"] = str(pipe)
    return subprocess.Popen(
        [sys.executable, str(LAUNCHER), *arguments],
        env=environment,
        pass_fds=() if pipe is None else (pipe,),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for the end and return what was said on standard error."""
    try:
        return process.communicate(timeout=PATIENCE_SECONDS)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[1] + f"\nhung for {PATIENCE_SECONDS} s"


def bits_of(folder: Path) -> Any:
    """What equal runs have in common: weights, optimizer, counters, metrics, to the last bit."""
    saved = xb.load(folder / "model.safetensors", device="cpu")
    state = saved.optimizer_state or {}
    arrays = {**saved.model.state_dict(), **saved.model.extra_state()}
    values: dict[str, Any] = {name: array.tobytes() for name, array in arrays.items()}
    for number, entry in state["state"].items():
        for name, value in entry.items():
            values[f"{number} {name}"] = value.tobytes() if hasattr(value, "tobytes") else value
    return values, state["param_groups"], saved.counters, (folder / "metrics.jsonl").read_bytes()


def wait_for_the_run(folder: Path, process: subprocess.Popen[str]) -> None:
    """Return when the folder tells of a run: from then on it must be possible to go on with it."""
    while not (folder / "config.json").exists() and process.poll() is None:
        time.sleep(0.0005)


@cache
def reference() -> Reference:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "run")
        process = start([*OPTIONS, "--out", str(folder)])
        wait_for_the_run(folder, process)
        started = time.perf_counter()
        errors = finish(process)
        seconds = time.perf_counter() - started
        if process.returncode:
            raise RuntimeError(f"the reference run failed: {errors}")
        return Reference(bits_of(folder), seconds)


def go_on(folder: Path) -> str:
    """Resume to the end and return what is wrong with the result; nothing when all is well."""
    moved = folder.with_name("moved")  # a run folder is complete: it may lie anywhere
    shutil.move(folder, moved)
    process = start(["train", "--resume", str(moved), "--quiet"])
    errors = finish(process)
    if process.returncode:
        return f"exit code {process.returncode}: {errors}"
    if list(moved.rglob("*.tmp")):
        return "temporary files are left over"
    if len(list((moved / "checkpoints").iterdir())) > 3:
        return "more checkpoints than the last two and the best"
    return "" if bits_of(moved) == reference().bits else "the result differs"


Attempt = dict[str, Any]  # problem, and what was measured


def until_done(
    progress: Progress, name: str, count: int, attempt: Callable[[random.Random], Attempt | None]
) -> list[Attempt]:
    """Collect `count` attempts that hit; one that came too late (None) does not count."""

    def one(number: int) -> Attempt:
        for trial in range(50):
            result = attempt(random.Random(f"{name} {number} {trial}"))
            if result is not None:
                return result
        return {"problem": "the run was always over before it was hit"}

    reference()
    with ThreadPoolExecutor(WORKERS) as pool:
        parts = range(0, count, 10)  # kept after every tenth
        return [
            result
            for first in parts
            for result in progress.part(
                f"{name} {first}",
                lambda first=first: list(pool.map(one, range(first, min(first + 10, count)))),
            )
        ]


def figure(bar: str, what: str, results: list[Attempt], worst: str = "") -> Figure:
    problems = [result["problem"] for result in results if result["problem"]]
    for problem in problems[:5]:
        print(f"       {bar}: {problem}")
    return Figure(bar, what, len(results), len(results) - len(problems), worst)


# --- kill -9 ------------------------------------------------------------------------------


def kill_somewhere(rng: random.Random) -> Attempt | None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "run")
        process = start([*OPTIONS, "--out", str(folder)])
        wait_for_the_run(folder, process)
        time.sleep(rng.uniform(0, reference().seconds))
        process.kill()
        finish(process)
        if process.returncode == 0:
            return None
        return {"problem": go_on(folder)}


def kill_inside_a_save(rng: random.Random) -> Attempt | None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "run")
        reader, writer = os.pipe()
        process = start([*OPTIONS, "--out", str(folder)], writer)
        os.close(writer)
        with open(reader, "rb", buffering=0) as events:
            for _ in range(rng.randint(1, 30)):  # saves that go well
                if read_until(events, b"(") and rng.random() < 0.5:
                    continue
                read_until(events, b")")
            if not read_until(events, b"("):
                finish(process)
                return None
            time.sleep(rng.uniform(0, 0.05))
            process.kill()
            is_inside = b")" not in events.read()
        finish(process)
        return {"problem": go_on(folder)} if is_inside else None


def read_until(events: Any, wanted: bytes) -> bool:
    """Read single bytes until the wanted one; False when the process has ended before."""
    while event := events.read(1):
        if event == wanted:
            return True
    return False


def kills(progress: Progress, quick: bool) -> Iterator[Figure]:
    somewhere, inside = (6, 4) if quick else (150, 50)
    results = until_done(progress, "kill", somewhere, kill_somewhere)
    yield figure("kill -9", "at random moments, resumed bit-equal", results)
    results = until_done(progress, "kill in save", inside, kill_inside_a_save)
    yield figure("kill -9 inside a save", "slow disk, resumed bit-equal", results)


# --- signals ------------------------------------------------------------------------------


def interrupt(rng: random.Random, number: int, *, twice: bool = False) -> Attempt | None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "run")
        process = start([*OPTIONS, "--out", str(folder)])
        wait_for_the_run(folder, process)
        time.sleep(rng.uniform(0, reference().seconds))
        sent = time.perf_counter()
        process.send_signal(number)
        if twice:
            time.sleep(rng.uniform(0, 0.005))
            sent = time.perf_counter()
            process.send_signal(number)
        errors = finish(process)
        seconds = time.perf_counter() - sent
        if process.returncode == 0 or was_leaving(process.returncode, number, folder):
            return None
        if twice and "left at once" not in errors:
            return None  # the first one was enough
        return {
            "seconds": seconds,
            "problem": problem_after(folder, process.returncode, number, errors, twice=twice)
            or too_slow(seconds, LEAVES_AT_ONCE_SECONDS if twice else LEAVES_WITHIN_SECONDS)
            or go_on(folder),
        }


def was_leaving(code: int, number: int, folder: Path) -> bool:
    """Whether the signal came when all was done and the interpreter was ending."""
    model = folder / "model.safetensors"
    return code == -number and model.exists() and xb.load(model).counters["status"] == "finished"


def problem_after(folder: Path, code: int, number: int, errors: str, *, twice: bool) -> str:
    if code != 128 + number:
        return f"exit code {code}: {errors}"
    if "Traceback" in errors:
        return errors
    if twice:
        return ""  # it may have left before its first checkpoint
    newest = CheckpointFolder(folder / "checkpoints").newest_first()
    if not newest:
        return "there is no checkpoint"
    xb.load(newest[0])  # raises when it is not whole
    xb.load(folder / "model.safetensors")
    return ""


def too_slow(seconds: float, limit: float) -> str:
    return f"left after {seconds:.2f} s" if seconds > limit else ""


def signals(progress: Progress, quick: bool) -> Iterator[Figure]:
    for name, number in (("SIGINT", signal.SIGINT), ("SIGTERM", signal.SIGTERM)):
        results = until_done(
            progress, name, 4 if quick else 100, lambda rng, number=number: interrupt(rng, number)
        )
        yield figure(
            name, f"exit within {LEAVES_WITHIN_SECONDS:g} s, valid checkpoint, resumed bit-equal",
            results, slowest(results),
        )  # fmt: skip
    results = until_done(
        progress, "twice", 3 if quick else 50, lambda rng: interrupt(rng, signal.SIGINT, twice=True)
    )
    yield figure(
        "second Ctrl-C", f"exit within {LEAVES_AT_ONCE_SECONDS:g} s, resumed bit-equal",
        results, slowest(results),
    )  # fmt: skip


def slowest(results: list[Attempt]) -> str:
    return f"slowest {max(result.get('seconds', 0.0) for result in results):.2f} s"


def main(argv: list[str] | None = None) -> int:
    return run([kills, signals], "crash", argv)


if __name__ == "__main__":
    sys.exit(main())
