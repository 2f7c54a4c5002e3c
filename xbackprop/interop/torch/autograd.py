"""A node of PyTorch's graph that runs a forward and a backward written by hand."""

from collections.abc import Callable
from typing import Any

from xbackprop.interop.torch.tensors import as_tensor
from xbackprop.module import Module, Parameter


def make_function(torch: Any, name: str, forward: Any, backward: Any) -> Any:
    """Make a function whose name PyTorch shows in its graph and in errors."""
    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type(name, (torch.autograd.Function,), methods)


def forward(ctx: Any, call: Any, *tensors: Any) -> tuple[Any, ...]:
    """Run a call's forward; the tensors are those of its inputs, then the parameters."""
    ctx.call = call
    outputs = tuple(map(as_tensor, call.forward()))
    ctx.save_for_backward(*tensors)  # PyTorch then sees whether one is changed from here on
    ctx.mark_non_differentiable(*(y for y in outputs if not y.is_floating_point()))
    ctx.are_differentiable = [y.is_floating_point() for y in outputs]
    return outputs


def backward(ctx: Any, *grad_outputs: Any) -> tuple[Any, ...]:
    """Run its backward, which cannot be differentiated itself."""
    import torch

    tensors = ctx.saved_tensors  # an error where one was changed in place
    with torch.no_grad():
        grads = _gradients(ctx, grad_outputs)
    if torch.is_grad_enabled():  # create_graph=True: what comes depends on all of these
        refuse = make_function(torch, type(ctx.call.layer).__name__, _pass_on, _refuse_second)
        present = [grad for grad in grads if grad is not None]
        passed = iter(refuse.apply(ctx.call.layer, len(present), *present, *tensors, *grad_outputs))
        grads = [None if grad is None else next(passed) for grad in grads]
    return None, *grads


def _pass_on(ctx: Any, layer: Module, count: int, *tensors: Any) -> tuple[Any, ...]:
    ctx.layer = layer
    return tensors[:count]


def _refuse_second(ctx: Any, *grads: Any) -> None:
    raise NotImplementedError(
        f"as_torch_function: second derivatives of {type(ctx.layer).__name__}. Its backward is "
        "written by hand and is once_differentiable."
    )


def _gradients(ctx: Any, grad_outputs: tuple[Any, ...]) -> list[Any]:
    """Return the gradients of the tensors among the inputs, then those of the parameters."""
    wanted = ctx.needs_input_grad[1:]
    # PyTorch has put zeros where an output is not used.
    arrays = [
        grad.detach().numpy() if is_float else None
        for grad, is_float in zip(grad_outputs, ctx.are_differentiable, strict=True)
    ]
    parameters = ctx.call.parameters
    of_inputs, of_parameters = _collect(
        parameters,
        wanted[len(wanted) - len(parameters) :],
        lambda: ctx.call.backward(iter(arrays)),
    )
    _check_inputs(ctx.call.layer, of_inputs, wanted)
    return [
        as_tensor(grad) if is_wanted and grad is not None else None
        for grad, is_wanted in zip([*of_inputs, *of_parameters], wanted, strict=True)
    ]


def _check_inputs(layer: Module, grads: list[Any], wanted: tuple[bool, ...]) -> None:
    """Refuse a gradient that PyTorch wants and the layer does not have: it would count as 0."""
    for position, (grad, is_wanted) in enumerate(zip(grads, wanted, strict=False)):
        if is_wanted and grad is None:
            raise NotImplementedError(
                f"as_torch_function: {type(layer).__name__} has no gradient with respect to tensor "
                f"{position} of its inputs. Detach it."
            )


def _collect(
    parameters: list[Parameter], wanted: tuple[bool, ...], run: Callable[[], list[Any]]
) -> tuple[list[Any], list[Any]]:
    """Run a backward; return its result and the parameters' gradients, which stay as they were."""
    before = [
        (p.requires_grad, None if p.grad is None else p.grad.copy(), p.contributions)
        for p in parameters
    ]
    try:
        for parameter, is_wanted in zip(parameters, wanted, strict=True):
            parameter.zero_grad()
            parameter.requires_grad = is_wanted
        result = run()
        return result, [None if p.grad is None else p.grad.copy() for p in parameters]
    finally:
        for parameter, (requires_grad, grad, contributions) in zip(parameters, before, strict=True):
            parameter.requires_grad = True
            parameter.grad = grad
            parameter.requires_grad, parameter.contributions = requires_grad, contributions
