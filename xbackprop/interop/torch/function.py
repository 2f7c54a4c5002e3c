"""One of our modules as a function of PyTorch's tensors."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from xbackprop.backend.array_module import is_array
from xbackprop.backend.device import CPU
from xbackprop.interop.torch.autograd import backward, forward, make_function
from xbackprop.interop.torch.tensors import as_tensor, import_torch
from xbackprop.module import Module, Parameter, UninitializedParameter
from xbackprop.testing.structures import backward_of_all_inputs, leaves, transform


def as_torch_function(layer: Module) -> "TorchFunction":
    """Wrap a module as a differentiable function of PyTorch's tensors on the CPU.

    Parameters
    ----------
    layer : Module
        Any layer, loss or network on the CPU, with values.

    Returns
    -------
    TorchFunction
        To be called with tensors where ``layer.forward`` takes arrays.

    Raises
    ------
    ModuleNotFoundError
        Without PyTorch.
    ValueError
        For a layer on another device.
    RuntimeError
        For a lazy layer that has no values yet.

    Examples
    --------
    >>> import torch  # doctest: +SKIP
    >>> layer = xb.nn.Linear(3, 2, dtype="float64", rng=0)  # doctest: +SKIP
    >>> function = as_torch_function(layer)  # doctest: +SKIP
    >>> x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)  # doctest: +SKIP
    >>> torch.autograd.gradcheck(  # doctest: +SKIP
    ...     lambda x, *parameters: function(x), (x, *function.parameters.values())
    ... )
    True
    """
    return TorchFunction(layer)


class TorchFunction:
    """A module of ours, called with tensors; its backward is the module's own.

    Parameters
    ----------
    layer : Module
        On the CPU, with values.

    Attributes
    ----------
    layer : Module
        As given. Its gradients are left as they are: PyTorch collects its own.
    parameters : dict of str to torch.Tensor
        The layer's, under their names in ``state_dict`` and in the same memory, for optimizers and
        for ``torch.autograd.grad``; a shared one stands once.

    Notes
    -----
    Every call saves anew, so that a function may be called twice before its backward. An input or
    parameter that is changed in place between the two is an error, as in PyTorch. What PyTorch
    writes into a parameter does not move its ``version``. A backward written by hand is
    differentiated once: second derivatives raise NotImplementedError, also where PyTorch's
    ``once_differentiable`` would leave their part out, silently.
    """

    def __init__(self, layer: Module) -> None:
        torch = import_torch("as_torch_function")
        self.layer = layer
        self.parameters: dict[str, Any] = {}
        for name, parameter in layer.named_parameters():
            _check_parameter(name, parameter)
            tensor = torch.from_numpy(parameter.data)
            self.parameters[name] = tensor.requires_grad_(parameter.requires_grad)
        # PyTorch shows the name of the class in the graph and in errors.
        name = type(layer).__name__
        self._function = make_function(torch, name, forward, backward)

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Return the layer's output as tensors.

        Parameters
        ----------
        *inputs : torch.Tensor
            As ``layer.forward`` takes arrays, in the same nesting.
        **options : object
            As ``layer.forward`` takes them; tensors among them have no gradient.

        Returns
        -------
        torch.Tensor
            Or several, in the nesting of the layer's output.

        Raises
        ------
        NotImplementedError
            For an option that requires a gradient.
        RuntimeError
            When layer and tensors no longer share their memory.
        TypeError
            For a tensor that is not on the CPU, or has a dtype that NumPy does not have.
        """
        for name, value in leaves(options, "options"):
            if getattr(value, "requires_grad", False):
                raise NotImplementedError(
                    f"as_torch_function: {name} requires a gradient; only inputs given by position "
                    "have one. Detach it."
                )
        self._follow_tensors()
        call = _Call(self, inputs, options)
        tensors = [value for _, value in leaves(inputs, "inputs") if _is_tensor(value)]
        outputs = iter(self._function.apply(call, *tensors, *self.parameters.values()))
        return transform(call.nesting, lambda leaf: next(outputs) if leaf is _SLOT else leaf)

    def _follow_tensors(self) -> None:
        """Let the layer know which parameters are frozen; refuse one that lives elsewhere."""
        for name, parameter, tensor, array in self._pairs():
            if not _is_one(array, parameter.data):
                raise RuntimeError(
                    f"as_torch_function: {name} of the layer and its tensor no longer share their "
                    "memory (an optimizer, `to` or an assignment moved one). Wrap the layer anew."
                )
            parameter.requires_grad = tensor.requires_grad

    def follow_layer(self) -> None:
        """Write into the tensors what the layer's own forward has made of parameters: `max_norm`.

        A tensor then has another version, and PyTorch refuses a backward of before.
        """
        for _, parameter, tensor, array in self._pairs():
            if not _is_one(array, parameter.data):
                if not np.array_equal(array, parameter.data, equal_nan=True):
                    tensor.copy_(as_tensor(parameter.data))
                parameter.rebind(array)

    def _pairs(self) -> Iterator[tuple[str, Parameter, Any, np.ndarray]]:
        for name, parameter in self.layer.named_parameters():
            tensor = self.parameters[name]
            yield name, parameter, tensor, tensor.detach().numpy()


