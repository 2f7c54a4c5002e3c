"""One batch forward and backward: the loss, and the gradients in the parameters."""

from collections.abc import Callable
from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.module import as_one_call
from xbackprop.nn import Module
from xbackprop.training.whole_network import WholeNetwork


def value_and_grad(model: Module, loss_fn: Module) -> Callable[..., tuple[Array, Array]]:
    """Return a function that computes the loss and fills the gradients.

    Parameters
    ----------
    model : Module
        Maps ``x`` to an output.
    loss_fn : Module
        Maps output and target to a loss.

    Returns
    -------
    callable
        ``loss, output = f(x, y)``; gradients are added to those already there.

    Notes
    -----
    On the CPU, with numba, small chains of Linear and elementwise activations run as one op,
    :func:`xbackprop.nn.perceptron.perceptron_gradients`, whose sums round otherwise. Trainer calls
    the layers, for its results do not depend on whether somebody watches them.

    Examples
    --------
    >>> import xbackprop as xb
    >>> model = xb.nn.Linear(2, 1, rng=0)
    >>> loss, output = xb.value_and_grad(model, xb.nn.MSELoss())(
    ...     xb.asarray([[1.0, 2.0]]), xb.asarray([[1.0]])
    ... )
    >>> model.weight.grad.shape
    (1, 2)
    """
    network = WholeNetwork(model, loss_fn)

    def compute(x: Any, y: Any) -> tuple[Array, Array]:
        return network.run(x, y) or forward_backward(model, loss_fn, x, y)

    return compute


def as_tuple(x: Any) -> tuple[Any, ...]:
    """Return the inputs of a network, which come as a tuple or as the one there is."""
    return x if isinstance(x, tuple) else (x,)


def forward_backward(
    model: Module, loss_fn: Module, x: Any, y: Any, grad_output: Any = None
) -> tuple[Array, Array]:
    """Add the gradients of ``grad_output * loss`` to the parameters.

    Parameters
    ----------
    model, loss_fn : Module
        As for :func:`value_and_grad`.
    x : array or tuple of arrays
        The inputs.
    y : array
        The target.
    grad_output : callable or None
        From the loss to its factor, a number or an array of shape (); None is 1.

    Returns
    -------
    loss, output : array
    """
    inputs = as_tuple(x)
    with as_one_call(*inputs):
        output, saved = model.forward(*inputs)
        loss, loss_saved = loss_fn.forward(output, y)
        factor = 1.0 if grad_output is None else grad_output(loss)
        model.backward(loss_fn.backward(factor, loss_saved), saved, input_grad=False)
    return loss, output
