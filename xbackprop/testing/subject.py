"""A layer under test on one device: its copies, inputs and results."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from xbackprop.backend.array_module import is_array
from xbackprop.backend.device import Device, use_device
from xbackprop.backend.transfer import to_host
from xbackprop.module import Module
from xbackprop.testing.structures import (
    BufferSnapshot,
    backward_of_all_inputs,
    is_float,
    leaves,
    moved,
    random_like,
    transform,
)


class Subject:
    """One layer on one device, and what every check needs of it."""

    def __init__(
        self,
        make_module: Callable[[], Module],
        make_inputs: Callable[[np.random.Generator], Any],
        device: Device,
        has_batch: bool,
        rng: np.random.Generator,
    ) -> None:
        self.device = device
        self.has_batch = has_batch
        self.rng = rng
        self._make_inputs = make_inputs
        with use_device(device):
            self._prototype = make_module()
        self.layer = type(self._prototype).__name__
        self._seed = int(rng.integers(1 << 32))

    def module(self, dtype: Any = np.float32) -> Module:
        """Return a layer of its own, always with the same values."""
        return copy.deepcopy(self._prototype).to(dtype=dtype)

    def host_inputs(self, dtype: Any = np.float32, *, draw: int = 0) -> list[Any]:
        """Return inputs; the same ones for the same ``draw``."""
        made = self._make_inputs(np.random.default_rng([self._seed, draw]))
        inputs = list(made) if type(made) is tuple else [made]
        return transform(inputs, lambda leaf: leaf.astype(dtype) if is_float(leaf) else leaf)

    def inputs(self, dtype: Any = np.float32, *, draw: int = 0) -> list[Any]:
        """Return these inputs on the device."""
        return moved(self.host_inputs(dtype, draw=draw), self.device)

    def gradient_for(self, output: Any, *, draw: int = 0) -> Any:
        """Draw a gradient of the output."""
        drawn = random_like(output, np.random.default_rng([self._seed, 1, draw]))
        return moved(drawn, self.device)

    def run(self, module: Module, inputs: list[Any], *, draw: int = 0) -> "Run":
        """Run forward and backward once; the random state is as before afterwards."""
        state = BufferSnapshot(module)
        module.zero_grad()
        output, saved = module.forward(*inputs)
        grad_output = self.gradient_for(output, draw=draw)
        grad_inputs = backward_of_all_inputs(module, grad_output, saved, len(inputs))
        state.restore()
        return Run(output, grad_inputs, gradients_of(module))

    def batch_of(self, size: int, inputs: list[Any]) -> list[Any]:
        """Return the first ``size`` samples."""
        return transform(inputs, lambda leaf: leaf[:size] if is_array(leaf) else leaf)


class Run:
    """What came out of a forward and backward, on the host."""

    def __init__(self, output: Any, grad_inputs: Any, gradients: dict[str, Any]) -> None:
        self.parts: dict[str, Any] = {
            **dict(leaves(output, "output")),
            **dict(leaves(grad_inputs, "gradient of input")),
            **{f"gradient of parameter {name!r}": grad for name, grad in gradients.items()},
        }

    def expect(self, other: "Run", what: str, tolerance: float = 0.0) -> None:
        """Compare with a run that should have given the same."""
        for name, expected in self.parts.items():
            expect_equal(expected, other.parts.get(name), f"{name} {what}", tolerance)


def gradients_of(module: Module) -> dict[str, np.ndarray | None]:
    """Return copies of all parameters' gradients on the host."""
    return {
        name: None if parameter.grad is None else to_host(parameter.grad).copy()
        for name, parameter in module.named_parameters()
    }


def expect_equal(expected: Any, received: Any, what: str, tolerance: float = 0.0) -> None:
    """Raise AssertionError unless two arrays agree in shape, dtype and values."""
    if expected is None or received is None:
        if expected is not received:
            names = [("None" if value is None else "an array") for value in (expected, received)]
            raise AssertionError(f"{what}: expected {names[0]}, received {names[1]}")
        return
    first, second = to_host(expected), to_host(received)
    if first.shape != second.shape or first.dtype != second.dtype:
        raise AssertionError(
            f"{what}: expected shape {first.shape} and {first.dtype}, received shape "
            f"{second.shape} and {second.dtype}"
        )
    wrong = ~((first == second) | (np.isnan(first) & np.isnan(second)))
    if tolerance:  # an infinity in what was saved has none
        allowed = tolerance * np.maximum(np.abs(first).max(initial=1.0), 1.0)
        wrong &= ~(np.abs(first - second) <= allowed)
    if wrong.any():
        index = tuple(int(number) for number in np.argwhere(wrong)[0])
        raise AssertionError(
            f"{what}: expected {first[index]!r} at {list(index)}, received {second[index]!r} "
            f"({np.count_nonzero(wrong)} of {wrong.size} elements differ)"
        )
