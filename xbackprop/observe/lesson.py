"""One training step of a small network, watched and told as four steps."""

import copy
from typing import Any

import numpy as np

from xbackprop.backend.array_module import is_array
from xbackprop.backend.transfer import asarray, to_host
from xbackprop.dispatch import observe
from xbackprop.module import Module, as_one_call
from xbackprop.observe.backward import tell_backward
from xbackprop.observe.differences import Differences
from xbackprop.observe.explanation import Explanation
from xbackprop.observe.forward import Network
from xbackprop.observe.record import Recorder
from xbackprop.observe.remarks import remarks_on
from xbackprop.observe.update import tell_update
from xbackprop.optim import Optimizer


def explain(
    model: Module, loss: Module, x: Any, y: Any, optimizer: Optimizer | None = None
) -> Explanation:
    """Run one training step on one sample, and tell it with its real numbers.

    Parameters
    ----------
    model : Module
        A Sequential of Linear layers and elementwise activations.
    loss : Module
        Maps output and target to a number.
    x : array_like of float, shape (features,) or (1, features)
        The sample, in the model's dtype or to be cast to it.
    y : array_like, shape as the loss has it, or that without the batch axis
        The target.
    optimizer : Optimizer, optional
        Makes its step, on the model itself. Without one there is no update, and neither parameters
        nor gradients of the model change.

    Returns
    -------
    Explanation

    Raises
    ------
    ValueError
        For more than one sample.
    NotImplementedError
        For a network of other layers, or one that uses a layer twice.

    Notes
    -----
    What is told is what ran: an observer of ops keeps their arguments and results. Formulas are the
    ops' own texts, evaluated with names in the place of numbers; local derivatives are the ops'
    own backwards, called with ones.

    Examples
    --------
    >>> import numpy as np
    >>> import xbackprop as xb
    >>> model = xb.nn.Linear(2, 1, dtype=np.float64, rng=0)
    >>> told = xb.observe.explain(model, xb.nn.HalfSquaredError(), [1.0, 2.0], [1.0])
    >>> [section.key for section in told.steps]
    ['forward', 'loss', 'loss_derivative', 'local_derivatives', 'chain_rule']
    """
    x, y = _as_sample(model, x, y)
    subject = copy.deepcopy(model) if optimizer is None else model
    differences = Differences(subject, loss, x, y)
    forward, loss_calls, backward, update = (Recorder() for _ in range(4))
    subject.zero_grad()
    with as_one_call(x):
        with observe(forward):
            output, saved = subject.forward(x)
        network = Network(subject, forward.calls, x)
        with observe(loss_calls):
            loss_value, loss_saved = loss.forward(output, y)
        with observe(backward):
            subject.backward(loss.backward(1.0, loss_saved), saved, input_grad=False)
        network.tell_loss(loss_calls.calls, y, loss_value)
        steps = network.sections() + tell_backward(network, backward.calls, differences)
        new_parameters = loss_after = None
        op = ""
        if optimizer is not None:
            with observe(update):
                optimizer.step()
            section, op = tell_update(network, optimizer, update.calls)
            steps.append(section)
            new_parameters = network.parameter_values()
            loss_after = float(to_host(loss.forward(subject(x), y)[0]))
    return Explanation(
        steps=steps,
        notes=network.notes + remarks_on(network, steps),
        parameters=network.initial,
        gradients=network.gradients,
        new_parameters=new_parameters,
        loss=float(to_host(loss_value)),
        loss_after=loss_after,
        update=op,
    )


def _as_sample(model: Module, x: Any, y: Any) -> tuple[Any, Any]:
    """Return one sample as a batch of one, beside the model and in its dtype."""
    like = next(iter(model.parameters()), None)
    if like is None:
        raise NotImplementedError("explain expects a model with parameters; it has none")
    x, y = asarray(x, dtype=like.dtype, device=like.device), placed_like(y, like)
    if x.ndim == 1:
        x, y = x[None], y[None]
    if x.ndim != 2 or len(x) != 1:
        raise ValueError(
            f"explain expects one sample, x of shape (features,) or (1, features); got {x.shape}"
        )
    return x, y


def placed_like(value: Any, like: Any) -> Any:
    """Return an array beside a parameter; floats in its dtype."""
    has_floats = (value if is_array(value) else np.asarray(value)).dtype.kind == "f"
    return asarray(value, dtype=like.dtype if has_floats else None, device=like.device)
