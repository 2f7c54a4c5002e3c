"""Normalization over the batch: every channel by all samples and places."""

import math
from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device
from xbackprop.module import describe_layer
from xbackprop.nn.normalization.normalize import normalize_forward
from xbackprop.nn.normalization.running import RunningNorm


class BatchNorm(RunningNorm):
    """What batch normalizations share; a subclass names the axes after the channels.

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats, bias, device, dtype
        As for :class:`BatchNorm1d`.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
        device: str | Device | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, bias, device, dtype
        )

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Normalize by the batch in training or without running statistics, else by those."""
        x = self.check_x(x)
        has_statistics = self.running_mean is not None
        if not self.training and has_statistics:
            output, saved = self.normalize_by_running(x)
            return output, (saved, False)
        values = math.prod(x.shape[:1] + x.shape[2:])
        self.check_training(x.shape, values)
        weight, bias = self.scale(self.along_channels(x.ndim))
        axes = (0, *range(2, x.ndim))
        (output, center, var), saved = normalize_forward(x, weight, bias, axes, self.eps)
        if self.training and self.track_running_stats and has_statistics:
            self.track(center, var, values)
        return output, (saved, True)

    def check_training(self, shape: tuple[int, ...], values: int) -> None:
        """Refuse what has no variance, or might be divided by 0."""
        if values == 1:
            raise ValueError(
                f"{describe_layer(self)} expects more than one value per channel in training; "
                f"got x of shape {shape}, which would all become 0. Take more samples, or eval()."
            )
        if not self.eps > 0:
            raise ValueError(f"{describe_layer(self)} expects eps > 0 in training; got {self.eps}")

    def track(self, center: Array, var: Array, values: int) -> None:
        """Count a batch, and move the running statistics unless it is empty."""
        count = self.read_buffer("num_batches_tracked") + 1
        self.update_buffer("num_batches_tracked", count)
        if values:
            mean_of_all = self.momentum is None
            share = (1.0 / count).astype(center.dtype) if mean_of_all else self.momentum
            self.move_statistics(center, var, values, share)


class BatchNorm1d(BatchNorm):
    """Channels to mean 0 and variance 1, ``y = (x - mean) / sqrt(var + eps) * weight + bias``.

    Takes ``(batch, num_features)`` and ``(batch, num_features, length)``.

    Parameters
    ----------
    num_features : int
        Number of channels, the length of axis 1.
    eps : float, default 1e-5
        Added to the variance; more than 0 in training.
    momentum : float or None, default 0.1
        Share of the newest batch in the running statistics; None takes the mean of all batches.
    affine : bool, default True
        False leaves weight and bias out.
    track_running_stats : bool, default True
        False keeps no running statistics: evaluation takes those of its batch as well.
    bias : bool, default True
        False leaves the bias out.
    device : str or Device, optional
        Where parameters and statistics live; None is the default device.
    dtype : dtype, optional
        float32 (None) or float64.

    Attributes
    ----------
    weight, bias : Parameter, shape (num_features,), or None
        Ones and zeros at first.
    running_mean, running_var : array, shape (num_features,), or None
        Zeros and ones at first; the variance is unbiased, divided by the count less one.
    num_batches_tracked : array of int64, shape (), or None
        How many batches the statistics have seen.

    Notes
    -----
    In training a channel's mean and variance are taken over the batch and all places; evaluation
    takes the running ones, which are constants for the derivative. Both are derived in
    :func:`normalize_forward` and :func:`normalize_by_forward`. Running statistics are written when
    the outermost call has succeeded; an empty batch is counted and leaves them, as in PyTorch.

    References
    ----------
    Ioffe, Szegedy, "Batch normalization", ICML 2015, algorithms 1 and 2.
    """

    spatial = ("length",)

    def layouts(self, channels: str) -> list[tuple[str, ...]]:
        """Return the shapes of input it takes, in words."""
        return [("batch", channels), *super().layouts(channels)]


class BatchNorm2d(BatchNorm):
    """:class:`BatchNorm1d` of ``(batch, num_features, height, width)``.

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats, bias, device, dtype
        As for :class:`BatchNorm1d`.

    References
    ----------
    Ioffe, Szegedy, "Batch normalization", ICML 2015, section 3.2.
    """

    spatial = ("height", "width")


class BatchNorm3d(BatchNorm):
    """:class:`BatchNorm1d` of ``(batch, num_features, depth, height, width)``.

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats, bias, device, dtype
        As for :class:`BatchNorm1d`.

    References
    ----------
    Ioffe, Szegedy, "Batch normalization", ICML 2015, section 3.2.
    """

    spatial = ("depth", "height", "width")
