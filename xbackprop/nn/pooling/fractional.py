"""Fractional max pooling: the largest element of windows whose places are partly random."""

import itertools
import math
from typing import Any, ClassVar

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.device import Device
from xbackprop.dispatch import op
from xbackprop.initializers import RandomSource, given
from xbackprop.module import describe_layer
from xbackprop.nn.activations import as_number
from xbackprop.nn.padding.widths import check_image
from xbackprop.nn.pooling.windows import check_ints, grad_of_maxima, per_axis
from xbackprop.nn.randomness import RandomLayer
from xbackprop.ops.entries import sum_entries


@op
def fractional_max_pool_forward(
    x: Array, samples: Array, kernel_size: tuple[int, ...], sizes: tuple[int, ...]
) -> tuple[Array, Any]:
    """Compute the maximum of ``k`` elements from ``int((o + u) a) - int(u a)`` on.

    Parameters
    ----------
    x : array of float
        Shape (..., channels, and one axis per size).
    samples : array of float
        ``u`` from 0 to 1, shape (..., channels, axes): one an axis, in the order of the axes.
    kernel_size : tuple of int
        ``k`` along each of the last axes.
    sizes : tuple of int
        Outputs along each of the last axes; the last one ends with the axis.

    Returns
    -------
    output : array
        The last axes have these sizes.
    saved : (indices, spatial, most)
        Where the maximum stands in the flattened last axes of ``x``, as int64, their shape, and how
        many windows at most share an element.

    Notes
    -----
    ``a = (n - k) / (m - 1)`` for ``m`` outputs of ``n`` elements, so that steps are ``floor(a)`` or
    ``ceil(a)`` long. A window's gradient belongs to its maximum alone: of equals to the first, of
    NaNs to the last, as in PyTorch. Backward sums over the windows that share a maximum, found by
    one stable sort of the indices; see :mod:`xbackprop.ops.entries` for the memory. A channel whose
    sample is out of range becomes NaN.
    """
    xp = get_array_module(x)
    spatial, lead = x.shape[-len(sizes) :], x.shape[: -len(sizes)]
    dtype = np.result_type(x.dtype.newbyteorder("="), np.float32)
    is_sample = ((samples >= 0) & (samples <= 1)).all(axis=-1)
    samples = xp.where(is_sample[..., None], samples, 0).astype(dtype, copy=False)
    steps = [math.prod(spatial[axis + 1 :]) for axis in range(len(spatial))]
    index = xp.zeros((*lead, *(1,) * len(sizes)), dtype=np.int64)
    for axis, numbers in enumerate(zip(spatial, kernel_size, sizes, strict=True)):
        starts = steps[axis] * _starts(samples[..., axis], *numbers)
        before, behind = (1,) * axis, (1,) * (len(sizes) - 1 - axis)
        index = index + starts.reshape(*lead, *before, sizes[axis], *behind)
    flat = x.reshape(*lead, math.prod(spatial))
    index = index.reshape(*lead, math.prod(sizes))
    best, indices = xp.full(index.shape, -math.inf, dtype=flat.dtype.newbyteorder("=")), index
    for offset in itertools.product(*map(range, kernel_size)):
        here = index + sum(number * step for number, step in zip(offset, steps, strict=True))
        value = xp.take_along_axis(flat, here, axis=-1)
        is_larger = (value > best) | (value != value)
        best = xp.where(is_larger, value, best)
        indices = xp.where(is_larger, here, indices)
    best = xp.where(is_sample[..., None], best, math.nan).astype(best.dtype, copy=False)
    output, indices = (array.reshape(*lead, *sizes) for array in (best, indices))
    return output, (indices, spatial, _most_windows(spatial, kernel_size, sizes))


@op
def fractional_max_pool_backward(
    grad_output: Array, indices: Array, spatial: tuple[int, ...], most: int
) -> Array:
    """Return at every element the sum of ``g`` over the windows whose maximum it is."""
    xp = get_array_module(grad_output)
    lead, size = grad_output.shape[: -len(spatial)], math.prod(spatial)
    planes = math.prod(lead)
    windows = math.prod(grad_output.shape[len(lead) :])
    places = indices.reshape(planes, windows) + size * xp.arange(planes)[:, None]
    grad = sum_entries(grad_output.reshape(-1), places.reshape(-1), planes * size, most)
    return grad.reshape(*lead, *spatial)


