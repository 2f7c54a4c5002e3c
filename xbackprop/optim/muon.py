"""Muon: momentum of matrices, made orthogonal."""

import math
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.ops.matmul import product
from xbackprop.optim.flat import FlatGroup
from xbackprop.optim.norms import sums_of_squares
from xbackprop.optim.optimizer import Optimizer, ParameterSource
from xbackprop.optim.updates import cast, decay, put


def round_to_bfloat16(array: Array) -> Array:
    """Return float32 with the eight bits of precision of bfloat16, rounded half to even."""
    bits = array.astype(np.float32, order="C").view(np.uint32)  # of a copy
    half = bits >> 16
    half &= 1
    half += 0x7FFF  # half of the last place that is kept; one less where that is even already
    bits += half
    bits &= 0xFFFF0000
    return bits.view(np.float32)


@op
def orthogonalize(
    matrix: Array, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Array:
    """Iterate ``X = a X + (b A + c A A) X`` with ``A = X X^T``.

    Gives nearly ``U V^T`` of ``X = U S V^T``: Newton and Schulz' iteration with a fifth-degree
    polynomial. Rounded to bfloat16 after each product, as PyTorch computes it; the sums inside a
    product are in float32.
    """
    xp = get_array_module(matrix)
    a, b, c = coefficients
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = round_to_bfloat16(matrix.T if is_tall else matrix)
    norm = round_to_bfloat16(xp.sqrt(sums_of_squares(x)[0]))
    x = round_to_bfloat16(x / xp.maximum(norm, eps))
    for _ in range(steps):
        gram = round_to_bfloat16(product(x, x.T))
        polynomial = round_to_bfloat16(gram * b + product(gram, gram) * c)
        x = round_to_bfloat16(x * a + product(polynomial, x))
    return x.T if is_tall else x


@op
def muon_update(
    data: Array,
    grad: Array,
    momentum_buffer: Array,
    lr: Any,
    momentum: float,
    coefficients: tuple[float, float, float],
    steps: int,
    eps: float,
    finite: Array | None = None,
    *,
    nesterov: bool,
) -> None:
    """Compute ``m = mu m + (1-mu) g`` and ``w -= lr orthogonalize(m)``.

    Nesterov's look-ahead makes ``mu m + (1-mu) g`` orthogonal, with the new ``m``.
    """
    mean = momentum_buffer * momentum + grad * (1 - momentum)
    put(momentum_buffer, mean, finite)
    direction = mean * momentum + grad * (1 - momentum) if nesterov else mean
    direction = orthogonalize(direction, coefficients, steps, eps).astype(data.dtype)
    put(data, data - direction * lr, finite)


class Muon(Optimizer):
    """Muon, ``w -= lr r orthogonalize(m)`` for matrices, after ``w -= lr weight_decay w``.

    Parameters
    ----------
    params : iterable of Parameter or of dict
        Parameters of two axes; give the others, and first and last layers, to another optimizer.
    lr : float, default 1e-3
        Learning rate.
    weight_decay : float, default 0.1
        Share of the weights, times ``lr``, that is taken away in each step.
    momentum : float, default 0.95
        Decay of the running mean of the gradient.
    nesterov : bool, default True
        Look ahead.
    ns_coefficients : tuple of float, default (3.4445, -4.775, 2.0315)
        The polynomial ``a x + b x^3 + c x^5`` of the iteration.
    eps : float, default 1e-7
        Smallest norm that is divided by.
    ns_steps : int, default 5
        Iterations, fewer than 100.
    adjust_lr_fn : str, optional
        ``"original"`` (also None): ``r = sqrt(max(1, rows / columns))``; ``"match_rms_adamw"``:
        ``r = 0.2 sqrt(max(rows, columns))``, so that AdamW's learning rate fits.

    Notes
    -----
    The iteration is rounded to bfloat16 as PyTorch's is. Its last bit depends on the order of the
    sums in a product, so that large matrices agree with PyTorch to three digits of the update.

    References
    ----------
    Jordan et al., "Muon: an optimizer for hidden layers in neural networks",
    kellerjordan.github.io/posts/muon, 2024; Liu et al., "Muon is scalable for LLM training",
    arXiv:2502.16982, equation 4 (``match_rms_adamw``).
    """

    saves_step = False
    elementwise = False

    def __init__(
        self,
        params: ParameterSource,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
        }
        super().__init__(params, defaults)

    def check_options(self, group: dict[str, Any]) -> None:
        """Refuse hyperparameters out of range."""
        super().check_options(group)
        if group["adjust_lr_fn"] not in (None, "original", "match_rms_adamw"):
            raise ValueError(
                "Muon expects adjust_lr_fn None, 'original' or 'match_rms_adamw'; got "
                f"{group['adjust_lr_fn']!r}"
            )
        if group["ns_steps"] >= 100:
            raise ValueError(f"Muon expects ns_steps < 100; got {group['ns_steps']}")
        if len(group["ns_coefficients"]) != 3:
            raise ValueError(f"Muon expects 3 ns_coefficients; got {group['ns_coefficients']}")
        for parameter in group.get("params", ()):
            if len(parameter.shape) != 2:
                raise ValueError(
                    f"Muon expects parameters of two axes; got one of shape {parameter.shape}. "
                    "Give it to another optimizer."
                )

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Return the momentum's name."""
        return ("momentum_buffer",)

    def scratch_arrays(self, group: dict[str, Any]) -> int:
        """Return how many arrays of the largest parameter's size an update holds at once."""
        # Mean, direction where it is another, the iterate, and three while a product is rounded;
        # gram and polynomial are squares of the shorter side.
        largest = max(parameter.size for parameter in group["params"])
        square = max(min(parameter.shape) ** 2 for parameter in group["params"])
        return 5 + bool(group["nesterov"]) + math.ceil(2 * square / max(largest, 1))

    def update(
        self,
        flat: FlatGroup,
        data: Array,
        grad: Array,
        state: dict[str, Any],
        step: Any,
        finite: Any,
    ) -> None:
        """Descend one step."""
        group = flat.group
        lr = flat.scalar("lr", group["lr"])
        decay(flat, data, lr, finite)
        muon_update(
            data, grad, state["momentum_buffer"],
            cast(lr * relative_rate(group["adjust_lr_fn"], data.shape), data), group["momentum"],
            group["ns_coefficients"], group["ns_steps"], group["eps"], finite,
            nesterov=group["nesterov"],
        )  # fmt: skip


def relative_rate(adjust_lr_fn: str | None, shape: tuple[int, ...]) -> float:
    """Return the factor of the learning rate for a matrix's shape."""
    rows, columns = shape
    if adjust_lr_fn == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1, rows / columns))
