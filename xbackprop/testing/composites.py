"""Networks around a layer under test: between other layers, and used twice."""

from typing import Any

import numpy as np

from xbackprop.backend.transfer import to_host
from xbackprop.module import Module
from xbackprop.nn import Linear
from xbackprop.testing.structures import backward_of_all_inputs, device_among, is_float


class Twice(Module):
    """Apply one layer to two sets of inputs; both uses must add to the same gradients.

    Parameters
    ----------
    layer : Module
        Takes half of the inputs at a time.
    """

    def __init__(self, layer: Module) -> None:
        self.layer = layer

    def forward(self, *inputs: Any) -> tuple[Any, Any]:
        """Return both outputs."""
        half = len(inputs) // 2
        first, saved_first = self.layer.forward(*inputs[:half])
        second, saved_second = self.layer.forward(*inputs[half:])
        return (first, second), (half, saved_first, saved_second)

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        """Run the backwards in the order of the forwards, which nothing may depend on."""
        half, saved_first, saved_second = saved
        first = backward_of_all_inputs(self.layer, grad_output[0], saved_first, half)
        second = backward_of_all_inputs(self.layer, grad_output[1], saved_second, half)
        return (*first, *second)


class Between(Module):
    """Put a Linear before a layer and one behind it, where its input and output allow.

    Parameters
    ----------
    layer : Module
        The layer under test.
    inputs : list of array
        What it takes; tells shapes, dtypes and the device.
    rng : Generator
        Draws the weights. Those before the layer are close to the identity, so that inputs that
        keep off a kink, or inside a domain, still do.
    """

    def __init__(self, layer: Module, inputs: list[Any], rng: np.random.Generator) -> None:
        self.layer = layer
        self.before: Linear | None = None
        self.behind: Linear | None = None
        self._position = 0
        for position, value in enumerate(inputs):
            if is_float(value) and value.ndim:
                self._position = position
                self.before = _linear(value, value.shape[-1], rng)
                nearly = np.eye(value.shape[-1]) + 0.01 * to_host(self.before.weight.data)
                offset = 0.01 * np.ones(value.shape[-1])
                self.before.load_state_dict({"weight": nearly, "bias": offset})
                break
        output = layer(*self._after_before(inputs)[0])
        if is_float(output) and output.ndim:
            self.behind = _linear(output, 3, rng)

    def _after_before(self, inputs: Any) -> tuple[list[Any], Any]:
        changed, saved = list(inputs), None
        if self.before is not None:
            value, saved = self.before.forward(changed[self._position])
            changed[self._position] = value
        return changed, saved

    def forward(self, *inputs: Any) -> tuple[Any, Any]:
        """Pass through Linear, layer, Linear."""
        changed, saved_before = self._after_before(inputs)
        output, saved = self.layer.forward(*changed)
        saved_behind = None
        if self.behind is not None:
            output, saved_behind = self.behind.forward(output)
        return output, (len(inputs), saved_before, saved, saved_behind)

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        """Pass back."""
        count, saved_before, saved_layer, saved_behind = saved
        if self.behind is not None:
            grad_output = self.behind.backward(grad_output, saved_behind)
        grads = backward_of_all_inputs(self.layer, grad_output, saved_layer, count)
        if self.before is not None:
            grads[self._position] = self.before.backward(grads[self._position], saved_before)
        return grads[0] if count == 1 else tuple(grads)


def _linear(like: Any, out_features: int, rng: np.random.Generator) -> Linear:
    return Linear(
        like.shape[-1], out_features, device=device_among(like), dtype=like.dtype, rng=rng
    )