def _starts(sample: Array, length: int, kernel: int, outputs: int) -> Array:
    """Return where the windows of each channel start along an axis."""
    xp = get_array_module(sample)
    last = xp.full((*sample.shape, 1), length - kernel, dtype=np.int64)
    if outputs == 1:
        return last
    alpha = (length - kernel) / (outputs - 1)
    number, sample = xp.arange(outputs - 1, dtype=sample.dtype), sample[..., None]
    start = xp.floor((number + sample) * alpha) - xp.floor(sample * alpha)
    return xp.concatenate([start.astype(np.int64), last], axis=-1)


def _most_windows(
    spatial: tuple[int, ...], kernel_size: tuple[int, ...], sizes: tuple[int, ...]
) -> int:
    """Return how many windows can share an element.

    Starts that are ``d`` windows apart lie more than ``d a - 1`` elements apart, less what float32
    rounds, and those of windows that share an element at most ``k - 1``.
    """
    most = 1
    for length, kernel, outputs in zip(spatial, kernel_size, sizes, strict=True):
        if outputs > 1:
            alpha = (length - kernel) / (outputs - 1)
            most *= min(outputs, int((kernel + length * 2.0**-21) / alpha) + 1)
    return most


class _FractionalMaxPool(RandomLayer):
    """What fractional max pooling of two and three axes shares."""

    spatial_axes: ClassVar[int]
    columns: ClassVar[slice]  # of the samples, in the order of the axes

    def __init__(
        self,
        kernel_size: int | tuple[int, ...],
        output_size: int | tuple[int, ...] | None = None,
        output_ratio: float | tuple[float, ...] | None = None,
        return_indices: bool = False,
        _random_samples: Any = None,
        *,
        device: str | Device | None = None,
        rng: RandomSource = None,
    ) -> None:
        name, ndim = type(self).__name__, self.spatial_axes
        self.kernel_size = per_axis(check_ints(name, "kernel_size", kernel_size, ndim, 1), ndim)
        if (output_size is None) == (output_ratio is None):
            raise ValueError(
                f"{name} expects either output_size or output_ratio; got output_size={output_size} "
                f"and output_ratio={output_ratio}"
            )
        self.output_size = self.output_ratio = None
        if output_size is not None:
            self.output_size = per_axis(check_ints(name, "output_size", output_size, ndim, 1), ndim)
        else:
            self.output_ratio = _as_ratios(name, output_ratio, ndim)
        self.return_indices = return_indices
        super().__init__(device, rng)
        if _random_samples is not None:
            self.register_buffer("_random_samples", given(_random_samples))

    def forward(self, x: Array) -> tuple[Any, Any]:
        """Return the maxima, and with ``return_indices`` where they stand."""
        self.check_random_input(x)
        check_image(self, x.shape, self.spatial_axes)
        if 0 in x.shape[-self.spatial_axes - 1 :]:
            raise ValueError(
                f"{describe_layer(self)} expects no axis but the batch empty; got x of shape "
                f"{x.shape}"
            )
        sizes, samples = self._sizes_for(x.shape), self._samples_for(x)[..., self.columns]
        output, saved = fractional_max_pool_forward(x, samples, self.kernel_size, sizes)
        return ((output, saved[0]) if self.return_indices else output), (saved, output.dtype)

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Give every window's gradient to its maximum; indices have none."""
        if not input_grad:
            return None
        inner, dtype = saved
        grad = grad_of_maxima(grad_output, inner[0], dtype)
        return fractional_max_pool_backward(grad, *inner)

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        shown = "output_size" if self.output_ratio is None else "output_ratio"
        return f"kernel_size={self.kernel_size}, {shown}={getattr(self, shown)}"

    def _sizes_for(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        spatial = shape[-self.spatial_axes :]
        if self.output_ratio is None:
            sizes: Any = self.output_size
        else:
            sizes = tuple(int(n * r) for n, r in zip(spatial, self.output_ratio, strict=True))
        for length, width, size in zip(spatial, self.kernel_size, sizes, strict=True):
            if not 1 <= size <= length - width + 1:
                raise ValueError(
                    f"{describe_layer(self)} makes lengths {sizes} of x of shape {shape}; with "
                    f"kernel_size={self.kernel_size} they can be 1 to length - kernel_size + 1"
                )
        return sizes

    def _samples_for(self, x: Array) -> Array:
        """Return one number an axis for every channel of every sample: those given, or drawn."""
        lead, ndim = x.shape[: -self.spatial_axes], self.spatial_axes
        if "_random_samples" not in self.__dict__["_buffers"]:
            dtype = np.result_type(x.dtype.newbyteorder("="), np.float32)
            return (self.draw_bits((*lead, ndim)) >> 8).astype(dtype) * 2.0**-24
        samples = self.check_input("_random_samples", self.read_buffer("_random_samples"), x)
        batch, channels = lead if len(lead) == 2 else (1, *lead)
        if samples.ndim != 3 or samples.shape[1:] != (channels, ndim) or len(samples) < batch:
            raise ValueError(
                f"{describe_layer(self)} expects _random_samples of shape ({batch}, {channels}, "
                f"{ndim}), or more samples; got {samples.shape}"
            )
        if get_array_module(samples) is np and not ((samples >= 0) & (samples <= 1)).all():
            raise ValueError(f"{describe_layer(self)} expects _random_samples from 0 to 1")
        return samples[:batch].reshape(*lead, ndim)


def _as_ratios(layer: str, ratio: Any, ndim: int) -> tuple[float, ...]:
    """Return numbers between 0 and 1, one an axis."""
    given = ratio if isinstance(ratio, (tuple, list)) else (ratio,) * ndim
    numbers = tuple(as_number(layer, "output_ratio", number) for number in given)
    if len(numbers) != ndim:
        raise ValueError(
            f"{layer} expects output_ratio of one number or {ndim}; got {len(numbers)}"
        )
    if not all(0 < number < 1 for number in numbers):
        raise ValueError(f"{layer} expects output_ratio between 0 and 1; got {ratio}")
    return numbers


class FractionalMaxPool2d(_FractionalMaxPool):
    """Largest element of windows at random steps, ``y[o] = max x[i[o] + k]``.

    Parameters
    ----------
    kernel_size : int or tuple of 2 int
        Elements of a window, ``k = 0 ... kernel_size - 1``.
    output_size : int or tuple of 2 int, optional
        ``m``, windows along each of the last two axes.
    output_ratio : float or tuple of 2 float, optional
        Instead of sizes: outputs for one element of the input, between 0 and 1, rounded down.
    return_indices : bool, default False
        Return ``(output, indices)``; the indices count the flattened axes
        ``(height, width)``.
    _random_samples : array_like, shape (batch, channels, 2), optional
        ``u`` from 0 to 1, for width, then height; None draws them anew at every call, in evaluation
        as well. Part of the state, as in PyTorch; a larger batch is cut.
    device : str or Device, optional
        Where the random counter lives; None is the default device.
    rng : Generator, int or None
        Draws the key of the random stream.

    Notes
    -----
    Input ``(batch, channels, height, width)``, or that without the batch axis. Window ``o``
    starts at ``i[o] = int((o + u) a) - int(u a)`` with ``a = (n - k) / (m - 1)``, the last at
    ``n - k``. A ``u`` that is drawn has 24 Philox bits of (key, call number, position), the same on
    every device. One that is given and out of range is refused on the CPU, and makes its channel
    NaN on a device. NaN wins, as in PyTorch. The derivative is derived in
    :func:`fractional_max_pool_forward`.

    References
    ----------
    Graham, "Fractional max-pooling", arXiv:1412.6071 (2014).
    """

    spatial_axes = 2
    columns = slice(None, None, -1)


class FractionalMaxPool3d(_FractionalMaxPool):
    """Largest element of windows at random steps, ``y[o] = max x[i[o] + k]``.

    Parameters
    ----------
    kernel_size : int or tuple of 3 int
        Elements of a window, ``k = 0 ... kernel_size - 1``.
    output_size : int or tuple of 3 int, optional
        ``m``, windows along each of the last three axes.
    output_ratio : float or tuple of 3 float, optional
        Instead of sizes: outputs for one element of the input, between 0 and 1, rounded down.
    return_indices : bool, default False
        Return ``(output, indices)``; the indices count the flattened axes
        ``(depth, height, width)``.
    _random_samples : array_like, shape (batch, channels, 3), optional
        ``u`` from 0 to 1, for depth, height, width; None draws them anew at every call, in
        evaluation as well. Part of the state, as in PyTorch; a larger batch is cut.
    device : str or Device, optional
        Where the random counter lives; None is the default device.
    rng : Generator, int or None
        Draws the key of the random stream.

    Notes
    -----
    Input ``(batch, channels, depth, height, width)``, or that without the batch axis. Window ``o``
    starts at ``i[o] = int((o + u) a) - int(u a)`` with ``a = (n - k) / (m - 1)``, the last at
    ``n - k``. A ``u`` that is drawn has 24 Philox bits of (key, call number, position), the same on
    every device. One that is given and out of range is refused on the CPU, and makes its channel
    NaN on a device. NaN wins, as in PyTorch, which refuses ``m = n - k + 1`` here though not in two
    dimensions. The derivative is derived in :func:`fractional_max_pool_forward`.

    References
    ----------
    Graham, "Fractional max-pooling", arXiv:1412.6071 (2014).
    """

    spatial_axes = 3
    columns = slice(None)
