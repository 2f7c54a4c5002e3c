"""Margin losses of labels 1 and -1."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.module import describe_layer
from xbackprop.nn.losses.base import (
    Loss,
    as_factor,
    check_floats,
    check_labels,
    check_number,
    check_pair,
    mean_factor,
    reduce_loss,
)
from xbackprop.ops.broadcast import sum_to_shape
from xbackprop.ops.special import sigmoid, softplus


@op(formula="loss = log(1 + exp(-target * output)).mean()")
def soft_margin_forward(
    output: Array, target: Array, *, reduction: str = "mean"
) -> tuple[Array, Any]:
    """Compute ``log(1 + exp(-y x))``, without overflow."""
    losses = softplus(-as_factor(target, output) * output)
    return reduce_loss(losses, reduction), (output, target)


@op(formula="grad = -grad_output / output.size * target / (1 + exp(target * output))")
def soft_margin_backward(
    grad_output: Array,
    output: Array,
    target: Array,
    *,
    reduction: str = "mean",
    all_inputs: bool = False,
) -> Any:
    """Return ``-y s(-y x) g`` with ``s`` the sigmoid; for the target ``-x s(-y x) g``."""
    y = as_factor(target, output)
    slope = -sigmoid(-y * output) * (grad_output * mean_factor(output.size, reduction))
    grad = slope * y
    if not all_inputs:
        return grad
    return grad, slope * output if target.dtype.kind == "f" else None


@op(
    formula="loss = (where(target != 1, maximum(margin - output, 0), 0) "
    "+ where(target != -1, output, 0)).mean()",
)
def hinge_embedding_forward(
    output: Array, target: Array, *, margin: float = 1.0, reduction: str = "mean"
) -> tuple[Array, Any]:
    """Compute ``x`` where ``y = 1`` and ``max(0, margin - x)`` where ``y = -1``."""
    xp = get_array_module(output)
    apart = xp.where(target != 1, xp.maximum(margin - output, 0), 0)
    losses = apart + xp.where(target != -1, output, 0)
    return reduce_loss(losses, reduction), (output, target)


@op(
    formula="grad = grad_output / output.size "
    "* ((target != -1) - 1.0 * ((target != 1) & (margin - output >= 0)))",
)
def hinge_embedding_backward(
    grad_output: Array,
    output: Array,
    target: Array,
    *,
    margin: float = 1.0,
    reduction: str = "mean",
) -> Array:
    """Return ``g`` where ``y = 1`` and ``-g`` where ``y = -1`` and ``x`` is within the margin."""
    apart = (target != 1) & (margin - output >= 0)
    slope = (target != -1).astype(output.dtype) - apart.astype(output.dtype)
    return slope * (grad_output * mean_factor(output.size, reduction))


@op(formula="loss = maximum(margin - target * (input1 - input2), 0).mean()")
def margin_ranking_forward(
    input1: Array, input2: Array, target: Array, *, margin: float = 0.0, reduction: str = "mean"
) -> tuple[Array, Any]:
    """Compute ``max(0, margin - y (x1 - x2))``."""
    xp = get_array_module(input1)
    losses = xp.maximum(margin - as_factor(target, input1) * (input1 - input2), 0)
    return reduce_loss(losses, reduction), (input1, input2, target)


@op(
    formula="grad1 = -grad_output / target.size * target "
    "* (margin - target * (input1 - input2) >= 0); grad2 = grad_output / target.size * target "
    "* (margin - target * (input1 - input2) >= 0)",
)
def margin_ranking_backward(
    grad_output: Array,
    input1: Array,
    input2: Array,
    target: Array,
    *,
    margin: float = 0.0,
    reduction: str = "mean",
) -> Any:
    """Return ``-y g``, ``y g`` and ``-(x1 - x2) g`` where the margin is not kept, else 0."""
    xp = get_array_module(input1)
    y, difference = as_factor(target, input1), input1 - input2
    hinge = margin - y * difference
    scale = grad_output * mean_factor(hinge.size, reduction)
    scale = xp.where(hinge >= 0, scale, 0).astype(input1.dtype)
    grads = [sum_to_shape(-y * scale, input1.shape), sum_to_shape(y * scale, input2.shape)]
    if target.dtype.kind != "f":
        return *grads, None
    return *grads, sum_to_shape(-difference * scale, target.shape)


class SoftMarginLoss(Loss):
    """Logistic loss of labels 1 and -1, ``log(1 + exp(-y x))``.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        The mean is over all elements.

    Notes
    -----
    ``dLoss/dx = -y s(-y x)`` with ``s`` the sigmoid. The target may be of an integer dtype.
    PyTorch overflows beyond 88 in float32 (inf, and NaN as gradient); this does not, and a float
    target gets its gradient ``-x s(-y x)``, which PyTorch has not.
    """

    def forward(self, output: Array, target: Array) -> tuple[Array, Any]:
        """Compare scores with labels 1 and -1 of the same shape."""
        target = check_pair(self, output, target, integers=True)
        return soft_margin_forward(output, target, reduction=self.reduction)

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradient of ``output``; with ``all_inputs`` of both."""
        return soft_margin_backward(
            grad_output, *saved, reduction=self.reduction, all_inputs=all_inputs
        )


