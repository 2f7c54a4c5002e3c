"""The way back of broadcasting."""

from xbackprop.backend.array_module import Array


def sum_to_shape(grad: Array, shape: tuple[int, ...]) -> Array:
    """Add up a gradient along the axes by which an input of ``shape`` was broadcast.

    A broadcast input is used once per copy, and the gradients of its uses add.
    """
    if grad.shape == shape:
        return grad
    leading = grad.ndim - len(shape)
    stretched = tuple(
        leading + axis
        for axis, length in enumerate(shape)
        if length == 1 != grad.shape[leading + axis]
    )
    return grad.sum(axis=(*range(leading), *stretched), keepdims=True).reshape(shape)
