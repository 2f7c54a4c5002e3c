"""A contest of frameworks on one workload: each contestant in a process of its own, timed in turn.

A workload's file gives a :class:`Workload` and calls :func:`main`. For every number of threads, all
contestants are started, checked to compute the same (or the run is void), then timed in rounds,
A B C A B C …, so that a noisy machine is noisy for all of them. Start-up and the first step, where
compilers work, are reported apart. So is the memory of libraries and compiled code: what a step
takes is measured in a process that has them, see :func:`_step_bytes`.
"""

import argparse
import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import machine
import roofline

CHECKED_STEPS = (4, 50)
TOLERANCE = 2e-3
WARM_UP = 5  # steps beyond the checked ones, where a step is short
MEMORY_STEPS = 3  # whose peak is looked at; the first makes the optimizer's state
# glibc's heap has holes, as large as the arrays and other ones in every run. Where each array has
# pages of its own, resident memory is what the arrays take, to 0.1 MB. Slower: not while timing.
PAGES_FOR_EACH_ARRAY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_MMAP_MAX_": "1000000"}
HOLDS_BLAS_BACK = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "MKL_DEBUG_CPU_TYPE")
PACKAGES = ("numpy", "numba", "torch", "jax", "jaxlib", "scikit-learn", "thinc")


@dataclass(frozen=True)
class Target:
    """What is asked of us against one peer: the peer's time over ours, in the fastest forms."""

    peer: str  # a contestant's name starts with it
    must: float | None
    aim: float


@dataclass(frozen=True)
class Workload:
    """One thing to be done, and who does it.

    ``contestants`` maps a name to a function that builds one and returns its step: a callable that
    does one step and returns what ``figure`` turns into the number to be compared. Whoever cannot
    be built because a package is missing is left out by name. ``flops`` counts the products of one
    step, ``bytes_moved`` what it must read and write at the least.
    """

    name: str
    title: str
    contestants: dict[str, Callable[[], Callable[[], Any]]]
    flops: float
    bytes_moved: float
    targets: tuple[Target, ...]
    figure: Callable[[Any], float] = float
    wait: dict[str, Callable[[Any], object]] = field(default_factory=dict)
    checked: tuple[int, ...] = CHECKED_STEPS
    tolerance: float = TOLERANCE  # of the last figure
    threads: tuple[int, ...] = (1, 2)
    has_memory_target: bool = False
    memory_peer: str = "PyTorch"  # whose least memory is what we may take
    warm_up: int = WARM_UP


# --- in the process of a contestant ---------------------------------------------------------


def serve(workload: Workload, name: str) -> None:
    """Build a contestant and do what the parent asks, one JSON line for each line of its."""
    # Some peers have no switch for the number of threads that holds everywhere; this one does.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: threads()])
    started = time.perf_counter()
    try:
        made = [workload.contestants[name]()]
    except ImportError as error:
        _answer({"missing": str(error)})
        return
    _answer({"build_s": time.perf_counter() - started})
    wait = workload.wait.get(name, lambda result: None)
    for line in sys.stdin:
        command, count = line.split()
        if command == "check":
            _answer(_check(workload, made[0]))
        elif command == "time":
            _answer({"s": _time(made[0], wait, int(count))})
        elif command == "peak":
            _answer({"bytes": _resident_bytes("VmHWM")})
        elif command == "memory":
            _answer({"bytes": _step_bytes(workload.contestants[name], made, wait, int(count))})


def _check(workload: Workload, step: Callable[[], Any]) -> dict[str, Any]:
    started = time.perf_counter()
    figures = {}
    first = None
    for number in range(1, max(workload.checked) + 1):
        value = step()
        if number in workload.checked:
            figures[number] = workload.figure(value)
        if first is None:
            workload.figure(value)
            first = time.perf_counter() - started
    for _ in range(workload.warm_up):
        value = step()
    workload.figure(value)
    return {"first_step_s": first, "figures": figures}


