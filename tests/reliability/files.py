"""Model and data files that are damaged, hostile or odd: what reading them leads to, in figures.

`nox -s reliability -- files` runs all of it. Every file must be refused (a mutated one may turn out
to be right) with CheckpointError or DataError, within 2 seconds of processor time and, where it is
measured, 200 MB. Needs POSIX: chunks of work are forks, so that a crash is seen.
"""

import json
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import xbackprop as xb
from reliability.hostile_checkpoints import hostile_checkpoints
from reliability.hostile_tables import hostile_csv, hostile_npz
from reliability.measuring import Outcome, attempt, attempt_alone, attempt_watched
from reliability.mutations import FIXTURES, good_tables, make
from reliability.progress import Bar, Figure, Progress, run

JOBS = 2  # processes at a time

# Name, suffix, what writes the file, and the options of reading it.
Input = tuple[str, str, Callable[[Path], Any], dict[str, Any]]


@dataclass
class Figures:
    inputs: int = 0
    refused: int = 0
    loaded: int = 0
    worst_seconds: float = 0.0
    worst_megabytes: float = 0.0
    findings: list[str] = field(default_factory=list)

    def add(self, name: str, outcome: Outcome, *, must_be_refused: bool) -> None:
        finding = outcome.finding(must_be_refused=must_be_refused)
        self.merge(
            Figures(
                inputs=1,
                refused=outcome.result == "refused",
                loaded=outcome.result == "loaded",
                worst_seconds=round(outcome.seconds, 6),
                worst_megabytes=round(outcome.size_bytes / 10**6, 1),
                findings=[f"{name}: {finding}"] if finding else [],
            )
        )

    def merge(self, other: "Figures") -> None:
        self.inputs += other.inputs
        self.refused += other.refused
        self.loaded += other.loaded
        self.worst_seconds = max(self.worst_seconds, other.worst_seconds)
        self.worst_megabytes = max(self.worst_megabytes, other.worst_megabytes)
        self.findings += other.findings


# --- what is read -------------------------------------------------------------------------


def whole_checkpoint() -> bytes:
    """A file with some 40 kB of tensors."""
    model = xb.nn.Sequential(xb.nn.Linear(64, 48), xb.nn.Dropout(), xb.nn.Linear(48, 9), rng=0)
    optimizer = xb.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = xb.asarray(np.ones((2, 64))), xb.asarray(np.ones((2, 9)))
    xb.value_and_grad(model, xb.nn.MSELoss())(x, y)
    optimizer.step()
    with tempfile.TemporaryDirectory() as folder:
        xb.save(Path(folder) / "it", model, optimizer)
        return (Path(folder) / "it").read_bytes()


def truncated(numbers: range) -> Iterator[Input]:
    """Cut at every byte of the header, then at 1,000 other places."""
    whole = whole_checkpoint()
    header = 8 + int.from_bytes(whole[:8], "little")
    places = [*range(header), *random.Random(0).sample(range(header, len(whole)), 1000)]
    for place in (places[number] for number in numbers if number < len(places)):
        yield f"cut at {place}", ".safetensors", _writer(whole[:place]), {}


def flipped(numbers: range) -> Iterator[Input]:
    """Flip one bit: every second time in the header."""
    files = [path.read_bytes() for path in sorted(FIXTURES.glob("v2-*"))] + [whole_checkpoint()]
    for number in numbers:
        rng = random.Random(number)
        raw = bytearray(rng.choice(files))
        header = 8 + int.from_bytes(raw[:8], "little")
        place = rng.randrange(header if number % 2 else len(raw))
        raw[place] ^= 1 << rng.randrange(8)
        yield f"flip {number} at {place}", ".safetensors", _writer(bytes(raw)), {}


# What alone shows that a certain bound is kept: also in short forms.
_ALWAYS = ("bomb", "members", "no", "a", "classes", "many", "floods", "explosions")


def hostile(numbers: range) -> Iterator[Input]:
    number = -1
    for suffix, family, options in (
        (".safetensors", hostile_checkpoints, {}),
        (".csv", hostile_csv, {"target": "y"}),
        (".npz", hostile_npz, {}),
    ):
        for name, write in family():
            number += 1
            if number in numbers or (numbers.step > 1 and name.split()[0] in _ALWAYS):
                yield f"{suffix} {name}", suffix, write, options


def mutated(kind: str) -> Callable[[range], Iterator[Input]]:
    def inputs(numbers: range) -> Iterator[Input]:
        for number in numbers:
            content, options = make(kind, number)
            yield f"{kind} {number}", f".{kind}", _writer(content), options

    return inputs


def all_kinds(numbers: range) -> Iterator[Input]:
    """Good files, hostile ones and mutated ones."""
    for path in sorted(FIXTURES.glob("*.safetensors")):
        yield path.name, ".safetensors", _writer(path.read_bytes()), {}
    for suffix, content in good_tables().items():
        options = {"target": "y"} if suffix == ".csv" else {}
        yield f"a good {suffix}", suffix, _writer(content), options
    yield from hostile(numbers)
    for kind in ("safetensors", "csv", "npz"):
        yield from mutated(kind)(numbers)


