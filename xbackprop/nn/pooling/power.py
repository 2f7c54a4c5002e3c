"""Power-average pooling: a norm of every window."""

import math
from typing import Any, ClassVar

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.module import Module
from xbackprop.nn.activations import as_number, check_float
from xbackprop.nn.padding.widths import check_image
from xbackprop.nn.pooling.average import divisor, spread_over_windows, window_sums
from xbackprop.nn.pooling.windows import Window, check_ints, windows_of


@op
def lp_pool_forward(x: Array, windows: tuple[Window, ...], norm: float) -> tuple[Array, Any]:
    """Compute ``y[o] = (sum over k of x[o stride + k] ** p) ** (1 / p)``.

    Parameters
    ----------
    x : array of float
        Shape (..., channels, and one axis per window).
    windows : tuple of Window
        Kernel, stride and number of outputs along the last axes.
    norm : float
        ``p``. The elements are taken with their signs.

    Returns
    -------
    output : array
        The last axes have ``outputs`` elements each.
    saved : (x, total, windows, norm)
        The input and the sums.

    Notes
    -----
    With the sum ``u``: ``dy/dx = u ** (1 / p - 1) x ** (p - 1)``. A window that stands out at the
    end has the sum of a whole one with the same mean, and where ``u`` is 0, which has no derivative
    for ``p > 1``, the gradient is 0: both as in PyTorch.
    """
    total = window_sums(_power(x, norm), windows)
    total *= _scale(total, x.shape[-len(windows) :], windows)
    return _power(total, 1 / norm).astype(x.dtype.newbyteorder("="), copy=False), (
        x,
        total,
        windows,
        norm,
    )


@op
def lp_pool_backward(
    grad_output: Array, x: Array, total: Array, windows: tuple[Window, ...], norm: float
) -> Array:
    """Return ``x ** (p - 1)`` times the sum of ``g u ** (1 / p - 1)`` over an element's windows."""
    spatial = x.shape[-len(windows) :]
    grad = grad_output * _power(total, 1 / norm - 1)
    grad *= 1 / norm
    grad = get_array_module(x).where(total == 0, 0, grad)
    grad *= _scale(total, spatial, windows)
    grad_input = spread_over_windows(grad, spatial, windows)
    grad_input *= norm * _power(x, norm - 1)
    return grad_input.astype(x.dtype.newbyteorder("="), copy=False)


def _scale(like: Array, spatial: tuple[int, ...], windows: tuple[Window, ...]) -> Any:
    """Return how much larger a whole window is than what a window has."""
    return math.prod(window.kernel_size for window in windows) / divisor(
        like, spatial, windows, True, None
    )


def _power(x: Array, exponent: float) -> Array:
    """Return ``x ** exponent``, by a product for squares: a general power is seven times slower."""
    return x * x if exponent == 2 else x**exponent


class _LPPool(Module):
    """What power-average pooling of one to three axes shares."""

    spatial_axes: ClassVar[int]

    def __init__(
        self,
        norm_type: float,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] | None = None,
        ceil_mode: bool = False,
    ) -> None:
        name, ndim = type(self).__name__, self.spatial_axes
        self.norm_type = as_number(name, "norm_type", norm_type)
        if self.norm_type == 0 or not math.isfinite(self.norm_type):
            raise ValueError(
                f"{name} expects a finite norm_type other than 0; got {norm_type}. MaxPool is the "
                "limit."
            )
        self.kernel_size = check_ints(name, "kernel_size", kernel_size, ndim, 1)
        self.stride = None if stride is None else check_ints(name, "stride", stride, ndim, 1)
        self.ceil_mode = ceil_mode

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Return the norms."""
        check_float(self, x)
        check_image(self, x.shape, self.spatial_axes)
        stride = self.kernel_size if self.stride is None else self.stride
        windows = windows_of(
            self, x.shape, self.spatial_axes, self.kernel_size, stride, ceil_mode=self.ceil_mode
        )
        return lp_pool_forward(x, windows, self.norm_type)

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Give every element of a window its share of the gradient."""
        return lp_pool_backward(grad_output, *saved) if input_grad else None

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class LPPool1d(_LPPool):
    """Norm of every window along the last axis, ``y[o] = sum(x[o s + k] ** p) ** (1 / p)``.

    Parameters
    ----------
    norm_type : float
        ``p``; elements keep their signs, so with odd ``p`` a sum below 0 gives NaN.
    kernel_size : int or tuple of one
        Elements of a window, ``k = 0 ... kernel_size - 1``.
    stride : int or tuple of one, optional
        ``s``, the distance of windows; None is ``kernel_size``.
    ceil_mode : bool, default False
        Let a last window stand out at the end, if it starts before it.

    Notes
    -----
    Input ``(batch, channels, length)``, or that without the batch axis.
    The derivative is derived in :func:`lp_pool_forward`.

    References
    ----------
    Gulcehre, Cho, Pascanu, Bengio, "Learned-norm pooling for deep feedforward and recurrent neural
    networks", ECML PKDD 2014.
    """

    spatial_axes = 1


class LPPool2d(_LPPool):
    """Norm of every window along the last two axes, ``y[o] = sum(x[o s + k] ** p) ** (1 / p)``.

    Parameters
    ----------
    norm_type : float
        ``p``; elements keep their signs, so with odd ``p`` a sum below 0 gives NaN.
    kernel_size : int or tuple of 2 int
        Elements of a window, ``k = 0 ... kernel_size - 1``.
    stride : int or tuple of 2 int, optional
        ``s``, the distance of windows; None is ``kernel_size``.
    ceil_mode : bool, default False
        Let a last window stand out at the end, if it starts before it.

    Notes
    -----
    Input ``(batch, channels, height, width)``, or that without the batch axis.
    The derivative is derived in :func:`lp_pool_forward`.

    References
    ----------
    Gulcehre, Cho, Pascanu, Bengio, "Learned-norm pooling for deep feedforward and recurrent neural
    networks", ECML PKDD 2014.
    """

    spatial_axes = 2


class LPPool3d(_LPPool):
    """Norm of every window along the last three axes, ``y[o] = sum(x[o s + k] ** p) ** (1 / p)``.

    Parameters
    ----------
    norm_type : float
        ``p``; elements keep their signs, so with odd ``p`` a sum below 0 gives NaN.
    kernel_size : int or tuple of 3 int
        Elements of a window, ``k = 0 ... kernel_size - 1``.
    stride : int or tuple of 3 int, optional
        ``s``, the distance of windows; None is ``kernel_size``.
    ceil_mode : bool, default False
        Let a last window stand out at the end, if it starts before it.

    Notes
    -----
    Input ``(batch, channels, depth, height, width)``, or that without the batch axis.
    The derivative is derived in :func:`lp_pool_forward`.

    References
    ----------
    Gulcehre, Cho, Pascanu, Bengio, "Learned-norm pooling for deep feedforward and recurrent neural
    networks", ECML PKDD 2014.
    """

    spatial_axes = 3
