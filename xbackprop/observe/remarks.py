"""Remarks on numbers that surprise: saturation, units that are off, overflow, lost digits."""

from collections.abc import Iterator, Sequence

import numpy as np

from xbackprop.observe.explanation import Check, Quantity, Section
from xbackprop.observe.expression import number_text, to_text
from xbackprop.observe.forward import Network
from xbackprop.observe.wording import Note

_SATURATED = 1e-3  # a sigmoid's slope is at most 1/4, tanh's 1
_FAR = 1e-4  # between a gradient and its difference, where h = 1e-5 leaves about 1e-10


def remarks_on(network: Network, steps: Sequence[Section]) -> list[Note]:
    """Return what a reader of the numbers should be told.

    Parameters
    ----------
    network : Network
        That ran.
    steps : sequence of Section
        With its numbers.

    Returns
    -------
    list of Note
    """
    sections = {section.key: section for section in steps}
    notes = list(_about_units(network, sections["local_derivatives"]))
    notes += [note for s in steps for q in s.quantities for note in _about_size(q)]
    notes += [note for s in steps for check in s.checks for note in _about_difference(check)]
    if "weight_update" in sections:
        notes += _about_changes(network, sections["weight_update"])
    return notes


def _about_units(network: Network, local: Section) -> Iterator[Note]:
    slopes = {to_text(quantity.symbol): quantity.value for quantity in local.quantities}
    for layer in network.layers:
        if layer.is_linear:
            continue
        inputs = next(iter(layer.names.values()))
        for unit, source in zip(layer.output.flat, inputs.flat, strict=True):
            slope = slopes.get(f"d{unit.text}/d{source.text}", 1.0)
            if layer.ran.op.name == "relu_forward":
                if slope == 0:
                    yield Note("off", (unit.text,))
            elif abs(slope) < _SATURATED:
                yield Note("saturated", (unit.text, number_text(unit.value), number_text(slope)))


def _about_size(quantity: Quantity) -> Iterator[Note]:
    value = quantity.value
    name = to_text(quantity.symbol)
    if not np.isfinite(value):
        yield Note("not_finite", (name, number_text(value)))
    elif 0 < abs(value) < np.finfo(np.float64).tiny:
        yield Note("tiny", (name, number_text(value)))


def _about_difference(check: Check) -> Iterator[Note]:
    if not check.relative <= _FAR:
        numbers = (number_text(check.difference), number_text(check.gradient.value))
        yield Note("difference", (to_text(check.gradient.symbol), *numbers))


def _about_changes(network: Network, update: Section) -> Iterator[Note]:
    old = {e.text: e.value for _, _, symbols in network.parameters.values() for e in symbols.flat}
    gradients = {
        element.text: gradient
        for key, (_, _, symbols) in network.parameters.items()
        for element, gradient in zip(
            symbols.flat, np.ravel(network.gradients.get(key, np.zeros(symbols.shape))), strict=True
        )
    }
    for quantity in update.quantities:
        name = to_text(quantity.symbol).removesuffix("_new")
        if quantity.value == old[name] and gradients[name] != 0:
            yield Note("rounded_away", (name,))
