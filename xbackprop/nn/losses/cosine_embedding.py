"""The cosine of two vectors that are alike or not."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op
from xbackprop.module import describe_layer
from xbackprop.nn.losses.base import (
    Loss,
    check_floats,
    check_labels,
    check_number,
    mean_factor,
    reduce_loss,
)
from xbackprop.nn.losses.margin import check_same_axes
from xbackprop.ops.broadcast import sum_to_shape

_EPSILON = 1e-12  # PyTorch's; keeps a vector of zeros from dividing by zero


@op(
    formula="loss = where(target == 1, 1 - (input1 * input2).sum(-1) / sqrt((input1 ** 2).sum(-1) "
    "* (input2 ** 2).sum(-1)), where(target == -1, maximum((input1 * input2).sum(-1) "
    "/ sqrt((input1 ** 2).sum(-1) * (input2 ** 2).sum(-1)) - margin, 0), 0)).mean()",
)
def cosine_embedding_forward(
    input1: Array, input2: Array, target: Array, *, margin: float = 0.0, reduction: str = "mean"
) -> tuple[Array, Any]:
    """Compute ``1 - cos`` where ``y = 1``, ``max(0, cos - margin)`` where ``y = -1``, else 0."""
    xp = get_array_module(input1)
    square1 = (input1 * input1).sum(axis=-1, keepdims=True) + _EPSILON
    square2 = (input2 * input2).sum(axis=-1, keepdims=True) + _EPSILON
    kept = (input1 * input2).sum(axis=-1, keepdims=True) / xp.sqrt(square1 * square2)
    cosine = kept[..., 0]
    apart = xp.where(target == -1, xp.maximum(cosine - margin, 0), 0)
    losses = xp.where(target == 1, 1 - cosine, apart)
    return reduce_loss(losses, reduction), (input1, input2, target, kept, square1, square2)


@op(
    formula="grad1 = (grad_output / len(target) * where(target == 1, -1, (target == -1) "
    "& (cosine[:, 0] >= margin)))[:, None] * (input2 / sqrt(square1 * square2) "
    "- cosine * input1 / square1); grad2 = (grad_output / len(target) * where(target == 1, -1, "
    "(target == -1) & (cosine[:, 0] >= margin)))[:, None] * (input1 / sqrt(square1 * square2) "
    "- cosine * input2 / square2)",
)
def cosine_embedding_backward(
    grad_output: Array,
    input1: Array,
    input2: Array,
    target: Array,
    cosine: Array,
    square1: Array,
    square2: Array,
    *,
    margin: float = 0.0,
    reduction: str = "mean",
) -> tuple[Array, Array]:
    """Return ``(x2 / (|x1| |x2|) - cos x1 / |x1|^2) h`` and its mirror image, ``h`` being +-g."""
    xp = get_array_module(input1)
    scale = grad_output * mean_factor(cosine.size, reduction)
    apart = xp.where((target == -1) & (cosine[..., 0] - margin >= 0), scale, 0)
    slope = xp.expand_dims(xp.where(target == 1, -scale, apart).astype(input1.dtype), -1)
    norms = xp.sqrt(square1 * square2)
    # cos / |x1|^2 in the factors it is made of: where a square overflowed this gives NaN, not 0.
    pull, turn = slope / norms, slope * (cosine / norms) / norms
    grad1 = pull * input2 - turn * square2 * input1
    grad2 = pull * input1 - turn * square1 * input2
    return sum_to_shape(grad1, input1.shape), sum_to_shape(grad2, input2.shape)


class CosineEmbeddingLoss(Loss):
    """Turn vectors that are alike (1) into one direction, others (-1) apart.

    Parameters
    ----------
    margin : float, default 0.0
        Cosine up to which unlike vectors cost nothing; -1 to 1 makes sense.
    reduction : {"mean", "sum", "none"}
        The mean is over the batch.

    Notes
    -----
    ``1 - cos(x1, x2)`` for ``y = 1``, ``max(0, cos(x1, x2) - margin)`` for ``y = -1``, 0 for any
    other label. ``d cos/dx1 = x2 / (|x1| |x2|) - cos x1 / |x1|^2``. Labels, floats or integers,
    have no gradient. Squared norms are 1e-12 greater than they are, as in PyTorch.
    """

    def __init__(self, margin: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = check_number(self, "margin", margin)

    def forward(self, input1: Array, input2: Array, target: Array) -> tuple[Array, Any]:
        """Compare vectors ``(batch, n)``, or ``(n,)``, under labels ``(batch,)``, or ``()``."""
        input1 = check_floats(self, "input1", input1, input1)
        input2 = check_floats(self, "input2", input2, input1)
        target = check_labels(self, "target", target, input1)
        shape = check_same_axes(self, {"input1": input1, "input2": input2})
        if len(shape) not in (1, 2) or target.shape != shape[:-1]:
            raise ValueError(
                f"{describe_layer(self)} expects input1 and input2 of shape (batch, n) and target "
                f"of shape (batch,), or (n,) and (); got {input1.shape}, {input2.shape} and "
                f"{target.shape}"
            )
        return cosine_embedding_forward(
            input1, input2, target, margin=self.margin, reduction=self.reduction
        )

    def backward(self, grad_output: Any, saved: Any, *, all_inputs: bool = False) -> Any:
        """Return the gradients of both inputs; the labels have none."""
        options: dict[str, Any] = {"margin": self.margin, "reduction": self.reduction}
        grads = cosine_embedding_backward(grad_output, *saved, **options)
        return (*grads, None) if all_inputs else grads
