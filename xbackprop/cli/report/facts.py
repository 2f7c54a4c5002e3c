"""The figures on top, and what the run cost, was asked for, and ran on."""

import json
import shlex
import statistics
from collections.abc import Iterator
from html import escape
from typing import Any

from xbackprop.cli.report.answers import Judged
from xbackprop.cli.report.html import (
    details,
    figure,
    number_text,
    paragraph,
    percent_text,
    table,
    thinned_table,
)
from xbackprop.cli.report.lines import Line, line_chart
from xbackprop.cli.report.record import RunRecord
from xbackprop.cli.run_folder import CONFIG, TIMING, TRANSFERS

_MOVED = ("uploads", "downloads", "bytes_uploaded", "bytes_downloaded")


def figures(record: RunRecord, judged: Judged) -> Iterator[str]:
    """Yield how the run stands, and its most important numbers."""
    yield paragraph(f"{judged.status[:1].upper()}{judged.status[1:]}.", "status")
    yield '<dl class="figures">'
    for name, value, note in _figures(record):
        yield f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
        yield f'<dd class="faint">{escape(note)}</dd></div>'
    yield "</dl>"


def _figures(record: RunRecord) -> Iterator[tuple[str, str, str]]:
    if record.metrics:
        last = record.metrics[-1]
        if last.get("test_accuracy") is not None:
            best = max(record.metrics, key=lambda row: row.get("test_accuracy") or 0.0)
            note = f"best {percent_text(best['test_accuracy'])}, epoch {best['epoch']:,}"
            yield "test accuracy", percent_text(last["test_accuracy"]), note
        losses = [row for row in record.metrics if row.get("test_loss") is not None]
        if losses:
            lowest = min(losses, key=lambda row: row["test_loss"])
            note = f"lowest {number_text(lowest['test_loss'])}, epoch {lowest['epoch']:,}"
            yield "test loss", number_text(last.get("test_loss")), note
        yield "updates", f"{last['step']:,}", f"in {last['epoch']:,} epochs"
    arguments = record.arguments
    model, parameters = arguments.get("model", "network"), record.config.get("parameters")
    yield "parameters", number_text(parameters), str(model)
    if record.seconds:
        total = sum(record.seconds.values())
        yield "time", _duration(total), f"{_duration(total / len(record.seconds))} an epoch"
    device = record.config.get("device", {})
    yield "device", str(device.get("device", "-")), str(device.get("reason", ""))


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def costs(record: RunRecord) -> Iterator[str]:
    """Yield what updates took, and what crossed between host and device."""
    points: list[tuple[float, float | None]] = []
    for place, row in enumerate(record.metrics):
        seconds, updates = record.seconds.get(row["epoch"]), record.updates_of(place)
        points.append((row["epoch"], 1000 * seconds / updates if seconds and updates else None))
    known = [y for _, y in points if y is not None]
    if not known:
        yield paragraph("No epoch has been timed.")
    else:
        median = statistics.median(known)
        yield paragraph(
            f"An update took {number_text(median, 3)} ms (the median of the epochs; the epoch's "
            "evaluation is shared out among its updates)."
        )
        yield '<div class="charts">'
        chart = line_chart([Line("time", "value", points)], "milliseconds per update over the "
                           "epochs", across="epoch")  # fmt: skip
        yield figure("time per update (ms)", chart)
        yield from _moved_chart(record)
        yield "</div>"
        rows = [[epoch, record.seconds.get(int(epoch)), y] for epoch, y in points]
        yield details(
            "The numbers", thinned_table(["epoch", "seconds", "ms per update"], rows, TIMING)
        )
    yield from _transfers(record)


def _moved_chart(record: RunRecord) -> Iterator[str]:
    if not any(row.get(name) for row in record.transfers for name in _MOVED):
        return
    lines = [
        Line(name, kind, [(row["epoch"], row.get(f"bytes_{name}", 0) / 1e6)
                          for row in record.transfers])
        for name, kind in (("uploaded", "value"), ("downloaded", "gradient"))
    ]  # fmt: skip
    chart = line_chart(lines, "megabytes moved per epoch", across="epoch", log=False)
    key = '<span class="key value">to the device</span> <span class="key gradient">back</span>'
    yield figure("moved per epoch (MB)", chart, key=key)


def _transfers(record: RunRecord) -> Iterator[str]:
    rows = record.transfers
    if not rows:
        yield paragraph(
            "Transfers between host and device were not recorded; "
            "`xbackprop train --record-statistics` records them."
        )
    elif not any(row.get(name) for row in rows for name in _MOVED):
        yield paragraph("Nothing crossed between host and device: there was only the host.")
    else:
        typical = rows[len(rows) // 2]
        yield paragraph(
            f"Epoch {typical['epoch']:,} uploaded {typical['uploads']:,} arrays and downloaded "
            f"{typical['downloads']:,}. Evaluation, checkpoints and what is recorded count too."
        )
        header = ["epoch", "uploads", "downloads", "bytes uploaded", "bytes downloaded"]
        cells = [[row["epoch"], *(row.get(name) for name in _MOVED)] for row in rows]
        yield details("Transfers by epoch", thinned_table(header, cells, TRANSFERS))


def request(record: RunRecord) -> Iterator[str]:
    """Yield what was asked for, and what it ran on."""
    config = record.config
    command = config.get("command")
    if isinstance(command, list):
        yield paragraph("This command does the same again:")
        yield f"<pre><code>{escape(shlex.join(map(str, command)))}</code></pre>"
    yield '<div class="pair">'
    given = {"seed": config.get("seed"), **record.arguments}
    rows = [[name, _plain(value)] for name, value in given.items() if value is not None]
    yield f"<div><h3>Request</h3>{table(['option', 'value'], rows, kind='words')}</div>"
    device = config.get("device", {})
    data = config.get("data", {})
    facts: list[list[Any]] = [
        ["device", f"{device.get('device')} ({device.get('reason')})"],
        ["platform", config.get("platform")],
        *([name, version] for name, version in config.get("versions", {}).items()),
        *([f"data: {name.replace('_', ' ')}", _plain(value)] for name, value in data.items()),
    ]
    yield f"<div><h3>Environment and data</h3>{table(['what', 'value'], facts, kind='words')}</div>"
    yield "</div>"
    text = json.dumps(config.get("architecture"), indent=2)
    yield details("The network", f"<pre><code>{escape(text)}</code></pre>")
    text = json.dumps(config, indent=2)
    yield details(f"All of {CONFIG}", f"<pre><code>{escape(text)}</code></pre>")


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
