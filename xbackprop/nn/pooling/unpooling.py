"""Unpooling: the maxima of windows back to where they stood, zeros elsewhere."""

import math
from typing import Any, ClassVar

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.module import Module, describe_layer
from xbackprop.nn.activations import check_float
from xbackprop.nn.padding.widths import check_image
from xbackprop.nn.pooling.windows import check_ints, per_axis
from xbackprop.ops.entries import last_entries


@op
def max_unpool_forward(x: Array, indices: Array, spatial: tuple[int, ...]) -> tuple[Array, Any]:
    """Compute ``y[indices[o]] = x[o]``, and 0 where no index leads.

    Parameters
    ----------
    x : array of float
        Shape (..., channels, and one axis per entry of ``spatial``).
    indices : array of int
        Same shape: places in the flattened last axes of the output.
    spatial : tuple of int
        Lengths of the last axes of the output.

    Returns
    -------
    output : array
        The last axes have these lengths.
    saved : (places, owner, shape)
        The place of each element of ``x`` in the flattened output, the element that each place
        shows or -1, and the shape of ``x``.

    Notes
    -----
    Of elements with one index the last in memory is shown. Its gradient is that of its place; the
    others' is 0. Places look for their element, so nothing is written twice; see
    :mod:`xbackprop.ops.entries` for the memory. A channel of a sample in which an index is out of
    range becomes NaN: looking for one would mean to wait for the device.
    """
    xp = get_array_module(x)
    size, lead = math.prod(spatial), x.shape[: -len(spatial)]
    planes = math.prod(lead)
    index = indices.astype(np.int64, copy=False).reshape(planes, math.prod(x.shape[len(lead) :]))
    is_inside = (index >= 0) & (index < size)
    places = xp.where(is_inside, index, 0) + size * xp.arange(planes)[:, None]
    places = places.reshape(-1)
    owner = last_entries(places, planes * size)
    shown = owner >= 0
    if x.size:
        shown = xp.where(shown, xp.take(x.reshape(-1), xp.maximum(owner, 0)), 0)
    output = xp.where(is_inside.all(axis=1)[:, None], shown.reshape(planes, size), math.nan)
    output = output.astype(x.dtype.newbyteorder("="), copy=False)
    return output.reshape(*lead, *spatial), (places, owner, x.shape)


@op
def max_unpool_backward(
    grad_output: Array, places: Array, owner: Array, shape: tuple[int, ...]
) -> Array:
    """Return ``g[indices[o]]`` where the output shows ``x[o]``, else 0."""
    xp = get_array_module(grad_output)
    if not places.size:
        return xp.zeros(shape, dtype=grad_output.dtype)
    is_shown = xp.take(owner, places) == xp.arange(places.size)
    grad = xp.where(is_shown, xp.take(grad_output.reshape(-1), places), 0)
    return grad.reshape(shape)


class _MaxUnpool(Module):
    """What unpooling of one to three axes shares."""

    spatial_axes: ClassVar[int]

    def __init__(
        self,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] | None = None,
        padding: int | tuple[int, ...] = 0,
    ) -> None:
        name, ndim = type(self).__name__, self.spatial_axes
        stride = kernel_size if stride is None else stride
        self.kernel_size = per_axis(check_ints(name, "kernel_size", kernel_size, ndim, 1), ndim)
        self.stride = per_axis(check_ints(name, "stride", stride, ndim, 1), ndim)
        self.padding = per_axis(check_ints(name, "padding", padding, ndim, 0), ndim)

    def forward(
        self, x: Array, indices: Array, output_size: tuple[int, ...] | None = None
    ) -> tuple[Array, Any]:
        """Return the larger image; ``output_size`` chooses among those that pool to ``x``."""
        check_float(self, x)
        check_image(self, x.shape, self.spatial_axes)
        if 0 in x.shape[-self.spatial_axes - 1 :]:
            raise ValueError(
                f"{describe_layer(self)} expects no axis but the batch empty; got x of shape "
                f"{x.shape}"
            )
        spatial = self._lengths(x.shape, output_size)
        self._check_indices(x, indices, math.prod(spatial))
        return max_unpool_forward(x, indices, spatial)

    def backward(
        self, grad_output: Array, saved: Any, *, input_grad: bool = True
    ) -> tuple[Array, None] | None:
        """Take the gradients from where the elements went; indices have none."""
        return (max_unpool_backward(grad_output, *saved), None) if input_grad else None

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"

    def _lengths(self, shape: tuple[int, ...], output_size: Any) -> tuple[int, ...]:
        ndim = self.spatial_axes
        numbers = zip(shape[-ndim:], self.kernel_size, self.stride, self.padding, strict=True)
        usual = tuple(
            (length - 1) * step + kernel - 2 * width for length, kernel, step, width in numbers
        )
        given = usual if output_size is None else self._given_lengths(output_size)
        ranges = [
            (max(length - step + 1, 1), length + step - 1)
            for length, step in zip(usual, self.stride, strict=True)
        ]
        for length, (least, most) in zip(given, ranges, strict=True):
            if not least <= length <= most:
                wanted = ", ".join(f"{low} to {high}" for low, high in ranges)
                raise ValueError(
                    f"{describe_layer(self)} makes x of shape {shape} to lengths {wanted}; got "
                    f"{given}. Choose output_size, or less padding."
                )
        return given

    def _given_lengths(self, output_size: Any) -> tuple[int, ...]:
        ndim = self.spatial_axes
        if not isinstance(output_size, (tuple, list)) or len(output_size) not in (ndim, ndim + 2):
            raise ValueError(
                f"{describe_layer(self)} expects output_size of {ndim} ints, or {ndim + 2} with "
                f"batch and channels; got {output_size}"
            )
        return tuple(output_size[-ndim:])

    def _check_indices(self, x: Array, indices: Array, size: int) -> None:
        """Check device, dtype, shape and, on the host, the range of the indices."""
        self.check_device("indices", indices, x)
        name = describe_layer(self)
        if indices.dtype.kind not in "iu":
            raise TypeError(f"{name} expects indices of an integer dtype; got {indices.dtype}")
        if indices.shape != x.shape:
            raise ValueError(
                f"{name} expects indices of the shape of x, {x.shape}; got {indices.shape}"
            )
        if get_array_module(indices) is np and indices.size:
            lowest, highest = indices.min(), indices.max()
            if lowest < 0 or highest >= size:
                raise ValueError(
                    f"{name}: index {lowest if lowest < 0 else highest} is out of range; expected "
                    f"0 to {size - 1}. Take the indices of the pooling that made x, or give "
                    "output_size."
                )


