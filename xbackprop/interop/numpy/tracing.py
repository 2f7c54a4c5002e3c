"""What a layer calls: one op forward, one op backward, and where their arguments come from."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xbackprop.dispatch import Op, OpCall, observe
from xbackprop.module import Module


@dataclass
class Recorder:
    """An observer that keeps the outermost calls of ops, with their results."""

    calls: list[tuple[OpCall, Any]] = field(default_factory=list)

    def before(self, call: OpCall) -> None:
        """Nothing to do."""

    def after(self, call: OpCall, result: Any) -> None:
        """Keep a call that no other op made."""
        if call.depth == 0:
            self.calls.append((call, result))


@dataclass
class Step:
    """A layer as the lines of a program.

    Attributes
    ----------
    forward, backward : Op or None
        What they call; None for a layer that only gives another shape.
    arguments : list of str
        Of the forward op, after ``x``.
    more : list of str
        Of the backward op, after what was saved.
    grads : list of str or None
        The parameter of each further result of the backward op; None for what is no gradient.
    reshaped : list of str
        Those of these parameters whose gradient comes in another shape.
    has_input_grad : bool
        Whether the first result of the backward op is the input's gradient.
    is_first : bool
        Whether the forward op returns more than the output, which is the first.
    """

    forward: Op | None
    backward: Op | None
    arguments: list[str]
    more: list[str]
    grads: list[str | None]
    reshaped: list[str] = field(default_factory=list)
    has_input_grad: bool = True
    is_first: bool = False


class Tracer:
    """Traces layers, and keeps the arrays that their lines name.

    Attributes
    ----------
    arrays : dict of str to numpy.ndarray
        Parameters by their path, and constants.
    """

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}

    def trace(self, layer: Module, path: str, x: np.ndarray) -> tuple[Step, np.ndarray]:
        """Run a layer on the CPU in evaluation mode; return its step and its output.

        Parameters
        ----------
        layer : Module
            In evaluation mode; its gradients are written.
        path : str
            How the program calls its parameters.
        x : numpy.ndarray
            Its input, random, so that equal arrays are one array.

        Returns
        -------
        step : Step
        output : numpy.ndarray

        Raises
        ------
        NotImplementedError
            Names a layer that is more than an op in each direction.
        """
        layer.zero_grad()
        for name, parameter in layer.named_parameters():
            self.arrays[f"{path}.{name}"] = np.array(parameter.data)
        record = Recorder()
        with observe(record):
            output, saved = layer.forward(x)
            count = len(record.calls)
            if not isinstance(output, np.ndarray):
                raise _refusal(layer, path)
            drawn = np.random.default_rng(0).normal(size=output.shape)
            grad = np.asarray(drawn, output.dtype)
            grad_input = layer.backward(grad, saved)
        if not record.calls and output is x:
            return Step(None, None, [], [], []), output
        if not record.calls and _is_view_of_rows(output, x):
            return Step(None, None, [repr(output.shape[1:])], [], []), output
        if count != 1 or len(record.calls) != 2:
            raise _refusal(layer, path)
        (ahead, (made, kept)), (back, grads) = record.calls
        is_first = isinstance(made, tuple)
        fields = tuple(kept)
        if not (
            ahead.args[0] is x
            and _is_same(made[0] if is_first else made, output)
            and back.args[0] is grad
            and len(back.args) > len(fields)
            and all(one is other for one, other in zip(back.args[1:], fields, strict=False))
        ):
            raise _refusal(layer, path)
        arguments = [self._argument(layer, path, value) for value in ahead.args[1:]]
        arguments += [
            f"{key}={self._argument(layer, path, value)}" for key, value in ahead.options.items()
        ]
        more = [self._argument(layer, path, v) for v in back.args[1 + len(fields) :]]
        more += [f"{key}={self._argument(layer, path, v)}" for key, v in back.options.items()]
        has_input_grad = grad_input is not None
        parts = grads if isinstance(grads, tuple) else (grads,)
        if has_input_grad and not _is_same(parts[0], grad_input):
            raise _refusal(layer, path)
        names = self._names(layer, path, parts[1:] if has_input_grad else parts)
        computed = zip(names, parts[1:] if has_input_grad else parts, strict=True)
        shapes = {name: self.arrays[name].shape for name in names if name}
        reshaped = [name for name, part in computed if name and part.shape != shapes[name]]
        step = Step(ahead.op, back.op, arguments, more, names, reshaped, has_input_grad, is_first)
        return step, output

    def _names(self, layer: Module, path: str, parts: tuple[Any, ...]) -> list[str | None]:
        """Return which parameter each gradient of the backward op is of."""
        trained: dict[str, Any] = {
            name: p.grad for name, p in layer.named_parameters() if p.requires_grad
        }
        found: list[str | None] = []
        for part in parts:
            names = [
                f"{path}.{name}"
                for name, grad in trained.items()
                if part is not None
                and part.size == grad.size
                and np.array_equal(part.ravel(), grad.ravel())
            ]
            found.append(names[0] if len(names) == 1 else None)
        if {name for name in found if name} != {f"{path}.{name}" for name in trained}:
            raise _refusal(layer, path)
        return found

    def _argument(self, layer: Module, path: str, value: Any) -> str:
        """Return an argument as source text."""
        if not isinstance(value, np.ndarray):
            if _is_plain(value):
                return repr(value)
            raise _refusal(layer, path)
        for name, parameter in layer.named_parameters():
            if np.shares_memory(parameter.data, value) and parameter.data.size == value.size:
                key = f"{path}.{name}"
                is_same = value.shape == parameter.shape
                return f"p[{key!r}]" if is_same else f"p[{key!r}].reshape({value.shape})"
        key = f"{path}.constant_{len(self.arrays)}"
        self.arrays[key] = np.array(value)
        return f"p[{key!r}]"


def _refusal(layer: Module, path: str) -> NotImplementedError:
    return NotImplementedError(
        f"export to NumPy: {type(layer).__name__} at {path!r} is more than one op forward and one "
        "backward, and is not printed"
    )


def _is_view_of_rows(output: np.ndarray, x: np.ndarray) -> bool:
    return output.shape[:1] == x.shape[:1] and np.shares_memory(output, x)


def _is_same(one: Any, other: Any) -> bool:
    """Tell whether two names, perhaps views, are of one array in one shape."""
    return one is other or (
        isinstance(one, np.ndarray)
        and isinstance(other, np.ndarray)
        and one.shape == other.shape
        and np.shares_memory(one, other)
    )


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(part) for part in value)
    return value is None or isinstance(value, (bool, int, float, str))
