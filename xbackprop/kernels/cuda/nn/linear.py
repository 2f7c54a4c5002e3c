"""The linear map on a GPU, with cuBLAS through the op of products. Not yet measured on a GPU."""

import math

from xbackprop.backend.array_module import Array
from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.cuda.ops.matmul import can_sum, count_sum_bytes, count_sum_launches
from xbackprop.nn.linear import linear_backward as backward_op
from xbackprop.nn.linear import linear_forward as forward_op
from xbackprop.ops.matmul import flatten_rows, mixed_product, product_rows, sum_rows


def count_forward_launches(x: ArraySpec, weight: ArraySpec, bias: ArraySpec | None) -> int:
    """Return the launches of :func:`linear_forward`: the product, and the bias if there is one."""
    return _product_launches(x, weight) + (bias is not None)


def count_forward_bytes(x: ArraySpec, weight: ArraySpec, bias: ArraySpec | None) -> int:
    """Return the bytes of :func:`linear_forward`; adding the bias goes over the output again."""
    output = math.prod(x.shape[:-1]) * weight.shape[0]
    elements = math.prod(x.shape) + math.prod(weight.shape) + output
    if bias is not None:
        elements += 2 * output + math.prod(bias.shape)
    return x.dtype.itemsize * elements


@forward_op.kernel("cuda", launches=count_forward_launches, bytes_moved=count_forward_bytes)
def linear_forward(
    x: Array, weight: Array, bias: Array | None
) -> tuple[Array, tuple[Array, Array]]:
    """Compute ``y = x W^T + b``, as :func:`xbackprop.nn.linear.linear_forward`."""
    output = product_rows(x, weight.T)
    if bias is not None:
        output += bias
    return output, (x, weight)


def count_backward_launches(
    grad_output: ArraySpec,
    x: ArraySpec,
    weight: ArraySpec,
    input_grad: bool = True,
    weight_grad: bool = True,
    bias_grad: bool = True,
) -> int:
    """Return the launches of :func:`linear_backward`: those of each gradient that is wanted."""
    number = _product_launches(grad_output, weight) if input_grad else 0
    if weight_grad:
        number += _product_launches(grad_output, x)
    if bias_grad:
        rows = _as_rows(grad_output)
        number += count_sum_launches(rows) if can_sum(rows) else 1
    return number


def count_backward_bytes(
    grad_output: ArraySpec,
    x: ArraySpec,
    weight: ArraySpec,
    input_grad: bool = True,
    weight_grad: bool = True,
    bias_grad: bool = True,
) -> int:
    """Return the bytes that :func:`linear_backward` reads and writes."""
    elements = sum(math.prod(spec.shape) for spec in (grad_output, x, weight))
    number = x.dtype.itemsize * elements * (input_grad + weight_grad)
    return number + (count_sum_bytes(_as_rows(grad_output)) if bias_grad else 0)


@backward_op.kernel("cuda", launches=count_backward_launches, bytes_moved=count_backward_bytes)
def linear_backward(
    grad_output: Array,
    x: Array,
    weight: Array,
    input_grad: bool = True,
    weight_grad: bool = True,
    bias_grad: bool = True,
) -> tuple[Array | None, Array | None, Array | None]:
    """Return the gradients, as :func:`xbackprop.nn.linear.linear_backward`."""
    grad_rows = flatten_rows(grad_output)
    grad_input = product_rows(grad_output, weight) if input_grad else None
    grad_weight = mixed_product(grad_rows.T, flatten_rows(x)) if weight_grad else None
    grad_bias = sum_rows(grad_rows) if bias_grad else None
    return grad_input, grad_weight, grad_bias


def _product_launches(first: ArraySpec, second: ArraySpec) -> int:
    """Return one launch, and one more where a factor is rounded to the half dtype of the other."""
    return 1 + (first.dtype != second.dtype)


def _as_rows(grad_output: ArraySpec) -> ArraySpec:
    """Return what :func:`flatten_rows` makes of it."""
    shape = grad_output.shape
    return grad_output._replace(shape=(math.prod(shape[:-1]), shape[-1]))
