"""The call frame: what every forward and backward shares while it runs."""

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module, is_array
from xbackprop.backend.device import CPU, Device, device_of
from xbackprop.backend.fork import LockHolder
from xbackprop.backend.threads import threads_of_call
from xbackprop.module.parameter import Parameter, clock

if TYPE_CHECKING:
    from xbackprop.module.base import Module

# Under the id of the owner and a name: the owner, that name, and the new value.
Updates = dict[tuple[int, str], tuple[Any, str, Any]]

_CONSUMED: Any = object()
_NO_SAVED: Any = object()


class Saved:
    """What an outermost forward saved for its backward: opaque, and emptied by the backward.

    Inside a network a child's ``saved`` is passed on bare, since only its parent holds it.
    """

    __slots__ = ("content", "time")

    def __init__(self, content: Any, time: int) -> None:
        self.content = content  # shared by nobody else; the backward empties it
        self.time = time  # of the parameters when the forward ran

    def __repr__(self) -> str:
        return "Saved(consumed)" if self.content is _CONSUMED else f"Saved({self.content!r})"


class Frame:
    """The state of the calls running in one thread.

    Attributes
    ----------
    stack : list of Module
        The modules that are running, outermost first.
    updates : dict
        Buffers and parameters that the running call will change when it succeeds.
    inference : bool
        Nothing is saved.
    keep : bool
        Backwards leave ``saved`` usable.
    is_quiet : bool
        Floating-point warnings are off and the device is set: see :func:`as_one_call`.
    shard : tuple of int, or None
        Where the samples are a part of the batch: the number of the first, and how many they are.
    """

    __slots__ = ("inference", "is_quiet", "keep", "shard", "stack", "updates")

    def __init__(self) -> None:
        self.stack: list[Module] = []
        self.updates: Updates = {}
        self.inference = False
        self.keep = False
        self.is_quiet = False
        self.shard: tuple[int, int] | None = None


class _Local(threading.local):
    def __init__(self) -> None:
        self.frame = Frame()


_local = _Local()
_committing = LockHolder()


def current_frame() -> Frame:
    """Return this thread's frame."""
    return _local.frame


def layer_path() -> str:
    """Return the path of the layer that is running, such as ``encoder.0.linear``."""
    frame = _local.frame
    names = [type(frame.stack[0]).__name__] if frame.stack else []
    for parent, child in zip(frame.stack, frame.stack[1:], strict=False):
        # Not always a direct child: a list of layers stands between, and is not called.
        known = (name for name, module in parent.named_modules() if module is child and name)
        names.append(next(known, type(child).__name__))
    return ".".join(names)


def describe_layer(module: "Module") -> str:
    """Name a layer for an error message: its class, and its path inside a network."""
    name = type(module).__name__
    return f"{name} ({layer_path()})" if len(_local.frame.stack) > 1 else name


