"""Normalization of channels with statistics that run along in training and serve in evaluation."""

from typing import Any, ClassVar

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device
from xbackprop.initializers import RandomSource, float_dtype, initial
from xbackprop.module import describe_layer
from xbackprop.nn.activations import as_number
from xbackprop.nn.normalization.base import Normalization
from xbackprop.nn.normalization.normalize import (
    normalize_backward,
    normalize_by_backward,
    normalize_by_forward,
)


class RunningNorm(Normalization):
    """A normalization of channels that may keep running statistics; a subclass takes the moments.

    Parameters
    ----------
    num_features : int
        Number of channels.
    eps : float
        Added to the variance.
    momentum : float or None
        Share of the newest statistics; what None means the subclass says.
    affine : bool
        Whether there are weight and bias.
    track_running_stats : bool
        Whether there are running statistics.
    bias : bool
        Whether there is a bias beside the weight.
    device : str or Device, optional
        Where parameters and statistics live; None is the default device.
    dtype : dtype, optional
        float32 (None) or float64.
    """

    spatial: ClassVar[tuple[str, ...]]  # names of the axes after the channels

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        bias: bool,
        device: str | Device | None,
        dtype: Any,
    ) -> None:
        name = type(self).__name__
        if num_features < 0:
            raise ValueError(f"{name} expects num_features >= 0; got {num_features}")
        self.num_features = num_features
        self.eps = as_number(name, "eps", eps)
        self.momentum = None if momentum is None else as_number(name, "momentum", momentum)
        self.affine = affine
        self.track_running_stats = track_running_stats
        shape = (num_features,)
        super().__init__(shape, affine, bias, device, dtype)
        if not track_running_stats:
            self.running_mean = self.running_var = self.num_batches_tracked = None
            return
        chosen = float_dtype(dtype)
        first_mean = initial(shape, chosen, lambda: np.zeros(shape), device)
        first_var = initial(shape, chosen, lambda: np.ones(shape), device)
        self.register_buffer("running_mean", first_mean)
        self.register_buffer("running_var", first_var)
        none = initial((), np.dtype(np.int64), lambda: np.zeros(()), device)
        self.register_buffer("num_batches_tracked", none)

    def reset_running_stats(self) -> None:
        """Set the running mean to 0, the running variance to 1 and the count of batches to 0."""
        if self.running_mean is not None:
            state = {
                "running_mean": np.zeros(self.num_features),
                "running_var": np.ones(self.num_features),
                "num_batches_tracked": np.array(0),
            }
            self.load_state_dict(state, strict=False)

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Set weight, bias and running statistics to their first values."""
        super().reset_parameters(rng)
        self.reset_running_stats()

    # --- inputs ---------------------------------------------------------------------------

    def check_x(self, x: Any) -> Array:
        """Check that an input is an array of floats beside the layer's own, of a shape it takes."""
        if self.weight is None and self.running_mean is not None:
            x = self.check_input("x", x, self.running_mean)
        else:
            x = super().check_x(x)
        channels = str(self.num_features)
        for layout in self.layouts(channels):
            axis = layout.index(channels)
            if len(layout) == x.ndim and x.shape[axis] == self.num_features:
                return x
        expected = " or ".join(f"({', '.join(layout)})" for layout in self.layouts(channels))
        raise ValueError(f"{describe_layer(self)} expects x of shape {expected}; got {x.shape}")

    def layouts(self, channels: str) -> list[tuple[str, ...]]:
        """Return the shapes of input it takes, in words, ``channels`` among them."""
        return [("batch", channels, *self.spatial)]

    def along_channels(self, ndim: int) -> tuple[int, ...]:
        """Return the shape of what belongs to channels, beside an array with ``ndim`` axes."""
        return (1, self.num_features, *(1,) * (ndim - 2))

    # --- running statistics ---------------------------------------------------------------

    def normalize_by_running(self, x: Array) -> tuple[Array, Any]:
        """Normalize with the running statistics."""
        shape = self.along_channels(x.ndim)
        center = self.read_buffer("running_mean").reshape(shape)
        var = self.read_buffer("running_var").reshape(shape)
        return normalize_by_forward(x, center, var, *self.scale(shape), self.eps)

    def move_statistics(self, center: Array, var: Array, values: int, share: Any) -> None:
        """Move the running statistics towards those of a batch when the call succeeds.

        Parameters
        ----------
        center, var : array
            One number per channel; the variance divided by the count.
        values : int
            How many values it was taken of: running variances are unbiased, divided by one less.
        share : float or 0-d array
            Of the newcomers in the new statistics.
        """
        news = {"running_mean": center, "running_var": var * (values / (values - 1))}
        for name, value in news.items():
            moved = self.read_buffer(name) * (1 - share)
            moved += value.reshape(-1) * share
            self.update_buffer(name, moved)

    # --- backward -------------------------------------------------------------------------

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Add the sums of ``g x_hat`` and ``g``; return the gradient of the input."""
        inner, has_batch_moments = saved
        backward_op = normalize_backward if has_batch_moments else normalize_by_backward
        grad_input, *grads = backward_op(grad_output, *inner, input_grad, *self.wanted())
        self.accumulate(*grads)
        return grad_input

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )
