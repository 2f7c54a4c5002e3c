"""The page around the figure: one file without anything from elsewhere."""

import importlib.resources
import json
from collections.abc import Iterator, Sequence
from html import escape

from xbackprop.observe.explanation import Check, Explanation, Quantity, plain
from xbackprop.observe.expression import number_latex, to_latex, to_text
from xbackprop.observe.page.frames import Frame, frames_of, known_since
from xbackprop.observe.page.layout import lay_out
from xbackprop.observe.page.mathematics import formula_html, mathml
from xbackprop.observe.page.network import columns_of
from xbackprop.observe.page.svg import draw
from xbackprop.observe.render import COLUMNS, introduction, summary
from xbackprop.observe.wording import HEADINGS, heading, language_index, phrase

_LANGUAGE_TAGS = ("en", "zh-Hans")
# Nothing is loaded, whatever a browser or an extension of it would like to.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
_SHORT = 45  # letters of a formula that fits beside another one


def page(explanations: Sequence[Explanation], lang: str) -> str:
    """Return an HTML document that explains one training step, or several.

    Parameters
    ----------
    explanations : sequence of Explanation
        The steps in their order.
    lang : str
        "en" or "zh".

    Returns
    -------
    str
        In ASCII, other letters as references, so that no console or copy can spoil them.

    Raises
    ------
    ImportError
        Where latex2mathml is missing.
    """
    title = phrase("page_title", lang)
    lines = [
        "<!DOCTYPE html>",
        f'<html lang="{_LANGUAGE_TAGS[language_index(lang)]}">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        '<link rel="icon" href="data:,">',
        f"<title>{title}</title>",
        f"<style>\n{_file('base.css')}{_file('style.css')}</style>",
        "</head>",
        "<body>",
        f"<header><h1>{title}</h1></header>",
        *_controls(lang),
        "<main>",
    ]
    first = 0
    for number, explanation in enumerate(explanations, start=1):
        frames = frames_of(explanation)
        lines += _article(explanation, frames, first, lang, number * (len(explanations) > 1))
        first += len(frames)
    lines += ["</main>", f"<script>\n{_file('page.js')}</script>", "</body>", "</html>", ""]
    return "\n".join(lines).encode("ascii", "xmlcharrefreplace").decode()


def framed(explanation: Explanation) -> str:
    """Return the page in a frame, for a notebook: its style and its keys stay inside.

    Without latex2mathml it is the text, and a line that says so.
    """
    try:
        document = page([explanation], "en")
    except ImportError as error:
        return f"<p>{escape(str(error))}</p><pre>{escape(explanation.to_text())}</pre>"
    return (
        f'<iframe srcdoc="{escape(document)}" sandbox="allow-scripts" '
        f'title="{phrase("page_title", "en")}" '
        'style="width:100%;height:44rem;border:0"></iframe>'
    )


