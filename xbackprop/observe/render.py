"""An explanation as text, Markdown and LaTeX."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from xbackprop.observe.columns import aligned
from xbackprop.observe.expression import number_latex, number_text, to_latex, to_text
from xbackprop.observe.wording import OUTLINE, PHRASES, heading, phrase

if TYPE_CHECKING:
    from xbackprop.observe.explanation import Check, Explanation, Quantity, Section

_WIDTH = 88
COLUMNS = ("parameter", "above", "local", "gradient", "difference", "relative")


def text_lines(explanation: "Explanation", lang: str) -> Iterator[str]:
    """Return the lines for a terminal."""
    for number, (title, section) in enumerate(outline(explanation), start=1):
        for key in title:
            is_step = key in OUTLINE or key == "summary"
            if number > 1 and (key != title[-1] or len(title) == 1):
                yield ""
            yield heading(key, lang) if is_step else f"  {heading(key, lang)}"
        if section is None:
            yield from (f"  {line}" for line in summary(explanation, lang))
            continue
        yield from (f"  {line}" for line in introduction(explanation, section.key, lang))
        for quantity in section.quantities:
            yield from _text_of(quantity)
        if section.checks:
            yield f"\n  {phrase('check', lang)}"
            yield from _text_table(section.checks, lang)


def outline(
    explanation: "Explanation",
) -> Iterator[tuple[list[str], "Section | None"]]:
    """Return each section with the headings above it; at last the summary."""
    sections = {section.key: section for section in explanation.steps}
    for step, keys in OUTLINE.items():
        present = [key for key in keys if key in sections]
        for position, key in enumerate(present):
            titles = [step] * (position == 0) + [key] * (key != step)
            yield titles, sections[key]
    yield ["summary"], None


def introduction(explanation: "Explanation", key: str, lang: str) -> list[str]:
    """Return what is said under the heading of a section."""
    if key == "weight_update":
        op = explanation.update
        return phrase(op if op in PHRASES else "weight_update_other", lang).splitlines()
    if key == "loss_derivative":
        sections = {section.key: section for section in explanation.steps}
        names = [to_text(quantity.symbol) for quantity in sections[key].quantities]
        return [phrase("log_sum", lang)] if "s[1]" in names else []
    return [phrase(key, lang)] if key in ("local_derivatives", "chain_rule") else []


def _text_of(quantity: "Quantity") -> Iterator[str]:
    """Return ``symbol = formula = numbers = value`` in a line, or in several under each other."""
    symbol = to_text(quantity.symbol)
    parts = _parts(quantity, is_latex=False)
    line = f"    {symbol} = {' = '.join(parts)}"
    if len(line) <= _WIDTH:
        yield line
        return
    yield f"    {symbol} = {parts[0]}"
    yield from (f"    {' ' * len(symbol)} = {part}" for part in parts[1:])


def _parts(quantity: "Quantity", is_latex: bool) -> list[str]:
    """Return formula, formula in numbers and result, each once."""
    write, result = (to_latex, number_latex) if is_latex else (to_text, number_text)
    parts = []
    if quantity.formula is not None:
        parts = [write(quantity.formula), write(quantity.formula, numbers=True)]
    parts.append(result(quantity.value))
    return list(dict.fromkeys(parts))


def _text_table(checks: "list[Check]", lang: str) -> Iterator[str]:
    rows = [[phrase(f"column_{name}", lang) for name in COLUMNS]]
    rows += [_cells(check, is_latex=False) for check in checks]
    yield from aligned(rows)


def _cells(check: "Check", is_latex: bool) -> list[str]:
    number = number_latex if is_latex else number_text
    name = to_latex(check.parameter) if is_latex else to_text(check.parameter)
    values = (check.above.value, check.local.value, check.gradient.value, check.difference)
    relative = float(f"{check.relative:.1e}")
    return [name, *map(number, values), number(relative)]


def summary(explanation: "Explanation", lang: str) -> Iterator[str]:
    """Yield the losses, how good the gradients are, and the notes."""
    before, after = explanation.loss, explanation.loss_after
    if after is None:
        yield phrase("loss_is", lang, number_text(before))
    else:
        yield phrase("loss_was", lang, number_text(before), number_text(after))
    checks = [check for section in explanation.steps for check in section.checks]
    if checks:
        largest = max(
            (check.relative for check in checks), key=lambda value: (value != value, value)
        )
        yield phrase("agreement", lang, len(checks), f"{largest:.1e}")
    yield from (note.text(lang) for note in explanation.notes)


def markdown_lines(explanation: "Explanation", lang: str) -> Iterator[str]:
    """Return the lines of a Markdown document."""
    for titles, section in outline(explanation):
        for key in titles:
            level = "##" if key in OUTLINE or key == "summary" else "###"
            yield from (f"{level} {heading(key, lang)}", "")
        if section is None:
            yield from (f"* {line}" for line in summary(explanation, lang))
            continue
        yield from (line for text in introduction(explanation, section.key, lang)
                    for line in (text, ""))  # fmt: skip
        for quantity in section.quantities:
            parts = " = ".join(_parts(quantity, is_latex=True))
            yield from (f"$${to_latex(quantity.symbol)} = {parts}$$", "")
        if section.checks:
            yield from (phrase("check", lang), "")
            yield f"| {' | '.join(phrase(f'column_{name}', lang) for name in COLUMNS)} |"
            yield f"|{'---|' * len(COLUMNS)}"
            for check in section.checks:
                yield f"| {' | '.join(f'${cell}$' for cell in _cells(check, is_latex=True))} |"
            yield ""


def latex_lines(explanation: "Explanation", lang: str) -> Iterator[str]:
    """Return the lines of a fragment of LaTeX."""
    for titles, section in outline(explanation):
        for key in titles:
            command = "section" if key in OUTLINE or key == "summary" else "subsection"
            yield rf"\{command}*{{{heading(key, lang)}}}"
        if section is None:
            yield r"\begin{itemize}"
            yield from (rf"\item {escaped(line)}" for line in summary(explanation, lang))
            yield r"\end{itemize}"
            continue
        yield from map(escaped, introduction(explanation, section.key, lang))
        if section.quantities:
            yield r"\begin{align*}"
            rows = [
                rf"{to_latex(quantity.symbol)} &= "
                + r" \\ &= ".join(_parts(quantity, is_latex=True))
                for quantity in section.quantities
            ]
            yield " \\\\\n".join(rows)
            yield r"\end{align*}"
        if section.checks:
            yield escaped(phrase("check", lang))
            yield r"\begin{center}\begin{tabular}{l" + "r" * (len(COLUMNS) - 1) + "}"
            names = (escaped(phrase(f"column_{name}", lang)) for name in COLUMNS)
            yield " & ".join(names) + r" \\"
            for check in section.checks:
                yield " & ".join(f"${cell}$" for cell in _cells(check, is_latex=True)) + r" \\"
            yield r"\end{tabular}\end{center}"


def escaped(text: str) -> str:
    """Return text for LaTeX."""
    for letter in "_^#%&":
        text = text.replace(letter, rf"\{letter}{{}}" if letter == "^" else rf"\{letter}")
    return text
