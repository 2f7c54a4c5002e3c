"""What happened in each layer: gradients, updates and outputs over time."""

from collections.abc import Iterator
from html import escape
from typing import Any

from xbackprop.cli.events import update_ratio
from xbackprop.cli.report.density import density_chart
from xbackprop.cli.report.html import details, figure, number_text, paragraph, table, thinned
from xbackprop.cli.report.lines import SMALL, Line, Point, line_chart
from xbackprop.cli.report.record import Row, RunRecord
from xbackprop.cli.run_folder import STATISTICS
from xbackprop.observe.statistics import EDGES

_MOST_ROWS = 12  # of a table; there is one for each layer
_RULE = 1e-3  # of thumb, for the size of an update beside the weights
_ABOUT = (
    "Every recorded update, from the first layer to the last. Gradients are those of the batch, "
    "before they are clipped. An update beside the weights: the norm of what was added, divided by "
    "the norm of the weights; the dotted line is 0.001, a rule of thumb. The shaded pictures are "
    "histograms, one column for each update, on a logarithmic axis to both sides of zero."
)


def layers(record: RunRecord) -> Iterator[str]:
    """Yield the section."""
    rows = [row for row in record.statistics if row.get("layers")]
    if not rows:
        yield paragraph(
            "Norms of gradients, sizes of updates, and histograms were not recorded. "
            "`xbackprop train --record-statistics` records them; with `--resume` it begins where "
            "the run goes on."
        )
        return
    yield paragraph(_ABOUT)
    yield '<div class="layers">'
    paths = dict.fromkeys(path for row in rows for path in row["layers"])
    for path in paths:
        yield from _layer(path, [(row["step"], row["layers"].get(path, {})) for row in rows])
    yield "</div>"


def _layer(path: str, rows: list[tuple[int, Row]]) -> Iterator[str]:
    name, last = path or "(network)", rows[-1][1]
    kind = escape(str(last.get("type", "")))
    norms: list[Point] = [(step, layer.get("grad_norm")) for step, layer in rows]
    has_norms = any(y is not None for _, y in norms)
    yield f'<article class="layer{"" if has_norms else " single"}">'
    yield f'<h3><code>{escape(name)}</code> {kind}</h3><div class="panels">'
    if has_norms:
        yield _panel(f"norm of the gradient: {number_text(norms[-1][1], 3)}", norms, "gradient")
        ratios: list[Point] = [(step, update_ratio(layer)) for step, layer in rows]
        caption = f"update beside the weights: {number_text(ratios[-1][1], 3)}"
        yield _panel(caption, ratios, "new", guide=_RULE)
    for key in ("gradients", "outputs"):
        told = [(step, layer[key]) for step, layer in rows if layer.get(key)]
        if told:
            caption = f"{key}{_share_of_zeros(told[-1][1])}"
            yield figure(caption, density_chart(told, key, f"histograms of the {key} of {name}"))
    yield "</div>"
    yield details("The numbers", _numbers(rows))
    yield "</article>"


def _panel(caption: str, points: list[Point], kind: str, guide: float | None = None) -> str:
    chart = line_chart([Line(caption, kind, points)], caption, across="update", frame=SMALL,
                       log=True, guide=guide)  # fmt: skip
    return figure(caption, chart)


def _zeros(told: dict[str, Any]) -> float:
    """Return the share of the numbers that are 0, or next to it."""
    place = len(EDGES) // 2 - told["first"]
    counts = told["counts"]
    return counts[place] / sum(counts) if 0 <= place < len(counts) else 0.0


def _share_of_zeros(told: dict[str, Any]) -> str:
    share = _zeros(told)
    return f": {100 * share:.0f} % are 0" if share >= 0.005 else ""


def _numbers(rows: list[tuple[int, Row]]) -> str:
    has_norms = any("grad_norm" in layer for _, layer in rows)
    kinds = [kind for kind in ("gradients", "outputs") if any(kind in layer for _, layer in rows)]
    header = ["update"]
    if has_norms:
        header += ["gradient's norm", "weights' norm", "update's norm", "update / weights"]
    for kind in kinds:
        header += [f"{kind}: mean", "deviation", "smallest", "largest", "share of 0"]
    lines = []
    for step, layer in thinned(rows, _MOST_ROWS):
        line: list[Any] = [step]
        if has_norms:
            line += [layer.get(key) for key in ("grad_norm", "weight_norm", "update_norm")]
            line.append(update_ratio(layer))
        for kind in kinds:
            told = layer.get(kind)
            line += [None] * 5 if told is None else [
                *(told[key] for key in ("mean", "std", "min", "max")), _zeros(told)
            ]  # fmt: skip
        lines.append(line)
    note = ""
    if len(lines) < len(rows):
        note = paragraph(f"{len(lines)} of {len(rows)} rows; all of them are in {STATISTICS}.")
    return note + table(header, lines)
