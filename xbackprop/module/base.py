"""Module: owns parameters, buffers and children; computes forward and backward; keeps nothing."""

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from xbackprop.backend.array_module import Array, is_array, is_device_array
from xbackprop.backend.device import Device, device_of
from xbackprop.backend.transfer import to_device, to_host
from xbackprop.initializers import copied as copied_array
from xbackprop.module import config as _config
from xbackprop.module import state as _state
from xbackprop.module.frame import (
    current_frame,
    describe_layer,
    inference,
    wrap_backward,
    wrap_forward,
)
from xbackprop.module.lazy import UninitializedParameter, install_parameter
from xbackprop.module.parameter import Parameter

if TYPE_CHECKING:
    from xbackprop.module.precision import TF32, Precision


class Module:
    """Base class of layers, losses and networks.

    A subclass writes ``forward(self, *inputs)`` returning ``(output, saved)`` and
    ``backward(self, grad_output, saved)`` returning the gradient of the input (a tuple in order
    for several inputs). ``backward`` adds parameter gradients by ``Parameter.accumulate`` and may
    take the keyword ``input_grad``: False says that nobody needs the input's gradient. Modules
    never keep activations, so one may be used twice, nested, or shared by threads in inference.

    Attributes
    ----------
    training : bool
        True between ``train()`` and ``eval()``; decides on dropout and the like.
    in_half : {"rounded", "products", "half", "float32"}
        What a class does in a model of half precision (:func:`xbackprop.set_precision`).
        "rounded": it is given float32, and its result is rounded; but with children "half".
        "products": the same, and it reads its parameters in half. "half": it is given halves, and
        reads its parameters in half. "float32": it is given float32, and its result stays so.
    samples_apart : bool
        Whether all that is computed for a sample, an entry of the first axis, depends on no other
        one, and draws are made sample by sample: what ``Trainer(shards=)`` asks.
    """

    training: bool = True
    in_half: ClassVar[str] = "rounded"
    samples_apart: bool = False
    _precision: "Precision | TF32 | None" = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "forward" in vars(cls):
            cls.forward = wrap_forward(cls.forward)  # type: ignore[method-assign]
        if "backward" in vars(cls):
            cls.backward = wrap_backward(cls.backward)  # type: ignore[method-assign]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Record the constructor's arguments, from which :meth:`config` is made."""
        module = super().__new__(cls)
        module.__dict__["_constructor_arguments"] = (args, kwargs)
        return module

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Compute the output and what backward needs.

        Parameters
        ----------
        *inputs : array
            As the subclass says.
        **options : object
            As the subclass says.

        Returns
        -------
        output, saved
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        """Add the parameters' gradients and return the input's gradient.

        Parameters
        ----------
        grad_output : array
            Gradient of the loss with respect to the output; same shape as the output.
        saved : Saved
            What ``forward`` returned; consumed, unless ``keep=True`` is given.
        input_grad : bool, default True
            False skips the gradient of the input; the result is then None.

        Returns
        -------
        array or tuple of arrays
        """
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Return the output alone; nothing is saved, at most one activation is alive."""
        if current_frame().inference:
            return self.forward(*inputs, **options)[0]
        with inference():
            return self.forward(*inputs, **options)[0]

    # --- the tree -------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """Yield the direct children with their names, in the order they were assigned."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def children(self) -> Iterator["Module"]:
        """Yield the direct children."""
        return (child for _, child in self.named_children())

    def own_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield the parameters this module holds itself, with their names."""
        for name, value in vars(self).items():
            if isinstance(value, (Parameter, UninitializedParameter)):
                yield name, value  # type: ignore[misc]  # it stands in for one

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """Yield this module and everything below it, each once, with dotted paths."""
        seen: set[int] = set()
        for path, module in _state.walk(self, prefix):
            if id(module) not in seen:
                seen.add(id(module))
                yield path, module

    def modules(self) -> Iterator["Module"]:
        """Yield this module and everything below it, each once."""
        return (module for _, module in self.named_modules())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield every parameter below, a shared one once, with its dotted path."""
        seen: set[int] = set()
        for path, parameter in _state.walk_parameters(self):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield path, parameter

    def parameters(self) -> Iterator[Parameter]:
        """Yield every parameter below, a shared one once."""
        return (parameter for _, parameter in self.named_parameters())

    # --- buffers --------------------------------------------------------------------------

    def register_buffer(self, name: str, array: Array, *, persistent: bool = True) -> None:
        """Own an array that is not trained.

        Parameters
        ----------
        name : str
            Its name; also readable as an attribute.
        array : array
            Its first value.
        persistent : bool, default True
            Whether it belongs to ``state_dict``; others belong to ``extra_state``.
        """
        buffers = self.__dict__.setdefault("_buffers", {})
        buffers[name] = array
        if not persistent:
            self.__dict__.setdefault("_extra_buffers", set()).add(name)

    def own_buffers(self, *, persistent: bool) -> Iterator[tuple[str, Array]]:
        """Yield this module's own buffers of one kind."""
        extra = self.__dict__.get("_extra_buffers", ())
        for name, array in self.__dict__.get("_buffers", {}).items():
            if (name in extra) is not persistent:
                yield name, array

    def read_buffer(self, name: str) -> Array:
        """Return a buffer as the running call sees it: with the call's own pending updates."""
        pending = current_frame().updates.get((id(self), name))
        return self.__dict__["_buffers"][name] if pending is None else pending[2]

    def update_buffer(self, name: str, array: Array) -> None:
        """Give a buffer a new value when the outermost forward returns, and not if it fails."""
        current_frame().updates[(id(self), name)] = (self, name, array)

    def commit_buffer(self, name: str, array: Array) -> None:
        """Write a pending update into the existing buffer, or install a created Parameter."""
        if array.__class__ is Parameter:
            install_parameter(self, name, array)
        else:
            self.__dict__["_buffers"][name][...] = array

    def __getattr__(self, name: str) -> Any:
        buffers = self.__dict__.get("_buffers")
        if buffers is not None and name in buffers:
            return buffers[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    # --- state ----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return parameters and persistent buffers as host arrays under PyTorch's keys.

        Returns
        -------
        dict of str to numpy.ndarray
            Fresh, contiguous copies. A shared parameter stands under each of its names.
        """
        return _state.state_dict(self)

    def load_state_dict(self, state: dict[str, Any], *, strict: bool = True) -> None:
        """Copy values into the existing parameters and buffers.

        Parameters
        ----------
        state : dict of str to array
            As :meth:`state_dict` returns it, host or device arrays.
        strict : bool, default True
            Refuse missing and unexpected keys; mis-shaped ones are always refused.

        Raises
        ------
        ValueError
            Names every missing, unexpected and mis-shaped key; nothing was changed then.
        """
        _state.load_state_dict(self, state, strict=strict)

    def extra_state(self) -> dict[str, np.ndarray]:
        """Return what a resumed run needs beyond ``state_dict``: random keys and counters."""
        return _state.extra_state(self)

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`extra_state` returned."""
        _state.load_extra_state(self, state)

    def config(self) -> dict[str, Any]:
        """Return the architecture as plain data; ``xbackprop.nn.from_config`` rebuilds it."""
        return _config.describe(self)

    # --- modes and places -----------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Switch to training behaviour, or with False to evaluation."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Switch to evaluation behaviour."""
        return self.train(False)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget every gradient, or with False fill it with zeros."""
        for parameter in self.parameters():
            parameter.zero_grad(set_to_none)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze (False) or unfreeze every parameter."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def to(self, device: str | Device | None = None, dtype: Any = None) -> Self:
        """Move to a device, cast floats, or both.

        Parameters
        ----------
        device : str or Device, optional
            Where to; None stays.
        dtype : dtype, optional
            Float dtype for parameters and float buffers; integer buffers keep theirs.

        Returns
        -------
        Module
            This module.
        """
        for parameter in self.parameters():
            parameter.to(device, dtype)
        for module in self.modules():
            buffers = module.__dict__.get("_buffers", {})
            for name, array in buffers.items():
                moved = array if device is None else to_device(array, device)
                if dtype is not None and moved.dtype.kind == "f":
                    with device_of(moved).activate():
                        moved = moved.astype(dtype)
                buffers[name] = moved
        return self

    def replicate(self) -> Self:
        """Share the data and own the gradients, to train in threads; not there yet."""
        raise NotImplementedError("Module.replicate: training one model in several threads")

    @property
    def device(self) -> Device | None:
        """The device of the first parameter; None without parameters."""
        return next((parameter.device for parameter in self.parameters()), None)

    @property
    def dtype(self) -> np.dtype | None:
        """The dtype of the first parameter; None without parameters."""
        return next((parameter.dtype for parameter in self.parameters()), None)

    # --- checks for subclasses ------------------------------------------------------------

    def check_input(self, name: str, array: Any, like: Array) -> Array:
        """Check that an input is an array beside ``like``, of its dtype; return it native.

        Parameters
        ----------
        name : str
            The argument's name, for the message.
        array : array
            The input.
        like : array
            What it will meet, usually a weight.

        Returns
        -------
        array
            The input itself; a big-endian one as a native copy.

        Raises
        ------
        TypeError
            For anything but an array, and for another dtype.
        ValueError
            For an array on another device; names both and the call to make.
        """
        if type(array) is np.ndarray is type(like) and array.dtype is like.dtype:
            return array
        self.check_device(name, array, like)
        if array.dtype != like.dtype:
            if array.dtype.newbyteorder("=") == like.dtype:
                return array.astype(like.dtype)
            raise TypeError(
                f"{describe_layer(self)} expects {name} of dtype {like.dtype}; got {array.dtype}. "
                f"Call {name}.astype('{like.dtype}'), or build the layer with that dtype."
            )
        return array

    def check_device(self, name: str, array: Any, like: Array) -> None:
        """Check that an input is an array on the device of ``like``."""
        if not is_array(array) and not isinstance(array, np.generic):
            raise TypeError(
                f"{describe_layer(self)} expects {name} to be an array; got "
                f"{type(array).__name__}. Call xbackprop.asarray({name})."
            )
        here, there = device_of(array), device_of(like)
        if here != there:
            raise ValueError(
                f"{describe_layer(self)}: {name} is on {here}, the layer's arrays are on {there}. "
                f"Call xbackprop.to_device({name}, '{there}')."
            )

    # --- copies ---------------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied = object.__new__(type(self))
        memo[id(self)] = copied
        for name, value in vars(self).items():
            if name == "_buffers":
                copied.__dict__[name] = {key: copied_array(array) for key, array in value.items()}
            else:
                copied.__dict__[name] = copy.deepcopy(value, memo)
        return copied

    def __getstate__(self) -> dict[str, Any]:
        state = dict(vars(self))
        state["_constructor_arguments"] = _on_host(state["_constructor_arguments"])
        if "_buffers" in state:
            state["_buffers"] = {
                name: to_host(array).copy() for name, array in state["_buffers"].items()
            }
        return state

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return ""

    def __repr__(self) -> str:
        lines = [
            f"  ({name}): " + repr(child).replace("\n", "\n  ")
            for name, child in self.named_children()
        ]
        head = type(self).__name__
        if not lines:
            return f"{head}({self.extra_repr()})"
        return "\n".join([f"{head}({self.extra_repr()}", *lines, ")"])

    def _repr_html_(self) -> str:
        from xbackprop.module.notebook import module_html

        return module_html(self)


def _on_host(value: Any) -> Any:
    """Bring device arrays among nested arguments to the host, and leave the rest alone."""
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        return type(value)(_on_host(part) for part in value)
    if isinstance(value, dict):
        return {key: _on_host(part) for key, part in value.items()}
    return to_host(value) if is_device_array(value) else value
