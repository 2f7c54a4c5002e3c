"""The page: its head, and its sections in their order."""

import importlib.resources
from html import escape

from xbackprop.cli.report.answers import Judged
from xbackprop.cli.report.curves import curves
from xbackprop.cli.report.facts import costs, figures, request
from xbackprop.cli.report.layers import layers
from xbackprop.cli.report.mistakes import mistakes
from xbackprop.cli.report.record import RunRecord

# Nothing is loaded and nothing runs, whatever a browser or an extension of it would like to.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(record: RunRecord, judged: Judged) -> str:
    """Return an HTML document about a run.

    Parameters
    ----------
    record : RunRecord
        What the run has written.
    judged : Judged
        What its model answers.

    Returns
    -------
    str
        In ASCII, other letters as references, so that no console or copy can spoil them.
    """
    title = f"Run on {record.name}"
    sections = [
        ("", figures(record, judged)),
        ("Course", curves(record)),
        ("Layers", layers(record)),
        ("Answers", mistakes(judged)),
        ("Time and transfers", costs(record)),
        ("Request and environment", request(record)),
    ]
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        '<link rel="icon" href="data:,">',
        f"<title>{escape(title)}</title>",
        f"<style>\n{_style()}</style>",
        "</head>",
        "<body>",
        f"<header><h1>{escape(title)}</h1></header>",
        "<main>",
    ]
    for heading, body in sections:
        lines += ["<section>", *([f"<h2>{heading}</h2>"] if heading else []), *body, "</section>"]
    lines += ["</main>", "</body>", "</html>", ""]
    return "\n".join(lines).encode("ascii", "xmlcharrefreplace").decode()


def _style() -> str:
    files = importlib.resources.files
    base = files("xbackprop.observe.page").joinpath("base.css")
    own = files(__package__).joinpath("style.css")
    return base.read_text(encoding="utf-8") + own.read_text(encoding="utf-8")
