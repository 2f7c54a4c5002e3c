"""Dropout: training with randomly silenced elements or channels."""

import math
from typing import Any, ClassVar

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.device import Device
from xbackprop.dispatch import Op, op
from xbackprop.initializers import RandomSource
from xbackprop.module import describe_layer
from xbackprop.nn.activations import refuse_inplace
from xbackprop.nn.randomness import RandomLayer

# Where SELU saturates: scale times alpha of Klambauer et al.
_SELU_FLOOR = -1.7580993408473766


@op(formula="output = where(kept, x * (1 / (1 - p)), 0)")
def dropout_forward(x: Array, kept: Array, p: float) -> tuple[Array, Any]:
    """Compute ``y = x / (1 - p)`` where ``kept``, else 0.

    Parameters
    ----------
    x : array of float
        Any shape.
    kept : array of bool
        Same shape, or with axes of length 1; True with probability ``1 - p``.
    p : float
        Probability of an element to be silenced, below 1.

    Returns
    -------
    output : array
    saved : (kept, p)
    """
    return get_array_module(x).where(kept, x * (1 / (1 - p)), 0), (kept, p)


@op(formula="grad_input = where(kept, grad_output * (1 / (1 - p)), 0)")
def dropout_backward(grad_output: Array, kept: Array, p: float) -> Array:
    """Return ``g / (1 - p)`` where ``kept``, else 0."""
    return get_array_module(kept).where(kept, grad_output * (1 / (1 - p)), 0)


@op(
    formula="output = (where(kept, x, -1.7580993408473766) + p * 1.7580993408473766) "
    "/ sqrt((1 - p) * (1 + p * 1.7580993408473766 ** 2))"
)
def alpha_dropout_forward(x: Array, kept: Array, p: float) -> tuple[Array, Any]:
    """Compute ``y = a (x or floor) + b``, which keeps mean 0 and variance 1.

    Parameters
    ----------
    x : array of float
        Any shape.
    kept : array of bool
        Same shape, or with axes of length 1; True with probability ``1 - p``.
    p : float
        Probability of an element to be put to the floor of SELU, below 1.

    Returns
    -------
    output : array
    saved : (kept, p)

    Notes
    -----
    For ``x`` of mean 0 and variance 1 and the floor ``f``, what replaces ``x`` has mean ``p f``
    and variance ``(1 - p) (1 + p f^2)``; ``a`` is the root of its inverse, ``b = -a p f``.
    """
    scale = _alpha_scale(p)
    silenced = scale * _SELU_FLOOR * (1 - p)
    lifted = x * scale
    lifted -= scale * _SELU_FLOOR * p
    return get_array_module(x).where(kept, lifted, silenced), (kept, p)


@op(
    formula="grad_input = where(kept, grad_output, 0) "
    "/ sqrt((1 - p) * (1 + p * 1.7580993408473766 ** 2))"
)
def alpha_dropout_backward(grad_output: Array, kept: Array, p: float) -> Array:
    """Return ``a g`` where ``kept``, else 0."""
    return get_array_module(kept).where(kept, grad_output * _alpha_scale(p), 0)


def _alpha_scale(p: float) -> float:
    return 1 / math.sqrt((1 - p) * (1 + p * _SELU_FLOOR * _SELU_FLOOR))


class _Dropout(RandomLayer):
    """What all dropouts share: they differ in the pair of ops and in the shape of the mask."""

    samples_apart = True

    forward_op: ClassVar[Op] = dropout_forward
    backward_op: ClassVar[Op] = dropout_backward

    def __init__(
        self,
        p: float = 0.5,
        inplace: bool = False,
        *,
        device: str | Device | None = None,
        rng: RandomSource = None,
    ) -> None:
        name = type(self).__name__
        if not 0 <= p <= 1:
            raise ValueError(f"{name} expects p between 0 and 1; got {p}")
        self.inplace = refuse_inplace(name, inplace)
        self.p = float(p)
        super().__init__(device, rng)

    def mask_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the mask for an input; an axis of length 1 shares its element."""
        return shape

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Apply a fresh mask in training, nothing in evaluation."""
        self.check_random_input(x)
        shape = self.mask_shape(x.shape)
        if not self.training or self.p == 0.0:
            return x, ()
        # Where nothing is kept, every dropout gives zeros.
        forward_op = dropout_forward if self.p == 1.0 else self.forward_op
        return forward_op(x, *self.draw_kept(shape, self.p))

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Let the gradient through where the input came through."""
        if not input_grad:
            return None
        return self.backward_op(grad_output, *saved) if saved else grad_output

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"p={self.p}"


class Dropout(_Dropout):
    """Silence elements at random while training and scale the others by ``1 / (1 - p)``.

    Parameters
    ----------
    p : float, default 0.5
        Probability of an element to be silenced, 0 to 1.
    inplace : bool, default False
        True is refused.
    device : str or Device, optional
        Where the random counter lives; None is the default device.
    rng : Generator, int or None
        Draws the key of the random stream.

    Notes
    -----
    The mask comes from Philox bits of (key, call number, position), so it is the same on every
    device. The call number is part of ``extra_state``. In evaluation ``y = x``.

    References
    ----------
    Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
    JMLR 15 (2014).
    """


class Dropout1d(_Dropout):
    """:class:`Dropout` of whole channels of ``(batch, channels, length)``.

    Parameters
    ----------
    p : float, default 0.5
        Probability of a channel to be silenced, 0 to 1.
    inplace : bool, default False
        True is refused.
    device, rng
        As for :class:`Dropout`.

    Notes
    -----
    Neighbours within a channel resemble each other, so silencing single elements hides little.
    Input ``(channels, length)`` is one sample.

    References
    ----------
    Tompson et al., "Efficient object localization using convolutional networks", CVPR 2015.
    """

    def mask_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return ``(batch, channels, 1)``."""
        if len(shape) not in (2, 3):
            raise ValueError(
                f"{describe_layer(self)} expects x of shape (batch, channels, length) or "
                f"(channels, length); got {shape}. Dropout takes any shape."
            )
        return (*shape[:-1], 1)


