"""The course of a training: losses, accuracies and learning rate."""

from collections.abc import Iterator

from xbackprop.cli.pictures import LOSS_LABELS
from xbackprop.cli.report.html import details, figure, paragraph, percent_text, thinned_table
from xbackprop.cli.report.lines import Line, Point, line_chart
from xbackprop.cli.report.record import RunRecord
from xbackprop.cli.run_folder import METRICS

_KEY = '<span class="key value">training</span> <span class="key gradient">test</span>'


def curves(record: RunRecord) -> Iterator[str]:
    """Yield the section."""
    if not record.metrics:
        yield paragraph("No epoch has been finished.")
        return
    loss = LOSS_LABELS.get(str(record.arguments.get("loss")), "loss")
    yield '<div class="charts">'
    yield figure(loss, line_chart(_pair(record, "loss"), f"{loss} over the epochs", across="epoch"),
                 key=_KEY)  # fmt: skip
    has_accuracy = any(row.get("train_accuracy") is not None for row in record.metrics)
    if has_accuracy:
        lines = _pair(record, "accuracy", 100.0)
        chart = line_chart(lines, "accuracy in percent over the epochs", across="epoch", log=False)
        yield figure("accuracy (%)", chart, key=_KEY)
    yield figure("learning rate", _rate(record))
    if record.statistics:
        points: list[Point] = [(row["step"], row.get("grad_norm")) for row in record.statistics]
        norms = [Line("norm", "gradient", points)]
        chart = line_chart(norms, "norm of all gradients over the updates", across="update")
        yield figure("norm of all gradients together", chart)
    yield "</div>"
    yield details("The numbers", _numbers(record, has_accuracy))


def _numbers(record: RunRecord, has_accuracy: bool) -> str:
    header = ["epoch", "updates", "training loss", "test loss"]
    header += ["training accuracy", "test accuracy"] * has_accuracy
    rows = []
    for row in record.metrics:
        accuracies = [percent_text(row.get(f"{part}_accuracy")) for part in ("train", "test")]
        losses = [row.get(f"{part}_loss") for part in ("train", "test")]
        rows.append([row["epoch"], row["step"], *losses, *accuracies * has_accuracy,
                     row.get("lr"), row.get("skipped_steps", 0)])  # fmt: skip
    return thinned_table([*header, "learning rate", "skipped updates"], rows, METRICS)


def _pair(record: RunRecord, what: str, factor: float = 1.0) -> list[Line]:
    """Return the lines of training and test."""
    lines = []
    for part, kind, name in (("train", "value", "training"), ("test", "gradient", "test")):
        points: list[Point] = []
        for row in record.metrics:
            value = row.get(f"{part}_{what}")
            points.append((row["epoch"], None if value is None else factor * value))
        lines.append(Line(name, kind, points))
    return lines


def _rate(record: RunRecord) -> str:
    """Return the learning rate over the updates, where these are recorded, or the epochs."""
    rows, x, across = record.metrics, "epoch", "epoch, at its beginning"
    if record.statistics:
        rows, x, across = record.statistics, "step", "update"
    line = Line("learning rate", "new", [(row[x], row.get("lr")) for row in rows])
    return line_chart([line], "learning rate", across=across, log=False)
