"""Normalization over the places of one channel of one sample."""

import math
from typing import Any, ClassVar

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device
from xbackprop.module import describe_layer
from xbackprop.nn.normalization.normalize import normalize_forward
from xbackprop.nn.normalization.running import RunningNorm
from xbackprop.ops.moments import mean


class InstanceNorm(RunningNorm):
    """What instance normalizations share; a subclass names the axes after the channels.

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats, bias, device, dtype
        As for :class:`InstanceNorm1d`.
    """

    averages_batches: ClassVar[bool] = False  # with momentum None; `update_bn` asks

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        bias: bool = True,
        device: str | Device | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, bias, device, dtype
        )

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Normalize by the sample in training or without running statistics, else by those."""
        x = self.check_x(x)
        is_single = x.ndim == 1 + len(self.spatial)
        output, saved = self.normalize(x[None] if is_single else x)
        return (output[0] if is_single else output), (saved, is_single)

    def normalize(self, x: Array) -> tuple[Array, Any]:
        """Normalize a batch."""
        if not self.training and self.track_running_stats:
            output, saved = self.normalize_by_running(x)
            return output, (saved, False)
        places = math.prod(x.shape[2:])
        if places == 1:
            raise ValueError(
                f"{describe_layer(self)} expects more than one place per channel in training; "
                f"got x of shape {x.shape}, which would all become 0"
            )
        weight, bias = self.scale(self.along_channels(x.ndim))
        axes = tuple(range(2, x.ndim))
        (output, center, var), saved = normalize_forward(x, weight, bias, axes, self.eps)
        if self.training and self.track_running_stats and self.momentum and len(x) and places:
            self.move_statistics(mean(center, (0,)), mean(var, (0,)), places, self.momentum)
        return output, (saved, True)

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Add the sums of ``g x_hat`` and ``g``; return the gradient of the input."""
        inner, is_single = saved
        batch = grad_output[None] if is_single else grad_output
        grad_input = super().backward(batch, inner, input_grad=input_grad)
        return grad_input[0] if is_single and grad_input is not None else grad_input

    def layouts(self, channels: str) -> list[tuple[str, ...]]:
        """Return the shapes of input it takes, in words."""
        return [*super().layouts(channels), (channels, *self.spatial)]


class InstanceNorm1d(InstanceNorm):
    """Channels of samples to mean 0 and variance 1, ``y = (x - mean) / sqrt(var + eps) * w + b``.

    Takes ``(batch, num_features, length)``, or one sample ``(num_features, length)``.

    Parameters
    ----------
    num_features : int
        Number of channels.
    eps : float, default 1e-5
        Added to the variance.
    momentum : float or None, default 0.1
        Share of the newest batch in the running statistics; None leaves them, as 0 does.
    affine : bool, default False
        True gives a weight and a bias.
    track_running_stats : bool, default False
        True keeps running statistics, which evaluation takes; without them it takes those of its
        samples as well.
    bias : bool, default True
        False leaves the bias out, where there is a weight.
    device : str or Device, optional
        Where parameters and statistics live; None is the default device.
    dtype : dtype, optional
        float32 (None) or float64.

    Attributes
    ----------
    weight, bias : Parameter, shape (num_features,), or None
        Ones and zeros at first.
    running_mean, running_var : array, shape (num_features,), or None
        Zeros and ones at first; they move towards the mean over the batch of the samples' moments,
        the variance unbiased. An empty batch leaves them.
    num_batches_tracked : array of int64, shape (), or None
        Stays 0, as in PyTorch.

    Notes
    -----
    Mean and variance are taken over the places of one channel of one sample. The derivative is
    derived in :func:`normalize_forward`; with running statistics, which are constants, in
    :func:`normalize_by_forward`.

    References
    ----------
    Ulyanov, Vedaldi, Lempitsky, "Instance normalization: the missing ingredient for fast
    stylization", 2016, equation 4.
    """

    spatial = ("length",)


class InstanceNorm2d(InstanceNorm):
    """:class:`InstanceNorm1d` of ``(batch, num_features, height, width)``, or one such sample.

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats, bias, device, dtype
        As for :class:`InstanceNorm1d`.

    References
    ----------
    Ulyanov, Vedaldi, Lempitsky, "Instance normalization: the missing ingredient for fast
    stylization", 2016, equation 4.
    """

    spatial = ("height", "width")


class InstanceNorm3d(InstanceNorm):
    """:class:`InstanceNorm1d` of ``(batch, num_features, depth, height, width)``, or one sample.

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats, bias, device, dtype
        As for :class:`InstanceNorm1d`.

    References
    ----------
    Ulyanov, Vedaldi, Lempitsky, "Instance normalization: the missing ingredient for fast
    stylization", 2016, equation 4.
    """

    spatial = ("depth", "height", "width")
