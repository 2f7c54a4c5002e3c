"""The largest elements of an op's output, and what its inputs contribute to the first of them."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from xbackprop.backend.transfer import to_device, to_host
from xbackprop.observe.layers.findings import Factor
from xbackprop.observe.layers.watching import Pass

_SHOWN = 3  # of elements and of terms


def contributions(one: Pass) -> dict[str, Any]:
    """Return ``largest`` and the ``terms`` of :class:`LayerNorms`; nothing where no gradient came.

    Parameters
    ----------
    one : Pass
        The op. Its own backward is called with the basis vector of the largest element.

    Returns
    -------
    dict
    """
    if one.backward is None or one.grad_output is None:
        return {}
    largest = _largest([("output", to_host(one.output), to_host(one.grad_output))])
    if not largest:
        return {}
    basis = np.zeros(one.output.shape, dtype=one.grad_output.dtype)
    basis[largest[0].index] = 1
    call = one.backward
    found = call.op(to_device(basis, call.device), *call.args[1:], **call.options)
    inputs = list(_inputs(one, found if isinstance(found, tuple) else (found,)))
    products = [_products(values, slopes) for _, values, slopes in inputs]
    count = sum(int(np.count_nonzero(array)) for array in products)
    if count < 2:  # an elementwise function has one, which says nothing new
        return {"largest": largest}
    return {
        "largest": largest,
        "terms": _largest(inputs),
        "terms_total": float(sum(array.sum() for array in products)),
        "terms_count": count,
    }


def _inputs(one: Pass, derivatives: tuple[Any, ...]) -> Iterator[tuple[str, Any, Any]]:
    """Return the op's inputs with the element's derivatives by them.

    Parameters are called ``weight`` or ``bias``, and are left out.
    """
    given = dict(zip(inspect.signature(one.op.reference).parameters, one.args, strict=False))
    first = next(iter(given))
    for target, derivative in zip(_targets(one), derivatives, strict=False):
        name = first if target == "input" else target
        argument = given.get(name)
        if derivative is None or argument is None or name.startswith(("weight", "bias")):
            continue
        if argument.shape == derivative.shape:
            yield name, to_host(argument), to_host(derivative)


def _targets(one: Pass) -> list[str]:
    """Return what a backward op's results are derivatives by, as the text of its formula says."""
    text = one.backward.op.formula if one.backward is not None else None
    if text is None:
        return ["input"]
    return [part.partition("=")[0].strip().removeprefix("grad_") for part in text.split(";")]


def _products(values: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return values.astype(np.float64) * slopes.astype(np.float64)


def _largest(arrays: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> list[Factor]:
    """Return the elements whose products are largest, NaN before all; none that are 0."""
    found = []
    for name, values, slopes in arrays:
        products = _products(values, slopes)
        sizes = np.nan_to_num(np.abs(products), nan=np.inf, posinf=np.inf).ravel()
        for place in np.argsort(-sizes, kind="stable")[:_SHOWN]:
            index = tuple(map(int, np.unravel_index(place, products.shape)))
            numbers = map(float, (values[index], slopes[index], products[index]))
            if sizes[place]:
                found.append((float(sizes[place]), Factor(name, index, *numbers)))
    found.sort(key=lambda pair: -pair[0])
    return [factor for _, factor in found[:_SHOWN]]
