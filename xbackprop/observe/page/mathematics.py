"""Formulas as MathML, in pieces between which a line may break."""

import functools
from collections.abc import Iterator

from xbackprop.observe.explanation import Quantity
from xbackprop.observe.expression import number_latex, to_latex

_OPENING = '<math xmlns="http://www.w3.org/1998/Math/MathML" display="inline">'
# A minus right after an operator is a sign; a closing parenthesis ends its own row.
_DIFFERENCE, _SIGN = "</mo><mo>&#x02212;</mo>", '</mo><mo form="prefix">&#x02212;</mo>'


def formula_html(quantity: Quantity) -> str:
    """Return ``symbol = formula = numbers = value`` in MathML.

    Parameters
    ----------
    quantity : Quantity
        To be written.

    Returns
    -------
    str
        Each part in a span of its own.
    """
    parts = []
    if quantity.formula is not None:
        parts = [to_latex(quantity.formula), to_latex(quantity.formula, numbers=True)]
    parts = list(dict.fromkeys([*parts, number_latex(quantity.value)]))
    spans = [f'<span class="symbol">{mathml(to_latex(quantity.symbol))}</span>']
    for position, part in enumerate(parts):
        first, *others = _terms(part)
        pieces = [f"{{}} = {first}", *(f"{{}} + {term}" for term in others)]
        kind = "result" if position == len(parts) - 1 else "part"
        spans.append(f'<span class="{kind}">{" ".join(map(mathml, pieces))}</span>')
    return "\n".join(spans)


@functools.lru_cache(maxsize=4096)
def mathml(latex: str) -> str:
    """Return a piece of LaTeX as MathML.

    Parameters
    ----------
    latex : str
        Without dollars.

    Returns
    -------
    str

    Raises
    ------
    ImportError
        Where the package latex2mathml is missing; names the extra that brings it.
    """
    try:
        from latex2mathml.converter import convert
    except ImportError as error:
        raise ImportError(
            f"the HTML page needs the package latex2mathml, which is not installed ({error}). "
            "This installs it: pip install 'xbackprop[explain]'"
        ) from error
    # \text: one upright word, not the product of its letters.
    text = convert(latex.replace("Loss", r"\text{Loss}"))
    text = text.replace(_OPENING, '<math displaystyle="true">')
    return text.replace(_DIFFERENCE, _SIGN)


def _terms(latex: str) -> Iterator[str]:
    """Yield the terms of a sum, where nothing brackets it."""
    depth = 0
    term: list[str] = []
    for word in latex.split(" "):
        if word == "+" and not depth:
            yield " ".join(term)
            term = []
            continue
        term.append(word)
        depth += word.count("{") - word.count("}")
        depth += word.count(r"\left") - word.count(r"\right")
    yield " ".join(term)
