"""Pieces of HTML that every part of the page is made of."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

_MOST_ROWS = 200


def number_text(value: Any, digits: int = 4) -> str:
    """Return a number as one reads it; a dash for what is not there."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}g}"


def percent_text(share: Any) -> str:
    """Return a share in percent; a dash for what is not there."""
    return "-" if share is None else f"{100 * share:.2f} %"


def thinned(rows: Sequence[Any], most: int = _MOST_ROWS) -> list[Any]:
    """Return at most so many of the rows, evenly, with the first and the last."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(place * (len(rows) - 1) / (most - 1))] for place in range(most)]


def table(
    header: Sequence[str], rows: Iterable[Sequence[Any]], *, kind: str = "", label: str = ""
) -> str:
    """Return a table whose first column names the rows."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    lines = [
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label or header[0])}">'
        f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>'
    ]
    for first, *others in rows:
        cells = "".join(f"<td>{escape(number_text(value))}</td>" for value in others)
        lines.append(f'<tr><th scope="row">{escape(number_text(first))}</th>{cells}</tr>')
    lines.append("</tbody></table></div>")
    return "\n".join(lines)


def thinned_table(header: Sequence[str], rows: Sequence[Sequence[Any]], file: str) -> str:
    """Return a table of at most two hundred rows; says so where there are more."""
    shown = thinned(rows)
    note = ""
    if len(shown) < len(rows):
        note = f"<p>{len(shown)} of {len(rows):,} rows; all of them are in {escape(file)}.</p>"
    return note + table(header, shown)


def details(summary: str, body: str) -> str:
    """Return something that is unfolded on demand."""
    return f"<details><summary>{escape(summary)}</summary>\n{body}\n</details>"


def figure(caption: str, body: str, *, key: str = "") -> str:
    """Return a picture below its caption."""
    return f"<figure><figcaption>{escape(caption)}{key}</figcaption>\n{body}\n</figure>"


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph of plain text; what stands between backticks is code."""
    if "`" in text:
        parts = enumerate(map(escape, text.split("`")))
        return "<p>" + "".join(f"<code>{t}</code>" if n % 2 else t for n, t in parts) + "</p>"
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"
