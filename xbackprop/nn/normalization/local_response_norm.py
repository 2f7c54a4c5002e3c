"""Division by the activity of neighbouring channels."""

from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.dispatch import op
from xbackprop.module import Module, describe_layer
from xbackprop.nn.activations import as_number, check_float

# The matrix of neighbours: 1 in row c for the channels that are summed up for channel c.
_NEIGHBOURS = "tri(x.shape[1], k=(size - 1) // 2) - tri(x.shape[1], k=-(size // 2) - 1)"


@op(
    formula="output = x * (k + alpha / size "
    f"* einsum('cj, bj... -> bc...', {_NEIGHBOURS}, x * x)) ** -beta"
)
def local_response_norm_forward(
    x: Array, size: int, alpha: float, beta: float, k: float
) -> tuple[Array, Any]:
    """Compute ``y = x (k + alpha / size * sum of x_j^2 over neighbouring channels j) ** -beta``.

    Parameters
    ----------
    x : array of float, shape (batch, channels, ...)
        Any number of axes after the channels.
    size : int
        How many channels are summed up: ``size // 2`` before and ``(size - 1) // 2`` after, as
        far as there are any, and the channel itself.
    alpha, beta, k : float
        Weight of the sum, exponent, and what is added.

    Returns
    -------
    output : array
    saved : (x, base, size, alpha, beta)
        ``base = k + alpha / size * sum``. The power is taken anew in backward: it is one pass, and
        an array less.

    Notes
    -----
    ``x_i`` is in the sums of all channels ``c`` of which it is a neighbour, with ``dbase_c/dx_i = 2
    alpha / size x_i``, so ``dLoss/dx_i = g_i base_i^-beta - 2 alpha beta / size x_i sum_c g_c x_c
    base_c^(-beta - 1)``. Who has ``i`` as a neighbour is found with before and after exchanged.

    References
    ----------
    Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural
    networks", NIPS 2012, section 3.3. There ``alpha`` is not divided by ``size``; PyTorch's is.
    """
    base = _window_sum(x * x, size // 2, (size - 1) // 2)
    base *= alpha / size
    base += k
    return x * base**-beta, (x, base, size, alpha, beta)


@op(
    formula="grad_input = grad_output * base ** -beta - 2 * alpha * beta / size * x "
    f"* einsum('cj, bc... -> bj...', {_NEIGHBOURS}, grad_output * x * base ** (-beta - 1))"
)
def local_response_norm_backward(
    grad_output: Array, x: Array, base: Array, size: int, alpha: float, beta: float
) -> Array:
    """Return ``g base^-beta - 2 alpha beta / size x sum_c g_c x_c base_c^(-beta - 1)``."""
    scaled = grad_output * base**-beta
    grad_input = _window_sum(scaled * x / base, (size - 1) // 2, size // 2)
    grad_input *= x
    grad_input *= -2 * alpha * beta / size
    grad_input += scaled
    return grad_input


def _window_sum(values: Array, before: int, after: int) -> Array:
    """Sum every channel with so many before and after it, as far as there are any.

    Shifted copies are added: the difference of two running sums would lose digits.
    """
    channels = values.shape[1]
    total = values.copy()
    for shift in range(1, min(before, channels - 1) + 1):
        total[:, shift:] += values[:, :-shift]
    for shift in range(1, min(after, channels - 1) + 1):
        total[:, :-shift] += values[:, shift:]
    return total


class LocalResponseNorm(Module):
    """Division by neighbouring channels, ``y = x (k + alpha / size * sum of x_j^2) ** -beta``.

    Parameters
    ----------
    size : int
        How many channels are summed up: ``size // 2`` before and ``(size - 1) // 2`` after, as
        far as there are any, and the channel itself.
    alpha : float, default 1e-4
        Weight of the sum.
    beta : float, default 0.75
        Exponent.
    k : float, default 1.0
        Added to the sum.

    Notes
    -----
    Takes ``(batch, channels, ...)`` with at least one axis after the channels. The derivative is
    derived in :func:`local_response_norm_forward`.

    References
    ----------
    Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural
    networks", NIPS 2012, section 3.3.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(f"LocalResponseNorm expects size to be an int; got {size!r}")
        if size < 1:
            raise ValueError(f"LocalResponseNorm expects size > 0; got {size}")
        self.size = size
        self.alpha = as_number("LocalResponseNorm", "alpha", alpha)
        self.beta = as_number("LocalResponseNorm", "beta", beta)
        self.k = as_number("LocalResponseNorm", "k", k)

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Divide every channel by its neighbourhood."""
        check_float(self, x)
        if x.ndim < 3:
            raise ValueError(
                f"{describe_layer(self)} expects x of shape (batch, channels, length, ...); "
                f"got {x.shape}"
            )
        return local_response_norm_forward(x, self.size, self.alpha, self.beta, self.k)

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Return the gradient through a channel and through its neighbours' sums."""
        return local_response_norm_backward(grad_output, *saved) if input_grad else None

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
