"""What a survey of a network finds, as plain data."""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xbackprop.observe.explanation import plain


@dataclass(frozen=True)
class Factor:
    """An element of an array, times a derivative.

    Attributes
    ----------
    name : str
        ``output``, or the op's name for one of its inputs.
    index : tuple of int
        Of the element, as in NumPy.
    value, derivative, product : float
        ``product`` is ``value * derivative``.
    """

    name: str
    index: tuple[int, ...]
    value: float
    derivative: float
    product: float


@dataclass(frozen=True)
class ParameterNorms:
    """A parameter and its gradient, as vectors.

    Attributes
    ----------
    name : str
        As in ``state_dict``.
    shape : tuple of int
        Of both.
    norm : float
        Euclidean.
    gradient_norm : float or None
        None of a frozen parameter, and of one that the loss does not depend on.
    """

    name: str
    shape: tuple[int, ...]
    norm: float
    gradient_norm: float | None


@dataclass(frozen=True)
class LayerNorms:
    """One op of the forward pass, with its gradient.

    Attributes
    ----------
    layer, type, op : str
        Path of the layer in the network ("" is the network itself), its class, and what it called.
    input_shape, output_shape : tuple of int
        The batch of one sample included.
    output_norm : float
        Euclidean.
    gradient_norm : float or None
        Of the loss's derivative by the output; None where no gradient came back.
    largest : list of Factor
        The elements of the output with the largest ``|output * dLoss/doutput|``: to first order,
        how much the loss would fall if the element became 0.
    terms : list of Factor
        The inputs that contribute most to the first of these: input times the op's own derivative.
    terms_total : float or None
        Of all terms. For a linear map that is the element without its bias.
    terms_count : int
        How many are not 0.
    """

    layer: str
    type: str
    op: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    output_norm: float
    gradient_norm: float | None
    largest: list[Factor] = field(default_factory=list)
    terms: list[Factor] = field(default_factory=list)
    terms_total: float | None = None
    terms_count: int = 0


@dataclass(frozen=True)
class Survey:
    """What :func:`xbackprop.observe.survey` found.

    Attributes
    ----------
    loss : float
        Of the sample.
    gradient_norm : float
        Of all parameters' gradients together.
    layers : list of LayerNorms
        In the order in which they ran.
    parameters : list of ParameterNorms
        All of them.
    output : numpy.ndarray
        Of the network, on the host.
    """

    loss: float
    gradient_norm: float
    layers: list[LayerNorms]
    parameters: list[ParameterNorms]
    output: np.ndarray

    def to_text(self, lang: str = "en") -> str:
        """Return the survey for a terminal; ``lang`` is "en" or "zh"."""
        from xbackprop.observe.layers.text import text_of

        return text_of(self, lang)

    def to_markdown(self, lang: str = "en") -> str:
        """Return the survey in Markdown."""
        from xbackprop.observe.layers.text import markdown_of

        return markdown_of(self, lang)

    def to_latex(self, lang: str = "en") -> str:
        """Return a fragment of LaTeX, for a document with longtable (and ctex for Chinese)."""
        from xbackprop.observe.layers.text import latex_of

        return latex_of(self, lang)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data; what JSON has no number for is a string such as "inf"."""
        return {
            "loss": plain(self.loss),
            "gradient_norm": plain(self.gradient_norm),
            "output": plain(self.output.tolist()),
            "layers": [_plain_layer(layer) for layer in self.layers],
            "parameters": [
                plain({**vars(norms), "shape": list(norms.shape)}) for norms in self.parameters
            ],
        }

    def to_json(self) -> str:
        """Return the survey as a JSON object."""
        return json.dumps(self.as_dict(), indent=2, allow_nan=False)


def _plain_layer(layer: LayerNorms) -> dict[str, Any]:
    row = {key: getattr(layer, key) for key in layer.__dataclass_fields__}
    for key in ("input_shape", "output_shape"):
        row[key] = list(row[key])
    for key in ("largest", "terms"):
        row[key] = [{**vars(factor), "index": list(factor.index)} for factor in row[key]]
    return dict(plain(row))
