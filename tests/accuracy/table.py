"""README's figures of accuracy: `python -m accuracy.table` writes what the last runs measured."""

import json
from pathlib import Path
from typing import Any

from readme_section import write_section

RESULTS = Path(__file__).with_name("results")
SECTION = ("accuracy", "accuracy")


def read_results() -> dict[str, Any]:
    return json.loads((RESULTS / "images.json").read_text(encoding="utf-8"))


def render(document: dict[str, Any]) -> str:
    """Return the Markdown between the two marks: a row for each data set and network."""
    lines = ["| `--data` | `--model` | test accuracy of each seed (%) | seconds | bar |"]
    lines.append("|---|---|---|---|---|")
    for row in document["figures"]:
        accuracy = ", ".join(f"{100 * value:.2f}" for value in row["test_accuracy"])
        seconds = ", ".join(f"{value:.0f}" for value in row["seconds"])
        lines.append(f"| {row['data']} | {row['model']} | {accuracy} | {seconds} | {bar(row)} |")
    found = document["environment"]
    where = f"Python {found['python']}, NumPy {found['numpy']}, {found['cores']} cores, no GPU"
    return "\n".join([*lines, "", f"Measured on {where}.", ""])


def bar(row: dict[str, Any]) -> str:
    if row["least_accuracy"] is None:
        return ""
    verdict = "met" if row["is_met"] else "missed"
    return f"{100 * row['least_accuracy']:g} % in {row['most_seconds']:.0f} s: {verdict}"


if __name__ == "__main__":
    write_section(*SECTION, render(read_results()))
