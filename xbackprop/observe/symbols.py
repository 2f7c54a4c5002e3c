"""Names for arrays of a network: x, W1, b1, z1, a1, y_hat, and dLoss/d of each."""

from typing import Any

import numpy as np

from xbackprop.backend.transfer import to_host
from xbackprop.observe.expression import Expression, symbol

_LATEX = {"y_hat": r"\hat{y}", "eta": r"\eta"}


def named(name: str, array: Any, *, has_batch: bool = True) -> np.ndarray:
    """Give every number of an array a name.

    Parameters
    ----------
    name : str
        Of the array; digits at its end number the layer.
    array : array
        With the values, on any device.
    has_batch : bool
        The first axis is a batch of one sample, and has no index.

    Returns
    -------
    numpy.ndarray of Expression
        Of the array's shape.
    """
    values = np.asarray(to_host(array), dtype=np.float64)
    result = np.empty(values.shape, dtype=object)
    is_single = values.size == 1 and name in ("y_hat", "y")
    for index in np.ndindex(values.shape):
        places = () if is_single else [place + 1 for place in index[has_batch:]]
        text = name + (f"[{','.join(map(str, places))}]" if places else "")
        result[index] = symbol(text, _latex(name, places), float(values[index]))
    return result


def single(name: str, value: Any, latex: str | None = None) -> Expression:
    """Give one number a name."""
    return symbol(name, _LATEX.get(name, name) if latex is None else latex, float(to_host(value)))


def _latex(name: str, places: Any) -> str:
    letter = name.rstrip("0123456789")
    layer = name[len(letter) :]
    latex = _LATEX.get(letter, letter)
    superscript = f"^{{({layer})}}" if layer else ""
    separator = "," if max(places, default=0) > 9 else ""
    subscript = f"_{{{separator.join(map(str, places))}}}" if places else ""
    return latex + superscript + subscript


def derivatives(above: str, of: Any, values: Any) -> np.ndarray:
    """Name the derivatives of one number by each of an array's.

    Parameters
    ----------
    above : str
        What is differentiated, such as ``Loss``.
    of : numpy.ndarray of Expression
        By what.
    values : array
        The derivatives, of its shape.

    Returns
    -------
    numpy.ndarray of Expression
    """
    host = np.asarray(to_host(values), dtype=np.float64)
    result = np.empty(of.shape, dtype=object)
    for index in np.ndindex(of.shape):
        result[index] = derivative(symbol(above, above, 0.0), of[index], float(host[index]))
    return result


def derivative(above: Expression, of: Expression, value: float) -> Expression:
    """Name the derivative of one number by another."""
    latex = rf"\frac{{\partial {above.latex}}}{{\partial {of.latex}}}"
    return symbol(f"d{above.text}/d{of.text}", latex, value)
