"""The long forms of the checks on memory, threads, processes, global state and determinism.

Run: python tests/reliability/soak.py --out FILE.json [--quick]. Interrupted, it goes on at the next
start; all of it takes less than half an hour on two cores. The short forms are ordinary tests.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
PROJECT = TESTS.parent
sys.path.insert(0, str(TESTS))

from reliability.progress import Figure, Progress, run  # noqa: E402

SUITE_SECONDS = 1500
IGNORED = shutil.ignore_patterns(".git", ".venv", ".nox", "*_cache", "__pycache__")


def holds(check: Callable[[], object]) -> str:
    """Return "" when a check passes, else what it said."""
    try:
        check()
    except Exception as error:  # noqa: BLE001 - every failure is a row of the table
        return f"{type(error).__name__}: {error}"[:300]
    return ""


def first_fault(faults: Iterable[str]) -> str:
    return next((fault for fault in faults if fault), "")


# --- memory --------------------------------------------------------------------------------


def memory_limits(progress: Progress, quick: bool) -> Iterator[Figure]:
    """A limit at many places of every optimizer's step, and of a whole training step."""
    import test_memory_pressure as pressure
    from optimizer_cases import OPTIMIZERS

    number = 50 if quick else 150
    variants = [(case, skip, apart) for case in OPTIMIZERS
                for skip in (False, True) for apart in (False, True)]  # fmt: skip
    refused, faults = 0, []
    for case, skip, apart in variants:

        def starve(case: Any = case, skip: bool = skip, apart: bool = apart) -> Any:
            found: list[int] = []
            fault = holds(lambda: found.extend(pressure.starve_updates(case, skip, apart, number)))
            return [sum(found[:1]), fault]

        name = f"update {case.name} {skip} {apart} at {number}"
        count, fault = progress.part(name, starve)
        refused += count
        faults.append(fault)
    passed = sum(not fault for fault in faults)
    what = f"each of {len(OPTIMIZERS)} optimizers, {number} limits; {refused} steps refused"
    yield Figure("atomic update", what, len(variants), passed, first_fault(faults))

    totals = {"limits": 0, "large refused": 0, "small after it": 0}
    faults = []
    for case in OPTIMIZERS:
        for warm in (0, 2):

            def training(case: Any = case, warm: int = warm) -> Any:
                found: dict[str, int] = {}
                fault = holds(
                    lambda: found.update(pressure.run_out_of_memory(case, warm, number // 2))
                )
                return [found, fault]

            counts, fault = progress.part(f"training {case.name} {warm} at {number // 2}", training)
            totals = {name: n + counts.get(name, 0) for name, n in totals.items()}
            faults.append(fault)
    what = (
        f"forward, backward and update at {totals['limits']} limits: {totals['large refused']} "
        f"refused, {totals['small after it']} times a smaller batch went on below the same limit"
    )
    passed = sum(not fault for fault in faults)
    yield Figure("atomic training step", what, len(faults), passed, first_fault(faults))


def leaks(progress: Progress, quick: bool) -> Iterator[Figure]:
    """10,000 steps against 1,000, each in a fresh process."""
    first, last = (100, 400) if quick else (1_000, 10_000)
    for device, steps, trace in (("cpu", last, False), ("cpu", last, True), ("fake", last, False)):

        def grow(device: str = device, steps: int = steps, trace: bool = trace) -> Any:
            code = (
                "import json, test_leaks as t\n"
                f"grown = t.growth({device!r}, {first}, {steps}, trace={trace})\n"
                "print(json.dumps([grown, t.too_much(grown)]))"
            )
            return json.loads(python("-c", code, seconds=1500))

        grown, too_much = progress.part(f"leaks {device} {trace} {steps}", grow)
        shown = {name: n for name, n in grown.items() if trace or name != "traced bytes"}
        worst = ", ".join(f"{name} {n:+d}" for name, n in shown.items())
        what = f"{last} steps against {first} on {device}" + (", traced" if trace else "")
        yield Figure("no growth", what, 1, int(not too_much), worst)


# --- threads and processes -----------------------------------------------------------------


def threads(progress: Progress, quick: bool) -> Iterator[Figure]:
    """Eight threads with their own models, and with one model in inference."""
    import test_threads

    steps, rounds = (20, 30) if quick else (300, 600)
    for device in ("cpu", "fake", "fake:1"):
        for what, function, number in (
            (f"8 models, {steps} steps each, on {device}", test_threads.train_apart, steps),
            (f"1 model asked by 8 threads {rounds} times, on {device}",
             test_threads.ask_together, rounds),
        ):  # fmt: skip

            def compare(function: Any = function, number: int = number, d: str = device) -> int:
                serial, together = function(d, number)
                return sum(a == b for a, b in zip(serial, together, strict=True))

            yield Figure("threads as serial", what, 8, progress.part(what, compare))


def processes(progress: Progress, quick: bool) -> Iterator[Figure]:
    """Children by fork, spawn and forkserver; forks while threads train."""
    import multiprocessing

    import test_processes
    from workload import train

    repeats, forks = (1, 20) if quick else (10, 300)
    for method in multiprocessing.get_all_start_methods():

        def compare(method: str = method) -> int:
            return sum(
                test_processes.train_in_process(method, seed, 20) == train(seed, 20)
                for seed in range(repeats)
            )

        what = f"children by {method}"
        yield Figure("processes", what, repeats, progress.part(f"{what} {repeats}", compare))
    if hasattr(os, "fork"):

        def fork() -> list[int]:
            script = test_processes.FORKS_WHILE_TRAINING.format(number=forks)
            return [int(n) for n in test_processes.run_script(script, seconds=1500).split()]

        good, hung, in_numpy = progress.part(f"{forks} forks, by where they hang", fork)
        what = "forks while 4 threads train"
        worst = f"{hung} hung, and {in_numpy} inside a product of NumPy"
        yield Figure("processes", what, forks, good + in_numpy, worst)


# --- global state and surroundings ---------------------------------------------------------


def global_state(progress: Progress, quick: bool) -> Iterator[Figure]:
    """Import, training, saving, reading, exceptions: nothing of the process changes."""
    import test_global_state

    modes = [(), ("-O",), ("-X", "dev")]
    outcomes = [
        progress.part(f"state {mode}", lambda mode=mode: test_global_state.run(*mode).stdout)
        for mode in modes
    ]
    passed = sum(outcome == "nothing changed\n" for outcome in outcomes)
    yield Figure("global state unchanged", "python, python -O, python -X dev", len(modes), passed)


def surroundings(progress: Progress, quick: bool) -> Iterator[Figure]:
    """The whole suite under -O and -X dev, read-only, and without a home directory."""
    selection = ["test_surroundings.py", "test_optim.py", "test_checkpoint.py"] if quick else []
    suites = [
        ("python -O", lambda: suite_with_options("-O", *selection)),
        ("python -X dev", lambda: suite_with_options("-X", "dev", *selection)),
        ("a read-only installation", lambda: suite_read_only(*selection)),
        ("no home directory", lambda: suite_without_home(*selection)),
    ]
    with ThreadPoolExecutor(2) as pool:
        for pair in (suites[:2], suites[2:]):
            names = [name for name, _ in pair]

            def run_pair(pair: list[Any] = pair) -> list[Outcome]:
                return list(pool.map(lambda named: named[1](), pair))

            outcomes = progress.part(f"suites under {names}", run_pair)
            for name, (passed, failed, fault) in zip(names, outcomes, strict=True):
                yield Figure("suite", f"under {name}", passed + failed, passed, fault)


Outcome = tuple[int, int, str]  # tests passed, failed, and what else was wrong


def suite_with_options(*options: str) -> Outcome:
    """Run the tests in a Python with other options."""
    with work_folder() as work:
        return suite(work, PROJECT, *options)


def suite_read_only(*selection: str) -> Outcome:
    """Run the tests with the package installed into a folder where nothing may be written.

    A superuser is not stopped by that, so the folder must have the same content afterwards.
    """
    with work_folder() as work:
        target = work / "installed"
        python("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), ".",
               cwd=PROJECT, seconds=300)  # fmt: skip
        set_writable(target, False)
        try:
            before = listing(target)
            passed, failed, fault = suite(work, target, *selection)
            changed = sorted(listing(target).items() ^ before.items())
            if changed:
                return passed, failed + 1, f"the installation changed: {changed[0][0]}"
            return passed, failed, fault
        finally:
            set_writable(target, True)


def suite_without_home(*selection: str) -> Outcome:
    """Run the tests where HOME cannot exist, and once more the smoke tests without the variable."""
    nowhere = {"HOME": os.devnull + "/home", "USERPROFILE": os.devnull + "/home"}
    nowhere |= {name: "" for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR")}
    with work_folder() as work:
        return suite(work, PROJECT, *selection, environment=nowhere)


@contextmanager
def work_folder() -> Iterator[Path]:
    """Copy the project: what tests write beside themselves stays apart."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "work"
        shutil.copytree(PROJECT, work, ignore=IGNORED)
        yield work


def suite(work: Path, package: Path, *arguments: str, environment: Any = None) -> Outcome:
    """Run the tests of `work` on the package in `package`; -P hides the one beside the tests."""
    options = [a for a in arguments if not a.endswith(".py")]
    chosen = [f"tests/{a}" for a in arguments if a.endswith(".py")]
    temporary = work.parent / "temporary"
    temporary.mkdir(exist_ok=True)
    env = {**os.environ, "PYTHONPATH": str(package), "TMPDIR": str(temporary)}
    env |= environment or {}
    report = work.parent / "report.xml"
    done = subprocess.run(
        [sys.executable, "-P", *options, "-m", "pytest", "-q", "-p", "no:cacheprovider",
         f"--junitxml={report}", *chosen],
        cwd=work, env={k: v for k, v in env.items() if v}, capture_output=True, text=True,
        timeout=SUITE_SECONDS,
    )  # fmt: skip
    if not report.exists():
        return 0, 1, done.stdout[-200:] + done.stderr[-200:]
    passed, failed, first = counts(report)
    if done.returncode and not failed:
        return passed, 1, done.stdout[-300:]
    return passed, failed, first


def counts(report: Path) -> Outcome:
    """Read how many tests passed and failed, and the names of the first that failed."""
    from xml.etree import ElementTree

    passed, bad = 0, []
    for test in ElementTree.parse(report).iter("testcase"):
        if test.find("failure") is not None or test.find("error") is not None:
            bad.append(f"{test.get('classname')}::{test.get('name')}")
        elif test.find("skipped") is None:
            passed += 1
    return passed, len(bad), ", ".join(bad[:5])


def set_writable(folder: Path, writable: bool) -> None:
    for path in [folder, *folder.rglob("*")]:
        mode = path.stat().st_mode
        path.chmod(mode | 0o200 if writable else mode & ~0o222)


def listing(folder: Path) -> dict[str, str]:
    """Return every file below a folder with a hash of its content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


# --- determinism ---------------------------------------------------------------------------


def determinism(progress: Progress, quick: bool) -> Iterator[Figure]:
    """Fresh processes with other hash seeds: weights, metrics and saved files."""
    import test_determinism

    number, steps = (3, 20) if quick else (20, 200)
    for device in ("cpu", "fake"):
        outcomes = [
            progress.part(
                f"determinism {device} {steps} {seed}",
                lambda seed=seed, device=device: test_determinism.outcome(seed, steps, device),
            )
            for seed in range(1, number + 1)
        ]
        what = f"PYTHONHASHSEED of {number} processes, {steps} steps on {device}"
        same = sum(outcome == outcomes[0] for outcome in outcomes)
        yield Figure("determinism", what, number, same, f"{len(set(outcomes))} outcome(s)")


def python(*arguments: str, seconds: float, cwd: Path = TESTS) -> str:
    """Run this Python and return what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=seconds
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-500:])
    return done.stdout


BARS = (memory_limits, leaks, threads, processes, global_state, determinism, surroundings)


def main(argv: list[str] | None = None) -> int:
    title = "Memory, threads, processes, global state, determinism"
    return run(BARS, title, argv)


if __name__ == "__main__":
    sys.exit(main())
