"""Mistakes of a model: which classes it takes for which, and the samples it is worst at."""

from collections.abc import Iterator
from html import escape
from typing import Any

import numpy as np

from xbackprop.cli.report.answers import Answers, Judged
from xbackprop.cli.report.density import png
from xbackprop.cli.report.html import figure, number_text, paragraph, table
from xbackprop.cli.report.scatter import scatter_chart
from xbackprop.cli.results import accuracy_text, error_text
from xbackprop.training.metrics import confusion_matrix

_MOST_CLASSES = 30  # of a matrix that can be read
_MOST_PAIRS = 10
_MOST_TARGETS = 6


def mistakes(judged: Judged) -> Iterator[str]:
    """Yield the section."""
    answers = judged.answers
    if answers is None:
        yield paragraph(f"No answers are shown: {judged.why_not}.")
        return
    model = f"of {judged.model['file']}, after update {judged.model['steps']:,}"
    if answers.classes is None:
        yield paragraph(f"Test {error_text(answers.truth, answers.predicted)}, {model}.")
        yield from _scatters(answers)
    else:
        yield paragraph(f"Test {accuracy_text(answers.truth, answers.predicted)}, {model}.")
        yield from _matrix(answers, [str(label) for label in answers.classes])
    yield "<h3>Test samples with the largest loss</h3>"
    yield from _pictures(answers) if answers.images is not None else [_worst_table(answers)]


def _matrix(answers: Answers, names: list[str]) -> Iterator[str]:
    """Yield how often each class was taken for which."""
    matrix = confusion_matrix(answers.truth, answers.predicted, len(names))
    yield '<div class="beside">'
    if len(names) <= _MOST_CLASSES:
        yield "<div><h3>Confusion matrix</h3>"
        yield '<div class="scroll" tabindex="0" role="region" aria-label="Confusion matrix">'
        yield '<table class="confusion"><caption>rows: the true class; columns: what the model '
        yield "says; deeper where it is a larger share of the row</caption><thead><tr><td></td>"
        yield "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
        yield "</tr></thead><tbody>"
        for row, name in enumerate(names):
            cells = "".join(_cell(matrix, row, column) for column in range(len(names)))
            yield f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'
        yield "</tbody></table></div></div>"
    wrong = matrix * (1 - np.eye(len(names), dtype=matrix.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_PAIRS]
    pairs = [divmod(int(place), len(names)) for place in order if wrong.flat[place]]
    if pairs:
        rows = [[names[r], names[c], int(wrong[r, c]), int(matrix[r].sum())] for r, c in pairs]
        yield "<div><h3>Most frequent mistakes</h3>"
        yield table(["true class", "taken for", "times", "of"], rows) + "</div>"
    yield "</div>"


def _cell(matrix: np.ndarray, row: int, column: int) -> str:
    count, of = int(matrix[row, column]), int(matrix[row].sum())
    if not count:
        return "<td></td>"
    share = count / of
    # The square root lets one mistake among many right answers be seen.
    depth = round(70 * share) if row == column else round(15 + 55 * share**0.5)
    kind = "right" if row == column else "wrong"
    return f'<td class="{kind}" style="--depth:{depth}%">{count}</td>'


def _scatters(answers: Answers) -> Iterator[str]:
    yield '<div class="charts">'
    for place, name in enumerate(answers.targets[:_MOST_TARGETS]):
        truth, predicted = answers.truth[:, place], answers.predicted[:, place]
        yield figure(f"{name}: what is true, and what the model says", scatter_chart(
            truth.astype(float), predicted.astype(float), f"predictions of {name}"
        ))  # fmt: skip
    yield "</div>"


def _pictures(answers: Answers) -> Iterator[str]:
    assert answers.images is not None
    yield '<ol class="samples">'
    for place in answers.worst:
        truth, said = _names(answers, place)
        picture = png(_as_picture(answers.images[place]))
        label = f"{truth}, taken for {said}" if truth != said else f"{truth}, unsure"
        yield (
            f'<li><img src="{picture}" alt="test sample {place}: {escape(label)}">'
            f"<span>{escape(label)}</span>"
            f'<span class="faint">loss {number_text(float(answers.losses[place]), 3)}</span>'
            f'<span class="faint">sample {place}</span></li>'
        )
    yield "</ol>"


def _as_picture(sample: np.ndarray) -> np.ndarray:
    """Return an image of (height, width, 1 or 3) bytes, its own smallest number black."""
    shown = sample if len(sample) == 3 else sample[:1]
    low, high = float(shown.min()), float(shown.max())
    scaled = (shown - low) * (255 / (high - low) if high > low else 0.0)
    return np.rint(scaled).astype(np.uint8).transpose(1, 2, 0)


def _worst_table(answers: Answers) -> str:
    rows = [[int(n), *_names(answers, n), float(answers.losses[n])] for n in answers.worst]
    return table(["sample", "true", "the model says", "loss"], rows)


def _names(answers: Answers, place: Any) -> tuple[str, str]:
    """Return what is true and what the model says."""
    both = answers.truth[place], answers.predicted[place]
    if answers.classes is not None:
        return str(answers.classes[int(both[0])]), str(answers.classes[int(both[1])])
    texts = [", ".join(number_text(float(one)) for one in np.ravel(value)) for value in both]
    return texts[0], texts[1]
