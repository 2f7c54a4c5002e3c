"""Functions of the stand-in: a NumPy function behind CuPy's signature and CuPy's rules."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from xbackprop.backend.cupy_surface import Signature, UfuncSignature
from xbackprop.backend.fake import rules
from xbackprop.backend.fake.execute import (
    FakeArray,
    device_at,
    execute,
    is_number,
    refuse_operand,
    strip,
)
from xbackprop.backend.fake.memory import current_index
from xbackprop.backend.transfer import record


class NotModelledError(NotImplementedError, AttributeError):
    """CuPy can do this and the stand-in cannot; ``hasattr(xp, name)`` is False for such names."""


def refuse_call(
    signature: Signature | UfuncSignature, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Refuse a call that CuPy's signature does not admit."""
    refusal = signature.refusal(name, args, kwargs)
    if refusal is not None:
        raise TypeError(refusal)


def make_function(
    name: str,
    host: Callable[..., Any],
    signature: Signature,
    *,
    owner: str = "cupy",
) -> Callable[..., Any]:
    """Wrap a NumPy function of the same name.

    Parameters
    ----------
    name : str
        What CuPy calls it; the key of the rules.
    host : callable
        NumPy's function.
    signature : Signature
        What CuPy admits.
    owner : str
        What stands before the name in messages about the signature.

    Returns
    -------
    callable
    """
    roles = {p: rules.role(name, p) for p in (*signature.args, *signature.kwonly, "...")}
    title = f"{owner}.{name}"

    def call(*args: Any, **kwargs: Any) -> Any:
        refuse_call(signature, title, args, kwargs)
        given = {**dict(zip(signature.args, args, strict=False)), **kwargs}
        further = args[len(signature.args) :]
        return _run(name, host, signature, roles, given, further)

    call.__name__ = name
    call.__qualname__ = title
    call.__doc__ = f"As ``numpy.{name}``, with CuPy's parameters."
    return call


def make_method(name: str, host: Callable[..., Any], signature: Signature) -> Callable[..., Any]:
    """Wrap a NumPy function or method whose first argument is the array; see `make_function`."""
    roles = {p: rules.role(name, p) for p in (*signature.args, *signature.kwonly, "...")}
    roles["a"] = rules.ARRAY
    with_self = replace(signature, args=("a", *signature.args), required=("a", *signature.required))

    def method(self: FakeArray, *args: Any, **kwargs: Any) -> Any:
        refuse_call(signature, f"ndarray.{name}", args, kwargs)
        given = {"a": self, **dict(zip(signature.args, args, strict=False)), **kwargs}
        return _run(name, host, with_self, roles, given, args[len(signature.args) :])

    method.__name__ = name
    method.__qualname__ = f"ndarray.{name}"
    method.__doc__ = f"As ``numpy.ndarray.{name}``, with CuPy's parameters."
    return method


def _run(
    name: str,
    host: Callable[..., Any],
    signature: Signature,
    roles: dict[str, str],
    given: dict[str, Any],
    further: tuple[Any, ...],
) -> Any:
    sources: list[FakeArray] = []
    rules.drop_without_counterpart(name, given)
    stripped: dict[str, Any] = {}
    for parameter, value in given.items():
        # `pad` and `einsum` take keywords that the signature does not list; none of them is an
        # array.
        role = roles.get(parameter, rules.OPTION)
        if value is None and _may_be_none(signature, parameter, role):
            stripped[parameter] = value
        else:
            stripped[parameter] = strip_by_role(value, role, f"{name}({parameter}=)", sources)
            if isinstance(value, (list, tuple)) and (name, parameter) in rules.UPLOADED_LISTS:
                size_bytes = np.asarray(value).nbytes
                record("upload", size_bytes, device_at(current_index()), f"{name}({parameter}=)")
    rest = [strip_by_role(value, roles["..."], name, sources) for value in further]
    seen = {**stripped, "...": rest}
    rules.refuse_beyond_cupy(name, seen)
    positional, named = _numpy_arguments(name, signature, stripped)
    return execute(
        name,
        host,
        sources,
        (*positional, *rest),
        named,
        view=name in rules.VIEWS,
        quiet=rules.may_warn(name, seen),
        synchronizes=rules.synchronizes(name, seen),
    )


def _may_be_none(signature: Signature, parameter: str, role: str) -> bool:
    return parameter not in signature.required or role in (rules.NUMBER, rules.OPTION)


