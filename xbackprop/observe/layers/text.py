"""A survey of a network as text, Markdown and LaTeX."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xbackprop.observe.columns import aligned
from xbackprop.observe.expression import (
    Expression,
    number_latex,
    number_text,
    symbol,
    to_latex,
    to_text,
)
from xbackprop.observe.render import escaped
from xbackprop.observe.symbols import derivative
from xbackprop.observe.wording import heading, phrase

if TYPE_CHECKING:
    from xbackprop.observe.layers.findings import Factor, LayerNorms, Survey


@dataclass(frozen=True)
class _Block:
    """What stands below a heading: lines, then a table, then products."""

    title: str = ""
    level: int = 2
    lines: list[str] = field(default_factory=list)
    words: int = 0  # columns of the table that are no numbers
    rows: list[list[str]] = field(default_factory=list)
    products: list[Expression] = field(default_factory=list)


def text_of(survey: "Survey", lang: str) -> str:
    """Return a survey for a terminal."""
    lines: list[str] = []
    for block in _blocks(survey, lang):
        if block.title:
            lines += ["", block.title if block.level == 2 else f"  {block.title}"]
        lines += [f"  {line}" for line in block.lines]
        lines += aligned(block.rows, block.words) if block.rows else []
        lines += [f"    {' = '.join(_sides(product, False))}" for product in block.products]
    return "\n".join(lines)


def markdown_of(survey: "Survey", lang: str) -> str:
    """Return a survey in Markdown, with mathematics in dollars."""
    lines: list[str] = []
    for block in _blocks(survey, lang):
        if block.title:
            lines += [f"{'#' * block.level} {block.title}", ""]
        lines += [*block.lines, ""] if block.lines else []
        if block.rows:
            columns = len(block.rows[0])
            first, *others = (
                f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
                for row in block.rows
            )
            rule = "---|" * block.words + "--:|" * (columns - block.words)
            lines += [first, f"|{rule}", *others, ""]
        for product in block.products:
            lines += [f"$${' = '.join(_sides(product, True))}$$", ""]
    return "\n".join(lines).rstrip("\n")


def latex_of(survey: "Survey", lang: str) -> str:
    """Return a survey as a fragment of LaTeX."""
    lines: list[str] = []
    for block in _blocks(survey, lang):
        if block.title:
            command = "section" if block.level == 2 else "subsection"
            lines.append(rf"\{command}*{{{escaped(block.title)}}}")
        lines += map(escaped, block.lines)
        if block.rows:
            columns = "l" * block.words + "r" * (len(block.rows[0]) - block.words)
            lines.append(rf"\begin{{longtable}}{{{columns}}}")
            lines += (
                " & ".join(escaped(cell.replace("|", r"\textbar{}")) for cell in row) + r" \\"
                for row in block.rows
            )
            lines.append(r"\end{longtable}")
        if block.products:
            lines.append(r"\begin{align*}")
            sides = (_sides(product, True) for product in block.products)
            lines.append(" \\\\\n".join(f"{first} &= {' = '.join(rest)}" for first, *rest in sides))
            lines.append(r"\end{align*}")
    return "\n".join(lines)


def _sides(product: Expression, is_latex: bool) -> list[str]:
    """Return a product in names, in numbers, and its value."""
    write, number = (to_latex, number_latex) if is_latex else (to_text, number_text)
    first, second = product.parts
    value = number(first.value * second.value)
    return [write(product), write(product, numbers=True), value]


def _blocks(survey: "Survey", lang: str) -> Iterator[_Block]:
    loss, gradient = number_text(survey.loss), number_text(survey.gradient_norm)
    yield _Block(lines=[phrase("survey_loss", lang, loss, gradient)])
    yield _Block(
        title=heading("layers", lang),
        lines=[phrase("survey_layers", lang), phrase("survey_batch", lang)],
        words=4,
        rows=list(_layer_rows(survey, lang)),
    )
    yield _Block(
        title=heading("parameters", lang), words=2, rows=list(_parameter_rows(survey, lang))
    )
    yield _Block(
        title=heading("contributions", lang),
        lines=[phrase(f"survey_contributions_{number}", lang) for number in range(1, 5)],
    )
    for layer in survey.layers:
        if layer.largest:
            yield from _contributions(layer, lang)


def _layer_rows(survey: "Survey", lang: str) -> Iterator[list[str]]:
    columns = ("layer", "type", "input", "output")
    yield [*(phrase(f"column_{key}", lang) for key in columns), "|output|", "|dLoss/doutput|"]
    for layer in survey.layers:
        name = layer.layer or phrase("whole_network", lang)
        shapes = (_by(layer.input_shape), _by(layer.output_shape))
        norms = (layer.output_norm, layer.gradient_norm)
        yield [name, layer.type, *shapes, *map(_optional, norms)]


def _parameter_rows(survey: "Survey", lang: str) -> Iterator[list[str]]:
    yield [*(phrase(f"column_{key}", lang) for key in ("name", "shape")), "|w|", "|dLoss/dw|"]
    for norms in survey.parameters:
        numbers = map(_optional, (norms.norm, norms.gradient_norm))
        yield [norms.name, _by(norms.shape), *numbers]


def _optional(value: float | None) -> str:
    return "-" if value is None else number_text(value)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _contributions(layer: "LayerNorms", lang: str) -> Iterator[_Block]:
    """Return the products of the largest elements, and those that make up the first of them."""
    loss = symbol("Loss", "Loss", 0.0)
    yield _Block(
        title=f"{layer.layer or phrase('whole_network', lang)} ({layer.type}, {layer.op})",
        level=3,
        products=[_product(factor, loss) for factor in layer.largest],
    )
    if layer.terms and layer.terms_total is not None:
        index = f"[{','.join(map(str, layer.largest[0].index))}]"
        count, total = str(layer.terms_count), number_text(layer.terms_total)
        yield _Block(
            lines=[phrase("survey_terms", lang, index, count, total)],
            products=[_product(factor, _named(layer.largest[0])) for factor in layer.terms],
        )


def _named(factor: "Factor") -> Expression:
    places = ",".join(map(str, factor.index))
    latex = rf"\mathrm{{{factor.name}}}_{{{places}}}" if len(factor.name) > 1 else ""
    return symbol(f"{factor.name}[{places}]", latex or f"{factor.name}_{{{places}}}", factor.value)


def _product(factor: "Factor", above: Expression) -> Expression:
    """Return ``x * d above/dx``."""
    element = _named(factor)
    return element * derivative(above, element, factor.derivative)