class MaxUnpool1d(_MaxUnpool):
    """Put maxima back along the last axis, ``y[indices[o]] = x[o]``, and 0 elsewhere.

    Parameters
    ----------
    kernel_size : int or tuple of one
        Elements of a window of the pooling, ``k``.
    stride : int or tuple of one, optional
        ``s``, the distance of its windows; None is ``kernel_size``.
    padding : int or tuple of one, default 0
        ``p``, its padding.

    Notes
    -----
    Input ``(batch, channels, length)`` and indices of this shape, as
    ``MaxPool1d(return_indices=True)`` gives them, or both without the batch axis. An axis of ``n``
    elements gets ``(n - 1) s - 2 p + k``, or what ``output_size`` says, less than ``s`` from it. An
    index out of range is refused on the CPU; on a device, where looking would wait for it, its
    channel becomes NaN. Of elements with one index the last is shown and has the gradient; PyTorch
    leaves open which is, and gives all of them the gradient. The derivative is derived in
    :func:`max_unpool_forward`.

    References
    ----------
    Zeiler, Taylor, Fergus, "Adaptive deconvolutional networks for mid and high level feature
    learning", ICCV 2011, section 2.3.
    """

    spatial_axes = 1


class MaxUnpool2d(_MaxUnpool):
    """Put maxima back along the last two axes, ``y[indices[o]] = x[o]``, and 0 elsewhere.

    Parameters
    ----------
    kernel_size : int or tuple of 2 int
        Elements of a window of the pooling, ``k``.
    stride : int or tuple of 2 int, optional
        ``s``, the distance of its windows; None is ``kernel_size``.
    padding : int or tuple of 2 int, default 0
        ``p``, its padding.

    Notes
    -----
    Input ``(batch, channels, height, width)`` and indices of this shape, as
    ``MaxPool2d(return_indices=True)`` gives them, or both without the batch axis. An axis of ``n``
    elements gets ``(n - 1) s - 2 p + k``, or what ``output_size`` says, less than ``s`` from it. An
    index out of range is refused on the CPU; on a device, where looking would wait for it, its
    channel becomes NaN. Of elements with one index the last is shown and has the gradient; PyTorch
    leaves open which is, and gives all of them the gradient. The derivative is derived in
    :func:`max_unpool_forward`.

    References
    ----------
    Zeiler, Taylor, Fergus, "Adaptive deconvolutional networks for mid and high level feature
    learning", ICCV 2011, section 2.3.
    """

    spatial_axes = 2


class MaxUnpool3d(_MaxUnpool):
    """Put maxima back along the last three axes, ``y[indices[o]] = x[o]``, and 0 elsewhere.

    Parameters
    ----------
    kernel_size : int or tuple of 3 int
        Elements of a window of the pooling, ``k``.
    stride : int or tuple of 3 int, optional
        ``s``, the distance of its windows; None is ``kernel_size``.
    padding : int or tuple of 3 int, default 0
        ``p``, its padding.

    Notes
    -----
    Input ``(batch, channels, depth, height, width)`` and indices of this shape, as
    ``MaxPool3d(return_indices=True)`` gives them, or both without the batch axis. An axis of ``n``
    elements gets ``(n - 1) s - 2 p + k``, or what ``output_size`` says, less than ``s`` from it. An
    index out of range is refused on the CPU; on a device, where looking would wait for it, its
    channel becomes NaN. Of elements with one index the last is shown and has the gradient; PyTorch
    leaves open which is, and gives all of them the gradient. The derivative is derived in
    :func:`max_unpool_forward`.

    References
    ----------
    Zeiler, Taylor, Fergus, "Adaptive deconvolutional networks for mid and high level feature
    learning", ICCV 2011, section 2.3.
    """

    spatial_axes = 3