def _time(step: Callable[[], Any], wait: Callable[[Any], object], count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        result = step()
    wait(result)
    return (time.perf_counter() - started) / count


def _step_bytes(
    make: Callable[[], Callable[[], Any]],
    made: list[Callable[[], Any]],
    wait: Callable[[Any], object],
    count: int,
) -> int:
    """Return what the steps of a second training in this process add to its memory.

    Every library loads code lazily, in its first steps: kernels, compilers, buffers of threads.
    After them all of it is there. So ``made``, which holds the contestant, is emptied, memory that
    is free goes back to Linux, and the growth is that of a contestant made anew: from before its
    first step, its weights and data being there, to the peak of ``count`` steps.
    """
    for _ in range(count):
        wait(made[0]())
    made.clear()
    step = make()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = _resident_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    for _ in range(count):
        wait(step())
    made.append(step)
    return _resident_bytes("VmHWM") - before


def _answer(result: dict[str, Any]) -> None:
    print("CONTEST " + json.dumps(result), flush=True)


def _resident_bytes(field_name: str = "VmRSS") -> int:
    with open("/proc/self/status") as file:
        (kilobytes,) = (line.split()[1] for line in file if line.startswith(field_name))
    return int(kilobytes) * 1024


# --- in the process that compares them ------------------------------------------------------


class Peer:
    """The process of one contestant."""

    def __init__(
        self, workload: Workload, script: str, name: str, threads: int, **variables: str
    ) -> None:
        self.name = name
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, script, "--serve", f"{workload.name}/{name}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(threads) | variables,
        )
        self.ready = self.read()
        self.started_s = time.perf_counter() - started

    def read(self) -> dict[str, Any]:
        """Wait for the answer; what else the contestant prints is passed over."""
        for line in self.process.stdout or ():
            if line.startswith("CONTEST "):
                return json.loads(line.removeprefix("CONTEST "))
        raise SystemExit(f"{self.name} ended with {self.process.wait()}")

    def ask(self, command: str, count: int = 1) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command} {count}\n")
        self.process.stdin.flush()
        return self.read()

    def is_running(self) -> bool:
        """Tell whether a thread of it has, or waits for, a core."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/stat")
        return any(task.read_text().rpartition(")")[2].split()[0] == "R" for task in tasks)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def environment(threads: int) -> dict[str, str]:
    """Return the variables of a contestant: every pool of threads in the same size.

    Settings that make a BLAS take other kernels than the processor's own are left out.
    """
    pools = "OMP OPENBLAS MKL BLIS NUMEXPR NUMBA CONTEST"
    kept = {name: value for name, value in os.environ.items() if name not in HOLDS_BLAS_BACK}
    return {**kept, **{f"{name}_NUM_THREADS": str(threads) for name in pools.split()}}


def threads() -> int:
    """Return the number of threads a contestant is to use."""
    return int(os.environ["CONTEST_NUM_THREADS"])


def compete(
    workload: Workload, script: str, threads: int, rounds: int, seconds: float
) -> dict[str, Any]:
    """Run the contest with so many threads and return its figures."""
    peers, missing, figures, rows = {}, {}, {}, {}
    for name in workload.contestants:
        peer = Peer(workload, script, name, threads)
        if "missing" in peer.ready:
            missing[name] = peer.ready["missing"]
            peer.close()
            continue
        checked = peer.ask("check")
        figures[name] = checked["figures"]
        rows[name] = {"start_s": peer.started_s, "first_step_s": checked["first_step_s"]}
        peers[name] = peer
        print(f"  {name}: ready in {peer.started_s + checked['first_step_s']:.1f} s", flush=True)
    _require_agreement(workload, figures)
    counts = {name: _calls_for(peer, seconds) for name, peer in peers.items()}
    times: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(rounds):
        for name, peer in peers.items():
            _wait_for_sleep(peers.values())
            times[name].append(peer.ask("time", counts[name])["s"] * 1e3)
    floor = roofline.floor_ms(workload.flops, workload.bytes_moved, environment(threads))
    for name, peer in peers.items():
        q1, median, q3 = statistics.quantiles(times[name], n=4)
        rows[name] |= {
            "q1_ms": q1,
            "median_ms": median,
            "q3_ms": q3,
            "over_floor": median / floor["floor_ms"],
            "process_mb": peer.ask("peak")["bytes"] / 1e6,
        }
        peer.close()
        fresh = Peer(workload, script, name, threads, **PAGES_FOR_EACH_ARRAY)
        rows[name]["step_mb"] = fresh.ask("memory", MEMORY_STEPS)["bytes"] / 1e6
        fresh.close()
    return {
        "threads": threads,
        "rounds": rounds,
        "floor": floor,
        "contestants": rows,
        "missing": missing,
        "figures": figures,
        "targets": _judge(workload, rows),
    }


def _require_agreement(workload: Workload, figures: dict[str, dict[str, float]]) -> None:
    """End the run where contestants did not compute the same thing."""
    (reference, expected), *others = figures.items()
    for name, found in others:
        for step, value in found.items():
            scale = max(abs(expected[step]), 1e-3)
            allowed = workload.tolerance
            if int(step) < max(workload.checked):  # rounding has had no time to grow
                allowed = min(allowed, TOLERANCE)
            if not abs(value - expected[step]) <= allowed * scale:
                raise SystemExit(
                    f"{workload.name} is void: after {step} steps {reference} has "
                    f"{expected[step]:.6g}, {name} has {value:.6g}"
                )


def _wait_for_sleep(peers: Iterable[Peer]) -> None:
    """Wait until no thread of anybody runs: those of a BLAS spin on for a while after their work.

    They would take a core from whoever comes next.
    """
    until = time.monotonic() + 2
    while time.monotonic() < until and any(peer.is_running() for peer in peers):
        time.sleep(0.01)


def _calls_for(peer: Peer, seconds: float) -> int:
    once = min(peer.ask("time", 1)["s"] for _ in range(3))
    return max(1, round(seconds / once))


def _judge(workload: Workload, rows: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Compare our fastest form with the fastest form of every peer."""
    ours = min(_named(rows, "xbackprop"), key=lambda name: rows[name]["median_ms"])
    judged = []
    for target in workload.targets:
        forms = _named(rows, target.peer)
        if not forms:
            continue
        theirs = min(forms, key=lambda name: rows[name]["median_ms"])
        ratio = rows[theirs]["median_ms"] / rows[ours]["median_ms"]
        judged.append(
            {
                "peer": target.peer,
                "form": theirs,
                "ours": ours,
                "ratio": ratio,
                "must": target.must,
                "aim": target.aim,
                "is_met": None if target.must is None else ratio >= target.must,
            }
        )
    forms = _named(rows, workload.memory_peer)
    if workload.has_memory_target and forms:
        least = min(forms, key=lambda name: rows[name]["step_mb"])
        ratio = rows[least]["step_mb"] / rows[ours]["step_mb"]
        judged.append(
            {
                "peer": f"{workload.memory_peer}'s memory",
                "form": least,
                "ours": ours,
                "ratio": ratio,
                "must": 1.0,
                "aim": 1.0,
                "is_met": ratio >= 1.0,
            }
        )
    return judged


