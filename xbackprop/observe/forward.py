"""The forward pass and the loss as quantities, and the names that the backward goes on with."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from xbackprop.backend.transfer import to_host
from xbackprop.module import Module
from xbackprop.nn.activations.elementwise import Elementwise
from xbackprop.observe.explanation import Quantity, Section
from xbackprop.observe.expression import apply_formula, as_expression, evaluate
from xbackprop.observe.record import Ran
from xbackprop.observe.symbols import named, single
from xbackprop.observe.wording import Note

_TOLERANCE = {np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-9}


class Layer:
    """One op of the forward pass: what ran, and the names of its arrays.

    Parameters
    ----------
    ran : Ran
        The call.
    names : dict
        From the op's parameters to arrays of expressions, or plain values.
    output : numpy.ndarray of Expression
        Names of its output.
    """

    def __init__(self, ran: Ran, names: dict[str, Any], output: Any) -> None:
        self.ran = ran
        self.names = names
        self.output: Any = output

    @property
    def is_linear(self) -> bool:
        """Whether it has weights."""
        return self.ran.op.name == "linear_forward"

    def name_of(self, field: str, array: Any) -> Any:
        """Return the names of an array that the backward gets; as numbers where it has none."""
        if array is self.ran.result[0]:
            return self.output
        for name, argument in self.ran.arguments.items():
            if array is argument and name in self.names:
                return self.names[name]
        if field == "difference":  # of losses: saved as one array, read better as two
            return self.names["output"] - self.names["target"]
        if not hasattr(array, "shape"):
            return array
        return named(_SAVED.get(field, field), array)


_SAVED = {"shift": "m", "log_total": "s"}  # of the cross-entropy: log sum exp(z) = m + s


class Network:
    """A chain of linear maps and activations that has run.

    Parameters
    ----------
    model : Module
        That ran.
    calls : sequence of Ran
        Its ops in their order.
    x : array, shape (1, features)
        What it was given.

    Attributes
    ----------
    layers : list of Layer
        One per op.
    loss : Layer
        The loss, once :meth:`tell_loss` was called.
    parameters : dict
        From W1, b1, W2, ... to (name in the model, Parameter, names).
    initial, gradients : dict
        Nested lists under the same keys.
    notes : list of Note
        Remarks on formulas.
    """

    loss: Layer

    def __init__(self, model: Module, calls: Sequence[Ran], x: Any) -> None:
        self.notes: list[Note] = []
        self.layers: list[Layer] = []
        self.parameters: dict[str, tuple[str, Any, np.ndarray]] = {}
        self.gradients: dict[str, Any] = {}
        self._quantities: dict[str, list[Quantity]] = {"forward": [], "loss": []}
        self._check_chain(model, calls, x)
        self._by_value = {id(p.value): (name, p) for name, p in model.named_parameters()}
        current = named("x", x)
        for position, ran in enumerate(calls):
            current = self._tell(ran, current, is_last=position == len(calls) - 1)
        self.initial = self.parameter_values()

    def _check_chain(self, model: Module, calls: Sequence[Ran], x: Any) -> None:
        """Refuse what is no chain of linear maps and elementwise functions, each used once."""
        weights = set()
        for ran in calls:
            is_linear = ran.op.name == "linear_forward"
            source = next(iter(ran.arguments.values()))
            fits = is_linear or (ran.op.name.endswith("_forward") and _is_elementwise(ran))
            key = id(ran.arguments["weight"]) if is_linear else None
            if not fits or source is not x or key in weights:
                raise NotImplementedError(
                    f"explain({type(model).__name__}) at {ran.path} ({ran.op.name}): expects a "
                    "Sequential of Linear layers and elementwise activations, each used once"
                )
            weights.update({key} - {None})
            x = ran.result[0]
        if not weights:
            raise NotImplementedError(f"explain({type(model).__name__}): expects Linear layers")

    def _tell(self, ran: Ran, current: np.ndarray, is_last: bool) -> np.ndarray:
        first, *others = ran.arguments
        names: dict[str, Any] = {first: current}
        if ran.op.name == "linear_forward":
            number = 1 + sum(layer.is_linear for layer in self.layers)
            names["weight"] = self._name_parameter(f"W{number}", ran.arguments["weight"])
            bias = ran.arguments["bias"]
            names["bias"] = 0 if bias is None else self._name_parameter(f"b{number}", bias)
            letter = f"z{number}"
        else:
            names |= {name: ran.arguments[name] for name in others}
            number = sum(layer.is_linear for layer in self.layers)
            letter = f"a{number}"
        output = named("y_hat" if is_last else letter, ran.result[0])
        self.layers.append(Layer(ran, names, output))
        (formula,) = self.formulas(ran, names, [output])
        self._quantities["forward"] += rows(output, formula)
        return output

    def _name_parameter(self, key: str, values: Any) -> np.ndarray:
        name, parameter = self._by_value[id(values)]
        letters = named(key.replace("W", "w"), values, has_batch=False)
        self.parameters[key] = (name, parameter, letters)
        return letters

    def formulas(self, ran: Ran, names: dict[str, Any], results: Sequence[Any]) -> list[Any]:
        """Return the op's formula for each number of its results, in names.

        Parameters
        ----------
        ran : Ran
            The op.
        names : dict
            From its parameters to names.
        results : sequence of numpy.ndarray of Expression, or None
            What the formula must lead to, by the op's own numbers.

        Returns
        -------
        list
            An array of expressions for each result; None where the text leads elsewhere.
        """
        text = ran.op.formula
        if text is None:
            return [None] * len(results)
        try:
            expressions: list[Any] = apply_formula(text, names)
        except (TypeError, ValueError, NameError, AttributeError, KeyError, IndexError):
            expressions = [None] * len(results)
        tolerance = _TOLERANCE[self._dtype(ran)]
        kept: list[Any] = []
        for expression, result in zip(expressions, results, strict=True):
            fits = result is None or (
                expression is not None and _agree(expression, result, tolerance)
            )
            kept.append(expression if fits and result is not None else None)
            if not fits:
                name = str(result.flat[0].text).partition("[")[0]
                self.notes.append(Note("no_formula", (name, text)))
        return kept

    def _dtype(self, ran: Ran) -> np.dtype:
        arrays = [value for value in ran.arguments.values() if hasattr(value, "dtype")]
        return next(array.dtype for array in arrays if array.dtype.kind == "f")

    def tell_loss(self, calls: Sequence[Ran], y: Any, loss: Any) -> None:
        """Name what the loss was given, and tell what it computed."""
        if len(calls) != 1:
            raise NotImplementedError(
                f"explain expects a loss of one op; got {[ran.op.name for ran in calls]}"
            )
        (ran,) = calls
        output, target, *others = ran.arguments
        targets = named("y", y) if y.dtype.kind == "f" else np.asarray(to_host(y))
        names = {output: self.layers[-1].output, target: targets}
        names |= {name: ran.arguments[name] for name in others}
        value = np.array(single("Loss", loss), dtype=object)
        self.loss = Layer(ran, names, value)
        (formula,) = self.formulas(ran, names, [value])
        self._quantities["loss"] += rows(value, formula)
        if self.layers[-1].output.size == 1 and "logits" in names:
            self.notes.append(Note("one_class"))

    def sections(self) -> list[Section]:
        """Return the forward pass and the loss."""
        return [Section(key, quantities) for key, quantities in self._quantities.items()]

    def parameter_values(self) -> dict[str, Any]:
        """Return the parameters as nested lists."""
        return {
            key: np.asarray(to_host(parameter.data)).tolist()
            for key, (_, parameter, _) in self.parameters.items()
        }


def _is_elementwise(ran: Ran) -> bool:
    """Tell whether an op is that of an elementwise activation."""
    classes = Elementwise.__subclasses__()
    for cls in classes:
        classes += cls.__subclasses__()
        if getattr(cls, "forward_op", None) is ran.op:
            return True
    return False


def rows(symbols: np.ndarray, formulas: Any) -> list[Quantity]:
    """Pair names with formulas, element by element; formulas may be None."""
    if formulas is None:
        return [Quantity(name) for name in symbols.flat]
    pairs = zip(symbols.flat, np.broadcast_to(formulas, symbols.shape).flat, strict=True)
    return [Quantity(name, as_expression(formula)) for name, formula in pairs]


def _agree(expressions: np.ndarray, names: np.ndarray, tolerance: float) -> bool:
    values = [evaluate(as_expression(e)) for e in np.broadcast_to(expressions, names.shape).flat]
    wanted = [name.value for name in names.flat]
    return np.allclose(values, wanted, rtol=tolerance, atol=1e-6 * tolerance, equal_nan=True)
