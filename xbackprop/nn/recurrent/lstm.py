"""Long short-term memory: a cell that adds up, and gates that say what enters, stays and leaves."""

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
    forward_flops,
    gradient_at_end,
    input_products,
    products_backward,
    sigmoid_in_place,
    states_before,
    steps,
)
from xbackprop.ops.matmul import product


def _lstm_flops(
    x: ArraySpec,
    h0: ArraySpec,
    c0: ArraySpec,
    weight_ih: ArraySpec,
    weight_hh: ArraySpec,
    bias_ih: ArraySpec | None,
    bias_hh: ArraySpec | None,
    weight_hr: ArraySpec | None,
    *_: Any,
) -> int:
    return forward_flops(x, weight_ih, weight_hh, weight_hr)


def _lstm_backward_flops(
    grad_output: ArraySpec,
    x: ArraySpec,
    h0: ArraySpec,
    c0: ArraySpec,
    weight_ih: ArraySpec,
    weight_hh: ArraySpec,
    weight_hr: ArraySpec | None,
    batch_sizes: tuple[int, ...],
    is_reverse: bool,
    gates: ArraySpec,
    cells: ArraySpec,
    output: ArraySpec,
    grad_h_n: ArraySpec | None = None,
    grad_c_n: ArraySpec | None = None,
    wanted: Wanted = EVERYTHING,
) -> int:
    return backward_flops(wanted, x, weight_ih, weight_hh, weight_hr)


@op(flops=_lstm_flops)
def lstm_forward(
    x: Array,
    h0: Array,
    c0: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None,
    bias_hh: Array | None,
    weight_hr: Array | None,
    batch_sizes: tuple[int, ...],
    is_reverse: bool,
) -> tuple[tuple[Array, Array, Array], Any]:
    """Compute ``c_t = f c_{t-1} + i g`` and ``h_t = o tanh(c_t)`` along sequences.

    Parameters
    ----------
    x : array, shape (rows, input_size)
        The rows of all steps, ``batch_sizes[t]`` of them at step ``t``.
    h0 : array, shape (batch, hidden_size), or (batch, proj_size) with a projection
        The hidden states at the beginning.
    c0 : array, shape (batch, hidden_size)
        The cells at the beginning.
    weight_ih : array, shape (4 * hidden_size, input_size)
        The blocks of the gates ``i``, ``f``, ``g``, ``o``, one below the other.
    weight_hh : array, shape (4 * hidden_size, hidden_size or proj_size)
        In the same order.
    bias_ih, bias_hh : array, shape (4 * hidden_size,), or None
        In the same order.
    weight_hr : array, shape (proj_size, hidden_size), or None
        The projection of the output.
    batch_sizes : tuple of int
        None larger than the one before it.
    is_reverse : bool
        Begin with the last step.

    Returns
    -------
    output : array, shape (rows, hidden_size or proj_size)
        ``h_t`` of every row.
    h_n, c_n : array
        The states at the end, shaped as those at the beginning.
    saved : tuple
        The arguments; gates, cells and outputs of every row.

    Notes
    -----
    With the activations ``a = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh`` of the four gates,
    ``i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o)`` and ``g = tanh(a_g)``; with a projection
    ``h_t = W_hr (o tanh(c_t))``.

    Backpropagation through time walks from the last step to the first. What reaches ``h_t`` comes
    from its output and from the next step's gates, what reaches ``c_t`` from ``h_t`` and from the
    next cell::

        dh_t = g_t + W_hh^T da_{t+1}             (W_hr^T dh_t in its place with a projection)
        dc_t = dh_t o (1 - tanh(c_t)^2) + f_{t+1} dc_{t+1}

    and from there the gates::

        da_i = dc_t g i (1 - i)        da_f = dc_t c_{t-1} f (1 - f)
        da_g = dc_t i (1 - g^2)        da_o = dh_t tanh(c_t) o (1 - o)

    Each is ``dc_t`` or ``dh_t`` times a slope that is known before the walk. After it, the sums
    over time are products over all rows: ``dW_ih = da^T x``, ``dW_hh = da^T h_{t-1}``, both biases
    get the sum of ``da``, ``dx = da W_ih`` and ``dW_hr = dh^T (o tanh(c))``.

    References
    ----------
    Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9 (1997); the gate
    ``f`` is that of Gers, Schmidhuber, Cummins, "Learning to forget", Neural Computation 12 (2000).
    """
    xp = get_array_module(x)
    size = c0.shape[1]
    gates = input_products(x, weight_ih, bias_ih, bias_hh)
    cells = xp.empty((len(x), size), dtype=x.dtype)
    output = xp.empty((len(x), h0.shape[1]), dtype=x.dtype)
    h, c = h0.copy(), c0.copy()
    for start, stop, count in steps(batch_sizes, is_reverse):
        gate, cell = gates[start:stop], cells[start:stop]
        gate += product(h[:count], weight_hh.T)
        sigmoid_in_place(gate[:, : 2 * size])
        xp.tanh(gate[:, 2 * size : 3 * size], out=gate[:, 2 * size : 3 * size])
        sigmoid_in_place(gate[:, 3 * size :])
        xp.multiply(gate[:, size : 2 * size], c[:count], out=cell)
        cell += gate[:, :size] * gate[:, 2 * size : 3 * size]
        hidden = xp.tanh(cell)
        hidden *= gate[:, 3 * size :]
        output[start:stop] = hidden if weight_hr is None else product(hidden, weight_hr.T)
        h[:count], c[:count] = output[start:stop], cell
    saved = (x, h0, c0, weight_ih, weight_hh, weight_hr, batch_sizes, is_reverse)
    return (output, h, c), (*saved, gates, cells, output)