def _named(rows: dict[str, Any], peer: str) -> list[str]:
    return [name for name in rows if name == peer or name.startswith(f"{peer}, ")]


def main(script: str, *workloads: Workload) -> None:
    """Run the contests of a file, or serve one contestant of one."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--out", type=Path, help="folder for one JSON file a workload")
    parser.add_argument("--only", help="part of the workload's name")
    parser.add_argument("--threads", type=int, nargs="+")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.25, help="of one timing")
    parser.add_argument("--serve", help=argparse.SUPPRESS)  # workload/contestant
    given = parser.parse_args()
    if given.serve:
        name, _, contestant = given.serve.partition("/")
        (workload,) = (one for one in workloads if one.name == name)
        serve(workload, contestant)
        return
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
    for workload in workloads:
        if given.only and given.only not in workload.name:
            continue
        document = {
            "workload": workload.name,
            "title": workload.title,
            "runs": [
                _announced(workload, script, threads, given)
                for threads in given.threads or workload.threads
            ],
            "environment": machine.environment(*PACKAGES),
        }
        if given.out:
            path = given.out / f"{workload.name}.json"
            path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _announced(
    workload: Workload, script: str, threads: int, given: argparse.Namespace
) -> dict[str, Any]:
    print(f"{workload.title}, threads: {threads}", flush=True)
    result = compete(workload, script, threads, given.rounds, given.seconds)
    for name, row in result["contestants"].items():
        print(
            f"  {row['median_ms']:10.3f} ms  ({row['q1_ms']:.3f} to {row['q3_ms']:.3f}), "
            f"{row['over_floor']:6.2f} x floor, {row['step_mb']:6.1f} MB a step, "
            f"{row['process_mb']:4.0f} in all  {name}"
        )
    for row in result["targets"]:
        must = "" if row["must"] is None else f", must {row['must']:g}"
        verdict = {True: ": met", False: ": MISSED", None: ""}[row["is_met"]]
        print(f"  {row['ratio']:6.2f} of {row['form']} (ours: {row['ours']}){must}{verdict}")
    return result
