"""A network of any layers on one sample: shapes, norms, and what contributes most."""

import copy
import inspect
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xbackprop.backend.array_module import is_array
from xbackprop.backend.transfer import to_device, to_host
from xbackprop.dispatch import Op, OpCall, observe
from xbackprop.module import Module, as_one_call
from xbackprop.module.frame import current_frame
from xbackprop.observe.explanation import plain
from xbackprop.observe.lesson import placed_like

_SHOWN = 3  # of elements and of terms


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
    """What :func:`survey` found.

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
        from xbackprop.observe.survey_text import text_of

        return text_of(self, lang)

    def to_markdown(self, lang: str = "en") -> str:
        """Return the survey in Markdown."""
        from xbackprop.observe.survey_text import markdown_of

        return markdown_of(self, lang)

    def to_latex(self, lang: str = "en") -> str:
        """Return a fragment of LaTeX, for a document with longtable (and ctex for Chinese)."""
        from xbackprop.observe.survey_text import latex_of

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


def survey(model: Module, loss: Module, x: Any, y: Any) -> Survey:
    """Run one sample through a network and back, and tell what every layer did.

    Parameters
    ----------
    model : Module
        Of any layers, with one input. It runs as in evaluation, and stays as it is.
    loss : Module
        Maps output and target to a number.
    x : array_like, shape (1, ...)
        The sample as a batch of one. Floats are cast to the model's dtype.
    y : array_like, shape as the loss has it
        The target.

    Returns
    -------
    Survey

    Raises
    ------
    ValueError
        For more than one sample, or one that the model does not take.

    Notes
    -----
    What is told is what ran: an observer of ops keeps their arguments and results. The terms of an
    element are the op's own backward, called with the basis vector of that element, times the
    inputs.

    Examples
    --------
    >>> import xbackprop as xb
    >>> model = xb.nn.Sequential(xb.nn.Linear(2, 3), xb.nn.ReLU(), xb.nn.Linear(3, 2), rng=0)
    >>> told = xb.observe.survey(model, xb.nn.CrossEntropyLoss(), [[0.5, -1.0]], [1])
    >>> [(layer.layer, layer.type, layer.output_shape) for layer in told.layers]
    [('0', 'Linear', (1, 3)), ('1', 'ReLU', (1, 3)), ('2', 'Linear', (1, 2))]
    """
    like = next(iter(model.parameters()), None)
    if like is None:
        raise NotImplementedError("survey expects a model with parameters; it has none")
    x, y = (placed_like(value, like) for value in (x, y))
    if not x.ndim or len(x) != 1:
        raise ValueError(
            f"survey expects a batch of one sample, x of shape (1, ...); got {x.shape}"
        )
    subject = copy.deepcopy(model).eval()
    subject.zero_grad()
    watcher = _Watcher(subject)
    with as_one_call(x):
        with observe(watcher):
            output, saved = subject.forward(x)
        value, loss_saved = loss.forward(output, y)
        grad = loss.backward(1.0, loss_saved)
        with observe(watcher):
            subject.backward(grad, saved)
        layers = list(_tell(subject, watcher))
    parameters = [_norms_of(name, parameter) for name, parameter in subject.named_parameters()]
    return Survey(
        loss=float(to_host(value)),
        gradient_norm=math.hypot(*(norms.gradient_norm or 0.0 for norms in parameters)),
        layers=layers,
        parameters=parameters,
        output=np.array(to_host(output)),
    )


@dataclass(eq=False)
class _Pass:
    """A forward op, and the backward that had what it saved."""

    op: Op
    module: Module
    args: tuple[Any, ...]
    output: Any
    saved: tuple[Any, ...]
    backward: OpCall | None = None

    @property
    def grad_output(self) -> Any:
        """The derivative of the loss by the output; None where none came back."""
        grad = None if self.backward is None else self.backward.args[0]
        return grad if is_array(grad) else None


class _Watcher:
    """Keeps the outermost forward ops in their order, each with its backward."""

    def __init__(self, model: Module) -> None:
        self.model = model
        self.passes: list[_Pass] = []

    def before(self, call: OpCall) -> None:
        """Wait for the result."""

    def after(self, call: OpCall, result: Any) -> None:
        """Keep a forward op, or find the forward of a backward op."""
        stem, _, kind = call.op.name.rpartition("_")
        if call.depth or kind not in ("forward", "backward"):
            return
        stack = current_frame().stack
        module = stack[-1] if stack else self.model
        if kind == "forward":
            output, saved = result
            output = output[0] if isinstance(output, tuple) else output  # with statistics beside it
            self.passes.append(_Pass(call.op, module, call.args, output, saved))
            return
        candidates = [
            one
            for one in reversed(self.passes)
            if one.backward is None and one.module is module and one.op.name == f"{stem}_forward"
        ]
        # A layer that is used several times is told apart by what it saved.
        known = [one for one in candidates if _is_given(one.saved, call.args[1:])]
        for one in (known or candidates)[:1]:
            one.backward = call


def _is_given(saved: tuple[Any, ...], args: tuple[Any, ...]) -> bool:
    return all(mine is theirs for mine, theirs in zip(saved, args, strict=False) if is_array(mine))


def _tell(model: Module, watcher: _Watcher) -> Iterator[LayerNorms]:
    modules = {id(module): name for name, module in model.named_modules()}
    for one in watcher.passes:
        yield LayerNorms(
            layer=modules.get(id(one.module), ""),
            type=type(one.module).__name__,
            op=one.op.name.removesuffix("_forward"),
            input_shape=next(tuple(arg.shape) for arg in one.args if is_array(arg)),
            output_shape=tuple(one.output.shape),
            output_norm=_norm(one.output),
            gradient_norm=None if one.grad_output is None else _norm(one.grad_output),
            **_contributions(one),
        )


def _norms_of(name: str, parameter: Any) -> ParameterNorms:
    gradient = _norm(parameter.grad) if parameter.has_grad else None
    return ParameterNorms(name, tuple(parameter.shape), _norm(parameter.data), gradient)


def _norm(array: Any) -> float:
    return float(np.linalg.norm(np.asarray(to_host(array), dtype=np.float64).ravel()))


def _contributions(one: _Pass) -> dict[str, Any]:
    """Return the largest elements of an output, and the terms of the first of them."""
    if one.backward is None or one.grad_output is None:
        return {}
    largest = _largest(_factors("output", to_host(one.output), to_host(one.grad_output)))
    if not largest:
        return {}
    basis = np.zeros(one.output.shape, dtype=one.grad_output.dtype)
    basis[largest[0].index] = 1
    call = one.backward
    found = call.op(to_device(basis, call.device), *call.args[1:], **call.options)
    terms = list(_terms(one, found if isinstance(found, tuple) else (found,)))
    if len(terms) < 2:  # an elementwise function has one, which says nothing new
        return {"largest": largest}
    return {
        "largest": largest,
        "terms": _largest(terms),
        "terms_total": float(sum(term.product for term in terms)),
        "terms_count": len(terms),
    }


def _terms(one: _Pass, derivatives: tuple[Any, ...]) -> Iterator[Factor]:
    """Return the terms of the op's inputs; parameters are called ``weight`` or ``bias``."""
    given = dict(zip(inspect.signature(one.op.reference).parameters, one.args, strict=False))
    first = next(iter(given))
    for target, derivative in zip(_targets(one), derivatives, strict=False):
        name = first if target == "input" else target
        argument = given.get(name)
        if derivative is None or argument is None or name.startswith(("weight", "bias")):
            continue
        if argument.shape == derivative.shape:
            yield from _factors(name, to_host(argument), to_host(derivative))


