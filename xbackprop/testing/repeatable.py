"""A module's call as a function of each of its arrays, which can be moved one at a time."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.backend.transfer import to_device, to_host
from xbackprop.module import Module, Parameter
from xbackprop.nn.utils.rnn import PackedSequence
from xbackprop.testing.structures import (
    BufferSnapshot,
    backward_of_all_inputs,
    device_among,
    input_names,
    is_float,
    leaves,
    moved,
    random_like,
    transform,
)


@dataclass
class Subject:
    """An array to be moved.

    Attributes
    ----------
    name : str
        As messages say it.
    values : numpy.ndarray
        Its own values.
    put : callable
        Puts other values in their place.
    frozen : bool
        A parameter that is not trained.
    """

    name: str
    values: np.ndarray
    put: Callable[[np.ndarray], None]
    frozen: bool = False


class RepeatableCall:
    """A forward that can be repeated with other values, and its scalar ``f``.

    Parameters
    ----------
    module : Module
        In float64; its parameters are moved.
    inputs : list
        What ``forward`` takes.
    options : dict
        Its keyword arguments.
    rng : Generator
        Draws the factors of ``f``.

    Attributes
    ----------
    base, terms : float
        ``f``, and the sum of the magnitudes of its terms, whose rounding errors stay when the terms
        cancel.

    Raises
    ------
    AssertionError
        For a module that loses precision, does not repeat itself, or gives NaN.
    TypeError
        For float arrays of another dtype than float64.
    """

    def __init__(
        self,
        module: Module,
        inputs: list[Any],
        options: dict[str, Any],
        rng: np.random.Generator,
    ) -> None:
        self.module = module
        self.inputs = inputs
        self.options = options
        self.rng = rng
        self.layer = type(module).__name__
        parameters = [parameter.data for parameter in module.parameters()]
        self.device = device_among(inputs, parameters)
        self._names = input_names(module, len(inputs))
        self._refuse_low_precision()
        self._buffers = BufferSnapshot(module)
        output, _ = module.forward(*inputs, **options)
        for path, leaf in leaves(output, "output"):
            if getattr(leaf, "dtype", None) == np.float32:
                raise AssertionError(
                    f"{self.layer}: {path} is float32 though all inputs are float64; "
                    "somewhere on the way precision is lost"
                )
        self._factors = random_like(output, rng)
        self._factor_of = dict(leaves(self._factors, "output"))
        first, second = self.value(), self.value()
        if not np.array_equal(first, second, equal_nan=True):
            raise AssertionError(
                f"{self.layer} is not repeatable: the same call gave {first!r} and {second!r}. "
                "Keep the state of a random layer in a buffer (register_buffer)."
            )
        if not np.isfinite(first):
            raise AssertionError(f"{self.layer}: forward gives {first}; no gradient to compare")
        self.base = first
        self.terms = sum(
            float(np.abs(to_host(leaf) * factor).sum())
            for (_, leaf), (_, factor) in zip(
                leaves(output, "output"), leaves(self._factors, "output"), strict=True
            )
            if factor is not None
        )

    def value(self) -> float:
        """Return ``f``: the output times the random factors, summed up."""
        self._buffers.restore()
        output, _ = self.module.forward(*self.inputs, **self.options)
        factors = self._factor_of
        total = 0.0
        for path, leaf in leaves(output, "output"):
            if factors[path] is not None:
                total += float(np.vdot(to_host(leaf), factors[path]))
        return total

    def gradients(self) -> list[tuple[Subject, np.ndarray | None]]:
        """Run backward once; return what can be moved, each with its gradient."""
        self._buffers.restore()
        self.module.zero_grad()
        _, saved = self.module.forward(*self.inputs, **self.options)
        factors = moved(self._factors, self.device)
        results = backward_of_all_inputs(self.module, factors, saved, len(self.inputs))
        pairs: list[tuple[Subject, np.ndarray | None]] = []
        for position, name in enumerate(self._names):
            pairs += self._input_pairs(position, f"input {name!r}", results[position])
        for name, parameter in self.module.named_parameters():
            subject = Subject(
                f"parameter {name!r}",
                to_host(parameter.data).copy(),
                functools.partial(self._assign, parameter),
                frozen=not parameter.requires_grad,
            )
            pairs.append((subject, None if parameter.grad is None else _copy(parameter.grad)))
        return pairs

    def _input_pairs(
        self, position: int, name: str, result: Any
    ) -> list[tuple[Subject, np.ndarray | None]]:
        found, given = dict(leaves(result, name)), self.inputs[position]
        pairs: list[tuple[Subject, np.ndarray | None]] = []
        for path, leaf in leaves(given, name):
            gradient = found.get(path)
            if not is_float(leaf):
                # A packed sequence's gradient is packed as it was: the indices go with it.
                goes_along = gradient is leaf and isinstance(given, PackedSequence)
                if gradient is not None and not goes_along:
                    raise AssertionError(
                        f"{self.layer}: {path} is not of a float dtype, so its gradient is None; "
                        f"got {type(gradient).__name__}"
                    )
                continue
            if gradient is None:
                raise AssertionError(f"{self.layer}: backward returned no gradient of {path}")

            def put(values: np.ndarray, path: str = path) -> None:
                self.inputs[position] = self._with_leaf(position, name, path, values)

            pairs.append((Subject(path, to_host(leaf).copy(), put), _copy(gradient)))
        return pairs

    def _with_leaf(self, position: int, name: str, path: str, values: np.ndarray) -> Any:
        paths = iter([found for found, _ in leaves(self.inputs[position], name)])
        replacement = to_device(values.copy(), self.device)
        return transform(
            self.inputs[position], lambda leaf: replacement if next(paths) == path else leaf
        )

    def _assign(self, parameter: Parameter, values: np.ndarray) -> None:
        parameter.data = to_device(values.copy(), self.device)

    def _refuse_low_precision(self) -> None:
        named: list[tuple[str, Array]] = []
        for position, name in enumerate(self._names):
            named += leaves(self.inputs[position], f"input {name!r}")
        named += [(f"parameter {name!r}", p.data) for name, p in self.module.named_parameters()]
        for name, array in named:
            if is_float(array) and array.dtype != np.float64:
                raise TypeError(
                    f"check_gradients expects float64; {name} of {self.layer} is {array.dtype}. "
                    "Call x.astype('float64') and module.to(dtype='float64')."
                )


def unit_direction(values: np.ndarray, index: tuple[Any, ...]) -> np.ndarray:
    """Return the direction of one element, as long as the element where that is above one."""
    direction = np.zeros(values.shape)
    direction[index] = max(1.0, abs(float(values[index])))
    return direction


def _copy(array: Array) -> np.ndarray:
    return np.array(to_host(array), dtype=np.float64, copy=True)