class _Call:
    """One call of a layer: its arguments, what its forward saved, and how its output is nested."""

    nesting: Any
    saved: Any

    def __init__(
        self, function: TorchFunction, inputs: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        self.function, self.layer = function, function.layer
        self.parameters = list(self.layer.parameters())
        self.inputs, self.options = transform(inputs, _as_array), transform(options, _as_array)
        self.is_tensor = transform(inputs, _is_tensor)

    def forward(self) -> list[np.ndarray]:
        """Run the layer; return the arrays of its output."""
        output, self.saved = self.layer.forward(*self.inputs, **self.options)
        self.function.follow_layer()
        self.nesting = transform(output, lambda leaf: _SLOT if _is_value(leaf) else leaf)
        return [np.asarray(leaf) for _, leaf in leaves(output, "output") if _is_value(leaf)]

    def backward(self, grad_outputs: Iterator[Any]) -> list[Any]:
        """Return one gradient, or None, for every tensor among the inputs."""
        grad_output = transform(
            self.nesting, lambda leaf: next(grad_outputs) if leaf is _SLOT else None
        )
        grads = backward_of_all_inputs(
            self.layer, grad_output, self.saved, len(self.inputs), keep=True
        )
        return list(_beside(self.is_tensor, tuple(grads)))


_SLOT: Any = object()  # stands where an output has an array


def _beside(is_tensor: Any, grads: Any) -> Iterator[Any]:
    """Yield the gradient of every tensor among nested inputs; None where there is none."""
    if isinstance(is_tensor, dict):
        for key, part in is_tensor.items():
            yield from _beside(part, None if grads is None else grads[key])
    elif isinstance(is_tensor, (tuple, list)):
        parts = (None,) * len(is_tensor) if grads is None else grads
        for part, grad in zip(is_tensor, parts, strict=True):
            yield from _beside(part, grad)
    elif is_tensor is True:  # not one of the numbers in a packed sequence
        yield grads


def _check_parameter(name: str, parameter: Any) -> None:
    if isinstance(parameter, UninitializedParameter):
        raise RuntimeError(
            f"as_torch_function: {name} of a lazy layer has no values yet. Run one forward first."
        )
    if parameter.device != CPU:
        raise ValueError(
            f"as_torch_function: {name} is on {parameter.device}, tensors are on the CPU. "
            "Call layer.to('cpu')."
        )


def _is_one(array: np.ndarray, other: np.ndarray) -> bool:
    """Tell whether two arrays are the same memory, read alike."""
    alike = array.dtype == other.dtype and array.shape == other.shape
    return alike and (not array.size or np.may_share_memory(array, other))


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "detach")


def _is_value(leaf: Any) -> bool:
    return is_array(leaf) or isinstance(leaf, np.generic)


def _as_array(value: Any) -> Any:
    if not _is_tensor(value):
        return value
    try:
        return value.detach().numpy()
    except (TypeError, RuntimeError) as error:
        raise TypeError(
            "as_torch_function expects tensors on the CPU, of dtypes that NumPy has; got "
            f"{value.dtype} on {value.device}: {error}"
        ) from error
