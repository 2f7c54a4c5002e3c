"""`python -m benchmarks.gpu --part PART --out DIR`: ask a machine one thing, and write it down."""

import argparse
import time
from pathlib import Path
from typing import Any

import xbackprop as xb
from benchmarks.gpu import kernels, parity, results, soak, speed, table
from benchmarks.gpu.guard import Guard
from xbackprop.backend.device import Device, resolve_device

PARTS = {"table": table, "parity": parity, "kernels": kernels, "speed": speed, "soak": soak}
README = Path(__file__).parents[1] / "README.md"


def main() -> int:
    arguments = read_arguments()
    if arguments.readme:
        results.write_committed_table(README)
        return 0
    device = resolve_device(arguments.device)
    started = time.perf_counter()
    entry = ask(arguments, device)
    entry = {
        "part": "replay" if arguments.replay else arguments.part,
        "device": str(device),
        "quick": arguments.quick,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": time.perf_counter() - started,
        "environment": results.environment(device) | {"xbackprop": xb.__version__},
        **entry,
    }
    results.append(arguments.out, entry)
    print("\n".join(results.lines_of([entry])))
    for row in entry["rows"]:
        if row.get("passed") is False:
            print("FAILED:", {k: v for k, v in row.items() if k != "tail"}, row.get("tail", ""))
    return 1 if entry["passed"] is False else 0


def ask(arguments: Any, device: Device) -> dict[str, Any]:
    if arguments.replay:
        return parity.replay(arguments.replay, device)
    guard = Guard(60 * arguments.minutes)
    options = {"quick": arguments.quick, "out": arguments.out}
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.part == "kernels":
        return kernels.measure(device, guard, under_sanitizer=arguments.under_sanitizer, **options)
    return PARTS[arguments.part].measure(device, guard, **options)


def read_arguments() -> Any:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--part", choices=results.PARTS)
    parser.add_argument("--out", type=Path, help="folder of results.json and results.md")
    parser.add_argument("--device", default="cuda", help="cuda (default), cuda:N, fake or cpu")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it work at all?")
    parser.add_argument("--minutes", type=float, default=7.0, help="time of a part, 7 by default")
    parser.add_argument("--replay", type=Path, help="with parity: a trace to compare with")
    parser.add_argument("--under-sanitizer", action="store_true", help="kernels, without a pool")
    parser.add_argument("--readme", action="store_true", help="write the table of README and end")
    arguments = parser.parse_args()
    if not arguments.readme and not (arguments.part and arguments.out):
        parser.error("expected --part and --out")
    if arguments.replay and arguments.part != "parity":
        parser.error("--replay goes with --part parity")
    return arguments


if __name__ == "__main__":
    raise SystemExit(main())
