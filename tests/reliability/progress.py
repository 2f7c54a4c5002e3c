"""Long checks made of many parts: what is done is kept, and a second start goes on from there.

A script describes its bars as functions that return a :class:`Figure`, and asks for each part of
one through :meth:`Progress.part`; :func:`run` does the rest.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import xbackprop as xb


@dataclass(frozen=True)
class Figure:
    """One row of the table: a bar, what was done, how often, how often it held, the worst value."""

    bar: str
    what: str
    count: int
    passed: int
    worst: str = ""

    @property
    def result(self) -> str:
        return "passed" if 0 < self.count == self.passed else "FAILED"


class Progress:
    """The parts that are done, one line of JSON each, beside the file of results.

    Parameters
    ----------
    path : Path
        Where they are kept.
    settings : dict
        What the parts depend on; kept parts of other settings are dropped.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.done: dict[str, Any] = {}
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        try:
            entries = [json.loads(line) for line in lines]
        except json.JSONDecodeError:  # a line cut off by the interruption: the last one
            entries = [json.loads(line) for line in lines[:-1]]
        if entries and entries[0] == settings:
            self.done = dict(entries[1:])
        content = [settings, *self.done.items()]
        path.write_text("".join(json.dumps(entry) + "\n" for entry in content), encoding="utf-8")

    def part(self, name: str, compute: Callable[[], Any]) -> Any:
        """Return a part's result, as JSON gives it back; computed only when it is not there yet."""
        if name not in self.done:
            result = compute()
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([name, result]) + "\n")
                file.flush()
                os.fsync(file.fileno())
            self.done[name] = json.loads(json.dumps(result))
        return self.done[name]


Bar = Callable[[Progress, bool], Iterable[Figure]]  # (progress, quick) -> rows


def run(bars: Sequence[Bar], title: str, argv: Sequence[str] | None = None) -> int:
    """Run all bars of a script and write their table; 0 when every one held."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the figures")
    parser.add_argument("--quick", action="store_true", help="a short form of every bar")
    parser.add_argument("--only", nargs="+", metavar="BAR", help="functions to run, by name")
    arguments = parser.parse_args(argv)
    chosen = [bar for bar in bars if not arguments.only or bar.__name__ in arguments.only]
    if not chosen:
        parser.error(f"no bar of that name; there are {', '.join(bar.__name__ for bar in bars)}")
    out: Path = arguments.out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    progress = Progress(out.with_suffix(".progress"), {"title": title, "quick": arguments.quick})
    figures = []
    for bar in chosen:

        def rows(bar: Bar = bar) -> dict[str, Any]:
            started = time.perf_counter()
            rows = [asdict(figure) for figure in bar(progress, arguments.quick)]
            return {"rows": rows, "seconds": round(time.perf_counter() - started, 1)}

        kept = progress.part(bar.__name__, rows)
        for row in kept["rows"]:
            figure = Figure(**row)
            figures.append({**row, "result": figure.result})
            print(f"{figure.result:6} {figure.bar}: {figure.passed} of {figure.count} "
                  f"({figure.what}) {figure.worst}", flush=True)  # fmt: skip
        print(f"       {bar.__name__} took {kept['seconds']} s", flush=True)
    document = {"title": title, "quick": arguments.quick, "figures": figures,
                "seconds": sum(progress.done[bar.__name__]["seconds"] for bar in chosen),
                "environment": environment()}  # fmt: skip
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if not arguments.only:
        progress.path.unlink()  # the next start begins anew
    return 0 if all(row["result"] == "passed" for row in figures) else 1


def environment() -> dict[str, Any]:
    """Say on what the figures were measured."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "xbackprop": xb.__version__,
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
    }
