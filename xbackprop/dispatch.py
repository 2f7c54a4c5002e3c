"""Ops: plain array functions that may have faster kernels on a device, and can be observed."""

import contextlib
import functools
import importlib
import inspect
import math
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar, overload

import numpy as np

from xbackprop.backend.array_module import Array, is_array
from xbackprop.backend.capture import captured_device, prohibitions_lifted
from xbackprop.backend.device import CPU, Device, device_of, resolve_device
from xbackprop.backend.transfer import launches_booked_by, refuse_in_capture

Function = TypeVar("Function", bound=Callable[..., Any])


class ArraySpec(NamedTuple):
    """What a kernel's ``when`` may ask about an array."""

    shape: tuple[int, ...]
    dtype: np.dtype
    is_contiguous: bool = True  # in C order


_make_spec = functools.partial(tuple.__new__, ArraySpec)  # a third of the constructor's time


@dataclass(frozen=True)
class Kernel:
    """A faster version of an op for one kind of device.

    Parameters
    ----------
    function : callable
        Same arguments and results as the op's reference.
    when : callable or None
        Pure function of the arguments (arrays as :class:`ArraySpec`, the rest as it is) and the
        keyword-only options that says whether this kernel can serve the call; None serves every
        call.
    launches : int or callable
        Kernel launches of one call; the stand-in books this number. A callable is asked as
        ``when`` is.
    bytes_moved : callable or None
        As ``when``, returning the bytes of device memory read and written.
    smallest : int
        Elements of the first array from which on the kernel is worth its call.
    capturable : bool
        Whether it may be part of a recorded step: it starts kernels on the current stream, and
        neither waits nor transfers anything.
    """

    function: Callable[..., Any]
    when: Callable[..., bool] | None
    launches: int | Callable[..., int]
    bytes_moved: Callable[..., int] | None
    smallest: int = 0
    capturable: bool = True

    def count_launches(self, args: tuple[Any, ...], options: dict[str, Any]) -> int:
        """Return the launches of one call."""
        launches = self.launches
        return launches if isinstance(launches, int) else launches(*as_specs(args), **options)


@dataclass(frozen=True)
class OpCall:
    """One call of an op as observers see it."""

    op: "Op"
    args: tuple[Any, ...]
    options: dict[str, Any]
    device: Device
    depth: int


class Observer(Protocol):
    """Something that watches op calls, see :func:`observe`."""

    def before(self, call: OpCall) -> None:
        """Be told of a call that is about to run."""

    def after(self, call: OpCall, result: Any) -> None:
        """Be told of its result."""


_observers: ContextVar[tuple[Observer, ...]] = ContextVar("xbackprop_observers", default=())
_depth: ContextVar[int] = ContextVar("xbackprop_op_depth", default=0)
_references_only: ContextVar[bool] = ContextVar("xbackprop_references_only", default=False)
# One entry per observe() open in any thread; empty lets the fast path skip the context. A list,
# because append and pop are atomic and `+= 1` is not.
_observing: list[None] = []
_loaded_kernels: set[str] = set()
_registry: dict[str, "Op"] = {}
_ndarray = np.ndarray  # asked for in every call
_HOST_TYPES = frozenset((_ndarray, float, int, bool, str, tuple, type(None)))


