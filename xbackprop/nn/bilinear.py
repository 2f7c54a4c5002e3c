"""A linear map of all products of two inputs."""

import math
from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device
from xbackprop.dispatch import ArraySpec, op
from xbackprop.initializers import RandomSource, as_generator, uniform
from xbackprop.module import Module, Parameter, describe_layer
from xbackprop.ops.matmul import flatten_rows


def _bilinear_flops(x1: ArraySpec, x2: ArraySpec, weight: ArraySpec, *_: Any) -> int:
    rows = math.prod(x1.shape[:-1])
    return rows * (1 + 2 * weight.shape[0]) * weight.shape[1] * weight.shape[2]


def _bilinear_backward_flops(
    grad_output: ArraySpec,
    x1: ArraySpec,
    x2: ArraySpec,
    weight: ArraySpec,
    input_grad: bool = True,
    weight_grad: bool = True,
    *_: Any,
) -> int:
    outputs, pairs = weight.shape[0], math.prod(x1.shape[:-1]) * math.prod(weight.shape[1:])
    # G = g W, then G x2 and G^T x1; P = x1 x2^T, then g^T P.
    return pairs * (input_grad * (2 * outputs + 4) + weight_grad * (1 + 2 * outputs))


@op(formula="output = einsum('...i,oij,...j->...o', x1, weight, x2) + bias", flops=_bilinear_flops)
def bilinear_forward(x1: Array, x2: Array, weight: Array, bias: Array | None) -> tuple[Array, Any]:
    """Compute ``y_o = x1^T W_o x2 + b_o`` over the last axes.

    Parameters
    ----------
    x1 : array, shape (..., in1_features)
        Any number of leading axes.
    x2 : array, shape (..., in2_features)
        The same leading axes.
    weight : array, shape (out_features, in1_features, in2_features)
        Same float dtype as the inputs.
    bias : array, shape (out_features,), or None
        Added to every row.

    Returns
    -------
    output : array, shape (..., out_features)
    saved : (x1, x2, weight)

    Notes
    -----
    With all products ``P = x1 x2^T`` as one row, ``y = P W^T`` is a linear map, so that
    ``dLoss/dW = g^T P`` and ``dLoss/dP = g W =: G``; then ``dLoss/dx1 = G x2``,
    ``dLoss/dx2 = G^T x1`` and ``dLoss/db`` is the sum of ``g`` over the rows.
    """
    output = _products(x1, x2).dot(weight.reshape(weight.shape[0], -1).T)
    if bias is not None:
        output += bias
    return output.reshape(*x1.shape[:-1], weight.shape[0]), (x1, x2, weight)


@op(
    formula="grad_x1 = einsum('...o,oij,...j->...i', grad_output, weight, x2); "
    "grad_x2 = einsum('...o,oij,...i->...j', grad_output, weight, x1); "
    "grad_weight = einsum('ro,ri,rj->oij', grad_output.reshape(-1, weight.shape[0]), "
    "x1.reshape(-1, weight.shape[1]), x2.reshape(-1, weight.shape[2])); "
    "grad_bias = grad_output.reshape(-1, weight.shape[0]).sum(0)",
    flops=_bilinear_backward_flops,
)
def bilinear_backward(
    grad_output: Array,
    x1: Array,
    x2: Array,
    weight: Array,
    input_grad: bool = True,
    weight_grad: bool = True,
    bias_grad: bool = True,
) -> tuple[Array | None, Array | None, Array | None, Array | None]:
    """Return ``G x2``, ``G^T x1``, ``g^T P`` and the sum of ``g``; None for what is not wanted."""
    grad_rows = flatten_rows(grad_output)
    grad_x1 = grad_x2 = grad_weight = None
    if input_grad:
        grad_products = grad_rows.dot(weight.reshape(weight.shape[0], -1))
        grad_products = grad_products.reshape(-1, *weight.shape[1:])  # (rows, in1, in2)
        grad_x1 = (grad_products * flatten_rows(x2)[:, None, :]).sum(axis=2).reshape(x1.shape)
        grad_x2 = (grad_products * flatten_rows(x1)[:, :, None]).sum(axis=1).reshape(x2.shape)
    if weight_grad:
        grad_weight = grad_rows.T.dot(_products(x1, x2)).reshape(weight.shape)
    return grad_x1, grad_x2, grad_weight, grad_rows.sum(axis=0) if bias_grad else None


