"""A graph of ONNX that grows: constants, nodes, and what the layers of a network make of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xbackprop.module import Module

Operand = Any  # a Value, a name, a number, an array, or None for an input that is left out
Exporter = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Value:
    """An array in the graph.

    Attributes
    ----------
    name : str
        In the graph.
    sample : numpy.ndarray
        What it is for the inputs that the export was given; its shape is what exporters read.
    """

    name: str
    sample: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the sample."""
        return self.sample.shape


class Graph:
    """Nodes and constants in the order in which they are made.

    Parameters
    ----------
    exporters : mapping of Module classes to functions
        A function takes the graph, the layer and its inputs as values, adds nodes, and returns the
        names of the outputs in the structure that the layer gives them.
    batch_axis : int or None
        The axis of the inputs that may have any length.
    helper : module
        ``onnx.helper``.
    """

    def __init__(
        self, exporters: Mapping[type[Module], Exporter], batch_axis: int | None, helper: Any
    ) -> None:
        self.batch_axis = batch_axis
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self._exporters, self._helper, self._path = exporters, helper, ""

    def op(self, kind: str, *inputs: Operand, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; return the name of its output, or of its outputs as a list."""
        names = [f"{kind.lower()}_{len(self.nodes)}_{place}" for place in range(outputs)]
        read = ["" if operand is None else self.name(operand) for operand in inputs]
        self.nodes.append(
            self._helper.make_node(kind, read, names, name=f"{self._path}/{names[0]}", **attributes)
        )
        return names[0] if outputs == 1 else names

    def name(self, operand: Operand) -> str:
        """Return the name of an operand; numbers and arrays become constants."""
        if isinstance(operand, Value):
            return operand.name
        if isinstance(operand, str):
            return operand
        array = np.asarray(operand)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        name = f"constant_{len(self.constants)}"
        self.constants[name] = array
        return name

    def parameter(self, parameter: Any) -> Any:
        """Return the values of a parameter, or of a buffer, on the host; None of None."""
        if parameter is None:
            return None
        return np.asarray(getattr(parameter, "data", parameter))

    def reshape(self, x: Operand, shape: Sequence[int], batch: int | None = 0) -> str:
        """Give ``x`` another shape, of which the axis ``batch`` is found out when it runs."""
        sizes = list(shape)
        if self.batch_axis == 0 and batch is not None:
            sizes[batch] = -1
        return str(self.op("Reshape", x, np.array(sizes, np.int64)))

    def call(self, layer: Module, *inputs: Any, **options: Any) -> Any:
        """Add what a layer does; return its outputs as values.

        Parameters
        ----------
        layer : Module
            In evaluation mode, on the CPU.
        *inputs : Value
            Its inputs.
        **options : Value, bool or None
            Options of its ``forward``, which its exporter takes as well.

        Returns
        -------
        Value, or structure of values

        Raises
        ------
        NotImplementedError
            Names a layer that has no exporter.
        """
        exporter = self._exporters.get(type(layer))
        if exporter is None:
            raise NotImplementedError(
                f"export to ONNX: {type(layer).__name__}{self._where()} has no expression in ONNX"
            )
        made = exporter(self, layer, *inputs, **options)
        samples = [_sample(value) for value in inputs]
        chosen = {name: _sample(value) for name, value in options.items()}
        return _with_samples(made, layer(*samples, **chosen))

    def child(self, layer: Module, name: str, *inputs: Any, **options: Any) -> Any:
        """Call a layer inside another one, known in messages and nodes by its path."""
        before = self._path
        self._path = f"{before}.{name}" if before else name
        try:
            return self.call(layer, *inputs, **options)
        finally:
            self._path = before

    def refuse(self, layer: Module, option: str) -> NotImplementedError:
        """Return the error for an option that has no expression."""
        return NotImplementedError(
            f"export to ONNX: {type(layer).__name__}({option}){self._where()} has no expression in "
            "ONNX"
        )

    def _where(self) -> str:
        return f" at {self._path!r}" if self._path else ""

    # What composites do between their layers, with the sample of the result.

    def _glue(self, kind: str, function: Any, *inputs: Value, **attributes: Any) -> Value:
        name = self.op(kind, *inputs, **attributes)
        return Value(name, function(*(value.sample for value in inputs)))

    def add(self, a: Value, b: Value) -> Value:
        """Return the sum."""
        return self._glue("Add", np.add, a, b)

    def multiply(self, a: Value, b: Value) -> Value:
        """Return the product, element by element."""
        return self._glue("Mul", np.multiply, a, b)

    def concatenate(self, parts: Sequence[Value], axis: int) -> Value:
        """Join values along an axis."""
        return self._glue("Concat", lambda *arrays: np.concatenate(arrays, axis), *parts, axis=axis)


def _sample(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(_sample(part) for part in value)
    return value.sample if isinstance(value, Value) else value


def _with_samples(names: Any, arrays: Any) -> Any:
    if isinstance(names, (tuple, list)):
        return tuple(_with_samples(name, array) for name, array in zip(names, arrays, strict=True))
    if names is None or arrays is None:
        return None
    return Value(names.name if isinstance(names, Value) else names, np.asarray(arrays))
