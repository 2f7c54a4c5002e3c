"""README's figures of accuracy: `python -m accuracy.table` writes what the last runs measured."""

import json
import statistics
from pathlib import Path
from typing import Any

from readme_section import write_section

RESULTS = Path(__file__).with_name("results")
SECTIONS = {
    "images": ("accuracy", "accuracy"),
    "gpt": ("gpt", "accuracy"),
    "estimators": ("estimators", "accuracy"),
}


def read_results(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def render_images(document: dict[str, Any]) -> str:
    """Return the Markdown between the two marks: a row for each data set and network."""
    lines = ["| `--data` | `--model` | test accuracy of each seed (%) | seconds | bar |"]
    lines.append("|---|---|---|---|---|")
    for row in document["figures"]:
        accuracy = ", ".join(f"{100 * value:.2f}" for value in row["test_accuracy"])
        seconds = ", ".join(f"{value:.0f}" for value in row["seconds"])
        lines.append(f"| {row['data']} | {row['model']} | {accuracy} | {seconds} | {bar(row)} |")
    return "\n".join([*lines, "", where(document), ""])


def render_gpt(document: dict[str, Any]) -> str:
    """Return the Markdown between the two marks: both libraries, and the ratio."""
    lines = ["| | steps | validation loss (nats a character) |", "|---|---|---|"]
    for name, side in document["sides"].items():
        lines.append(f"| {name} | {document['steps']:,} | {side['validation_loss']:.4f} |")
    verdict = "met" if document["is_met"] else "missed"
    ratio = f"Ratio of the losses {document['ratio']:.4f}; bar at most 1.02: {verdict}."
    ratio += f" Ours trained for {document['seconds']:.0f} s."
    return "\n".join([*lines, "", f"{ratio} {where(document)}", ""])


def render_estimators(document: dict[str, Any]) -> str:
    """Return the Markdown between the two marks: means over seeds, and what they are held to."""
    lines = ["| data | model | seeds | mean, least to largest | expected | |"]
    lines.append("|---|---|---|---|---|---|")
    for row in document["figures"]:
        scores, factor, unit, places = row["test_score"], 100, "%", 1
        if row["score"] == "R2":
            factor, unit, places = 1, "R²", 3
        figures = statistics.mean(scores), min(scores), max(scores), row["expected"]
        mean, least, largest, expected = (f"{factor * value:.{places}f}" for value in figures)
        lines.append(
            f"| {row['data']} | {row['model']} | {len(scores)} "
            f"| {mean} {unit}, {least} to {largest} | {row['expected_of']}: {expected} "
            f"| {'met' if row['is_met'] else 'missed'} |"
        )
    return "\n".join([*lines, "", where(document), ""])


RENDER = {"images": render_images, "gpt": render_gpt, "estimators": render_estimators}


def where(document: dict[str, Any]) -> str:
    found = document["environment"]
    versions = f"Python {found['python']}, NumPy {found['numpy']}"
    if "scikit_learn" in found:
        versions += f", scikit-learn {found['scikit_learn']}"
    if "torch" in found:
        versions += f", PyTorch {found['torch']}"
    return f"Measured on {versions}, {found['cores']} cores, no GPU."


def bar(row: dict[str, Any]) -> str:
    if row["least_accuracy"] is None:
        return ""
    verdict = "met" if row["is_met"] else "missed"
    return f"{100 * row['least_accuracy']:g} % in {row['most_seconds']:.0f} s: {verdict}"


if __name__ == "__main__":
    for name, section in SECTIONS.items():
        write_section(*section, RENDER[name](read_results(name)))