@op(flops=_lstm_backward_flops)
def lstm_backward(
    grad_output: Array,
    x: Array,
    h0: Array,
    c0: Array,
    weight_ih: Array,
    weight_hh: Array,
    weight_hr: Array | None,
    batch_sizes: tuple[int, ...],
    is_reverse: bool,
    gates: Array,
    cells: Array,
    output: Array,
    grad_h_n: Array | None = None,
    grad_c_n: Array | None = None,
    wanted: Wanted = EVERYTHING,
) -> tuple[Array | None, ...]:
    """Return the gradients of x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh and weight_hr."""
    xp = get_array_module(x)
    i, f, g, o = (gates.reshape(len(x), 4, cells.shape[1])[:, part] for part in range(4))
    tanh_c = xp.tanh(cells)
    cell_slopes = o * (1 - tanh_c * tanh_c)
    # First the slopes, then times dc or dh the gradients of the gates' activations.
    grad_gates = xp.empty((len(x), 4, cells.shape[1]), dtype=x.dtype)
    grad_gates[:, 0] = g * i * (1 - i)
    grad_gates[:, 1] = states_before(c0, cells, batch_sizes, is_reverse) * f * (1 - f)
    grad_gates[:, 2] = i * (1 - g * g)
    grad_gates[:, 3] = tanh_c * o * (1 - o)
    grad_hidden = xp.empty_like(output)
    grad_h, grad_c = gradient_at_end(grad_h_n, h0), gradient_at_end(grad_c_n, c0)
    for start, stop, count in reversed(steps(batch_sizes, is_reverse)):
        dh = xp.add(grad_output[start:stop], grad_h[:count], out=grad_hidden[start:stop])
        if weight_hr is not None:
            dh = product(dh, weight_hr)
        dc = dh * cell_slopes[start:stop]
        dc += grad_c[:count]
        grad_gate = grad_gates[start:stop]
        grad_gate[:, :3] *= dc[:, None]
        grad_gate[:, 3] *= dh
        grad_h[:count] = product(grad_gate.reshape(count, weight_hh.shape[0]), weight_hh)
        grad_c[:count] = dc * f[start:stop]
    grad_rows = grad_gates.reshape(len(x), weight_hh.shape[0])
    before = states_before(h0, output, batch_sizes, is_reverse)
    grad_x, *grad_weights = products_backward(grad_rows, grad_rows, x, before, weight_ih, wanted)
    states = (grad_h, grad_c) if wanted.states else (None, None)
    grad_hr = None
    if weight_hr is not None and wanted.weight_hr:
        grad_hr = product(grad_hidden.T, tanh_c * o, half=weight_hr.dtype)
    return grad_x, *states, *grad_weights, grad_hr


