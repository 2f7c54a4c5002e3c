"""README's figures of parity: `python -m parity.table` writes what the last whole run counted."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from readme_section import write_section

from parity.names import OTHERS

COUNTS = Path(__file__).with_name("counts.json")
SECTION = ("parity", "torch_parity")


def read_counts() -> dict[str, Any]:
    return json.loads(COUNTS.read_text(encoding="utf-8"))


def render(document: dict[str, Any]) -> str:
    """Return the Markdown between the two marks: a row per family."""
    names: dict[str, list[str]] = {}
    counts: dict[str, Counter[str]] = {}
    for row in document["modules"]:
        if row["family"] == OTHERS:  # what trains, not what is trained
            continue
        names.setdefault(row["family"], []).append(row["name"])
        counts.setdefault(row["family"], Counter()).update(
            {word: row[word] for word in ("match", "mismatch", "skipped")}
        )
    lines = ["| family | names | comparisons that match |", "|---|---|---|"]
    for family, listed in names.items():
        lines.append(f"| {family} | {len(listed)} | {share(counts[family])} |")
    all_names = sum(len(listed) for listed in names.values())
    lines.append(f"| all | {all_names} | {share(sum(counts.values(), Counter()))} |")
    versions = ", ".join(f"{name} {number}" for name, number in document["versions"].items())
    return "\n".join([*lines, "", f"Counted with {versions} on a CPU.", ""])


def share(counts: Counter[str]) -> str:
    compared = counts["match"] + counts["mismatch"]
    skipped = f", {counts['skipped']:,} skipped" if counts["skipped"] else ""
    return f"{counts['match']:,} of {compared:,}{skipped}"


if __name__ == "__main__":
    write_section(*SECTION, render(read_counts()))
