"""The backward pass: the loss's derivative, local derivatives, and the chain rule."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from xbackprop.backend.array_module import get_array_module
from xbackprop.backend.transfer import to_host
from xbackprop.observe.differences import Differences, relative_difference
from xbackprop.observe.explanation import Check, Quantity, Section
from xbackprop.observe.forward import Layer, Network, rows
from xbackprop.observe.record import Ran
from xbackprop.observe.symbols import derivative, derivatives


def tell_backward(
    network: Network, calls: Sequence[Ran], differences: Differences
) -> list[Section]:
    """Return the three sections of the backward pass.

    Parameters
    ----------
    network : Network
        Which has run forward, with its loss.
    calls : sequence of Ran
        The backward ops in their order, that of the loss first.
    differences : Differences
        Of the same loss.

    Returns
    -------
    list of Section
    """
    first, *others = calls
    above, saved = _tell_loss_derivative(network, first)
    sections = [Section("loss_derivative", [*saved, *above[1]])]
    local: list[Quantity] = []
    chain: list[Quantity] = []
    checks: list[Check] = []
    grad = above[0]
    for layer, ran in zip(reversed(network.layers), others, strict=False):
        if layer.is_linear:
            told = _Linear(network, layer, ran, grad)
            local += told.local
            chain += told.weights
            checks += told.checks(differences)
            if told.input_grad is None:
                break
            grad = told.input_grad
            chain += told.inputs
        else:
            grad, local_rows, chain_rows = _tell_activation(network, layer, ran, grad)
            local += local_rows
            chain += chain_rows
    return [*sections, Section("local_derivatives", local), Section("chain_rule", chain, checks)]


def _backward_names(layer: Layer, ran: Ran, grad: Any) -> dict[str, Any]:
    """Return names for the arguments of a backward op."""
    given, *fields = ran.arguments
    values = {name: layer.name_of(name, ran.arguments[name]) for name in fields}
    if layer.is_linear:
        values = {name: values[name] for name in ("x", "weight")}
    return {given: grad, **values}


def _tell_loss_derivative(
    network: Network, ran: Ran
) -> tuple[tuple[np.ndarray, list[Quantity]], list[Quantity]]:
    layer = network.loss
    names = _backward_names(layer, ran, 1.0)
    saved = [Quantity(names[field].flat[0]) for field in ("shift", "log_total") if field in names]
    grad = derivatives("Loss", network.layers[-1].output, ran.result)
    (formula,) = network.formulas(ran, names, [grad])
    return (grad, rows(grad, formula)), saved


def _tell_activation(
    network: Network, layer: Layer, ran: Ran, above: np.ndarray
) -> tuple[np.ndarray, list[Quantity], list[Quantity]]:
    given, *fields = ran.arguments
    x = next(iter(layer.names.values()))
    ones = get_array_module(ran.arguments[given]).ones_like(ran.arguments[given])
    slope = ran.op(ones, *(ran.arguments[field] for field in fields))
    slopes = np.empty(x.shape, dtype=object)
    values = to_host(slope)
    for index in np.ndindex(x.shape):
        slopes[index] = derivative(layer.output[index], x[index], float(values[index]))
    names = _backward_names(layer, ran, np.ones(x.shape))
    (formula,) = network.formulas(ran, names, [slopes])
    grad = derivatives("Loss", x, ran.result)
    return grad, rows(slopes, formula), rows(grad, above * slopes)


class _Linear:
    """The backward of a linear map: gradients of weights, bias and input."""

    def __init__(self, network: Network, layer: Layer, ran: Ran, above: np.ndarray) -> None:
        self.network = network
        self.above = above
        names = _backward_names(layer, ran, above)
        results = [
            None if result is None else derivatives("Loss", symbols, result)
            for symbols, result in zip(
                (layer.names["x"], layer.names["weight"], layer.names["bias"]),
                ran.result,
                strict=True,
            )
        ]
        self.input_grad, *self.gradients = results
        formulas = network.formulas(ran, names, results)
        self.inputs = [] if self.input_grad is None else rows(self.input_grad, formulas[0])
        self.weights: list[Quantity] = []
        self.parts: list[tuple[str, Any, list[Quantity], list[Quantity]]] = []
        self.local: list[Quantity] = []
        self._local_of(layer, ran, formulas, names)

    def _local_of(self, layer: Layer, ran: Ran, formulas: list[Any], names: dict[str, Any]) -> None:
        """Call the op's own backward with ones: each weight moves one output only."""
        grad_output = ran.arguments["grad_output"]
        ones = get_array_module(grad_output).ones_like(grad_output)
        slopes = ran.op(ones, ran.arguments["x"], ran.arguments["weight"])
        unit = {**names, "grad_output": np.ones(self.above.shape)}
        for position, key in enumerate(("weight", "bias"), start=1):
            gradient = self.gradients[position - 1]
            if gradient is None:
                continue
            symbols = layer.names[key]
            values = to_host(slopes[position])
            local = np.empty(symbols.shape, dtype=object)
            for index in np.ndindex(symbols.shape):
                output = layer.output[0, index[0]]
                local[index] = derivative(output, symbols[index], float(values[index]))
            local_formulas = self.network.formulas(
                ran, unit, [local if place == position else None for place in range(3)]
            )[position]
            local_rows = rows(local, local_formulas)
            gradient_rows = rows(gradient, formulas[position])
            self.local += local_rows
            self.weights += gradient_rows
            self.parts.append((key, symbols, local_rows, gradient_rows))

    def checks(self, differences: Differences) -> list[Check]:
        """Compare each gradient with a central difference."""
        found = []
        for _, symbols, local, gradients in self.parts:
            key = next(
                key for key, (_, _, known) in self.network.parameters.items() if known is symbols
            )
            name, parameter, _ = self.network.parameters[key]
            self.network.gradients[key] = np.asarray(to_host(parameter.grad)).tolist()
            measured = differences.of(name)
            pairs = zip(np.ndindex(symbols.shape), local, gradients, strict=True)
            for index, local_row, row in pairs:
                above = Quantity(self.above[0, index[0]])
                number = float(measured[index])
                relative = relative_difference(row.value, number)
                found.append(Check(symbols[index], above, local_row, row, number, relative))
        return found
