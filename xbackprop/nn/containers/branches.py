"""Branches: several ways through a network, and how they join."""

from typing import Any

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.initializers import RandomSource
from xbackprop.module import Module, current_frame, describe_layer
from xbackprop.nn.axes import check_dim, normalize_dim
from xbackprop.nn.containers.sequence import ModuleSequence, numbered


class Residual(Module):
    """Add what a module makes of its input to the input, ``y = x + f(x)``.

    Parameters
    ----------
    module : Module
        ``f``; its output has the shape of its input.

    Notes
    -----
    ``dLoss/dx = g + f.backward(g)``: the gradient has a way around ``f``.

    References
    ----------
    He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016.
    """

    samples_apart = True

    def __init__(self, module: Module) -> None:
        self.module = module

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Draw the inner module's initial values anew."""
        if hasattr(self.module, "reset_parameters"):
            self.module.reset_parameters(rng)

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Return ``x + f(x)``."""
        branch, saved = self.module.forward(x)
        if branch.shape != x.shape:
            raise ValueError(
                f"{describe_layer(self)} adds x of shape {x.shape} and f(x) of shape "
                f"{branch.shape}. Make the inner module keep the shape."
            )
        return x + branch, saved

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Return ``g + f.backward(g)``."""
        grad_branch = self.module.backward(grad_output, saved, input_grad=input_grad)
        return grad_output + grad_branch if input_grad else None


class Parallel(ModuleSequence):
    """Give one input to several modules, ``y = (f_0(x), f_1(x), ...)``.

    Parameters
    ----------
    *modules : Module
        At least one; each takes the input.
    rng : Generator, int or None
        When given, the modules draw their initial values anew, each from a stream of its own.

    Notes
    -----
    ``dLoss/dx = sum_i f_i.backward(g_i)``. A branch whose ``grad_output`` is None was
    not used and is skipped.

    References
    ----------
    Caruana, "Multitask learning", Machine Learning 28 (1997): several answers from one network.

    Examples
    --------
    >>> import xbackprop as xb
    >>> heads = xb.nn.Parallel(xb.nn.Linear(3, 2), xb.nn.Linear(3, 1))
    >>> [y.shape for y in heads(xb.asarray([[1.0, 2.0, 3.0]]))]
    [(1, 2), (1, 1)]
    """

    def __init__(self, *modules: Module, rng: RandomSource = None) -> None:
        if not modules:
            raise ValueError(f"{type(self).__name__} expects at least one module")
        super().__init__(numbered(modules), rng)

    def forward(self, x: Any) -> tuple[Any, Any]:
        """Return the tuple of all outputs."""
        outputs, saved = [], []
        for module in self._order:
            output, module_saved = module.forward(x)
            outputs.append(output)
            saved.append(module_saved)
        return tuple(outputs), saved

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        """Return the sum of the branches' gradients."""
        if len(grad_output) != len(self._order):
            raise ValueError(
                f"{describe_layer(self)}.backward expects a gradient, or None, for each of "
                f"{len(self._order)} outputs; got {len(grad_output)}"
            )
        if current_frame().keep:
            saved = list(saved)
        parts = []
        # pop lets go of each branch's activations as soon as its backward has used them.
        for module, grad in zip(reversed(self._order), reversed(grad_output), strict=True):
            module_saved = saved.pop()
            if grad is not None:
                parts.append(module.backward(grad, module_saved, input_grad=input_grad))
        return _total(parts) if input_grad else None


class Concat(Parallel):
    """Join what several modules make of one input, ``y = concatenate(f_0(x), f_1(x), ...)``.

    Parameters
    ----------
    *modules : Module
        At least one; their outputs agree in all other axes.
    dim : int, default 1
        The axis, that of features or channels.
    rng : Generator, int or None
        When given, the modules draw their initial values anew, each from a stream of its own.

    Notes
    -----
    Each branch gets its part of the gradient: ``dLoss/dx = sum_i f_i.backward(part_i of g)``.

    References
    ----------
    Szegedy et al., "Going deeper with convolutions", CVPR 2015, section 4.
    """

    def __init__(self, *modules: Module, dim: int = 1, rng: RandomSource = None) -> None:
        self.dim = check_dim("Concat", dim)
        super().__init__(*modules, rng=rng)

    def forward(self, x: Any) -> tuple[Array, Any]:
        """Return all outputs in one array."""
        outputs, saved = super().forward(x)
        dim = normalize_dim(self, self.dim, outputs[0].shape)
        shapes = [output.shape for output in outputs]
        if not shapes[0] or len({(*shape[:dim], 0, *shape[dim + 1 :]) for shape in shapes}) > 1:
            raise ValueError(
                f"{describe_layer(self)} joins outputs along axis {self.dim}, which must agree in "
                f"all other axes; got shapes {', '.join(map(str, shapes))}"
            )
        joined = get_array_module(*outputs).concatenate(outputs, axis=dim)
        return joined, (saved, dim, [shape[dim] for shape in shapes])

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Any:
        """Give each branch its part of the gradient; return the sum of what they make of it."""
        modules_saved, dim, lengths = saved
        parts, start = [], 0
        for length in lengths:
            parts.append(grad_output[(slice(None),) * dim + (slice(start, start + length),)])
            start += length
        return super().backward(tuple(parts), modules_saved, input_grad=input_grad)

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return f"dim={self.dim}"


def _total(parts: list[Any]) -> Any:
    """Add up gradients in an array of its own; None where there are none."""
    present = [part for part in parts if part is not None]
    if len(present) < 2:
        return present[0] if present else None
    total = present[0] + present[1]
    for part in present[2:]:
        total += part
    return total