def strip_by_role(value: Any, role: str, name: str, sources: list[FakeArray]) -> Any:
    """Take the NumPy arrays out of an argument, refusing what its role does not admit."""
    if role in (rules.OPTION, rules.SCALAR):
        if type(value) is FakeArray:
            raise TypeError(
                f"{name}: expected a value on the host; got a device array. int(x) or x.tolist() "
                "reads it back, which waits for the device."
            )
        if role == rules.SCALAR and not is_number(value):
            raise TypeError(f"{name}: expected a number; got a {type(value).__name__}")
        return value
    if type(value) is FakeArray:
        return strip(value, name, sources)
    if role == rules.NUMBER and (is_number(value) or isinstance(value, slice)):
        return value
    if role == rules.SEQUENCE and isinstance(value, (list, tuple)):
        return [strip_by_role(part, rules.ARRAY, name, sources) for part in value]
    if role == rules.MIXED:
        if isinstance(value, (list, tuple)):
            return [strip_by_role(part, rules.NUMBER, name, sources) for part in value]
        if value is Ellipsis or isinstance(value, str) or is_number(value):
            return value
    if role == rules.ARRAY and is_number(value):
        raise TypeError(f"{name}: expected a device array; got the number {value!r}")
    refuse_operand(name, value)


def _numpy_arguments(
    name: str, signature: Signature, given: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Say the same in NumPy's words: by position as far as possible, for names differ there."""
    named = {key: value for key, value in given.items() if not _is_default(key, value)}
    positional = []
    for parameter in signature.args:
        required = parameter in signature.required
        if parameter not in named or (name in rules.BY_NAME and not required):
            break
        positional.append(named.pop(parameter))
    if name == "where" and all(value is None for value in positional[1:]):
        del positional[1:]
    return positional, named


def _is_default(parameter: str, value: Any) -> bool:
    """CuPy spells NumPy's default of some parameters None."""
    return value is None and parameter in ("casting", "copy", "minlength", "order", "subok")


class Ufunc:
    """An elementwise function with CuPy's keywords: no ``where=``, no ``order=``."""

    def __init__(self, name: str, host: Callable[..., Any], spec: UfuncSignature) -> None:
        self.__name__ = name
        self.__doc__ = f"As ``numpy.{name}``, with CuPy's parameters."
        self._host = host
        self._spec = spec
        self.nin, self.nout, self.nargs = spec.nin, spec.nout, spec.nin + spec.nout
        self._refuses_complex = name.startswith("logical_")  # CuPy has no loop for these

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute on arrays and numbers, perhaps into ``out``."""
        if kwargs or len(args) != self.nin:
            refuse_call(self._spec, f"cupy.{self.__name__}", args, kwargs)
        name = self.__name__
        sources: list[FakeArray] = []
        stripped = [strip(value, name, sources) for value in args[: self.nin]]
        if self._refuses_complex and any(np.iscomplexobj(value) for value in stripped):
            raise TypeError(f"{name}: CuPy has no such function for complex numbers")
        out = kwargs.pop("out", None) if len(args) == self.nin else args[self.nin :]
        options = {key: value for key, value in kwargs.items() if value is not None}
        if out is None:
            return execute(name, self._host, sources, stripped, options)
        return self._write(out, sources, stripped, options)

    def _write(
        self, out: Any, sources: list[FakeArray], args: list[Any], options: dict[str, Any]
    ) -> Any:
        outputs = out if isinstance(out, tuple) else (out,)
        if len(outputs) != self.nout:
            raise TypeError(
                f"{self.__name__}: expected {self.nout} output arrays; got {len(outputs)}"
            )
        options["out"] = tuple(
            None if o is None else strip_by_role(o, rules.ARRAY, f"{self.__name__}(out=)", sources)
            for o in outputs
        )
        if any(o is None for o in outputs):
            return execute(self.__name__, self._host, sources, args, options)
        result = outputs if self.nout > 1 else outputs[0]
        return execute(self.__name__, self._host, sources, args, options, out=result)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        signature = self._spec.methods.get(method)
        if signature is None:
            raise AttributeError(f"cupy.{self.__name__} has no method {method!r}")
        if method == "at":
            from xbackprop.backend.fake.indexing import scatter

            def at(*args: Any, **kwargs: Any) -> None:
                refuse_call(signature, f"cupy.{self.__name__}.at", args, kwargs)
                given = {**dict(zip(signature.args, args, strict=False)), **kwargs}
                scatter(self.__name__, given["a"], given["indices"], given.get("b"))

            return at
        name = f"{self.__name__}.{method}"
        return make_function(name, getattr(self._host, method), signature)

    def __repr__(self) -> str:
        return f"<ufunc {self.__name__!r} of the stand-in GPU>"
