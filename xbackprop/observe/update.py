"""The update as quantities: what the optimizer's op was given, and what it wrote."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from xbackprop.backend.transfer import to_host
from xbackprop.observe.explanation import Section
from xbackprop.observe.expression import Expression, symbol
from xbackprop.observe.forward import Network, rows
from xbackprop.observe.record import Ran
from xbackprop.observe.symbols import derivative, single
from xbackprop.optim import Optimizer

# What the texts of the updates call by the names of arguments, in the letters of the papers.
_LETTERS = {
    "lr": ("eta", r"\eta"), "momentum": ("mu", r"\mu"), "step_size": ("alpha", r"\alpha"),
    "beta1": ("beta1", r"\beta_1"), "share1": ("(1 - beta1)", r"(1 - \beta_1)"),
    "beta2": ("beta2", r"\beta_2"), "share2": ("(1 - beta2)", r"(1 - \beta_2)"),
    "correction": ("c", "c"), "eps": ("eps", r"\epsilon"),
}  # fmt: skip
_STATE = {"momentum_buffer": "v", "exp_avg": "m", "exp_avg_sq": "v"}


def tell_update(
    network: Network, optimizer: Optimizer, calls: Sequence[Ran]
) -> tuple[Section, str]:
    """Return the update's section, and the name of its op where one updated all weights.

    Parameters
    ----------
    network : Network
        With the parameters, now updated.
    optimizer : Optimizer
        That has updated them.
    calls : sequence of Ran
        Its ops.

    Returns
    -------
    section : Section
    op : str
    """
    parts = _parts_of_flat(network, optimizer)
    size = sum(part.size for _, part in parts)
    ran = calls[0] if len(calls) == 1 else None
    if ran is not None and len(ran.result) != size:
        ran = None  # not all in one: told without formulas
    quantities = []
    start = 0
    for parameter, symbols in parts:
        values = np.asarray(to_host(parameter.data), dtype=np.float64)
        new = np.empty(symbols.shape, dtype=object)
        for index in np.ndindex(symbols.shape):
            old = symbols[index]
            latex = rf"{old.latex}{{}}_{{,\mathrm{{new}}}}"
            new[index] = symbol(f"{old.text}_new", latex, float(values[index]))
        formula = None
        if ran is not None:
            place = slice(start, start + symbols.size)
            names = _names(ran, place, symbols.reshape(-1))
            (formula, *_) = network.formulas(ran, names, _results(ran, new.reshape(-1)))
        start += symbols.size
        quantities += rows(new.reshape(-1), formula)
    return Section("weight_update", quantities), "" if ran is None else ran.op.name


def _parts_of_flat(network: Network, optimizer: Optimizer) -> list[tuple[Any, Any]]:
    """Return parameters and their names in the order in which the optimizer holds them."""
    known = {id(parameter): symbols for _, parameter, symbols in network.parameters.values()}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return [(p, known[id(p)]) for p in parameters if id(p) in known]


def _results(ran: Ran, new: np.ndarray) -> list[Any]:
    """Return what the formula must lead to: of its several results the first is the weights."""
    count = len((ran.op.formula or "").split(";"))
    return [new, *[None] * (count - 1)]


def _names(ran: Ran, place: slice, old: np.ndarray) -> dict[str, Any]:
    """Return names for what the update was given of one parameter."""
    names: dict[str, Any] = {}
    for field, value in ran.arguments.items():
        if field == "data":
            names[field] = old
        elif field == "grad":
            names[field] = _each(old, functools.partial(derivative, _LOSS), value[place])
        elif field in _STATE:
            letter = _STATE[field]
            names[field] = _each(old, functools.partial(_state, letter), value[place])
        elif field in _LETTERS:
            text, latex = _LETTERS[field]
            names[field] = np.array(single(text, value, latex), dtype=object)
        else:
            names[field] = value
    return names


_LOSS = single("Loss", 0.0)


def _state(letter: str, of: Expression, value: float) -> Expression:
    return symbol(f"{letter}({of.text})", rf"{letter}({of.latex})", value)


def _each(old: np.ndarray, name: Any, values: np.ndarray) -> np.ndarray:
    result = np.empty(old.shape, dtype=object)
    for place, (expression, value) in enumerate(zip(old, values, strict=True)):
        result[place] = name(expression, float(value))
    return result
