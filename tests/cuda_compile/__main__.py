"""``python -m cuda_compile``: hold the kernels against the table; ``--write`` writes it."""

import argparse
import json
import sys
from pathlib import Path

import xbackprop.kernels.cuda
from cuda_compile.cubin import ELF, compile_cubin, nvrtc
from xbackprop.kernels.cuda.sources import SOURCES, Source

ARCHITECTURES = (75, 80, 90, 100, 120)
FIRST_WITH_BFLOAT16 = 80
TABLE = Path(__file__).with_name("table.json")
FIELDS = "registers, bytes of stack, bytes spilled, bytes of shared memory"
PACKAGE = Path(xbackprop.kernels.cuda.__file__).parent

Rows = dict[str, dict[str, list[int]]]


def measure() -> Rows:
    """Compile everything; return the resources by kernel and architecture."""
    rows: Rows = {}
    for source in SOURCES:
        for architecture in ARCHITECTURES:
            wanted = instances_for(source, architecture)
            cubin, resources = compile_cubin(source, architecture, wanted)
            if not cubin.startswith(ELF):
                raise SystemExit(f"{source.path} for sm_{architecture}: no machine code")
            for instance, taken in resources.items():
                row = rows.setdefault(
                    f"{source.path.relative_to(PACKAGE).as_posix()} {instance}", {}
                )
                row[f"sm_{architecture}"] = list(taken)
    return rows


def instances_for(source: Source, architecture: int) -> tuple[str, ...]:
    """Return the instances that an architecture runs: bfloat16 came with 8.0."""
    if architecture >= FIRST_WITH_BFLOAT16:
        return source.instances
    return tuple(name for name in source.instances if "BFloat16" not in name)


def differences(expected: Rows, measured: Rows) -> list[str]:
    """Return a line for each kernel and architecture whose resources are not the table's."""
    pairs = {(name, arch) for rows in (expected, measured) for name in rows for arch in rows[name]}
    return [
        f"{name}, {arch}: expected {before}, measured {now}"
        for name, arch in sorted(pairs)
        if (before := expected.get(name, {}).get(arch)) != (now := measured.get(name, {}).get(arch))
    ]


def dump(version: str, rows: Rows) -> str:
    """Return the table as text, a kernel and its architectures in one line."""
    lines = ",\n".join(
        f"    {json.dumps(name)}: {json.dumps(row)}" for name, row in sorted(rows.items())
    )
    head = f'  "nvrtc": {json.dumps(version)},\n  "fields": {json.dumps(FIELDS)}'
    return f'{{\n{head},\n  "kernels": {{\n{lines}\n  }}\n}}\n'


def main() -> int:
    """Compile, and compare or write."""
    parser = argparse.ArgumentParser(prog="nox -s cuda_compile --")
    parser.add_argument("--write", action="store_true", help="write the table of registers")
    options = parser.parse_args()
    version = ".".join(map(str, nvrtc.getVersion()))
    measured = measure()
    count = sum(map(len, measured.values()))
    print(f"NVRTC {version}: {len(measured)} kernels, {count} compiled")
    for name, row in measured.items():
        for architecture, (_, _, spilled, _) in row.items():
            if spilled:
                print(f"spills {spilled} bytes on {architecture}: {name}")
    if options.write:
        TABLE.write_text(dump(version, measured), encoding="utf-8")
        return 0
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    if table["nvrtc"] != version:
        print(f"The table is of NVRTC {table['nvrtc']}; compare with that one.")
        return 1
    wrong = differences(table["kernels"], measured)
    if wrong:
        print(*wrong, sep="\n")
        print(f"({FIELDS}) If it is meant: nox -s cuda_compile -- --write")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
