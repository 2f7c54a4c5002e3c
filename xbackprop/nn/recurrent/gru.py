"""Gated recurrent units: a state that is kept in part, and a candidate that sees part of it."""

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
    sigmoid_in_place,
    states_before,
    steps,
)
from xbackprop.ops.matmul import mixed_product


def _gru_backward_flops(
    grad_output: ArraySpec,
    x: ArraySpec,
    h0: ArraySpec,
    weight_ih: ArraySpec,
    weight_hh: ArraySpec,
    batch_sizes: tuple[int, ...],
    is_reverse: bool,
    gates: ArraySpec,
    hidden_n: ArraySpec,
    output: ArraySpec,
    grad_h_n: ArraySpec | None = None,
    wanted: Wanted = EVERYTHING,
) -> int:
    return backward_flops(wanted, x, weight_ih, weight_hh)


@op(flops=call_flops)
def gru_forward(
    x: Array,
    h0: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None,
    bias_hh: Array | None,
    batch_sizes: tuple[int, ...],
    is_reverse: bool,
) -> tuple[tuple[Array, Array], Any]:
    """Compute ``h_t = (1 - z) n + z h_{t-1}`` along sequences.

    Parameters
    ----------
    x : array, shape (rows, input_size)
        The rows of all steps, ``batch_sizes[t]`` of them at step ``t``.
    h0 : array, shape (batch, hidden_size)
        The states at the beginning.
    weight_ih : array, shape (3 * hidden_size, input_size)
        The blocks of ``r``, ``z``, ``n``, one below the other.
    weight_hh : array, shape (3 * hidden_size, hidden_size)
        In the same order.
    bias_ih, bias_hh : array, shape (3 * hidden_size,), or None
        In the same order.
    batch_sizes : tuple of int
        None larger than the one before it.
    is_reverse : bool
        Begin with the last step.

    Returns
    -------
    output : array, shape (rows, hidden_size)
        ``h_t`` of every row.
    h_n : array, shape (batch, hidden_size)
        The states at the end.
    saved : tuple
        The arguments; ``r, z, n``, the hidden side of ``n`` and the output of every row.

    Notes
    -----
    With the input side ``u = W_ih x_t + b_ih`` and the hidden side ``v = W_hh h_{t-1} + b_hh``,
    three parts each, ``r = sigmoid(u_r + v_r)``, ``z = sigmoid(u_z + v_z)`` and
    ``n = tanh(u_n + r v_n)``.

    Backpropagation through time walks from the last step to the first::

        dh_t = g_t + z_{t+1} dh_{t+1} + W_hh^T dv_{t+1}
        du_n = dh_t (1 - z) (1 - n^2)            dv_n = du_n r
        du_r = dv_r = du_n v_n r (1 - r)
        du_z = dv_z = dh_t (h_{t-1} - n) z (1 - z)

    Each is ``dh_t`` times a slope that is known before the walk. After it, the sums over time are
    products over all rows: ``dW_ih = du^T x``, ``dW_hh = dv^T h_{t-1}``, ``b_ih`` gets the sum of
    ``du``, ``b_hh`` that of ``dv``, and ``dx = du W_ih``.

    References
    ----------
    Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine
    translation", EMNLP 2014; here ``r`` scales ``v_n`` and not ``h_{t-1}``, as in PyTorch.
    """
    xp = get_array_module(x)
    size = h0.shape[1]
    gates = input_products(x, weight_ih, bias_ih, None)
    hidden_n, output = (xp.empty((len(x), size), dtype=x.dtype) for _ in range(2))
    h = h0.copy()
    for start, stop, count in steps(batch_sizes, is_reverse):
        hidden = mixed_product(h[:count], weight_hh.T)
        if bias_hh is not None:
            hidden += bias_hh
        gate, state = gates[start:stop], output[start:stop]
        gate[:, : 2 * size] += hidden[:, : 2 * size]
        sigmoid_in_place(gate[:, : 2 * size])
        r, z, n = (gate[:, part * size : (part + 1) * size] for part in range(3))
        hidden_n[start:stop] = hidden[:, 2 * size :]
        n += r * hidden[:, 2 * size :]
        xp.tanh(n, out=n)
        xp.subtract(h[:count], n, out=state)
        state *= z
        state += n
        h[:count] = state
    saved = (x, h0, weight_ih, weight_hh, batch_sizes, is_reverse)
    return (output, h), (*saved, gates, hidden_n, output)


