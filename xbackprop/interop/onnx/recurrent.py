"""Recurrent layers as ONNX has them, gates in its order, and cells by their formulas."""

from typing import Any

import numpy as np

from xbackprop import nn
from xbackprop.interop.onnx.graph import Exporter, Graph, Value
from xbackprop.module import Module

# Where ONNX's gates stand among PyTorch's: i, f, g, o is i, o, f, g there; r, z, n is z, r, n.
_ORDER = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}


def recurrent(graph: Graph, layer: Any, x: Value, hx: Any = None) -> Any:
    """Walk all layers in one or both directions; return the outputs and the last states."""
    kind = next(name for name in _ORDER if isinstance(layer, getattr(nn, name)))
    if getattr(layer, "proj_size", 0):
        raise graph.refuse(layer, f"proj_size={layer.proj_size}")
    if not isinstance(x, Value) or (hx is not None and kind == "LSTM" and len(hx) != 2):
        raise graph.refuse(layer, "a packed sequence")
    is_single = len(x.shape) == 2
    rows = _time_first(graph, layer, x, is_single)
    states = _states(graph, kind, hx, is_single)
    ends: list[list[str]] = []
    for number in range(layer.num_layers):
        rows, *end = _walk(graph, layer, kind, number, rows, states)
        ends.append(end)
    lasts = [_joined(graph, parts, is_single) for parts in zip(*ends, strict=True)]
    output = _as_given(graph, layer, rows, is_single)
    return output, (lasts[0] if kind != "LSTM" else tuple(lasts))


def _time_first(graph: Graph, layer: Any, x: Value, is_single: bool) -> str:
    if is_single:
        return str(graph.op("Unsqueeze", x, np.array([1], np.int64)))
    return str(graph.op("Transpose", x, perm=[1, 0, 2])) if layer.batch_first else x.name


def _as_given(graph: Graph, layer: Any, rows: str, is_single: bool) -> str:
    if is_single:
        return str(graph.op("Squeeze", rows, np.array([1], np.int64)))
    return str(graph.op("Transpose", rows, perm=[1, 0, 2])) if layer.batch_first else rows


def _states(graph: Graph, kind: str, hx: Any, is_single: bool) -> list[str]:
    """Return the first states ``(layers, batch, features)``; none where they are zeros."""
    given = [] if hx is None else list(hx) if kind == "LSTM" else [hx]
    if not is_single:
        return [graph.name(state) for state in given]
    return [str(graph.op("Unsqueeze", state, np.array([1], np.int64))) for state in given]


def _joined(graph: Graph, parts: Any, is_single: bool) -> str:
    name = parts[0] if len(parts) == 1 else str(graph.op("Concat", *parts, axis=0))
    return str(graph.op("Squeeze", name, np.array([1], np.int64))) if is_single else name


def _walk(
    graph: Graph, layer: Any, kind: str, number: int, rows: str, states: list[str]
) -> list[str]:
    """Add one layer; return its outputs ``(time, batch, directions * features)`` and states."""
    directions = layer.directions
    weights = [_weights(graph, layer, kind, number * directions + d) for d in range(directions)]
    w, r, b = (
        None if parts[0] is None else np.stack(parts) for parts in zip(*weights, strict=True)
    )
    first = [_part(graph, state, number * directions, directions) for state in states]
    options: dict[str, Any] = {}
    if kind == "RNN":
        options["activations"] = [layer.nonlinearity.capitalize()] * directions
    if kind == "GRU":
        options["linear_before_reset"] = 1
    made = graph.op(
        kind, rows, w, r, b, None, *first, outputs=3 if kind == "LSTM" else 2,
        hidden_size=layer.hidden_size, direction=("forward", "bidirectional")[directions - 1],
        **options,
    )  # fmt: skip
    beside = graph.op("Transpose", made[0], perm=[0, 2, 1, 3])  # (time, batch, directions, ...)
    flat = graph.op("Reshape", beside, np.array([0, 0, -1], np.int64))
    return [flat, *made[1:]]


def _part(graph: Graph, state: str, start: int, count: int) -> str:
    bounds = [np.array([number], np.int64) for number in (start, start + count, 0)]
    return str(graph.op("Slice", state, *bounds))


def _weights(graph: Graph, layer: Any, kind: str, number: int) -> tuple[Any, Any, Any]:
    """Return ``W``, ``R`` and both biases in one row, with the gates in ONNX's order."""
    w_ih, w_hh, b_ih, b_hh = (graph.parameter(p) for p in layer.weights(layer._suffix(number))[:4])
    biases = None
    if b_ih is not None and b_hh is not None:
        biases = np.concatenate([_gates(b_ih, kind), _gates(b_hh, kind)])
    return _gates(w_ih, kind), _gates(w_hh, kind), biases


def _gates(array: Any, kind: str) -> np.ndarray:
    parts = np.split(array, len(_ORDER[kind]))
    return np.concatenate([parts[place] for place in _ORDER[kind]])


def cell(graph: Graph, layer: Any, x: Value, hx: Any = None) -> Any:
    """One step, by the formulas of the layer."""
    is_lstm = isinstance(layer, nn.LSTMCell)
    states = [] if hx is None else list(hx) if is_lstm else [hx]
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    w_ih, w_hh, b_ih, b_hh = (graph.parameter(getattr(layer, name)) for name in names)
    if not states:  # zeros of the right shape, whatever the batch
        zeros = graph.op(
            "Mul",
            graph.op("MatMul", x, np.zeros((layer.input_size, layer.hidden_size), np.float32)),
            0.0,
        )
        states = [zeros, zeros]
    from_x = _affine(graph, x, w_ih, b_ih)
    from_h = _affine(graph, states[0], w_hh, b_hh)
    if isinstance(layer, nn.RNNCell):
        return graph.op(layer.nonlinearity.capitalize(), graph.op("Add", from_x, from_h))
    if isinstance(layer, nn.GRUCell):
        return _gru_step(graph, from_x, from_h, states[0])
    i, f, g, o = graph.op("Split", graph.op("Add", from_x, from_h), outputs=4, axis=-1)
    i, f, o = (graph.op("Sigmoid", gate) for gate in (i, f, o))
    kept, new = graph.op("Mul", f, states[1]), graph.op("Mul", i, graph.op("Tanh", g))
    c = graph.op("Add", kept, new)
    return graph.op("Mul", o, graph.op("Tanh", c)), c


def _gru_step(graph: Graph, from_x: str, from_h: str, h: Any) -> str:
    (r_x, z_x, n_x), (r_h, z_h, n_h) = (
        graph.op("Split", name, outputs=3, axis=-1) for name in (from_x, from_h)
    )
    r = graph.op("Sigmoid", graph.op("Add", r_x, r_h))
    z = graph.op("Sigmoid", graph.op("Add", z_x, z_h))
    n = graph.op("Tanh", graph.op("Add", n_x, graph.op("Mul", r, n_h)))
    return str(graph.op("Add", n, graph.op("Mul", z, graph.op("Sub", h, n))))


def _affine(graph: Graph, x: Any, weight: Any, bias: Any) -> str:
    product = graph.op("MatMul", x, np.ascontiguousarray(weight.T))
    return product if bias is None else str(graph.op("Add", product, bias))


RECURRENT: dict[type[Module], Exporter] = {
    **dict.fromkeys((nn.RNN, nn.LSTM, nn.GRU), recurrent),
    **dict.fromkeys((nn.RNNCell, nn.LSTMCell, nn.GRUCell), cell),
}
