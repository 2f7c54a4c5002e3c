"""Timing peers in turn, in one process, so that a noisy machine is noisy for all of them."""

import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version


def time_in_turn(
    steps: dict[str, Callable[[], object]],
    *,
    rounds: int = 41,
    calls: int = 200,
    warm_up: int = 500,
    synchronize: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Return microseconds per call of each step, one value per round.

    A round times every peer once, in the same order; the garbage collector rests meanwhile.
    """
    for step in steps.values():
        for _ in range(warm_up):
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, step in steps.items():
                synchronize()
                started = time.perf_counter()
                for _ in range(calls):
                    step()
                synchronize()
                times[name].append((time.perf_counter() - started) / calls * 1e6)
    finally:
        gc.enable()
    return times


def count_calls(step: Callable[[], object]) -> dict[str, int]:
    """Count the Python and C functions that one step calls."""
    counts = {"python": 0, "c": 0}

    def profile(frame: object, event: str, argument: object) -> None:
        if event == "call":
            counts["python"] += 1
        elif event == "c_call":
            counts["c"] += 1

    sys.setprofile(profile)
    try:
        step()
    finally:
        sys.setprofile(None)
    counts["python"] -= 1  # the step itself
    counts["c"] -= 1  # the call that ends the profile
    return counts


def summarize(times: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Return median and quartiles of each peer."""
    return {
        name: dict(
            zip(("q1_us", "median_us", "q3_us"), statistics.quantiles(values, n=4), strict=True)
        )
        for name, values in times.items()
    }


def environment(*packages: str) -> dict[str, str]:
    """Say where and with what a figure was measured."""
    found = {"python": platform.python_version(), "machine": _processor(), "os": platform.system()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
        return f"{names[0]}, {len(names)} cores"
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def report(name: str, result: dict[str, object], path: str | None) -> None:
    """Print a result and, if asked, write it down as JSON."""
    print(json.dumps({name: result}, indent=2))
    if path:
        with open(path, "w", encoding="utf-8") as file:
            json.dump({name: result}, file, indent=2)
            file.write("\n")