def _file(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _controls(lang: str) -> list[str]:
    """Return the bar that the script shows."""
    return [
        '<nav class="controls" hidden>',
        f'<button type="button" id="previous" aria-label="{phrase("page_previous", lang)}">'
        "←</button>",
        f'<input type="range" id="slider" min="0" value="0" step="1" '
        f'aria-label="{phrase("page_slider", lang)}" title="{phrase("page_keys", lang)}">',
        f'<button type="button" id="next" aria-label="{phrase("page_next", lang)}">→</button>',
        f'<button type="button" id="all" aria-pressed="false">{phrase("page_all", lang)}</button>',
        '<p id="status" aria-live="polite"></p>',
        "</nav>",
    ]


def _article(
    explanation: Explanation, frames: list[Frame], first: int, lang: str, number: int
) -> Iterator[str]:
    """Yield one training step: its figure and its frames, numbered on from ``first``."""
    columns = columns_of(explanation)
    name = phrase("page_figure", lang, "-".join(str(len(units)) for units in columns[:-1]))
    yield '<article class="training-step">'
    title = phrase("page_step", lang, number) if number else ""
    if number:
        yield f"<h2>{title}</h2>"
    yield f'<div class="figure" tabindex="0" role="region" aria-label="{name}">'
    yield draw(lay_out(columns), name, known_since(frames, first))
    yield "</div>"
    for position, frame in enumerate(frames, start=first):
        yield from _frame(explanation, frame, position, lang, title)
    yield "</article>"


def _frame(
    explanation: Explanation, frame: Frame, position: int, lang: str, title: str
) -> Iterator[str]:
    keys = dict.fromkeys((frame.step, frame.section))
    status = [title, *(heading(key, lang) for key in keys if key in HEADINGS), frame.subject]
    yield (
        f'<section class="frame" id="frame-{position}" data-step="{frame.section}" '
        f'data-title="{escape(" · ".join(filter(None, status)))}" '
        f'data-lights="{escape(json.dumps(frame.lights))}">'
    )
    for key in frame.opens:
        level = 3 if key in ("loss_derivative", "local_derivatives", "chain_rule",
                             "weight_update") else 2  # fmt: skip
        yield f"<h{level}>{heading(key, lang)}</h{level}>"
    if frame.opens:
        yield from (f"<p>{escape(t)}</p>" for t in introduction(explanation, frame.section, lang))
    if frame.quantities:
        is_short = all(len(str(q.as_dict()["numbers"])) < _SHORT for q in frame.quantities)
        yield f'<div class="formulas{" short" * is_short}">'
        yield from map(_formula, frame.quantities)
        yield "</div>"
    if frame.section == "network":
        yield from _legend(explanation, lang)
    if frame.checks:
        yield from _table(frame.checks, lang)
    if frame.section == "summary":
        yield from _summary(explanation, lang)
    yield "</section>"


def _formula(quantity: Quantity) -> str:
    data = quantity.as_dict()
    attributes = " ".join(
        f'data-{key}="{escape(str(value))}"' for key, value in data.items() if value is not None
    )
    return f'<div class="formula" {attributes}>\n{formula_html(quantity)}\n</div>'


def _legend(explanation: Explanation, lang: str) -> Iterator[str]:
    yield f"<p>{phrase('page_network', lang)}</p>"
    yield '<ul class="legend">'
    for kind in ("value", "gradient", "new")[: 2 if explanation.new_parameters is None else 3]:
        yield f'<li class="{kind}">{phrase(f"page_{kind}", lang)}</li>'
    yield "</ul>"


def _table(checks: Sequence[Check], lang: str) -> Iterator[str]:
    yield f"<p>{phrase('check', lang)}</p>"
    yield '<div class="scroll" tabindex="0"><table class="checks"><thead><tr>'
    yield from (
        f'<th scope="col">{escape(phrase(f"column_{name}", lang))}</th>' for name in COLUMNS
    )
    yield "</tr></thead><tbody>"
    for check in checks:
        name = escape(to_text(check.parameter))
        data = check.as_dict()
        yield f'<tr data-parameter="{name}">'
        yield f'<th scope="row">{mathml(to_latex(check.parameter))}</th>'
        for key in ("above", "local", "gradient", "finite_difference", "relative_difference"):
            shown = float(data[key])
            if key == "relative_difference":
                shown = float(f"{shown:.1e}")
            number = mathml(number_latex(shown))
            yield f'<td data-key="{key}" data-value="{data[key]}">{number}</td>'
        yield "</tr>"
    yield "</tbody></table></div>"


def _summary(explanation: Explanation, lang: str) -> Iterator[str]:
    losses = {"loss": explanation.loss, "loss-after": explanation.loss_after}
    attributes = " ".join(
        f'data-{key}="{plain(value)}"' for key, value in losses.items() if value is not None
    )
    yield f'<ul class="summary" {attributes}>'
    yield from (f"<li>{escape(line)}</li>" for line in summary(explanation, lang))
    yield "</ul>"
