"""The call frame: what every forward and backward shares while it runs."""

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from xbackprop.backend.array_module import Array, is_array
from xbackprop.backend.device import CPU, Device, device_of
from xbackprop.module.parameter import Parameter

if TYPE_CHECKING:
    from xbackprop.module.base import Module

_CONSUMED: Any = object()
_NO_SAVED: Any = object()


class Saved:
    """What one forward saved for its backward; opaque to composites, emptied by the backward."""

    __slots__ = ("clock", "content")

    def __init__(self, content: Any, clock: int) -> None:
        self.content = content
        self.clock = clock

    def __repr__(self) -> str:
        return "Saved(consumed)" if self.content is _CONSUMED else f"Saved({self.content!r})"


class Frame(threading.local):
    """The state of the calls running in this thread."""

    def __init__(self) -> None:
        self.stack: list[Module] = []
        self.updates: dict[tuple[int, str], tuple[Module, str, Array]] = {}
        self.inference = False
        self.keep = False


frame = Frame()
_commit_lock = threading.Lock()


def layer_path() -> str:
    """Return the path of the layer that is running, such as ``encoder.0.linear``."""
    names = [type(frame.stack[0]).__name__] if frame.stack else []
    for parent, child in zip(frame.stack, frame.stack[1:], strict=False):
        known = (name for name, module in parent.named_children() if module is child)
        names.append(next(known, type(child).__name__))
    return ".".join(names)


def describe_layer(module: "Module") -> str:
    """Name a layer for an error message: its class, and its path inside a network."""
    name = type(module).__name__
    return f"{name} ({layer_path()})" if len(frame.stack) > 1 else name


def wrap_forward(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run a Module's ``forward`` inside the call frame."""

    @functools.wraps(function)
    def forward(self: "Module", *inputs: Any, **options: Any) -> Any:
        stack = frame.stack
        if not stack:
            return _outermost_forward(function, self, inputs, options)
        if stack[-1] is self:  # super().forward(): one frame for both
            return function(self, *inputs, **options)
        stack.append(self)
        try:
            output, saved = function(self, *inputs, **options)
        finally:
            stack.pop()
        return output, None if frame.inference else Saved(saved, Parameter.clock)

    return forward


def _outermost_forward(
    function: Callable[..., Any],
    module: "Module",
    inputs: tuple[Any, ...],
    options: dict[str, Any],
) -> Any:
    frame.stack.append(module)
    try:
        with np.errstate(all="ignore"):
            if inputs and type(inputs[0]) is np.ndarray:
                output, saved = function(module, *inputs, **options)
            else:
                with _device_of_call(inputs).activate():
                    output, saved = function(module, *inputs, **options)
                    commit_updates()
        if frame.updates:
            commit_updates()
    finally:
        frame.stack.pop()
        if frame.updates:
            frame.updates.clear()  # a refused call changes nothing
    return output, None if frame.inference else Saved(saved, Parameter.clock)


def wrap_backward(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run a Module's ``backward`` inside the call frame, consuming ``saved``."""
    parameters = inspect.signature(function).parameters
    takes_input_grad = "input_grad" in parameters or any(
        parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()
    )

    @functools.wraps(function)
    def backward(
        self: "Module",
        grad_output: Any,
        saved: Any = _NO_SAVED,
        *,
        keep: bool | None = None,
        **options: Any,
    ) -> Any:
        stack = frame.stack
        if stack and stack[-1] is self:  # super().backward()
            return function(self, grad_output, saved, **options)
        content = saved.content if saved.__class__ is Saved else _NO_SAVED
        if content is _NO_SAVED or content is _CONSUMED:
            raise _explain_saved(self, saved)
        if saved.clock != Parameter.clock:
            _refuse_stale(self, saved.clock)
        if keep is not None and keep is not frame.keep:
            with _keeping(keep):
                return backward(self, grad_output, saved, **options)
        if not frame.keep:
            saved.content = _CONSUMED
        if not takes_input_grad and options:
            options.pop("input_grad", None)
        if stack:
            stack.append(self)
            try:
                return function(self, grad_output, content, **options)
            finally:
                stack.pop()
        stack.append(self)
        try:
            with np.errstate(all="ignore"):
                if type(grad_output) is np.ndarray or _starts_on_host(content):
                    return function(self, grad_output, content, **options)
                with _device_of_call((grad_output, content)).activate():
                    return function(self, grad_output, content, **options)
        finally:
            stack.pop()

    return backward


@contextlib.contextmanager
def _keeping(keep: bool) -> Iterator[None]:
    before, frame.keep = frame.keep, keep
    try:
        yield
    finally:
        frame.keep = before


@contextlib.contextmanager
def inference() -> Iterator[None]:
    """Run forwards without saving: each layer's ``saved`` is dropped as soon as it is made."""
    before, frame.inference = frame.inference, True
    try:
        yield
    finally:
        frame.inference = before


@contextlib.contextmanager
def replay(state: "dict[tuple[int, str], tuple[Module, str, Array]]") -> Iterator[None]:
    """Run forwards as they ran at an earlier state, and discard what they would update."""
    before, frame.updates = frame.updates, dict(state)
    try:
        yield
    finally:
        frame.updates = before


@contextlib.contextmanager
def saving() -> Iterator[None]:
    """Let forwards save again inside a backward that runs them anew."""
    before, frame.inference = frame.inference, False
    try:
        yield
    finally:
        frame.inference = before


def unwind(saved: list[Any]) -> Iterator[Any]:
    """Yield a container's children's ``saved``, last first, letting go of each one."""
    if frame.keep:
        yield from reversed(saved)
        return
    while saved:
        yield saved.pop()


def commit_updates() -> None:
    """Write the state that the finished call produced into the modules' buffers."""
    with _commit_lock:
        for module, name, array in frame.updates.values():
            module.commit_buffer(name, array)
    frame.updates.clear()


def _starts_on_host(content: Any) -> bool:
    """Tell that a loss's `saved` starts with a host array; its gradient may be a plain number."""
    return isinstance(content, tuple) and bool(content) and type(content[0]) is np.ndarray


def _device_of_call(values: tuple[Any, ...]) -> Device:
    """Return the device of the first array found, so that work is allocated where it lives."""
    for value in values:
        if isinstance(value, (tuple, list)):
            place = _device_of_call(tuple(value))
            if place != CPU:
                return place
        elif isinstance(value, Saved):
            place = _device_of_call((value.content,))
            if place != CPU:
                return place
        elif is_array(value):
            return device_of(value)
    return CPU


def _explain_saved(module: "Module", saved: Any) -> Exception:
    name = describe_layer(module)
    if saved is _NO_SAVED or saved is None:
        return RuntimeError(
            f"{name}.backward needs what forward saved. "
            "Call `output, saved = layer.forward(x)`, not `layer(x)`, then backward(grad, saved)."
        )
    if isinstance(saved, Saved):
        return RuntimeError(
            f"{name}.backward: this `saved` was already used by a backward. "
            "Pass keep=True to the first backward to use it twice."
        )
    return TypeError(
        f"{name}.backward expects the `saved` of {type(module).__name__}.forward; "
        f"got {type(saved).__name__}"
    )


def _refuse_stale(module: "Module", clock: int) -> None:
    for name, parameter in module.own_parameters():
        if parameter.version > clock:
            raise RuntimeError(
                f"{describe_layer(module)}.backward: parameter {name!r} changed since the forward "
                "that made this `saved` (an optimizer step, load_state_dict or to). "
                "Run forward again."
            )
