"""One `results.json` and one table in Markdown, to which every part appends."""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from xbackprop.backend.device import Device

COMMITTED = Path(__file__).parents[1] / "results"
PARTS = ("table", "parity", "kernels", "speed", "soak")
NOT_MEASURED = "not yet measured on a GPU"
_MARK = "<!-- gpu results -->"
_PACKAGES = ("numpy", "cupy-cuda12x", "cupy-cuda13x", "ml_dtypes", "torch", "jax", "xbackprop")


def environment(device: Device) -> dict[str, str]:
    """Say on what a figure was measured: card, driver, versions."""
    found = {"python": platform.python_version(), "os": platform.platform(terse=True)}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if device.kind == "cuda":
        import cupy

        runtime = cupy.cuda.runtime
        card = runtime.getDeviceProperties(device.index)
        found |= {
            "card": card["name"].decode(),
            "compute_capability": f"{card['major']}.{card['minor']}",
            "driver": str(runtime.driverGetVersion()),
            "runtime": str(runtime.runtimeGetVersion()),
            "cupy": cupy.__version__,
        }
    else:
        found["card"] = "none: the stand-in" if device.kind == "fake" else "none: the CPU"
    return found


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the entries written so far."""
    path = folder / "results.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def append(folder: Path, entry: dict[str, Any]) -> None:
    """Add an entry to `results.json`, and write the table anew."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = [*read(folder), entry]
    for name, text in (
        ("results.json", json.dumps(entries, indent=1)),
        ("results.md", "\n".join(lines_of(entries))),
    ):
        partial = folder / f"{name}.partial"
        partial.write_text(f"{text}\n", encoding="utf-8")
        partial.replace(folder / name)


def lines_of(entries: list[dict[str, Any]]) -> list[str]:
    """Return the table: what was asked, where, and what came out."""
    lines = ["| part | device | card | verdict | result | seconds |", "|---|---|---|---|---|---|"]
    for entry in entries:
        part = f"{entry['part']}{' (quick)' if entry['quick'] else ''}"
        verdict = {True: "passed", False: "FAILED", None: "figures"}[entry["passed"]]
        if not entry["complete"]:
            verdict += ", out of time"
        cells = (part, entry["device"], entry["environment"]["card"], verdict, entry["summary"])
        lines.append(f"| {' | '.join(cells)} | {entry['seconds']:.0f} |")
    return lines


def committed_table() -> str:
    """Return a row for each part: its last whole run on a card, or that there is none."""
    entries = [
        entry
        for path in sorted(COMMITTED.glob("gpu*/results.json"))
        for entry in json.loads(path.read_text(encoding="utf-8"))
        if entry["device"].startswith("cuda") and not entry["quick"]
    ]
    lines = ["| part | card, driver | result |", "|---|---|---|"]
    for part in PARTS:
        runs = [entry for entry in entries if entry["part"] == part and entry["complete"]]
        if not runs:
            lines.append(f"| `{part}` | | {NOT_MEASURED} |")
            continue
        found, failed = runs[-1]["environment"], runs[-1]["passed"] is False
        result = f"{'FAILED: ' if failed else ''}{runs[-1]['summary']}"
        lines.append(f"| `{part}` | {found['card']}, {found['driver']} | {result} |")
    return "\n".join(lines)


def write_committed_table(path: Path) -> None:
    """Put the table between the two marks of a file."""
    before, _, rest = path.read_text(encoding="utf-8").partition(_MARK)
    _, _, after = rest.partition(_MARK)
    path.write_text(f"{before}{_MARK}\n{committed_table()}\n{_MARK}{after}", encoding="utf-8")
