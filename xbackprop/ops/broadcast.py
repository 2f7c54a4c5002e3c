"""Broadcasting along axes other than the last, and the other way round than broadcasting."""

from xbackprop.backend.array_module import Array


def sum_to_shape(grad: Array, shape: tuple[int, ...]) -> Array:
    """Sum a gradient over the axes along which an input of ``shape`` was repeated."""
    if grad.shape == shape:
        return grad
    lead = grad.ndim - len(shape)
    repeated = tuple(
        axis
        for axis in range(grad.ndim)
        if axis < lead or (shape[axis - lead] == 1 and grad.shape[axis] != 1)
    )
    return grad.sum(axis=repeated).reshape(shape)


def along_channels(values: Array, ndim: int) -> Array:
    """Shape a vector so that it lies along axis 1 of an array with ``ndim`` axes."""
    return values.reshape(values.size, *(1,) * (ndim - 2)) if ndim else values.reshape(())


def as_axis(values: Array, axis: int) -> Array:
    """Return a vector along an axis counted from the end."""
    return values.reshape(-1, *(1,) * (-1 - axis))