def _products(x1: Array, x2: Array) -> Array:
    """Return every product of a feature of ``x1`` and one of ``x2``, ``(rows, in1 * in2)``."""
    first, second = flatten_rows(x1), flatten_rows(x2)
    products = first[:, :, None] * second[:, None, :]
    return products.reshape(first.shape[0], first.shape[1] * second.shape[1])


class Bilinear(Module):
    """A linear map of all products of two inputs, ``y_o = x1^T W_o x2 + b_o``.

    Parameters
    ----------
    in1_features, in2_features : int
        Lengths of the last axes of the inputs.
    out_features : int
        Length of the last axis of the output.
    bias : bool, default True
        False leaves ``b`` out.
    device : str or Device, optional
        Where the parameters live; None is the default device.
    dtype : dtype, optional
        float32 (None) or float64.
    rng : Generator, int or None
        Draws the initial values, ``U(-1/sqrt(in1), 1/sqrt(in1))`` as PyTorch does.

    Attributes
    ----------
    weight : Parameter, shape (out_features, in1_features, in2_features)
    bias : Parameter, shape (out_features,), or None

    Notes
    -----
    The derivative is derived in :func:`bilinear_forward`.

    References
    ----------
    Tenenbaum and Freeman, "Separating style and content with bilinear models", Neural Computation
    12 (2000).
    """

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        *,
        device: str | Device | None = None,
        dtype: Any = None,
        rng: RandomSource = None,
    ) -> None:
        if in1_features <= 0:
            raise ValueError(f"Bilinear expects in1_features > 0; got {in1_features}")
        for name, number in (("in2_features", in2_features), ("out_features", out_features)):
            if number < 0:
                raise ValueError(f"Bilinear expects {name} >= 0; got {number}")
        self.in1_features = in1_features
        self.in2_features = in2_features
        self.out_features = out_features
        generator = as_generator(rng)
        bound = 1 / math.sqrt(in1_features)
        shape = (out_features, in1_features, in2_features)
        weight = uniform(shape, bound, rng=generator, dtype=dtype, device=device)
        self.weight = Parameter(weight)
        self.bias: Parameter | None = None
        if bias:
            offsets = uniform((out_features,), bound, rng=generator, dtype=dtype, device=device)
            self.bias = Parameter(offsets)

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Draw the initial values anew."""
        fresh = Bilinear(
            self.in1_features,
            self.in2_features,
            self.out_features,
            self.bias is not None,
            device=self.weight.device,
            dtype=self.weight.dtype,
            rng=rng,
        )
        self.load_state_dict({name: p.data for name, p in fresh.own_parameters()})

    def forward(self, input1: Array, input2: Array) -> tuple[Array, Any]:
        """Map ``(..., in1_features)`` and ``(..., in2_features)`` to ``(..., out_features)``."""
        weight, bias = self.weight.value, self.bias
        input1 = self.check_input("input1", input1, weight)
        input2 = self.check_input("input2", input2, weight)
        features = (self.in1_features, self.in2_features)
        if (
            input1.ndim == 0
            or input2.ndim == 0
            or (input1.shape[-1], input2.shape[-1]) != features
            or input1.shape[:-1] != input2.shape[:-1]
        ):
            raise ValueError(
                f"{describe_layer(self)} expects input1 of shape (..., {features[0]}) and input2 "
                f"of shape (..., {features[1]}) with the same leading axes; got {input1.shape} and "
                f"{input2.shape}."
            )
        return bilinear_forward(input1, input2, weight, None if bias is None else bias.value)

    def backward(
        self, grad_output: Array, saved: Any, *, input_grad: bool = True
    ) -> tuple[Array, Array] | None:
        """Add the gradients of weight and bias; return those of both inputs."""
        weight, bias = self.weight, self.bias
        has_bias_grad = bias is not None and bias.requires_grad
        grad_input1, grad_input2, grad_weight, grad_bias = bilinear_backward(
            grad_output, *saved, input_grad, weight.requires_grad, has_bias_grad
        )
        if grad_weight is not None:
            weight.accumulate(grad_weight)
        if bias is not None and grad_bias is not None:
            bias.accumulate(grad_bias)
        return (grad_input1, grad_input2) if input_grad else None

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return (
            f"{self.in1_features}, {self.in2_features}, {self.out_features}, "
            f"bias={self.bias is not None}"
        )