class Op:
    """A plain array function, its faster kernels, and the formula that explains it.

    Made by :func:`op`. Calling it runs the kernel registered for the device of the first array
    argument when there is one that can serve the call, else ``reference``. The ``saved`` of a
    ``<name>_forward`` is returned as a named tuple whose fields are the parameters of
    ``<name>_backward`` after ``grad_output``.
    """

    def __init__(
        self,
        reference: Callable[..., Any],
        formula: str | None,
        flops: Callable[..., int] | None,
    ) -> None:
        functools.update_wrapper(self, reference)
        self.reference = reference
        self.name = reference.__name__
        self.formula = formula
        self.flops = flops
        self.kernels: dict[str, list[Kernel]] = {}
        self._positional = frozenset(
            parameter.name
            for parameter in inspect.signature(reference).parameters.values()
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        )
        # True once known that a CPU call is just the reference, where arrays are smaller than this.
        self._direct = False
        self._kernels_from: float = math.inf
        self._has_saved = self.name.endswith("_forward")
        self._make_saved: Callable[[Any], Any] | None = None

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Run the kernel for the device of the arrays, or the reference."""
        # Most calls are the reference on NumPy arrays; they pay for nothing else. The gradient of a
        # loss starts as the number 1.0, so the second argument may tell as well.
        if self._direct and not _observing and args:
            first = args[0]
            if type(first) is float:
                first = args[-1]
            if type(first) is _ndarray:
                function = self.reference
                if first.size >= self._kernels_from:
                    args, options = self._by_position(args, options)
                    function = self._function_on_cpu(args, options)
                try:
                    result = function(*args, **options) if options else function(*args)
                except TypeError:
                    find_device(self.name, args, options)  # explains a mix of host and device
                    raise
                make_saved = self._make_saved
                return result if make_saved is None else (result[0], make_saved(result[1]))
        return self._dispatch(args, options)

    def kernel(
        self,
        device: str,
        *,
        when: Callable[..., bool] | None = None,
        launches: int | Callable[..., int] = 1,
        bytes_moved: Callable[..., int] | None = None,
        smallest: int = 0,
        capturable: bool = True,
    ) -> Callable[[Function], Function]:
        """Register a faster version for a kind of device (``cpu`` or ``cuda``).

        Parameters
        ----------
        device : {"cpu", "cuda"}
            Where it runs.
        when, launches, bytes_moved, smallest, capturable
            See :class:`Kernel`.

        Returns
        -------
        callable
            A decorator that returns the function unchanged.
        """
        if device not in ("cpu", "cuda"):
            raise ValueError(f"a kernel is for 'cpu' or 'cuda'; got {device!r}")

        def register(function: Function) -> Function:
            entry = Kernel(function, when, launches, bytes_moved, smallest, capturable)
            self.kernels.setdefault(device, []).append(entry)
            if device == "cpu":
                self._kernels_from = min(self._kernels_from, smallest)
            return function

        return register

    def select(
        self, device: Device, args: tuple[Any, ...], options: dict[str, Any]
    ) -> Kernel | None:
        """Return the kernel that serves a call, newest registration first, or None."""
        candidates = self.kernels.get("cuda" if device.kind == "fake" else device.kind, ())
        if not candidates or _references_only.get():
            return None
        specs = as_specs(args)
        size = 0
        for spec in specs:
            if type(spec) is ArraySpec:
                size = math.prod(spec.shape)
                break
        for kernel in reversed(candidates):
            if size >= kernel.smallest and (kernel.when is None or kernel.when(*specs, **options)):
                return kernel
        return None

    def _function_on_cpu(
        self, args: tuple[Any, ...], options: dict[str, Any]
    ) -> Callable[..., Any]:
        """Return what serves a call whose first array is NumPy's."""
        for value in args:
            if type(value) not in _HOST_TYPES and is_array(value):
                find_device(self.name, args, options)  # refuses one that is not on the CPU
        kernel = self.select(CPU, args, options)
        return self.reference if kernel is None else kernel.function

    def kernel_on_cpu(self, *args: Any) -> Callable[..., Any] | None:
        """Return the function that would serve such a call on the CPU, None for the reference.

        For who asks once and calls often: a call by way of the op asks each time. No observer is
        told of what it does.
        """
        _load_kernels("cpu")
        kernel = self.select(CPU, args, {})
        return None if kernel is None else kernel.function

    def _dispatch(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        args, options = self._by_position(args, options)
        device = find_device(self.name, args, options)
        _load_kernels("cuda" if device.kind == "fake" else device.kind)
        if not _observers.get():
            result = self._run(device, args, options)
            if device.kind == "cpu":  # by now the cpu kernels are loaded and `saved` has its names
                self._direct = True
            return result
        call = OpCall(self, args, options, device, _depth.get())
        for observer in _observers.get():
            observer.before(call)
        token = _depth.set(call.depth + 1)
        try:
            result = self._run(device, args, options)
        finally:
            _depth.reset(token)
        for observer in _observers.get():
            observer.after(call, result)
        return result

    def _by_position(
        self, args: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Put arguments given by name into their places, where kernels and observers look."""
        if self._positional.isdisjoint(options):
            return args, options
        bound = inspect.signature(self.reference).bind(*args, **options)
        return bound.args, bound.kwargs

    def _run(self, device: Device, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        kernel = self.select(device, args, options)
        with device.activate():
            if kernel is None:
                result = self.reference(*args, **options)
            else:
                if captured_device() is not None and not kernel.capturable:
                    refuse_in_capture(f"the kernel of {self.name}", "it says so of itself")
                launches = kernel.count_launches(args, options)
                with launches_booked_by(self.name, device, launches):
                    if device.kind == "fake":
                        with prohibitions_lifted():
                            result = self.reference(*args, **options)
                    else:
                        result = kernel.function(*args, **options)
        if self._make_saved is None and self._has_saved:
            self._learn_saved_names(len(result[1]))
        return result if self._make_saved is None else (result[0], self._make_saved(result[1]))

    def _learn_saved_names(self, number: int) -> None:
        """Name the fields of ``saved`` after the backward op's parameters in their places."""
        stem = self.name.removesuffix("_forward")
        backward = self.reference.__globals__.get(f"{stem}_backward")
        if isinstance(backward, Op):
            names = list(inspect.signature(backward.reference).parameters)[1 : 1 + number]
            saved_type = namedtuple(f"{stem}_saved", names)  # type: ignore[misc]
            self._make_saved = functools.partial(tuple.__new__, saved_type)
        else:
            self._has_saved = False

    def __repr__(self) -> str:
        return f"<op {self.name}>"


@overload
def op(function: Callable[..., Any]) -> Op: ...
@overload
def op(
    *, formula: str | None = None, flops: Callable[..., int] | None = None
) -> Callable[[Callable[..., Any]], Op]: ...
def op(
    function: Callable[..., Any] | None = None,
    *,
    formula: str | None = None,
    flops: Callable[..., int] | None = None,
) -> Any:
    """Turn a plain array function into an op.

    Parameters
    ----------
    function : callable
        The readable reference; takes arrays and plain values only.
    formula : str, optional
        What it computes, in NumPy notation over its parameters (several assignments are separated
        by ``;``). Explanations and documentation show it; a test evaluates it against the op.
    flops : callable, optional
        Floating-point operations of a call as a function of its arguments (arrays as
        :class:`ArraySpec`, defaults filled in): those of its products and sums of products, two
        for each pair of numbers. Without it a profile counts ``formula``, where that tells.

    Returns
    -------
    Op

    Examples
    --------
    >>> import numpy as np
    >>> from xbackprop.dispatch import op
    >>> @op(formula="output = x + x")
    ... def double_forward(x):
    ...     return x + x, ()
    >>> double_forward(np.ones(2))[0]
    array([2., 2.])
    """
    if function is None:
        return functools.partial(op, formula=formula, flops=flops)
    created = Op(function, formula, flops)
    _registry[f"{function.__module__}.{function.__name__}"] = created
    return created


def as_specs(args: tuple[Any, ...]) -> list[Any]:
    """Return the arguments as ``when`` sees them: arrays by what is known without their values."""
    return [
        _make_spec((value.shape, value.dtype, value.flags.c_contiguous))
        if type(value) is _ndarray or (type(value) not in _HOST_TYPES and is_array(value))
        else value
        for value in args
    ]


def registered_ops() -> dict[str, Op]:
    """Return every op by its full name."""
    return dict(_registry)


def find_device(name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Device:
    """Return the device of a call's arrays.

    Parameters
    ----------
    name : str
        The op, for the message.
    args : tuple
        Its arguments.
    options : dict
        Its keywords; ``device`` decides where there is no array.

    Returns
    -------
    Device

    Raises
    ------
    ValueError
        When arrays of two devices meet; names the argument and the call to make.
    """
    found: Device | None = None
    for position, value in enumerate(args):
        if not is_array(value):
            continue
        place = device_of(value)
        if found is None:
            found = place
        elif place != found:
            raise ValueError(
                f"{name}: argument {position} is on {place}, an earlier one on {found}. "
                f"Move it: xbackprop.to_device(array, '{found}')"
            )
    if found is None:
        return resolve_device(options.get("device"))
    return found


@contextlib.contextmanager
def observe(*observers: Observer) -> Iterator[None]:
    """Let observers watch every op call of this context.

    Parameters
    ----------
    *observers : Observer
        Each is told before and after every call, nested calls included (``call.depth``).
    """
    token = _observers.set((*_observers.get(), *observers))
    _observing.append(None)
    try:
        yield
    finally:
        _observing.pop()
        _observers.reset(token)


def is_observed() -> bool:
    """Tell whether anything watches the op calls of this context; ops are not fused then."""
    return bool(_observing) and bool(_observers.get())


def may_replace_ops() -> bool:
    """Tell whether one op may do the work of several here: nothing watches, no references asked."""
    return not is_observed() and not _references_only.get()


@contextlib.contextmanager
def use_references() -> Iterator[None]:
    """Let every op of this context run its reference, whatever kernels there are.

    Examples
    --------
    >>> import numpy as np
    >>> import xbackprop as xb
    >>> with xb.use_references():
    ...     xb.nn.ReLU()(np.array([-1.0, 2.0]))
    array([0., 2.])
    """
    token = _references_only.set(True)
    try:
        yield
    finally:
        _references_only.reset(token)


def _load_kernels(kind: str) -> None:
    """Import the kernels of a kind of device at the first op there."""
    if kind not in _loaded_kernels:
        # In this order: a thread that finds the kind here must find its kernels too. Others wait
        # for Python's import lock.
        importlib.import_module(f"xbackprop.kernels.{kind}")
        _loaded_kernels.add(kind)


__all__ = ["Array", "ArraySpec", "Kernel", "Observer", "Op", "OpCall", "find_device",
           "is_observed", "may_replace_ops", "observe", "op", "registered_ops",
           "use_references"]  # fmt: skip