@op(flops=_gru_backward_flops)
def gru_backward(
    grad_output: Array,
    x: Array,
    h0: Array,
    weight_ih: Array,
    weight_hh: Array,
    batch_sizes: tuple[int, ...],
    is_reverse: bool,
    gates: Array,
    hidden_n: Array,
    output: Array,
    grad_h_n: Array | None = None,
    wanted: Wanted = EVERYTHING,
) -> tuple[Array | None, ...]:
    """Return the gradients of x, h0, weight_ih, weight_hh, bias_ih and bias_hh."""
    xp = get_array_module(x)
    shape = (len(x), 3, h0.shape[1])
    r, z, n = (gates.reshape(shape)[:, part] for part in range(3))
    before = states_before(h0, output, batch_sizes, is_reverse)
    # First the slopes, then times dh the gradients of both sides.
    grad_n = (1 - z) * (1 - n * n)
    grad_hidden = xp.empty(shape, dtype=x.dtype)
    grad_hidden[:, 0] = grad_n * hidden_n * r * (1 - r)
    grad_hidden[:, 1] = (before - n) * z * (1 - z)
    grad_hidden[:, 2] = grad_n * r
    grad_h = gradient_at_end(grad_h_n, h0)
    for start, stop, count in reversed(steps(batch_sizes, is_reverse)):
        dh = grad_output[start:stop] + grad_h[:count]
        grad_n[start:stop] *= dh
        grad_step = grad_hidden[start:stop]
        grad_step *= dh[:, None]
        dh *= z[start:stop]
        dh += mixed_product(grad_step.reshape(count, weight_hh.shape[0]), weight_hh)
        grad_h[:count] = dh
    grad_input = grad_hidden.copy()
    grad_input[:, 2] = grad_n
    rows = (len(x), weight_hh.shape[0])
    grad_x, *grad_weights = products_backward(
        grad_input.reshape(rows), grad_hidden.reshape(rows), x, before, weight_ih, wanted
    )
    return grad_x, grad_h if wanted.states else None, *grad_weights


class GRU(RecurrentLayer):
    """Gated recurrent units, ``h_t = (1 - z) n + z h_{t-1}``.

    Parameters
    ----------
    input_size : int
        Features of the input.
    hidden_size : int
        Features of the state.
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
    device : str or Device, optional
        Where the parameters live; None is the default device.
    dtype : dtype, optional
        float32 (None) or float64.
    rng : Generator, int or None
        Draws the initial values, ``U(-1/sqrt(hidden_size), 1/sqrt(hidden_size))`` as PyTorch does.

    Attributes
    ----------
    weight_ih_l0 : Parameter, shape (3 * hidden_size, input_size)
    weight_hh_l0 : Parameter, shape (3 * hidden_size, hidden_size)
    bias_ih_l0, bias_hh_l0 : Parameter, shape (3 * hidden_size,)
        ``l1`` for the second layer and so on, ``l0_reverse`` for the other direction. The rows are
        those of ``r``, ``z``, ``n``.

    Notes
    -----
    Shapes, states and gradients: see :class:`RNN`. The derivative is derived in
    :func:`gru_forward`.

    References
    ----------
    Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine
    translation", EMNLP 2014.

    Examples
    --------
    >>> import numpy as np
    >>> import xbackprop as xb
    >>> layer = xb.nn.GRU(3, 4, rng=0)
    >>> output, h_n = layer(xb.asarray(np.ones((5, 2, 3))), xb.asarray(np.zeros((1, 2, 4))))
    >>> output.shape, h_n.shape
    ((5, 2, 4), (1, 2, 4))
    """

    forward_op, backward_op = gru_forward, gru_backward
    gate_count, state_names = 3, ("h_0",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
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
            0,
            device,
            dtype,
            rng,
        )


class GRUCell(RecurrentCell):
    """One step of a :class:`GRU`, ``h' = (1 - z) n + z h``.

    Parameters
    ----------
    input_size : int
        Features of the input.
    hidden_size : int
        Features of the state.
    bias : bool, default True
        False leaves ``b_ih`` and ``b_hh`` out.
    device, dtype, rng
        As for :class:`GRU`.

    Attributes
    ----------
    weight_ih : Parameter, shape (3 * hidden_size, input_size)
    weight_hh : Parameter, shape (3 * hidden_size, hidden_size)
    bias_ih, bias_hh : Parameter, shape (3 * hidden_size,), or None
        The rows are those of ``r``, ``z``, ``n``.

    Notes
    -----
    ``forward(x, h)`` returns ``h'``, with ``x`` of shape ``(batch, input_size)`` or one sample
    ``(input_size,)``; without ``h`` it is zeros. The derivative is derived in :func:`gru_forward`.

    References
    ----------
    Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine
    translation", EMNLP 2014.
    """

    forward_op, backward_op = gru_forward, gru_backward
    gate_count, state_names = 3, ("h_0",)

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