class LSTM(RecurrentLayer):
    """Long short-term memory, ``c_t = f c_{t-1} + i g`` and ``h_t = o tanh(c_t)``.

    Parameters
    ----------
    input_size : int
        Features of the input.
    hidden_size : int
        Features of the cell.
    num_layers : int, default 1
        Each takes the output of the one before it.
    bias : bool, default True
        False leaves ``b_ih`` and ``b_hh`` out.
    batch_first : bool, default False
        Input and output are ``(batch, time, features)`` in place of ``(time, batch, features)``;
        the states are not concerned.
    dropout : float, default 0.0
        Probability of silencing an element between two layers while training.
    bidirectional : bool, default False
        A second set of weights walks from the end; the outputs stand side by side.
    proj_size : int, default 0
        When positive, ``h_t = W_hr (o tanh(c_t))`` has so many features, less than ``hidden_size``.
    device : str or Device, optional
        Where the parameters live; None is the default device.
    dtype : dtype, optional
        float32 (None) or float64.
    rng : Generator, int or None
        Draws the initial values, ``U(-1/sqrt(hidden_size), 1/sqrt(hidden_size))`` as PyTorch does.

    Attributes
    ----------
    weight_ih_l0 : Parameter, shape (4 * hidden_size, input_size)
    weight_hh_l0 : Parameter, shape (4 * hidden_size, hidden_size or proj_size)
    bias_ih_l0, bias_hh_l0 : Parameter, shape (4 * hidden_size,)
    weight_hr_l0 : Parameter, shape (proj_size, hidden_size)
        ``l1`` for the second layer and so on, ``l0_reverse`` for the other direction. The rows are
        those of the gates ``i``, ``f``, ``g``, ``o``.

    Notes
    -----
    ``forward(x, (h_0, c_0))`` returns ``output, (h_n, c_n)``; backward takes the gradients in the
    same nesting, None for what was not used, and returns that of ``x``, with states given
    ``(grad_x, (grad_h_0, grad_c_0))``. Shapes: see :class:`RNN`; ``c`` has ``hidden_size`` features
    with a projection too. The derivative is derived in :func:`lstm_forward`.

    References
    ----------
    Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9 (1997). The
    projection: Sak, Senior, Beaufays, "Long short-term memory based recurrent neural network
    architectures for large vocabulary speech recognition", 2014.

    Examples
    --------
    >>> import numpy as np
    >>> import xbackprop as xb
    >>> layer = xb.nn.LSTM(3, 4, bidirectional=True, rng=0)
    >>> output, (h_n, c_n) = layer(xb.asarray(np.ones((5, 2, 3))))
    >>> output.shape, h_n.shape, c_n.shape
    ((5, 2, 8), (2, 2, 4), (2, 2, 4))
    """

    forward_op, backward_op = lstm_forward, lstm_backward
    gate_count, state_names = 4, ("h_0", "c_0")
    weight_names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        device: str | Device | None = None,
        dtype: Any = None,
        rng: RandomSource = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
            rng,
        )


class LSTMCell(RecurrentCell):
    """One step of an :class:`LSTM`, ``c' = f c + i g`` and ``h' = o tanh(c')``.

    Parameters
    ----------
    input_size : int
        Features of the input.
    hidden_size : int
        Features of the states.
    bias : bool, default True
        False leaves ``b_ih`` and ``b_hh`` out.
    device, dtype, rng
        As for :class:`LSTM`.

    Attributes
    ----------
    weight_ih : Parameter, shape (4 * hidden_size, input_size)
    weight_hh : Parameter, shape (4 * hidden_size, hidden_size)
    bias_ih, bias_hh : Parameter, shape (4 * hidden_size,), or None
        The rows are those of the gates ``i``, ``f``, ``g``, ``o``.

    Notes
    -----
    ``forward(x, (h, c))`` returns ``(h', c')``, with ``x`` of shape ``(batch, input_size)`` or one
    sample ``(input_size,)``; without states they are zeros. The derivative is derived in
    :func:`lstm_forward`.

    References
    ----------
    Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9 (1997).

    Examples
    --------
    >>> import xbackprop as xb
    >>> cell = xb.nn.LSTMCell(3, 2, rng=0)
    >>> h, c = cell(xb.asarray([[1.0, 2.0, 3.0]]))
    >>> h.shape, c.shape
    ((1, 2), (1, 2))
    """

    forward_op, backward_op = lstm_forward, lstm_backward
    gate_count, state_names = 4, ("h_0", "c_0")
    weight_names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        device: str | Device | None = None,
        dtype: Any = None,
        rng: RandomSource = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device, dtype, rng)
