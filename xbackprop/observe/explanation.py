"""What an explanation consists of, and the forms it can be given."""

import json
import math
from dataclasses import dataclass, field
from typing import Any

from xbackprop.observe.expression import Expression, to_text
from xbackprop.observe.wording import Note


@dataclass(frozen=True)
class Quantity:
    """A number of the explanation, and where it comes from.

    Attributes
    ----------
    symbol : Expression
        Its name, with its value.
    formula : Expression or None
        What it is computed from; None for what is given, and where the text of the op's formula
        does not lead to the op's number.
    """

    symbol: Expression
    formula: Expression | None = None

    @property
    def value(self) -> float:
        """The number that the op computed."""
        return self.symbol.value

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        formula = self.formula
        return {
            "symbol": to_text(self.symbol),
            "formula": None if formula is None else to_text(formula),
            "numbers": None if formula is None else to_text(formula, numbers=True),
            "value": plain(self.value),
        }


@dataclass(frozen=True)
class Check:
    """A gradient with its two factors beside a central difference of the loss.

    Attributes
    ----------
    parameter : Expression
        The weight.
    above, local, gradient : Quantity
        ``dLoss/dz``, ``dz/dw`` and their product.
    difference : float
        ``(Loss(w + h) - Loss(w - h)) / (2 h)``.
    relative : float
        How far it is from the gradient, as a share of the larger of both.
    """

    parameter: Expression
    above: Quantity
    local: Quantity
    gradient: Quantity
    difference: float
    relative: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "parameter": to_text(self.parameter),
            "local": plain(self.local.value),
            "above": plain(self.above.value),
            "gradient": plain(self.gradient.value),
            "finite_difference": plain(self.difference),
            "relative_difference": plain(self.relative),
        }


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it.

    Attributes
    ----------
    key : str
        Which one; :mod:`xbackprop.observe.wording` has its headings.
    quantities : list of Quantity
        In the order of computation.
    checks : list of Check
        Of gradients.
    """

    key: str
    quantities: list[Quantity] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)


@dataclass(frozen=True)
class Explanation:
    """One training step with all of its numbers.

    Attributes
    ----------
    steps : list of Section
        Forward pass, loss, backward pass in three sections, and update where there is an optimizer.
    notes : list of Note
        Remarks on numbers that surprise.
    parameters, gradients, new_parameters : dict
        Nested lists under W1, b1, W2, ...; ``new_parameters`` is None without an optimizer.
    loss, loss_after : float
        Before and after the update.
    update : str
        The optimizer's op, such as ``sgd_update``; "" without one.
    """

    steps: list[Section]
    notes: list[Note]
    parameters: dict[str, Any]
    gradients: dict[str, Any]
    new_parameters: dict[str, Any] | None
    loss: float
    loss_after: float | None
    update: str = ""

    def to_text(self, lang: str = "en") -> str:
        """Return the explanation for a terminal; ``lang`` is "en" or "zh"."""
        from xbackprop.observe.render import text_lines

        return "\n".join(text_lines(self, lang))

    def to_markdown(self, lang: str = "en") -> str:
        """Return the explanation in Markdown with mathematics in dollars."""
        from xbackprop.observe.render import markdown_lines

        return "\n".join(markdown_lines(self, lang))

    def to_latex(self, lang: str = "en") -> str:
        """Return a fragment of LaTeX, for a document with amsmath (and ctex for Chinese)."""
        from xbackprop.observe.render import latex_lines

        return "\n".join(latex_lines(self, lang))

    def to_html(self, lang: str = "en") -> str:
        """Return a page of HTML, one file without anything from elsewhere (extra ``explain``)."""
        from xbackprop.observe.page import page

        return page([self], lang)

    def _repr_html_(self) -> str:
        from xbackprop.observe.page import framed

        return framed(self)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data; what JSON has no number for is a string such as "inf"."""
        return {
            "parameters": plain(self.parameters),
            "steps": [
                {
                    "step": section.key,
                    "quantities": [quantity.as_dict() for quantity in section.quantities],
                    "checks": [check.as_dict() for check in section.checks],
                }
                for section in self.steps
            ],
            "gradients": plain(self.gradients),
            "new_parameters": plain(self.new_parameters),
            "loss": plain(self.loss),
            "loss_after": plain(self.loss_after),
            "notes": [note.text("en") for note in self.notes],
        }

    def to_json(self) -> str:
        """Return the explanation as a JSON object."""
        return json.dumps(self.as_dict(), indent=2, allow_nan=False)


def plain(value: Any) -> Any:
    """Return data that JSON can hold."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
