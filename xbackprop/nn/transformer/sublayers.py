"""What the layers of encoder and decoder are made of: sums with a normalization, and branches."""

from collections.abc import Callable
from typing import Any

from xbackprop.backend.array_module import Array
from xbackprop.module import Module
from xbackprop.nn.activations import GELU, ReLU
from xbackprop.nn.attention import MultiheadAttention
from xbackprop.nn.dropout import Dropout
from xbackprop.nn.normalization import LayerNorm

Branch = Callable[[Array], tuple[Array, Any]]
# Takes the gradient, what was saved, and whether the input's gradient is wanted; returns that, and
# those of what else the branch reads.
BranchBackward = Callable[[Array, Any, bool], tuple[Array | None, tuple[Array | None, ...]]]


def make_activation(layer: str, activation: Any) -> Module:
    """Return the module for an option as PyTorch takes it, a name or a module."""
    if isinstance(activation, Module):
        return activation
    if isinstance(activation, str):
        if activation not in ("relu", "gelu"):
            raise ValueError(f"{layer} expects activation 'relu' or 'gelu'; got {activation!r}")
        return ReLU() if activation == "relu" else GELU()
    if callable(activation) and not isinstance(activation, type):
        name = getattr(activation, "__name__", repr(activation))
        raise NotImplementedError(
            f"{layer}(activation={name}): a function has no backward. Give 'relu', 'gelu' or a "
            "module such as SiLU()."
        )
    raise TypeError(
        f"{layer} expects activation to be 'relu', 'gelu' or a module; got "
        f"{getattr(activation, '__name__', type(activation).__name__)}"
    )


def residual_forward(
    x: Array, norm: LayerNorm, norm_first: bool, branch: Branch
) -> tuple[Array, Any]:
    """Compute ``x + f(norm(x))``, or without ``norm_first`` ``norm(x + f(x))``."""
    if norm_first:
        normed, norm_saved = norm.forward(x)
        made, branch_saved = branch(normed)
        return x + made, (norm_saved, branch_saved)
    made, branch_saved = branch(x)
    output, norm_saved = norm.forward(x + made)
    return output, (norm_saved, branch_saved)


def residual_backward(
    grad_output: Array,
    saved: Any,
    norm: LayerNorm,
    norm_first: bool,
    branch: BranchBackward,
    input_grad: bool = True,
) -> tuple[Any, tuple[Array | None, ...]]:
    """Add what comes back through the branch to what comes past it.

    Returns the gradient of ``x``, None where it is not wanted, and those of what else the branch
    reads.
    """
    norm_saved, branch_saved = saved
    if norm_first:
        grad_normed, others = branch(grad_output, branch_saved, True)
        grad = norm.backward(grad_normed, norm_saved, input_grad=input_grad)
        past = grad_output
    else:
        past = norm.backward(grad_output, norm_saved)
        grad, others = branch(past, branch_saved, input_grad)
    return (None if grad is None else past + grad), others


def attend(
    attention: MultiheadAttention,
    dropout: Dropout,
    memory: Array | None,
    attn_mask: Array | None,
    key_padding_mask: Array | None,
    is_causal: bool,
) -> Branch:
    """Return the branch in which ``x`` asks a memory, or itself where that is None."""

    def branch(x: Array) -> tuple[Array, Any]:
        keys = x if memory is None else memory
        (output, _), attention_saved = attention.forward(
            x,
            keys,
            keys,
            key_padding_mask=key_padding_mask,
            need_weights=False,
            attn_mask=attn_mask,
            is_causal=is_causal,
        )
        output, dropout_saved = dropout.forward(output)
        return output, (attention_saved, dropout_saved)

    return branch


def attend_backward(
    attention: MultiheadAttention, dropout: Dropout, of_itself: bool
) -> BranchBackward:
    """Return its backward; what else it reads is the memory, the mask and the padding."""

    def branch(
        grad_output: Array, saved: Any, input_grad: bool
    ) -> tuple[Array | None, tuple[Array | None, ...]]:
        attention_saved, dropout_saved = saved
        grad = dropout.backward(grad_output, dropout_saved)
        grads = attention.backward((grad, None), attention_saved, input_grad=input_grad)
        if grads is None:
            return None, (None, None, None)
        query, key, value, *masks = grads
        padding, attn_mask = (*masks, None, None)[:2]
        if of_itself:
            return query + key + value, (None, attn_mask, padding)  # type: ignore[operator]
        return query, (key + value, attn_mask, padding)  # type: ignore[operator]

    return branch


def chain(*modules: Module) -> Branch:
    """Return the branch of modules one after the other."""

    def branch(x: Array) -> tuple[Array, Any]:
        saved = []
        for module in modules:
            x, module_saved = module.forward(x)
            saved.append(module_saved)
        return x, saved

    return branch


def chain_backward(*modules: Module) -> BranchBackward:
    """Return its backward; it reads nothing else."""

    def branch(grad: Any, saved: Any, input_grad: bool) -> tuple[Array | None, tuple[()]]:
        for module, module_saved in zip(modules[:0:-1], saved[:0:-1], strict=True):
            grad = module.backward(grad, module_saved)
        return modules[0].backward(grad, saved[0], input_grad=input_grad), ()

    return branch


def add_gradients(*terms: Array | None) -> Array | None:
    """Return the sum of what several uses of one input give, None where none gives any."""
    total: Array | None = None
    for term in terms:
        if term is not None:
            total = term if total is None else total + term
    return total


def count_given(*masks: Array | None) -> int:
    """Return how many masks there are up to the last one that is given."""
    return max((place for place, mask in enumerate(masks, 1) if mask is not None), default=0)
