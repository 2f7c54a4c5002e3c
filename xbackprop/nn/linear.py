"""The linear map, and the map that does nothing."""

import math
from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device
from xbackprop.dispatch import ArraySpec, Op, is_observed, op
from xbackprop.initializers import RandomSource, as_generator, kaiming_uniform
from xbackprop.module import Module, Parameter, describe_layer
from xbackprop.ops.matmul import direct_product, direct_sum_rows, dot_rows, flatten_rows


def _linear_flops(x: ArraySpec, weight: ArraySpec, *_: Any) -> int:
    rows = 1
    for length in x.shape[:-1]:
        rows *= length
    return 2 * rows * weight.shape[0] * weight.shape[1]


def _linear_backward_flops(
    grad_output: ArraySpec,
    x: ArraySpec,
    weight: ArraySpec,
    input_grad: bool = True,
    weight_grad: bool = True,
    *_: Any,
) -> int:
    return (input_grad + weight_grad) * _linear_flops(x, weight)


@op(formula="output = x @ weight.T + bias", flops=_linear_flops)
def linear_forward(x: Array, weight: Array, bias: Array | None) -> tuple[Array, Any]:
    """Compute ``y = x W^T + b`` over the last axis.

    Parameters
    ----------
    x : array, shape (..., in_features)
        Any number of leading axes; one sample may be 1-D.
    weight : array, shape (out_features, in_features)
        Same float dtype as ``x``.
    bias : array, shape (out_features,), or None
        Added to every row.

    Returns
    -------
    output : array, shape (..., out_features)
    saved : (x, weight)

    Notes
    -----
    With ``g = dLoss/dy``: ``dLoss/dx = g W``, ``dLoss/dW = g^T x`` and ``dLoss/db = sum of g over
    the rows``.

    References
    ----------
    Goodfellow, Bengio, Courville, "Deep Learning", 2016, section 6.5.
    """
    output = dot_rows(x, weight.T)
    if bias is not None:
        output += bias
    return output, (x, weight)


@op(
    formula="grad_input = grad_output @ weight; "
    "grad_weight = grad_output.reshape(-1, weight.shape[0]).T @ x.reshape(-1, weight.shape[1]); "
    "grad_bias = grad_output.reshape(-1, weight.shape[0]).sum(0)",
    flops=_linear_backward_flops,
)
def linear_backward(
    grad_output: Array,
    x: Array,
    weight: Array,
    input_grad: bool = True,
    weight_grad: bool = True,
    bias_grad: bool = True,
    out: Array | None = None,
) -> tuple[Array | None, Array | None, Array | None]:
    """Return ``g W``, ``g^T x`` and the sum of ``g`` over the rows; None for what is not wanted.

    ``out``, on the CPU, is where ``g^T x`` is written to.
    """
    grad_rows = flatten_rows(grad_output)
    grad_input = dot_rows(grad_output, weight) if input_grad else None
    grad_weight = direct_product(grad_rows.T, flatten_rows(x), out) if weight_grad else None
    grad_bias = direct_sum_rows(grad_rows) if bias_grad else None
    return grad_input, grad_weight, grad_bias


def accumulate_gradients(
    weight: Parameter,
    bias: Parameter | None,
    grad_output: Array,
    saved: Any,
    input_grad: bool,
    backward: Op = linear_backward,
) -> Array | None:
    """Add ``g^T x`` and the sum of ``g`` to the gradients; return ``g W`` where it is wanted."""
    has_bias_grad = bias is not None and bias.requires_grad
    place = None if is_observed() else weight.place_of_gradient(grad_output.dtype)
    out = () if place is None else (place,)  # a large gradient is not copied then
    grad_input, grad_weight, grad_bias = backward(
        grad_output, *saved, input_grad, weight.requires_grad, has_bias_grad, *out
    )
    if grad_weight is not None:
        weight.accumulate(grad_weight)
    if bias is not None and grad_bias is not None:
        bias.accumulate(grad_bias)
    return grad_input


class Linear(Module):
    """A linear map with bias, ``y = x W^T + b``.

    Parameters
    ----------
    in_features : int
        Length of the last axis of the input.
    out_features : int
        Length of the last axis of the output.
    bias : bool, default True
        False leaves ``b`` out.
    device : str or Device, optional
        Where the parameters live; None is the default device.
    dtype : dtype, optional
        float32 (None) or float64.
    rng : Generator, int or None
        Draws the initial values, ``U(-1/sqrt(in), 1/sqrt(in))`` as PyTorch does.

    Attributes
    ----------
    weight : Parameter, shape (out_features, in_features)
    bias : Parameter, shape (out_features,), or None

    Notes
    -----
    The derivative is derived in :func:`linear_forward`.

    Examples
    --------
    >>> import xbackprop as xb
    >>> layer = xb.nn.Linear(3, 2, rng=0)
    >>> layer(xb.asarray([[1.0, 2.0, 3.0]])).shape
    (1, 2)
    """

    in_half = "half"
    samples_apart = True

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        device: str | Device | None = None,
        dtype: Any = None,
        rng: RandomSource = None,
    ) -> None:
        for name, number in (("in_features", in_features), ("out_features", out_features)):
            if number < 0:
                raise ValueError(f"Linear expects {name} >= 0; got {number}")
        self.in_features = in_features
        self.out_features = out_features
        generator = as_generator(rng)
        weight = kaiming_uniform(
            (out_features, in_features), in_features, rng=generator, dtype=dtype, device=device
        )
        self.weight = Parameter(weight)
        self.bias: Parameter | None = None
        if bias:
            offsets = kaiming_uniform(
                (out_features,), in_features, rng=generator, dtype=dtype, device=device
            )
            self.bias = Parameter(offsets)

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Draw the initial values anew."""
        fresh = Linear(
            self.in_features,
            self.out_features,
            self.bias is not None,
            device=self.weight.device,
            dtype=self.weight.dtype,
            rng=rng,
        )
        self.load_state_dict({name: p.data for name, p in fresh.own_parameters()})

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Map ``(..., in_features)`` to ``(..., out_features)``."""
        weight = self.weight.value
        x = self.check_input("x", x, weight)
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(self.explain_shape(x.shape, self.in_features))
        bias = self.bias
        return linear_forward(x, weight, None if bias is None else bias.value)

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Add ``g^T x`` and ``sum of g``; return ``g W``."""
        return accumulate_gradients(self.weight, self.bias, grad_output, saved, input_grad)

    def explain_shape(self, shape: tuple[int, ...], in_features: int | str) -> str:
        """Return the message for an input whose shape does not fit."""
        fits = len(shape) > 2 and math.prod(shape[1:]) == in_features
        hint = "Add Flatten before it." if fits else "Its last axis must match in_features."
        return (
            f"{describe_layer(self)} expects x of shape (..., {in_features}); got {shape}. {hint}"
        )

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class Identity(Module):
    """Passes its input on, ``y = x``.

    Parameters
    ----------
    *args, **kwargs : object
        Ignored, as in PyTorch: Identity takes the place of any other layer.
    """

    in_half = "half"
    samples_apart = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.__dict__["_constructor_arguments"] = ((), {})

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Return ``x``."""
        return x, ()

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array:
        """Return ``g``."""
        return grad_output
