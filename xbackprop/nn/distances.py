"""How near two inputs are: their angle, or a norm of their difference."""

import math
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.module import Module, describe_layer
from xbackprop.nn.activations import as_number, check_float
from xbackprop.nn.axes import check_dim, normalize_dim
from xbackprop.ops.broadcast import sum_to_shape
from xbackprop.ops.distance import pairwise_distance_backward, pairwise_distance_forward


@op(
    formula="output = (x1 * x2).sum(dim) / (maximum(sqrt((x1 * x1).sum(dim)), eps) "
    "* maximum(sqrt((x2 * x2).sum(dim)), eps))"
)
def cosine_similarity_forward(x1: Array, x2: Array, dim: int, eps: float) -> tuple[Array, Any]:
    """Compute ``y = sum(x1 x2) / (max(|x1|, eps) max(|x2|, eps))`` along ``dim``.

    Parameters
    ----------
    x1, x2 : array of float
        Of one shape.
    dim : int
        The axis of the vectors.
    eps : float
        Least length that is divided by.

    Returns
    -------
    output : array
        Without the axis ``dim``.
    saved : (x1, x2, norm1, norm2, cosine, dim, eps)
        The norms and the output, all with ``dim`` of length 1.

    Notes
    -----
    With ``u = x / max(|x|, eps)``: ``dy/dx1 = (u2 - y x1 / |x1|) / max(|x1|, eps)``. For vectors
    shorter than ``eps``, whose ``max`` does not move, the second term is not the derivative's;
    PyTorch has it, so it is here.
    """
    xp = get_array_module(x1)
    norm1 = xp.sqrt((x1 * x1).sum(axis=dim, keepdims=True))
    norm2 = xp.sqrt((x2 * x2).sum(axis=dim, keepdims=True))
    units = x1 / xp.maximum(norm1, eps)
    units *= x2 / xp.maximum(norm2, eps)
    cosine = units.sum(axis=dim, keepdims=True)
    return xp.squeeze(cosine, axis=dim), (x1, x2, norm1, norm2, cosine, dim, eps)


@op(
    formula="grad_x1 = expand_dims(grad_output, dim) / maximum(norm1, eps) "
    "* (x2 / maximum(norm2, eps) - cosine * x1 / norm1); "
    "grad_x2 = expand_dims(grad_output, dim) / maximum(norm2, eps) "
    "* (x1 / maximum(norm1, eps) - cosine * x2 / norm2)"
)
def cosine_similarity_backward(
    grad_output: Array,
    x1: Array,
    x2: Array,
    norm1: Array,
    norm2: Array,
    cosine: Array,
    dim: int,
    eps: float,
) -> tuple[Array, Array]:
    """Return ``g (u2 - y x1 / |x1|) / max(|x1|, eps)``, and the same with 1 and 2 exchanged."""
    xp = get_array_module(x1)
    grad_output = xp.expand_dims(grad_output, dim)
    length1, length2 = xp.maximum(norm1, eps), xp.maximum(norm2, eps)
    grads = []
    for x, norm, length, other, other_length in (
        (x1, norm1, length1, x2, length2),
        (x2, norm2, length2, x1, length1),
    ):
        grad = other / other_length
        # A vector of zeros has no direction to lose.
        grad -= x * xp.where(norm == 0, 0, cosine / norm)
        grad *= grad_output / length
        grads.append(grad)
    return grads[0], grads[1]


class CosineSimilarity(Module):
    """Cosine of the angle between vectors, ``y = x1 x2 / (max(|x1|, eps) max(|x2|, eps))``.

    Parameters
    ----------
    dim : int, default 1
        The axis of the vectors, counted after both inputs are broadcast to one shape.
    eps : float, default 1e-8
        Least length that is divided by.

    Notes
    -----
    The derivative is derived in :func:`cosine_similarity_forward`.
    """

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        self.dim = check_dim("CosineSimilarity", dim)
        self.eps = as_number("CosineSimilarity", "eps", eps)

    def forward(self, x1: Array, x2: Array) -> tuple[Array, Any]:
        """Return the cosine of every pair of vectors."""
        x1, x2, shapes = _as_one_shape(self, x1, x2)
        dim = normalize_dim(self, self.dim, shapes[2])
        output, saved = cosine_similarity_forward(x1, x2, dim, self.eps)
        return output, (saved, shapes)

    def backward(
        self, grad_output: Array, saved: Any, *, input_grad: bool = True
    ) -> tuple[Array, Array] | None:
        """Return the gradients of both inputs."""
        if not input_grad:
            return None
        inner, shapes = saved
        grad1, grad2 = cosine_similarity_backward(grad_output, *inner)
        return sum_to_shape(grad1, shapes[0]), sum_to_shape(grad2, shapes[1])

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"dim={self.dim}, eps={self.eps}"


class PairwiseDistance(Module):
    """Distance between vectors along the last axis, ``y = |x1 - x2 + eps|_p``.

    Parameters
    ----------
    p : float, default 2.0
        Exponent of the norm; 0 counts differences that are not 0, infinity takes the largest.
    eps : float, default 1e-6
        Added to every difference, so that the distance of equals has a derivative.
    keepdim : bool, default False
        Keep the last axis, with length 1.

    Notes
    -----
    The derivative is derived in :func:`pairwise_distance_forward`. Both inputs are broadcast to
    one shape first.
    """

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        self.norm = as_number("PairwiseDistance", "p", p)
        self.eps = as_number("PairwiseDistance", "eps", eps)
        self.keepdim = keepdim

    def forward(self, x1: Array, x2: Array) -> tuple[Array, Any]:
        """Return the distance of every pair of vectors."""
        x1, x2, shapes = _as_one_shape(self, x1, x2)
        if x1.shape[-1] == 0 and (self.norm < 0 or math.isinf(self.norm)):
            raise ValueError(
                f"{describe_layer(self)} with p={self.norm} has no value for vectors without "
                f"elements; got shapes {shapes[0]} and {shapes[1]}"
            )
        output, saved = pairwise_distance_forward(x1, x2, self.norm, self.eps, self.keepdim)
        return output if shapes[2] else output.reshape(()), (saved, shapes)

    def backward(
        self, grad_output: Array, saved: Any, *, input_grad: bool = True
    ) -> tuple[Array, Array] | None:
        """Return the gradients of both inputs, which differ in sign."""
        if not input_grad:
            return None
        inner, shapes = saved
        grad = pairwise_distance_backward(grad_output, *inner)
        return sum_to_shape(grad, shapes[0]), sum_to_shape(-grad, shapes[1])

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"p={self.norm}, eps={self.eps}, keepdim={self.keepdim}"


def _as_one_shape(
    layer: Module, x1: Array, x2: Array
) -> tuple[Array, Array, tuple[tuple[int, ...], ...]]:
    """Check two inputs and broadcast them; a number becomes a vector of one.

    Returns both, and the shapes of the first, of the second, and of both broadcast.
    """
    check_float(layer, x1)
    x2 = layer.check_input("x2", x2, x1)
    try:
        shape = np.broadcast_shapes(x1.shape, x2.shape)
    except ValueError:
        raise ValueError(
            f"{describe_layer(layer)} expects x1 and x2 of shapes that broadcast; "
            f"got {x1.shape} and {x2.shape}"
        ) from None
    xp = get_array_module(x1)
    shapes = (x1.shape, x2.shape, shape)
    return *(xp.broadcast_to(x, shape or (1,)) for x in (x1, x2)), shapes
