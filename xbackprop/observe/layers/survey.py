"""A network of any layers on one sample: shapes, norms, and what contributes most."""

import copy
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from xbackprop.backend.array_module import is_array
from xbackprop.backend.transfer import to_host
from xbackprop.dispatch import observe
from xbackprop.module import Module, as_one_call
from xbackprop.observe.layers.contributions import contributions
from xbackprop.observe.layers.findings import LayerNorms, ParameterNorms, Survey
from xbackprop.observe.layers.watching import Watcher
from xbackprop.observe.lesson import placed_like


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
    watcher = Watcher(subject)
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


def _tell(model: Module, watcher: Watcher) -> Iterator[LayerNorms]:
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
            **contributions(one),
        )


def _norms_of(name: str, parameter: Any) -> ParameterNorms:
    gradient = _norm(parameter.grad) if parameter.has_grad else None
    return ParameterNorms(name, tuple(parameter.shape), _norm(parameter.data), gradient)


def _norm(array: Any) -> float:
    return float(np.linalg.norm(np.asarray(to_host(array), dtype=np.float64).ravel()))
