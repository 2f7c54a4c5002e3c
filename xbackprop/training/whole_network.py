"""A small network and its loss as one op, where the calls of the layers would cost more."""

from collections.abc import Callable
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.dispatch import may_replace_ops
from xbackprop.module import Parameter, current_frame, is_collecting
from xbackprop.nn import (
    CrossEntropyLoss,
    HalfSquaredError,
    Linear,
    Module,
    MSELoss,
    Sequential,
)
from xbackprop.nn.fusion import is_replaced
from xbackprop.nn.perceptron import NAMES, perceptron_gradients

_LOSSES = {
    HalfSquaredError: "half_squared_error",
    MSELoss: "mse_loss",
    CrossEntropyLoss: "cross_entropy",
}
_PLAIN_LOSS = {"reduction": "mean", "ignore_index": -100, "label_smoothing": 0.0}


class WholeNetwork:
    """Computes loss and gradients of linear maps, activations and a loss in one op.

    Parameters
    ----------
    model, loss_fn : Module
        As for :func:`xbackprop.value_and_grad`; of any kind, for most are left to their modules.
    """

    def __init__(self, model: Module, loss_fn: Module) -> None:
        self._model = model
        self._loss_fn = loss_fn
        self._is_possible = type(model) in (Sequential, Linear) and type(loss_fn) in _LOSSES
        # What was read of the modules: their attributes as they are and as they were, the
        # parameters beside their arrays, and the arguments of the op.
        self._attributes: list[dict[str, Any]] = []
        self._seen: list[dict[str, Any]] = []
        self._bindings: list[tuple[Parameter, Array, Array]] = []
        self._arguments: tuple[Any, ...] | None = None
        self._signature: Any = None
        self._kernel: Callable[..., tuple[Array, Array]] | None = None

    def run(self, x: Any, y: Any) -> tuple[Array, Array] | None:
        """Add the gradients of the loss to the parameters.

        Parameters
        ----------
        x, y : array
            The input and the target.

        Returns
        -------
        loss, output : array
            None, and nothing done, where the modules have to do it: those that are no such chain,
            or are too large for it to pay, what they would refuse, and whatever is out of the
            ordinary.
        """
        if (
            not self._is_possible
            or type(x) is not np.ndarray
            or type(y) is not np.ndarray
            or not may_replace_ops()
        ):
            return None
        if not self._is_read():
            self._read()
        if self._arguments is None or is_collecting():
            return None
        frame = current_frame()
        if frame.stack or frame.inference or frame.keep:
            return None
        signature = x.shape, y.shape, x.dtype, y.dtype, x.flags.carray, y.flags.carray
        if signature != self._signature:
            self._choose_kernel(signature, x, y)
        if self._kernel is None:
            return None
        ready = sum([binding[0].has_grad for binding in self._bindings])
        if ready and ready < len(self._bindings):
            return None
        loss, output = self._kernel(x, y, *self._arguments, not ready)
        if loss == -1:  # a label out of range, which the loss will explain
            return None
        for parameter, _, _ in self._bindings:
            parameter.has_grad = True
            parameter.contributions += 1
        return loss, output

    def _is_read(self) -> bool:
        """Tell whether nothing was changed in the modules, down to the parameters' storage."""
        try:  # values of dicts are compared by identity first, and nearly all are the same ones
            if self._attributes != self._seen or not self._seen:
                return False
        except ValueError:  # an array in the place of an array
            return False
        for parameter, data, grad in self._bindings:
            if (
                parameter.value is not data
                or parameter._grad is not grad
                or not parameter.requires_grad
            ):
                return False
        return True

    def _read(self) -> None:
        self._arguments, self._signature = None, None
        layers = _linear_maps(self._model)
        if not layers:
            self._is_possible = False
            return
        modules = [*self._model.modules(), self._loss_fn]
        self._attributes = [vars(module) for module in modules]
        self._seen = [dict(attributes) for attributes in self._attributes]
        self._bindings = []
        if any(map(_is_special, modules)) or not _is_plain_loss(self._loss_fn):
            return
        weights: list[Any] = [linear.weight for linear, _ in layers]
        biases: list[Any] = [linear.bias for linear, _ in layers]
        parameters = [*weights, *biases]
        if not all(map(_is_plain_parameter, parameters)) or len({*parameters}) < len(parameters):
            self._seen = []  # nothing would tell when they become plain: read again
            return
        for parameter in parameters:
            if parameter._grad is None:
                parameter._grad = np.empty_like(parameter.data)
        self._bindings = [(p, p.value, p._grad) for p in parameters]
        self._arguments = (
            *(tuple(p.value for p in kind) for kind in (weights, biases)),
            *(tuple(p._grad for p in kind) for kind in (weights, biases)),
            tuple(activation for _, activation in layers),
            _LOSSES[type(self._loss_fn)],
        )

    def _choose_kernel(self, signature: Any, x: Array, y: Array) -> None:
        self._signature, self._kernel = signature, None
        if signature[-2:] == (True, True):
            self._kernel = perceptron_gradients.kernel_on_cpu(x, y, *self._arguments or (), True)

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy reads its own modules anew.
        return WholeNetwork, (self._model, self._loss_fn)


def _linear_maps(model: Module) -> list[tuple[Linear, str]]:
    """Return linear maps, each with what follows it; none where the model is anything else."""
    layers: list[tuple[Linear, str]] = []
    is_open = False  # whether an activation may follow
    for layer in model if type(model) is Sequential else (model,):
        if type(layer) is Linear and layer.bias is not None:
            layers.append((layer, "identity"))
            is_open = True
        elif type(layer) in NAMES and is_open:
            layers[-1] = layers[-1][0], NAMES[type(layer)]
            is_open = False
        else:
            return []
    return layers


def _is_special(module: Module) -> bool:
    """Tell whether an instance computes in another precision, or has methods of its own."""
    return module._precision is not None or is_replaced(module)


def _is_plain_loss(loss_fn: Module) -> bool:
    options = vars(loss_fn)
    return not options.get("_buffers") and all(
        options.get(name, plain) == plain for name, plain in _PLAIN_LOSS.items()
    )


def _is_plain_parameter(parameter: Any) -> bool:
    return (
        isinstance(parameter, Parameter)
        and parameter.requires_grad
        and parameter.value is parameter.data
        and type(parameter.data) is np.ndarray
    )