class HingeEmbeddingLoss(Loss):
    """A distance where two things are alike (1), what it lacks to a margin where not (-1).

    Parameters
    ----------
    margin : float, default 1.0
        How far apart unlike things should be.
    reduction : {"mean", "sum", "none"}
        The mean is over all elements.

    Notes
    -----
    ``x`` for ``y = 1`` and ``max(0, margin - x)`` for ``y = -1``; for any other label the sum of
    both, as PyTorch has it. ``dLoss/dx`` is 1 or -1, at the kink -1. Labels, floats or integers,
    have no gradient.
    """

    def __init__(self, margin: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = check_number(self, "margin", margin)

    def forward(self, output: Array, target: Array) -> tuple[Array, Any]:
        """Compare distances with labels 1 and -1 of the same shape."""
        target = check_pair(self, output, target, integers=True)
        return hinge_embedding_forward(output, target, margin=self.margin, reduction=self.reduction)

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradient of ``output``; the labels have none."""
        options: dict[str, Any] = {"margin": self.margin, "reduction": self.reduction}
        grad = hinge_embedding_backward(grad_output, *saved, **options)
        return (grad, None) if all_inputs else grad


class MarginRankingLoss(Loss):
    """Which of two scores shall be the greater, ``max(0, margin - y (x1 - x2))``.

    Parameters
    ----------
    margin : float, default 0.0
        By how much.
    reduction : {"mean", "sum", "none"}
        The mean is over all elements.

    Notes
    -----
    With ``y = 1`` the first score shall be the greater, with ``y = -1`` the second. Where the
    margin is not kept ``dLoss/dx1 = -y``, ``dLoss/dx2 = y`` and ``dLoss/dy = x2 - x1``; integer
    labels have no gradient. The three broadcast; they have the same number of axes.
    """

    def __init__(self, margin: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = check_number(self, "margin", margin)

    def forward(self, input1: Array, input2: Array, target: Array) -> tuple[Array, Any]:
        """Compare two scores; labels are 1 and -1."""
        input1 = check_floats(self, "input1", input1, input1)
        input2 = check_floats(self, "input2", input2, input1)
        target = check_labels(self, "target", target, input1)
        check_same_axes(self, {"input1": input1, "input2": input2, "target": target})
        return margin_ranking_forward(
            input1, input2, target, margin=self.margin, reduction=self.reduction
        )

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradients of both scores; with ``all_inputs`` of the target too."""
        options: dict[str, Any] = {"margin": self.margin, "reduction": self.reduction}
        grads = margin_ranking_backward(grad_output, *saved, **options)
        return grads if all_inputs else grads[:2]


def check_same_axes(loss: Loss, arrays: dict[str, Array]) -> tuple[int, ...]:
    """Check that inputs have as many axes as each other and broadcast; return the joint shape."""
    shapes = [array.shape for array in arrays.values()]
    axes = list(zip(*shapes, strict=False))
    joint = tuple(next((n for n in lengths if n != 1), 1) for lengths in axes)
    if len({len(shape) for shape in shapes}) == 1 and all(
        n in (1, length) for lengths, length in zip(axes, joint, strict=True) for n in lengths
    ):
        return joint
    told = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
    raise ValueError(
        f"{describe_layer(loss)} expects inputs with the same number of axes that broadcast; "
        f"got {told}"
    )
