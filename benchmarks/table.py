"""Tables and picture of the contests, made of `results/*.json`; nothing is typed by hand.

Run: python benchmarks/table.py, with `tests` in PYTHONPATH.
"""

import json
from pathlib import Path
from typing import Any

from readme_section import write_section

FOLDER = Path(__file__).parent
PICTURE = Path(".github", "bench.png")
OURS, THEIRS = "#0072B2", "#999999"


def documents() -> list[dict[str, Any]]:
    """Return the results of all workloads, in the order of their names."""
    paths = sorted((FOLDER / "results").glob("w*.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def targets_table(found: list[dict[str, Any]]) -> str:
    """One row a target: peer's time over ours, and what was asked."""
    lines = [
        "| workload | threads | against | theirs over ours | must | aim | |",
        "|---|---|---|---|---|---|---|",
    ]
    verdicts = {True: "met", False: "**missed**", None: ""}
    for document in found:
        for run in document["runs"]:
            for row in run["targets"]:
                is_memory = "memory" in row["peer"]
                against = f"memory of a step of {row['form']}" if is_memory else row["form"]
                must = "" if row["must"] is None else f"{row['must']:g}"
                lines.append(
                    f"| {document['title']} | {run['threads']} | {against} "
                    f"| {row['ratio']:.2f} | {must} | {row['aim']:g} | {verdicts[row['is_met']]} |"
                )
    return "\n".join(lines)


def times_table(found: list[dict[str, Any]]) -> str:
    """One row a contestant: medians with quartiles, and the distance to the floor."""
    lines = [
        "| workload | threads | contestant | ms a step (quartiles) | times the floor "
        "| MB a step | MB in all | start + first step (s) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for document in found:
        for run in document["runs"]:
            for name, row in run["contestants"].items():
                lines.append(
                    f"| {document['title']} | {run['threads']} | {name} "
                    f"| {row['median_ms']:.3g} ({row['q1_ms']:.3g} to {row['q3_ms']:.3g}) "
                    f"| {row['over_floor']:.3g} | {row['step_mb']:.1f} | {row['process_mb']:.0f} "
                    f"| {row['start_s']:.1f} + {row['first_step_s']:.1f} |"
                )
    return "\n".join(lines)


def machines(found: list[dict[str, Any]]) -> str:
    """Say where the figures were measured, once for each place."""
    places = {
        ", ".join(f"{name} {value}" for name, value in document["environment"].items())
        for document in found
    }
    return "Measured with " + "; and ".join(sorted(places)) + "."


def section(found: list[dict[str, Any]]) -> str:
    """Return what stands between the marks of benchmarks/README.md."""
    return "\n\n".join([targets_table(found), machines(found), times_table(found), ""])


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """Draw the time of every contestant of the training workloads over ours."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [one for one in found if not one["workload"].startswith("w6")]
    figure = Figure(figsize=(9, 1.2 + 1.5 * len(shown)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, document in zip(
        figure.subplots(len(shown), 1, squeeze=False)[:, 0], shown, strict=True
    ):
        run = document["runs"][-1]
        rows = sorted(run["contestants"].items(), key=lambda item: -item[1]["median_ms"])
        names = [name for name, _ in rows]
        medians = [row["median_ms"] for _, row in rows]
        spread = [
            [row["median_ms"] - row["q1_ms"] for _, row in rows],
            [row["q3_ms"] - row["median_ms"] for _, row in rows],
        ]
        colours = [OURS if name.startswith("xbackprop") else THEIRS for name in names]
        axes.barh(names, medians, color=colours, xerr=spread, error_kw={"ecolor": "0.3"})
        axes.set_title(f"{document['title']}; threads: {run['threads']}", fontsize=9, loc="left")
        axes.tick_params(labelsize=8)
        axes.set_xlabel("ms a step", fontsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.savefig(path, format="png")


if __name__ == "__main__":
    results = documents()
    write_section("bench", "bench", section(results), [FOLDER / "README.md"])
    draw(results, PICTURE)