class Dropout2d(_Dropout):
    """:class:`Dropout` of whole channels of ``(batch, channels, height, width)``.

    Parameters
    ----------
    p : float, default 0.5
        Probability of a channel to be silenced, 0 to 1.
    inplace : bool, default False
        True is refused.
    device, rng
        As for :class:`Dropout`.

    Notes
    -----
    3-D input is refused: PyTorch reads it as ``(batch, channels, length)`` and warns.

    References
    ----------
    Tompson et al., "Efficient object localization using convolutional networks", CVPR 2015.
    """

    def mask_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return ``(batch, channels, 1, 1)``."""
        if len(shape) == 3:
            raise NotImplementedError(
                f"{describe_layer(self)} of 3-D input, here {shape}: it would be (batch, channels, "
                "length). Use Dropout1d for that; give a single image a batch axis."
            )
        if len(shape) != 4:
            raise ValueError(
                f"{describe_layer(self)} expects x of shape (batch, channels, height, width); "
                f"got {shape}. Dropout takes any shape."
            )
        return (*shape[:2], 1, 1)


class Dropout3d(_Dropout):
    """:class:`Dropout` of whole channels of ``(batch, channels, depth, height, width)``.

    Parameters
    ----------
    p : float, default 0.5
        Probability of a channel to be silenced, 0 to 1.
    inplace : bool, default False
        True is refused.
    device, rng
        As for :class:`Dropout`.

    Notes
    -----
    Input ``(channels, depth, height, width)`` is one sample.

    References
    ----------
    Tompson et al., "Efficient object localization using convolutional networks", CVPR 2015.
    """

    def mask_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return ``(batch, channels, 1, 1, 1)``."""
        if len(shape) not in (4, 5):
            raise ValueError(
                f"{describe_layer(self)} expects x of shape (batch, channels, depth, height, "
                f"width), or that without the batch axis; got {shape}. Dropout takes any shape."
            )
        return (*shape[:-3], 1, 1, 1)


class AlphaDropout(_Dropout):
    """Put elements to SELU's floor at random while training, keeping mean 0 and variance 1.

    Parameters
    ----------
    p : float, default 0.5
        Probability of an element to be put to the floor, 0 to 1; with 1 all becomes 0.
    inplace : bool, default False
        True is refused.
    device, rng
        As for :class:`Dropout`.

    Notes
    -----
    The mask is drawn as that of :class:`Dropout`; scale and offset are derived in
    :func:`alpha_dropout_forward`. In evaluation ``y = x``.

    References
    ----------
    Klambauer, Unterthiner, Mayr, Hochreiter, "Self-normalizing neural networks", NIPS 2017.
    """

    forward_op, backward_op = alpha_dropout_forward, alpha_dropout_backward


class FeatureAlphaDropout(_Dropout):
    """:class:`AlphaDropout` of whole channels: axes 0 and 1 are batch and channels.

    Parameters
    ----------
    p : float, default 0.5
        Probability of a channel to be put to the floor, 0 to 1; with 1 all becomes 0.
    inplace : bool, default False
        True is refused.
    device, rng
        As for :class:`Dropout`.

    References
    ----------
    Klambauer, Unterthiner, Mayr, Hochreiter, "Self-normalizing neural networks", NIPS 2017.
    """

    forward_op, backward_op = alpha_dropout_forward, alpha_dropout_backward

    def mask_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return ``(batch, channels, 1, ...)``."""
        if len(shape) < 2:
            raise ValueError(
                f"{describe_layer(self)} expects x of shape (batch, channels, ...); got {shape}"
            )
        return shape[:2] + (1,) * (len(shape) - 2)