def wrap_forward(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run a Module's ``forward`` inside the call frame."""

    @functools.wraps(function)
    def forward(self: "Module", *inputs: Any, **options: Any) -> Any:
        frame = _local.frame
        stack = frame.stack
        precision = self._precision
        if not stack:
            run = function
            if precision is not None:
                run = precision.forward(function, is_outermost=True)
            output, saved = _outermost(frame, run, self, inputs, options)
            return output, None if frame.inference else Saved(saved, clock.time)
        if stack[-1] is self:  # super().forward(): one frame for both
            return function(self, *inputs, **options)
        run = function if precision is None else precision.forward(function, is_outermost=False)
        stack.append(self)
        try:  # with no options to unpack, the call is a good deal cheaper
            result = run(self, *inputs, **options) if options else run(self, *inputs)
        finally:
            stack.pop()
        return (result[0], None) if frame.inference else result

    return forward


def _outermost(
    frame: Frame,
    function: Callable[..., Any],
    module: "Module",
    inputs: tuple[Any, ...],
    options: dict[str, Any],
) -> Any:
    """Run the call that no other call of this thread contains, and commit what it updates."""
    for value in inputs:
        if type(value) is np.ndarray and not value.dtype.isnative:
            inputs = tuple(_native(value) for value in inputs)
            break
    frame.stack.append(module)
    try:
        if frame.is_quiet:
            result = function(module, *inputs, **options)
        else:
            values = inputs or tuple(options.values())  # forward(x=x)
            with _place(values), np.errstate(all="ignore"):
                result = function(module, *inputs, **options)
        if frame.updates and not frame.is_quiet:  # else as_one_call commits for all its calls
            commit_updates()
        return result
    finally:
        frame.stack.pop()
        if frame.updates and not frame.is_quiet:
            _discard_updates(frame)  # a refused call changes nothing


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
        input_grad: bool = True,
        keep: bool | None = None,
        **options: Any,
    ) -> Any:
        if not input_grad and takes_input_grad:
            options["input_grad"] = False
        frame = _local.frame
        stack = frame.stack
        precision = self._precision
        if keep is not None and keep is not frame.keep:
            with _setting(keep=keep):
                return backward(self, grad_output, saved, **options)
        if stack:
            if stack[-1] is self:  # super().backward()
                return function(self, grad_output, saved, **options)
            run = function
            if precision is not None:
                run = precision.backward(function, is_outermost=False)
            if saved.__class__ is Saved or saved is _NO_SAVED:
                saved = _open(self, saved, frame.keep)
            stack.append(self)
            try:
                if options:
                    return run(self, grad_output, saved, **options)
                return run(self, grad_output, saved)
            finally:
                stack.pop()
        saved = _open(self, saved, frame.keep)
        if type(grad_output) is np.ndarray and not grad_output.dtype.isnative:
            grad_output = _native(grad_output)
        run = function
        if precision is not None:
            run = precision.backward(function, is_outermost=True)
        stack.append(self)
        try:
            if frame.is_quiet:
                return run(self, grad_output, saved, **options)
            with _place((grad_output, saved)), np.errstate(all="ignore"):
                return run(self, grad_output, saved, **options)
        finally:
            stack.pop()

    return backward


