"""What the figure shows: units and weights of an explanation, each with its numbers."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from xbackprop.observe.explanation import Explanation, Quantity
from xbackprop.observe.expression import Expression, to_text

_SYMBOL = re.compile(r"([a-z_]+?)(\d*)(?:\[([\d,]+)\])?")


@dataclass(frozen=True)
class Row:
    """A quantity: its value, the loss's derivative by it, and what the update made of it.

    Attributes
    ----------
    symbol : str
        As in the JSON, such as ``w1[1,2]``.
    value, gradient, new : float or None
        None where there is no such number.
    source : int or None
        Of a weight: the unit that it multiplies.
    """

    symbol: str
    value: float | None
    gradient: float | None = None
    new: float | None = None
    source: int | None = None

    @property
    def name(self) -> tuple[str, str]:
        """The letter and the index; the layer shows in where it stands."""
        match = _SYMBOL.fullmatch(self.symbol)
        if match is None:
            return self.symbol, ""
        letter, _, places = match.groups()
        places = places or ""
        return ("ŷ" if letter == "y_hat" else letter), (
            places if re.search(r"\d\d", places) else places.replace(",", "")
        )


@dataclass(frozen=True)
class Unit:
    """A unit with the weights that lead to it.

    Attributes
    ----------
    rows : list of Row
        Its numbers, such as z and a.
    weights : list of Row
        One per unit before it, then the bias; none for inputs and for the loss.
    """

    rows: list[Row]
    weights: list[Row]


def quantities_of(explanation: Explanation) -> Iterator[Quantity]:
    """Yield every quantity in the order of computation."""
    for section in explanation.steps:
        yield from section.quantities


def symbols_in(expression: Expression | None) -> Iterator[Expression]:
    """Yield the named numbers that an expression is made of."""
    if expression is None:
        return
    if expression.kind == "symbol":
        yield expression
    for part in expression.parts:
        yield from symbols_in(part)


def values_of(explanation: Explanation) -> dict[str, float]:
    """Return every named number: what was given, and what was computed."""
    values: dict[str, float] = {}
    for quantity in quantities_of(explanation):
        for given in symbols_in(quantity.formula):
            values[to_text(given)] = given.value
    computed = {to_text(one.symbol): one.value for one in quantities_of(explanation)}
    return values | _parameters(explanation) | computed


def _parameters(explanation: Explanation) -> dict[str, float]:
    values: dict[str, float] = {}
    for key, nested in explanation.parameters.items():
        for row, part in enumerate(nested, start=1):
            if isinstance(part, list):
                names = (f"{key.lower()}[{row},{column}]" for column in range(1, len(part) + 1))
                values |= dict(zip(names, part, strict=True))
            else:
                values[f"{key}[{row}]"] = part
    return values


def columns_of(explanation: Explanation) -> list[list[Unit]]:
    """Return the figure's columns: inputs, each layer's units, and the loss."""
    values = values_of(explanation)
    matrices = [nested for key, nested in explanation.parameters.items() if key[0] == "W"]
    stems = _stems(explanation, len(matrices))
    columns = []
    for layer, width in enumerate([len(matrices[0][0]), *map(len, matrices)]):
        weights = [_weights(values, layer, unit, matrices) for unit in range(1, width + 1)]
        rows = [
            [_row(values, stem, unit, width) for stem in stems[layer]]
            for unit in range(1, width + 1)
        ]
        columns.append([Unit(*parts) for parts in zip(rows, weights, strict=True)])
    targets = [name for name in values if re.fullmatch(r"y(\[\d+\])?", name)]
    loss = [Row(name, values[name]) for name in [*sorted(targets, key=_place), "Loss"]]
    return [*columns, [Unit(loss, [])]]


def _place(name: str) -> int:
    return int(re.sub(r"\D", "", name) or 0)


def _stems(explanation: Explanation, layers: int) -> list[list[str]]:
    """Return the names of the arrays in each column, such as z1 and a1."""
    stems: list[list[str]] = [["x"], *([] for _ in range(layers))]
    (forward,) = (section for section in explanation.steps if section.key == "forward")
    for quantity in forward.quantities:
        stem = to_text(quantity.symbol).partition("[")[0]
        layer = layers if stem == "y_hat" else int(re.sub(r"\D", "", stem))
        if stem not in stems[layer]:
            stems[layer].append(stem)
    return stems


def _row(values: dict[str, float], stem: str, unit: int, width: int) -> Row:
    is_single = stem == "y_hat" and width == 1
    name = stem if is_single else f"{stem}[{unit}]"
    return Row(name, values.get(name), values.get(f"dLoss/d{name}"))


def _weights(values: dict[str, float], layer: int, unit: int, matrices: list[Any]) -> list[Row]:
    if layer == 0:
        return []
    sources = len(matrices[layer - 1][0])
    names: list[tuple[str, int | None]] = [
        (f"w{layer}[{unit},{source}]", source) for source in range(1, sources + 1)
    ]
    names.append((f"b{layer}[{unit}]", None))
    return [
        Row(name, values[name], values.get(f"dLoss/d{name}"), values.get(f"{name}_new"), source)
        for name, source in names
        if name in values
    ]
