"""Write a network as an ONNX model, which other programs run."""

import copy
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from xbackprop.backend.device import use_device
from xbackprop.interop.onnx.graph import Exporter, Graph, Value
from xbackprop.interop.onnx.registry import exporters
from xbackprop.module import Module
from xbackprop.training.atomic import write_atomically

OPSET = 17
_IR_VERSION = 8  # the one that came with opset 17


def to_onnx(
    model: Module,
    *inputs: Any,
    batch_axis: int | None = 0,
    more: Mapping[type[Module], Exporter] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Any:
    """Return what a network does in evaluation mode as an ONNX model of opset 17.

    Parameters
    ----------
    model : Module
        In float32, in any mode and on any device. Nothing of it changes.
    *inputs : array_like
        Inputs it takes, of which only shapes and dtypes matter: floats are float32, integers int64.
    batch_axis : int or None, default 0
        The axis that may have any length when the model runs, in every input; all others have
        those of ``inputs``. It is 1 for layers with time first; None fixes all.
    more : mapping of Module classes to functions, optional
        How classes of your own are written: a function takes the graph, the layer and its inputs,
        and calls the layers inside by ``graph.child(layer.part, "part", x)``.
    metadata : mapping of str to str, optional
        Written into the file beside the graph.

    Returns
    -------
    onnx.ModelProto
        Checked. Inputs are ``input``, or ``input_0`` and so on; outputs just so.

    Raises
    ------
    NotImplementedError
        Names the layer or option that has no expression in ONNX.
    ValueError
        For inputs whose batches have different lengths.
    TypeError
        For a model that is not float32.
    ModuleNotFoundError
        Without the package ``onnx``, of the extra of that name.

    Examples
    --------
    >>> import numpy as np
    >>> import xbackprop as xb
    >>> model = xb.nn.Sequential(xb.nn.Linear(2, 3, rng=0), xb.nn.Tanh())
    >>> to_onnx(model, np.zeros((1, 2))).graph.output[0].name  # doctest: +SKIP
    'output'
    """
    try:
        import onnx
        from onnx import helper, numpy_helper
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'export to ONNX needs the package onnx. Install it with: pip install "xbackprop[onnx]"',
            name="onnx",
        ) from error
    if any(parameter.dtype != np.float32 for parameter in model.parameters()):
        raise TypeError(
            "export to ONNX expects a model in float32; got another dtype. "
            'Call model.to(dtype="float32") first.'
        )
    arrays = [_as_input(array) for array in inputs]
    if batch_axis is not None:
        lengths = {array.shape[batch_axis] for array in arrays if array.ndim > batch_axis}
        if len(lengths) > 1:
            raise ValueError(
                f"export to ONNX expects inputs of one length along batch_axis={batch_axis}; got "
                f"{sorted(lengths)}. Give batch_axis=None to fix all lengths."
            )
    graph = Graph({**exporters(), **(more or {})}, batch_axis, helper)
    names = ["input"] if len(arrays) == 1 else [f"input_{place}" for place in range(len(arrays))]
    values = [Value(name, array) for name, array in zip(names, arrays, strict=True)]
    # A copy, so that a layer may be asked about host arrays, whatever its mode and device.
    with use_device("cpu"):
        outputs = flatten(graph.call(copy.deepcopy(model).to("cpu").eval(), *values))
    made = ["output"] if len(outputs) == 1 else [f"output_{i}" for i in range(len(outputs))]
    for value, name in zip(outputs, made, strict=True):
        graph.nodes.append(helper.make_node("Identity", [value.name], [name]))
    described = helper.make_graph(
        graph.nodes,
        type(model).__name__,
        [_describe(helper, value, batch_axis) for value in values],
        [_describe(helper, Value(name, v.sample)) for name, v in zip(made, outputs, strict=True)],
        [numpy_helper.from_array(np.asarray(a, order="C"), n) for n, a in graph.constants.items()],
    )
    proto = helper.make_model(
        described,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="xbackprop",
    )
    helper.set_model_props(proto, dict(metadata or {}))
    onnx.checker.check_model(proto, full_check=True)
    return proto


def save_onnx(path: str | os.PathLike[str], model: Module, *inputs: Any, **options: Any) -> None:
    """Write what :func:`to_onnx` returns into a file, in one move.

    Parameters
    ----------
    path : path
        Where to.
    model : Module
        In float32.
    *inputs : array_like
        Inputs it takes.
    **options
        Of :func:`to_onnx`.

    Raises
    ------
    NotImplementedError, TypeError, ValueError, ModuleNotFoundError
        As :func:`to_onnx`.
    OSError
        When the disk refuses; names ``path``.
    """
    content = to_onnx(model, *inputs, **options).SerializeToString()
    with write_atomically(path) as file:
        file.write(content)


def flatten(values: Any) -> list[Value]:
    """Return the values of a structure in order, without those that are absent."""
    if isinstance(values, (tuple, list)):
        return [value for part in values for value in flatten(part)]
    return [] if values is None else [values]


def _as_input(values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    return array if array.dtype == np.bool_ else array.astype(np.int64)


_FOLLOWS = -1  # of an output: its axes follow from the inputs when the model runs


def _describe(helper: Any, value: Value, batch_axis: int | None = _FOLLOWS) -> Any:
    shape: list[int | str | None] = list(value.shape)
    if batch_axis == _FOLLOWS:
        shape = [None] * len(shape)
    elif batch_axis is not None and batch_axis < len(shape):
        shape[batch_axis] = "batch"
    kind = helper.np_dtype_to_tensor_dtype(value.sample.dtype)
    return helper.make_tensor_value_info(value.name, kind, shape)