def _writer(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


# --- the parts ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """Inputs by number: all below `count` in chunks, or the `quick` ones alone."""

    what: str
    inputs: Callable[[range], Iterator[Input]]
    count: int  # where it is more than there are, there is one chunk
    chunk: int
    quick: range
    must_be_refused: bool = True
    attempt: Callable[[Path, dict[str, Any]], Outcome] = attempt

    def chunks(self, is_quick: bool) -> list[range]:
        if is_quick:
            return [self.quick]
        return [
            range(start, min(start + self.chunk, self.count))
            for start in range(0, self.count, self.chunk)
        ]

    def run(self, numbers: range, folder: Path) -> Figures:
        figures = Figures()
        for name, suffix, write, options in self.inputs(numbers):
            path = folder / f"input{suffix}"
            write(path)
            outcome = self.attempt(path, options)
            figures.add(name, outcome, must_be_refused=self.must_be_refused)
            path.unlink()
        return figures


FUZZED = "refused by name or read, never a crash, a hang or another exception"
PARTS = {
    "cut short": Part(
        "at every byte of the header and 1,000 other places: refused",
        truncated, 10_000, 10_000, range(0, 10_000, 50),
    ),
    "flipped bit": Part("anywhere in a checkpoint: refused", flipped, 10_000, 5_000, range(400)),
    "hostile files": Part(
        "checkpoints, CSV, NPZ: refused within 2 s and 200 MB",
        hostile, 10_000, 10_000, range(0, 10_000, 4), attempt=attempt_alone,
    ),
    "fuzzed checkpoints": Part(
        FUZZED, mutated("safetensors"), 120_000, 10_000, range(2_000), False
    ),
    "fuzzed CSV": Part(FUZZED, mutated("csv"), 60_000, 10_000, range(1_500), False),
    "fuzzed NPZ": Part(FUZZED, mutated("npz"), 60_000, 10_000, range(1_000), False),
    "audit hook": Part(
        "no pickle, exec, process or writing while any of these is read",
        all_kinds, 2_000, 2_000, range(3, 1_500, 9), False, attempt_watched,
    ),
}  # fmt: skip


# --- running ------------------------------------------------------------------------------


def run_chunks(name: str, chunks: Sequence[range]) -> list[Figures]:
    """Run chunks of a part in forks, all at a time, and return what they found."""
    found, running = [], {}
    with tempfile.TemporaryDirectory(dir=_memory_folder()) as base:
        for numbers in chunks:
            folder = Path(tempfile.mkdtemp(dir=base))
            child = os.fork()
            if child == 0:
                _run_child(name, numbers, folder)
            running[child] = (numbers, folder)
        while running:
            child, status = os.wait()
            numbers, folder = running.pop(child)
            answer = folder / "figures.json"
            if answer.exists():
                found.append(Figures(**json.loads(answer.read_text("utf-8"))))
            else:
                code = os.waitstatus_to_exitcode(status)
                left = [path.read_bytes()[:2000].hex() for path in folder.glob("input.*")]
                crash = f"{name} {numbers}: the process ended with {code}, reading {left}"
                found.append(Figures(inputs=len(numbers), findings=[crash]))
    return found


def _run_child(name: str, numbers: range, folder: Path) -> None:
    try:
        figures = PARTS[name].run(numbers, folder)
        (folder / "figures.json").write_text(json.dumps(asdict(figures)), "utf-8")
        code = 0
    except BaseException as error:  # noqa: BLE001  (a fork must not return into the loop)
        print(f"{name} {numbers}: {error!r}", file=sys.stderr, flush=True)
        code = 1
    os._exit(code)


def _memory_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def bar_of(name: str) -> Bar:
    """Return a part as a bar of the table."""

    def bar(progress: Progress, quick: bool) -> Iterator[Figure]:
        totals, chunks = Figures(), PARTS[name].chunks(quick)
        for first in range(0, len(chunks), JOBS):

            def compute(first: int = first) -> list[Any]:
                return [asdict(found) for found in run_chunks(name, chunks[first : first + JOBS])]

            for found in progress.part(f"{name} from chunk {first}", compute):
                totals.merge(Figures(**found))
        for finding in totals.findings[:5]:
            print(f"       {finding}", flush=True)
        worst = f"{totals.refused:,} refused; slowest {totals.worst_seconds:.2f} s"
        if totals.worst_megabytes:
            worst += f", at most {totals.worst_megabytes:.0f} MB"
        yield Figure(
            name, PARTS[name].what, totals.inputs, totals.inputs - len(totals.findings), worst
        )

    bar.__name__ = name.replace(" ", "_")
    return bar


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts, write the figures, and return 1 if anything was found."""
    return run([bar_of(name) for name in PARTS], "files", argv)


if __name__ == "__main__":
    sys.exit(main())
