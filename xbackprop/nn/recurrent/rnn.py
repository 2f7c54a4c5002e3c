"""Elman's recurrent network: the state is what the input and the state before make together."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.device import Device
from xbackprop.dispatch import ArraySpec, op
from xbackprop.initializers import RandomSource
from xbackprop.nn.recurrent.cells import RecurrentCell
from xbackprop.nn.recurrent.layers import RecurrentLayer
from xbackprop.nn.recurrent.steps import (
    EVERYTHING,
    Wanted,
    backward_flops,
    call_flops,
    gradient_at_end,
    input_products,
    products_backward,
    states_before,
    steps,
)
from xbackprop.ops.matmul import mixed_product


def _rnn_backward_flops(
    grad_output: ArraySpec,
    x: ArraySpec,
    h0: ArraySpec,
    weight_ih: ArraySpec,
    weight_hh: ArraySpec,
    batch_sizes: tuple[int, ...],
    is_reverse: bool,
    nonlinearity: str,
    output: ArraySpec,
    grad_h_n: ArraySpec | None = None,
    wanted: Wanted = EVERYTHING,
) -> int:
    return backward_flops(wanted, x, weight_ih, weight_hh)


@op(flops=call_flops)
def rnn_forward(
    x: Array,
    h0: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None,
    bias_hh: Array | None,
    batch_sizes: tuple[int, ...],
    is_reverse: bool,
    nonlinearity: str,
) -> tuple[tuple[Array, Array], Any]:
    """Compute ``h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)`` along sequences.

    Parameters
    ----------
    x : array, shape (rows, input_size)
        The rows of all steps, ``batch_sizes[t]`` of them at step ``t``.
    h0 : array, shape (batch, hidden_size)
        The states at the beginning.
    weight_ih : array, shape (hidden_size, input_size)
        ``W_ih``.
    weight_hh : array, shape (hidden_size, hidden_size)
        ``W_hh``.
    bias_ih, bias_hh : array, shape (hidden_size,), or None
        ``b_ih`` and ``b_hh``.
    batch_sizes : tuple of int
        None larger than the one before it.
    is_reverse : bool
        Begin with the last step.
    nonlinearity : {"tanh", "relu"}
        What the sum is put through.

    Returns
    -------
    output : array, shape (rows, hidden_size)
        ``h_t`` of every row.
    h_n : array, shape (batch, hidden_size)
        The states at the end.
    saved : tuple
        The arguments, and the outputs.

    Notes
    -----
    Backpropagation through time walks from the last step to the first. What reaches ``h_t`` comes
    from its output and from the next step; the slope of ``a_t``, the argument of ``tanh``, follows
    from ``h_t`` alone::

        dh_t = g_t + W_hh^T da_{t+1}
        da_t = dh_t (1 - h_t^2)                  (relu: dh_t where h_t > 0)

    After it, the sums over time are products over all rows: ``dW_ih = da^T x``,
    ``dW_hh = da^T h_{t-1}``, both biases get the sum of ``da``, and ``dx = da W_ih``.

    References
    ----------
    Goodfellow, Bengio, Courville, "Deep Learning", 2016, section 10.2.2.
    """
    xp = get_array_module(x)
    output = input_products(x, weight_ih, bias_ih, bias_hh)
    h = h0.copy()
    for start, stop, count in steps(batch_sizes, is_reverse):
        state = output[start:stop]
        state += mixed_product(h[:count], weight_hh.T)
        if nonlinearity == "tanh":
            xp.tanh(state, out=state)
        else:
            xp.maximum(state, 0, out=state)
        h[:count] = state
    saved = (x, h0, weight_ih, weight_hh, batch_sizes, is_reverse, nonlinearity, output)
    return (output, h), saved


@op(flops=_rnn_backward_flops)
def rnn_backward(
    grad_output: Array,
    x: Array,
    h0: Array,
    weight_ih: Array,
    weight_hh: Array,
    batch_sizes: tuple[int, ...],
    is_reverse: bool,
    nonlinearity: str,
    output: Array,
    grad_h_n: Array | None = None,
    wanted: Wanted = EVERYTHING,
) -> tuple[Array | None, ...]:
    """Return the gradients of x, h0, weight_ih, weight_hh, bias_ih and bias_hh."""
    # First the slopes, then times dh the gradients of the nonlinearity's arguments.
    grad = 1 - output * output if nonlinearity == "tanh" else (output > 0).astype(output.dtype)
    grad_h = gradient_at_end(grad_h_n, h0)
    for start, stop, count in reversed(steps(batch_sizes, is_reverse)):
        grad[start:stop] *= grad_output[start:stop] + grad_h[:count]
        grad_h[:count] = mixed_product(grad[start:stop], weight_hh)
    before = states_before(h0, output, batch_sizes, is_reverse)
    grad_x, *grad_weights = products_backward(grad, grad, x, before, weight_ih, wanted)
    return grad_x, grad_h if wanted.states else None, *grad_weights


def check_nonlinearity(layer: str, nonlinearity: Any) -> str:
    """Refuse what is neither tanh nor relu."""
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"{layer} expects nonlinearity 'tanh' or 'relu'; got {nonlinearity!r}")
    return str(nonlinearity)


class RNN(RecurrentLayer):
    """Elman's recurrent network, ``h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)``.

    Parameters
    ----------
    input_size : int
        Features of the input.
    hidden_size : int
        Features of the state.
    num_layers : int, default 1
        Each takes the output of the one before it.
    nonlinearity : {"tanh", "relu"}, default "tanh"
        What the sum is put through.
    bias : bool, default True
        False leaves ``b_ih`` and ``b_hh`` out.
    batch_first : bool, default False
        Input and output are ``(batch, time, features)`` in place of ``(time, batch, features)``;
        the states are not concerned.
    dropout : float, default 0.0
        Probability of silencing an element between two layers while training.
    bidirectional : bool, default False
        A second set of weights walks from the end; the outputs stand side by side.
    device : str or Device, optional
        Where the parameters live; None is the default device.
    dtype : dtype, optional
        float32 (None) or float64.
    rng : Generator, int or None
        Draws the initial values, ``U(-1/sqrt(hidden_size), 1/sqrt(hidden_size))`` as PyTorch does.

    Attributes
    ----------
    weight_ih_l0 : Parameter, shape (hidden_size, input_size)
    weight_hh_l0 : Parameter, shape (hidden_size, hidden_size)
    bias_ih_l0, bias_hh_l0 : Parameter, shape (hidden_size,)
        ``l1`` for the second layer and so on, ``l0_reverse`` for the other direction.

    Notes
    -----
    ``forward(x, h_0)`` returns ``output, h_n``; without ``h_0`` it is zeros. ``x`` has the shape
    ``(time, batch, input_size)``, of one sequence ``(time, input_size)``, or is a
    ``nn.utils.rnn.PackedSequence``; ``output`` has that of ``x``, with ``hidden_size`` features, in
    both directions twice as many. ``h_0`` and ``h_n`` have the shape ``(num_layers, batch,
    hidden_size)``, of one sequence without the batch; the directions of a layer follow each other.
    Backward takes ``(grad_output, grad_h_n)``, None for what was not used, and returns that of
    ``x``, with ``h_0`` given ``(grad_x, grad_h_0)``. The derivative is derived in
    :func:`rnn_forward`.

    References
    ----------
    Elman, "Finding structure in time", Cognitive Science 14 (1990).

    Examples
    --------
    >>> import numpy as np
    >>> import xbackprop as xb
    >>> layer = xb.nn.RNN(3, 4, num_layers=2, batch_first=True, rng=0)
    >>> output, h_n = layer(xb.asarray(np.ones((2, 5, 3))))
    >>> output.shape, h_n.shape
    ((2, 5, 4), (2, 2, 4))
    """

    forward_op, backward_op = rnn_forward, rnn_backward
    gate_count, state_names, options = 1, ("h_0",), ("nonlinearity",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        device: str | Device | None = None,
        dtype: Any = None,
        rng: RandomSource = None,
    ) -> None:
        self.nonlinearity = check_nonlinearity("RNN", nonlinearity)
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            0,
            device,
            dtype,
            rng,
        )


class RNNCell(RecurrentCell):
    """One step of an :class:`RNN`, ``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)``.

    Parameters
    ----------
    input_size : int
        Features of the input.
    hidden_size : int
        Features of the state.
    bias : bool, default True
        False leaves ``b_ih`` and ``b_hh`` out.
    nonlinearity : {"tanh", "relu"}, default "tanh"
        What the sum is put through.
    device, dtype, rng
        As for :class:`RNN`.

    Attributes
    ----------
    weight_ih : Parameter, shape (hidden_size, input_size)
    weight_hh : Parameter, shape (hidden_size, hidden_size)
    bias_ih, bias_hh : Parameter, shape (hidden_size,), or None

    Notes
    -----
    ``forward(x, h)`` returns ``h'``, with ``x`` of shape ``(batch, input_size)`` or one sample
    ``(input_size,)``; without ``h`` it is zeros. The derivative is derived in :func:`rnn_forward`.

    References
    ----------
    Elman, "Finding structure in time", Cognitive Science 14 (1990).
    """

    forward_op, backward_op = rnn_forward, rnn_backward
    gate_count, state_names, options = 1, ("h_0",), ("nonlinearity",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        device: str | Device | None = None,
        dtype: Any = None,
        rng: RandomSource = None,
    ) -> None:
        self.nonlinearity = check_nonlinearity("RNNCell", nonlinearity)
        super().__init__(input_size, hidden_size, bias, device, dtype, rng)
