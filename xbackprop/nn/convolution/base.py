"""What convolutions share: their arguments, their parameters, and the axes of their input."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device
from xbackprop.initializers import RandomSource, as_generator, kaiming_uniform
from xbackprop.module import Module, Parameter, describe_layer
from xbackprop.nn.sizes import as_count, as_sizes

IntOrInts = int | Sequence[int]
Widths = tuple[tuple[int, int], ...]

AXES = {1: "length", 2: "height, width", 3: "depth, height, width"}


class KernelLayer(Module):
    """A layer whose kernel slides over the axes after the channels; a subclass says how many."""

    in_half = "half"
    spatial_axes: ClassVar[int]

    def set_channels(self, in_channels: int, out_channels: int, groups: int) -> None:
        """Check and keep the numbers of channels: none may be 0, of which PyTorch makes nothing."""
        name = type(self).__name__
        self.in_channels = as_count(name, "in_channels", in_channels, 1)
        self.out_channels = as_count(name, "out_channels", out_channels, 1)
        self.groups = as_count(name, "groups", groups, 1)
        for channels in ("in_channels", "out_channels"):
            if getattr(self, channels) % self.groups:
                raise ValueError(
                    f"{name} divides {channels} into groups of one size; got "
                    f"{channels}={getattr(self, channels)} and groups={groups}"
                )

    def set_kernel(self, kernel_size: IntOrInts, stride: IntOrInts, dilation: IntOrInts) -> None:
        """Check and keep what the kernel looks like and how it moves, a number an axis."""
        name, axes = type(self).__name__, self.spatial_axes
        self.kernel_size = as_sizes(name, "kernel_size", kernel_size, axes, 1)
        self.stride = as_sizes(name, "stride", stride, axes, 1)
        self.dilation = as_sizes(name, "dilation", dilation, axes, 1)

    def make_parameters(
        self,
        weight_shape: tuple[int, ...],
        bias: bool,
        rng: RandomSource,
        dtype: Any,
        device: str | Device | None,
    ) -> None:
        """Make weight and bias with their initial values."""
        drawn = self._draw(weight_shape, bias, rng, dtype, device)
        self.weight = Parameter(drawn["weight"])
        self.bias: Parameter | None = Parameter(drawn["bias"]) if bias else None

    def _draw(
        self,
        weight_shape: tuple[int, ...],
        bias: bool,
        rng: RandomSource,
        dtype: Any,
        device: str | Device | None,
    ) -> dict[str, Array]:
        # PyTorch counts the second axis of a transposed convolution's weight as well, though those
        # are its outputs.
        fan_in, generator = math.prod(weight_shape[1:]), as_generator(rng)
        shapes: dict[str, tuple[int, ...]] = {"weight": weight_shape}
        if bias:
            shapes["bias"] = (self.out_channels,)
        return {
            name: kaiming_uniform(shape, fan_in, rng=generator, dtype=dtype, device=device)
            for name, shape in shapes.items()
        }

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Draw the initial values anew."""
        weight = self.weight
        has_bias = self.bias is not None
        self.load_state_dict(self._draw(weight.shape, has_bias, rng, weight.dtype, weight.device))

    def bias_value(self) -> Array | None:
        """Return the array of the bias where there is one."""
        return None if self.bias is None else self.bias.value

    def wanted_gradients(self) -> tuple[bool, bool]:
        """Tell whether weight and bias are to be trained."""
        return self.weight.requires_grad, self.bias is not None and self.bias.requires_grad

    def accumulate(self, grad_weight: Array | None, grad_bias: Array | None) -> None:
        """Add to the gradients of weight and bias what was computed."""
        if grad_weight is not None:
            self.weight.accumulate(grad_weight)
        if self.bias is not None and grad_bias is not None:
            self.bias.accumulate(grad_bias)

    def as_batch(self, x: Array) -> Array:
        """Give one sample, or its gradient, a batch axis."""
        return x if x.ndim == self.spatial_axes + 2 else x[None]

    def check_axes(self, x: Array) -> Array:
        """Check dtype, axes and channels of an input; return it with a batch axis."""
        x = self.check_input("x", x, self.weight.value)
        axes = self.spatial_axes
        is_right = x.ndim in (axes + 1, axes + 2) and x.shape[-axes - 1] == self.in_channels
        if not is_right or 0 in x.shape[-axes:]:
            sample = f"{self.in_channels}, {AXES[axes]}"
            raise ValueError(
                f"{describe_layer(self)} expects x of shape (batch, {sample}) or ({sample}), no "
                f"axis but the batch empty; got {x.shape}"
            )
        return self.as_batch(x)

    def describe_options(self, **defaults: Any) -> str:
        """Return the constructor's arguments, options only where they are not the default."""
        shown = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        shown += f", stride={self.stride}"
        values = {name: getattr(self, name) for name in defaults} | {"bias": self.bias is not None}
        for name, default in defaults.items():
            if values[name] not in (default, (default,) * self.spatial_axes):
                shown += f", {name}={values[name]}"
        return shown