@contextlib.contextmanager
def _setting(**values: Any) -> Iterator[None]:
    """Set attributes of this thread's frame inside a block."""
    frame = _local.frame
    before = {name: getattr(frame, name) for name in values}
    for name, value in values.items():
        setattr(frame, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(frame, name, value)


def inference() -> contextlib.AbstractContextManager[None]:
    """Run forwards without saving: each layer's ``saved`` is dropped as soon as it is made."""
    return _setting(inference=True)


def saving() -> contextlib.AbstractContextManager[None]:
    """Let forwards save again inside a backward that runs them anew."""
    return _setting(inference=False)


@contextlib.contextmanager
def as_shard(first: int, samples: int, updates: Updates) -> Iterator[Updates]:
    """Run forwards and backwards on some samples of a batch, inside another thread's one call.

    Parameters
    ----------
    first, samples : int
        Number of the first sample in the batch, and how many there are.
    updates : dict
        What the call has changed so far, in the form of :attr:`Frame.updates`; this block's changes
        are added to it and not committed.
    """
    with _setting(is_quiet=True, updates=updates, shard=(first, samples)):
        yield updates


@contextlib.contextmanager
def replay(state: Updates, values: list[tuple[Parameter, Array]]) -> Iterator[None]:
    """Run forwards as they ran at an earlier state, and discard what they would update.

    Parameters
    ----------
    state : dict
        Buffers as the earlier call saw them, in the form of :attr:`Frame.updates`.
    values : list of (Parameter, array)
        What layers read of the parameters then.
    """
    present = [(parameter, parameter.value) for parameter, _ in values]
    try:
        for parameter, value in values:
            parameter.value = value
        with _setting(updates=dict(state)):
            yield
    finally:
        for parameter, value in present:
            parameter.value = value


def update_parameter(parameter: Parameter, values: Array) -> None:
    """Let layers read new values from here on, which become the parameter's when the call succeeds.

    They are put in the place of the old array, which is not written into: whoever saved it for a
    backward still has what it computed with, so the version need not move.

    Parameters
    ----------
    parameter : Parameter
        Of which a forward changes the values.
    values : array
        Of its shape and dtype, in storage that nobody else has.
    """
    parameter.value = values
    _local.frame.updates[id(parameter), "data"] = (parameter, "data", values)


def settle_parameters(finite: Any) -> None:
    """Write what the running call has made of parameters, before an optimizer moves them.

    In place, as the optimizer's own update that follows: its views stay valid.

    Parameters
    ----------
    finite : None, bool or device scalar of bool
        As in :func:`withhold_updates`.
    """
    updates = _local.frame.updates
    if not updates:
        return
    for key, (owner, _, values) in list(updates.items()):
        if not isinstance(owner, Parameter):
            continue
        data = owner.data
        if finite is None or finite is True:
            data[...] = values
        elif finite is not False:
            with device_of(data).activate():
                data[...] = get_array_module(data).where(finite, values, data)
        owner.rebind(data)
        owner.mark_changed()
        del updates[key]


def commit_updates() -> None:
    """Write the state that the finished call produced into the modules' buffers."""
    frame = _local.frame
    with _committing.lock:
        for owner, name, array in frame.updates.values():
            if isinstance(owner, Parameter):
                owner.rebind(array)
            else:
                owner.commit_buffer(name, array)
    frame.updates.clear()


def _discard_updates(frame: Frame) -> None:
    """Forget what a refused call would have changed."""
    for owner, _, _ in frame.updates.values():
        if isinstance(owner, Parameter):
            owner.rebind(owner.data)
    frame.updates.clear()


def _native(value: Any) -> Any:
    """Return a host array in this machine's byte order, so that no layer has to think of it."""
    is_foreign = type(value) is np.ndarray and not value.dtype.isnative
    return value.astype(value.dtype.newbyteorder("=")) if is_foreign else value


def _place(values: tuple[Any, ...]) -> contextlib.AbstractContextManager[Any]:
    """Make the device of a call's first array current, so that work is allocated where it lives.

    On the CPU, let products use the threads that were chosen.
    """
    if values and type(values[0]) is np.ndarray:  # first of all the common case
        return threads_of_call()
    device = _device_of_call(values)
    return threads_of_call() if device is CPU else device.activate()


class as_one_call:
    """Run several forwards and backwards under one set of warnings off and one current device.

    What the forwards update (random counters and the like) is committed at the end, and not when
    one of the calls fails: a batch that the loss refuses leaves no trace in the model.

    Parameters
    ----------
    *values : array or tuple of arrays
        The inputs; the first array says which device.
    """

    __slots__ = ("_errstate", "_frame", "_opened", "_place")

    def __init__(self, *values: Any) -> None:
        self._frame = _local.frame
        self._opened = not (self._frame.is_quiet or self._frame.stack)
        if self._opened:
            self._place = _place(values)
            self._errstate = np.errstate(all="ignore")

    def __enter__(self) -> None:
        if self._opened:
            self._place.__enter__()
            self._errstate.__enter__()
            self._frame.is_quiet = True

    def __exit__(self, *exception: Any) -> None:
        if self._opened:
            self._frame.is_quiet = False
            try:
                if self._frame.updates and exception[0] is None:
                    commit_updates()
            finally:
                if self._frame.updates:
                    _discard_updates(self._frame)
                self._errstate.__exit__(*exception)
                self._place.__exit__(*exception)


def _device_of_call(values: tuple[Any, ...]) -> Device:
    """Return the device of the first array found."""
    for value in values:
        inside = value.content if value.__class__ is Saved else value
        if isinstance(inside, (tuple, list)):
            place = _device_of_call(tuple(inside))
            if place is not CPU:
                return place
        elif is_array(inside):
            return device_of(inside)
    return CPU


def _open(module: "Module", saved: Any, keep: bool) -> Any:
    """Take the content out of a ``Saved``, once, and only while the parameters are the same."""
    if saved.__class__ is not Saved or saved.content is _CONSUMED:
        raise _explain_saved(module, saved)
    if saved.time != clock.time:
        _refuse_stale(module, saved.time)
    content = saved.content
    if not keep:
        saved.content = _CONSUMED
    return content


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


def _refuse_stale(module: "Module", time: int) -> None:
    for name, parameter in module.named_parameters():
        if parameter.version > time:
            raise RuntimeError(
                f"{describe_layer(module)}.backward: parameter {name!r} changed since the forward "
                "that made this `saved` (an optimizer step, load_state_dict or to). "
                "Run forward again."
            )