def _targets(one: _Pass) -> list[str]:
    """Return what a backward op's results are derivatives by, as the text of its formula says."""
    text = one.backward.op.formula if one.backward is not None else None
    if text is None:
        return ["input"]
    return [part.partition("=")[0].strip().removeprefix("grad_") for part in text.split(";")]


def _factors(name: str, values: np.ndarray, derivatives: np.ndarray) -> list[Factor]:
    """Return an element with its derivative where their product is not 0."""
    wide, slopes = values.astype(np.float64), derivatives.astype(np.float64)
    with np.errstate(all="ignore"):
        products = wide * slopes
    return [
        Factor(name, index, float(wide[index]), float(slopes[index]), float(products[index]))
        for index in map(tuple, np.argwhere(products != 0).tolist())
    ]


def _largest(factors: list[Factor]) -> list[Factor]:
    def size(factor: Factor) -> float:
        return float(np.nan_to_num(abs(factor.product), nan=np.inf, posinf=np.inf))

    return sorted(factors, key=size, reverse=True)[:_SHOWN]


def _plain_layer(layer: LayerNorms) -> dict[str, Any]:
    row = {key: getattr(layer, key) for key in layer.__dataclass_fields__}
    for key in ("input_shape", "output_shape"):
        row[key] = list(row[key])
    for key in ("largest", "terms"):
        row[key] = [{**vars(factor), "index": list(factor.index)} for factor in row[key]]
    return dict(plain(row))
