"""What CuPy admits, as a committed table: its functions, methods, ufuncs and their keywords.

The stand-in GPU obeys this table, so that a call CuPy would refuse fails without a GPU too. Nobody
edits it: ``python -m xbackprop.backend.cupy_surface`` rewrites ``cupy_surface.json`` from the
installed CuPy (which imports without a GPU), and a test compares the two.
"""

import functools
import importlib.resources
import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

_TABLE_NAME = "cupy_surface.json"
_CALLABLES = ("functions", "linalg", "fft", "ufunc_methods", "methods")
_NAMES = (
    "attributes",
    "settable",
    "special_methods",
    "constants",
    "dtypes",
    "abstract_dtypes",
    "classes",
    "index_helpers",
    "modules",
    "from_numpy",
    "always_raises",
    "by_hand",
)


@dataclass(frozen=True, slots=True)
class Signature:
    """The parameters of a function or method (without ``self``) under CuPy's names.

    Attributes
    ----------
    args, kwonly : tuple of str
        Parameters taken by position or name, and by name only.
    required : tuple of str
        Those of both that have no default.
    varargs, varkw : bool
        Whether any further positional arguments, any further keywords are taken.
    posonly : int
        How many of ``args`` cannot be given by name.
    allowed : mapping of str to tuple
        Parameters that CuPy has but does not implement, with the only values it takes: None for
        ``casting`` of ``ndarray.astype``.
    """

    args: tuple[str, ...]
    kwonly: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    varargs: bool = False
    varkw: bool = False
    posonly: int = 0
    allowed: Mapping[str, tuple[object, ...]] = field(default_factory=dict)

    def refusal(
        self, name: str, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> str | None:
        """Why CuPy refuses ``name(*args, **kwargs)``, or None where its signature admits it.

        Parameters
        ----------
        name : str
            What the message calls the function.
        args : sequence
            Its positional arguments.
        kwargs : mapping
            Its keywords.

        Returns
        -------
        str or None

        Examples
        --------
        >>> load().functions["sum"].refusal("sum", ["x"], {"axis": 0, "where": True})
        "sum has no argument 'where' in CuPy; it takes a, axis, dtype, out, keepdims"
        """
        takes = f"it takes {', '.join((*self.args, *self.kwonly)) or 'none'}"
        if len(args) > len(self.args) and not self.varargs:
            return f"{name} got {len(args)} arguments by position, too many for CuPy; {takes}"
        given = dict(zip(self.args, args, strict=False))
        for keyword, value in kwargs.items():
            if keyword in given:
                return f"{name} got {keyword!r} twice: by position and by name"
            if keyword in self.args[: self.posonly]:
                return f"{name} takes {keyword!r} by position only in CuPy"
            if not (self.varkw or keyword in self.args or keyword in self.kwonly):
                return f"{name} has no argument {keyword!r} in CuPy; {takes}"
            given[keyword] = value
        missing = [repr(parameter) for parameter in self.required if parameter not in given]
        if missing:
            return f"{name} needs {' and '.join(missing)} in CuPy; {takes}"
        for parameter, values in self.allowed.items():
            value = given.get(parameter, values[0])
            if not any(value is v or (isinstance(value, str) and value == v) for v in values):
                only = " or ".join(map(repr, values))
                return f"{name} takes only {only} for {parameter!r} in CuPy; got {value!r}"
        return None


@dataclass(frozen=True, slots=True)
class UfuncSignature:
    """A ufunc: inputs by position, then perhaps outputs by position, then keywords.

    Attributes
    ----------
    nin, nout : int
        Number of inputs and outputs.
    kwonly : tuple of str
        The keywords, ``out`` among them.
    methods : mapping of str to Signature
        ``at``, ``reduce`` and the like, as far as CuPy implements them for this ufunc.
    """

    nin: int
    nout: int
    kwonly: tuple[str, ...]
    methods: Mapping[str, Signature]

    def refusal(
        self, name: str, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> str | None:
        """Why CuPy refuses ``name(*args, **kwargs)``, or None where its signature admits it.

        Parameters
        ----------
        name : str
            What the message calls the function.
        args : sequence
            Its positional arguments.
        kwargs : mapping
            Its keywords.

        Returns
        -------
        str or None

        Examples
        --------
        >>> load().ufuncs["add"].refusal("add", [1, 2], {"where": True})
        "add has no keyword 'where' in CuPy; it takes casting, dtype, out"
        """
        if not self.nin <= len(args) <= self.nin + self.nout:
            most = self.nin + self.nout
            return f"{name} takes {self.nin} to {most} arguments by position; got {len(args)}"
        for keyword in kwargs:
            if keyword not in self.kwonly:
                takes = ", ".join(self.kwonly)
                return f"{name} has no keyword {keyword!r} in CuPy; it takes {takes}"
        if len(args) > self.nin and kwargs.get("out") is not None:
            return f"{name} got 'out' twice: by position and by name"
        return None


@dataclass(frozen=True, slots=True)
class Surface:
    """The table: what ``cupy``, ``cupy.linalg``, ``cupy.fft`` and ``cupy.ndarray`` offer.

    Attributes
    ----------
    cupy_version : str
        The version the table was generated from.
    functions, linalg, fft : mapping of str to Signature
        Functions of CuPy's own; those it re-exports from NumPy are in ``from_numpy``.
    ufuncs : mapping of str to UfuncSignature
        With ``matmul``, a generalized ufunc that has keywords of its own.
    ufunc_methods : mapping of str to Signature
        ``at``, ``reduce`` and the like; which ufunc has which, the ufunc says.
    methods : mapping of str to Signature
        Public methods of ``cupy.ndarray``.
    attributes, settable : frozenset of str
        Data attributes of ``cupy.ndarray``, and those of them that can be assigned to.
    special_methods : frozenset of str
        Special methods that ``cupy.ndarray`` itself defines.
    constants, dtypes, abstract_dtypes, classes, index_helpers, modules : frozenset of str
        Names such as ``pi``, ``float32``, ``floating``, ``ndarray``, ``r_``, ``linalg``.
    from_numpy : frozenset of str
        Functions and classes that are NumPy's own objects, such as ``promote_types``, ``finfo``.
    always_raises : frozenset of str
        Functions that exist and only raise, such as ``find_common_type``.
    by_hand : frozenset of str
        Entries a person read from CuPy's source, because introspection does not yield them.
    """

    cupy_version: str
    functions: Mapping[str, Signature]
    linalg: Mapping[str, Signature]
    fft: Mapping[str, Signature]
    ufuncs: Mapping[str, UfuncSignature]
    ufunc_methods: Mapping[str, Signature]
    methods: Mapping[str, Signature]
    attributes: frozenset[str]
    settable: frozenset[str]
    special_methods: frozenset[str]
    constants: frozenset[str]
    dtypes: frozenset[str]
    abstract_dtypes: frozenset[str]
    classes: frozenset[str]
    index_helpers: frozenset[str]
    modules: frozenset[str]
    from_numpy: frozenset[str]
    always_raises: frozenset[str]
    by_hand: frozenset[str]


@functools.cache
def load() -> Surface:
    """Read the committed table; only the first call reads the file."""
    text = importlib.resources.files(__package__).joinpath(_TABLE_NAME).read_text("utf-8")
    table = json.loads(text)
    signatures: dict[str, Any] = {
        section: {name: _signature(row) for name, row in table[section].items()}
        for section in _CALLABLES
    }
    ufunc_methods = signatures["ufunc_methods"]
    ufuncs = {
        name: UfuncSignature(
            row["nin"],
            row["nout"],
            tuple(row["kwonly"]),
            {method: ufunc_methods[method] for method in row["methods"]},
        )
        for name, row in table["ufuncs"].items()
    }
    names: dict[str, Any] = {section: frozenset(table[section]) for section in _NAMES}
    return Surface(cupy_version=table["cupy_version"], ufuncs=ufuncs, **signatures, **names)


def _signature(row: Mapping[str, Any]) -> Signature:
    return Signature(
        args=tuple(row["args"]),
        kwonly=tuple(row["kwonly"]),
        required=tuple(row["required"]),
        varargs=row["varargs"],
        varkw=row.get("varkw", False),
        posonly=row.get("posonly", 0),
        allowed={name: tuple(values) for name, values in row.get("allowed", {}).items()},
    )


# --- What introspection cannot see. Paths and lines are those of CuPy 14.2.0; the .py files are in
# --- the wheel, the .pyx files in the repository.

_HAND: dict[str, dict[str, Any]] = {
    # Takes dtype and optimize out of **kwargs and refuses the rest: linalg/_einsum.py:498-508.
    "functions.einsum": {"kwonly": ["dtype", "optimize"], "varargs": True},
    # Takes these out of **kwargs and refuses the rest: _creation/ranges.py:289-296.
    "functions.meshgrid": {"kwonly": ["copy", "indexing", "sparse"], "varargs": True},
    # Hands **kwargs to the call of the ufunc: _core/_kernel.pyx:1445, and 1268-1277 for the call.
    "ufunc_methods.outer": {
        "args": ["A", "B"],
        "kwonly": ["casting", "dtype", "out"],
        "required": ["A", "B"],
    },
}

_KIND = {"kind": [None, "stable"]}  # ndarray._check_kind_sort: _core/core.pyx:1143-1146
_SUBOK = {"subok": [None]}  # _creation/basic.py:100, 220, 287, 365
_METHOD = {"method": ["higher", "linear", "lower", "midpoint", "nearest"]}  # _statistics/order.py
_ALLOWED: dict[str, dict[str, Any]] = {
    "functions.argsort": _KIND,
    "functions.array": {"subok": [False]},  # _core/core.pyx:2825
    "functions.empty_like": _SUBOK,
    "functions.full_like": _SUBOK,
    "functions.may_share_memory": {"max_work": [None]},  # _misc/memory_ranges.py:10
    "functions.ones_like": _SUBOK,
    "functions.packbits": {"axis": [None]},  # _binary/packing.py:55
    "functions.percentile": _METHOD,
    "functions.quantile": _METHOD,
    "functions.shares_memory": {"max_work": [None, "MAY_SHARE_BOUNDS", "MAY_SHARE_EXACT"]},
    "functions.sort": _KIND,
    "functions.unpackbits": {"axis": [None]},  # _binary/packing.py:99
    "functions.zeros_like": _SUBOK,
    "methods.argsort": _KIND,
    "methods.astype": {"casting": [None], "subok": [None]},  # _core/core.pyx:738-741
    "methods.sort": _KIND,
}

# What NumPy 2 removed without replacement: these names stayed and raise RuntimeError when called.
_ALWAYS_RAISES = ("disp", "find_common_type", "get_array_wrap", "safe_eval", "set_string_function")

# Item assignment brings this name along in a compiled type; `del x[0]` raises NotImplementedError.
_NOT_DEFINED = ("__delitem__",)

# The name every module gets from `from __future__ import annotations`, and a switch for warnings.
_NOT_ARRAY_API = ("annotations", "disable_experimental_feature_warning")


# --- Generating the table.


def describe(cupy_module: ModuleType) -> dict[str, Any]:
    """Find out what an importable CuPy admits; no GPU is needed.

    Parameters
    ----------
    cupy_module : module
        The imported ``cupy``.

    Returns
    -------
    dict
        The content of ``cupy_surface.json``; `Surface` describes its sections.

    Raises
    ------
    LookupError
        For a callable without a signature, a docstring that gives it, or an entry in this file,
        and for a name of a kind this file does not know.
    """
    table: dict[str, Any] = {
        "cupy_version": cupy_module.__version__,
        "generated_by": "python -m xbackprop.backend.cupy_surface",
        **{section: {} for section in ("functions", "linalg", "fft")},
        **{section: {} for section in ("ufuncs", "ufunc_methods", "methods")},
        **{section: [] for section in _NAMES},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # looking at a name is not using it
        for name, value in _public(cupy_module):
            section, row = _classify(cupy_module, name, value)
            if row is None:
                table[section].append(name)
            else:
                table[section][name] = row
        for section in ("linalg", "fft"):
            for name, value in _public(getattr(cupy_module, section)):
                if callable(value) and not isinstance(value, type):
                    table[section][name] = _callable_row(f"{section}.{name}", value)
        for name, value in _public(cupy_module.ufunc):
            if callable(value):
                table["ufunc_methods"][name] = _callable_row(f"ufunc_methods.{name}", value)
        _describe_array(cupy_module.ndarray, table)
    table["by_hand"] = sorted(
        [*_HAND, *(f"{name}.allowed" for name in _ALLOWED)]
        + [f"always_raises.{name}" for name in _ALWAYS_RAISES]
        + [f"special_methods without {name}" for name in _NOT_DEFINED]
    )
    return table


def _public(holder: object) -> Iterator[tuple[str, Any]]:
    for name in sorted(dir(holder)):
        if not name.startswith("_") and name not in _NOT_ARRAY_API:
            yield name, getattr(holder, name)


def _classify(cupy_module: ModuleType, name: str, value: Any) -> tuple[str, Any]:
    """Return the section of a top-level name, and its row where the section has rows."""
    import numpy as np

    if isinstance(value, ModuleType):
        return "modules", None
    if isinstance(value, type) and issubclass(value, np.generic):
        return "abstract_dtypes" if _is_abstract(value) else "dtypes", None
    if name in _ALWAYS_RAISES:
        return "always_raises", None
    if callable(value) and str(getattr(value, "__module__", "")).split(".")[0] == "numpy":
        return "from_numpy", None
    if isinstance(value, type):
        return "classes", None
    if isinstance(value, cupy_module.ufunc):
        line = _first_line(value)
        keywords = [name for name in ("casting", "dtype", "out") if f"{name}=" in line]
        return "ufuncs", _ufunc_row(value.nin, value.nout, keywords, _ufunc_methods(value))
    if type(value).__name__ == "_GUFunc":  # matmul; such a ufunc has no methods
        keywords = _callable_row(name, value)["kwonly"]
        return "ufuncs", _ufunc_row(value._nin, value._nout, keywords, [])
    if callable(value):
        return "functions", _callable_row(f"functions.{name}", value)
    if value is None or isinstance(value, float):
        return "constants", None
    if hasattr(value, "__getitem__"):
        return "index_helpers", None
    raise LookupError(f"cupy.{name} is a {type(value).__name__}; teach _classify where it belongs")


def _is_abstract(scalar_type: Callable[[int], object]) -> bool:
    try:
        scalar_type(0)
    except TypeError:
        return True
    return False


def _ufunc_row(nin: int, nout: int, kwonly: list[str], methods: list[str]) -> dict[str, Any]:
    return {"nin": nin, "nout": nout, "kwonly": kwonly, "methods": methods}


class _Recorder:
    """Stands for an array: every method can be called and does nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


def _ufunc_methods(ufunc: Any) -> list[str]:
    """Ask a ufunc which of its methods work: the others raise before they touch the array."""
    calls: dict[str, Callable[[], object]] = {
        "accumulate": lambda: ufunc.accumulate(_Recorder()),
        "at": lambda: ufunc.at(_Recorder(), 0, 0),
        "reduce": lambda: ufunc.reduce(_Recorder()),
        "reduceat": lambda: ufunc.reduceat(_Recorder(), 0),
    }
    # The code of outer is the same for every ufunc, but means something for two inputs only.
    found = ["outer"] if ufunc.nin == 2 else []
    for name, call in calls.items():
        try:
            call()
        except NotImplementedError:
            continue
        found.append(name)
    return sorted(found)


def _describe_array(array_type: Any, table: dict[str, Any]) -> None:
    without_memory = array_type.__new__(array_type, _no_init=True)
    bases = array_type.__mro__[:-1]  # without object
    for name in sorted({name for base in bases for name in vars(base)}):
        value = getattr(array_type, name)
        if name.startswith("__"):
            if callable(value) and name not in _NOT_DEFINED:
                table["special_methods"].append(name)
        elif name.startswith("_"):
            continue
        elif callable(value):
            table["methods"][name] = _callable_row(f"methods.{name}", value)
        else:
            table["attributes"].append(name)
            if _has_setter(without_memory, name):
                table["settable"].append(name)


def _has_setter(instance: object, name: str) -> bool:
    try:
        setattr(instance, name, None)
    except (AttributeError, TypeError) as error:  # a setter dislikes None in words of its own
        return "is not writable" not in str(error)
    return True


def _callable_row(entry: str, function: Any) -> dict[str, Any]:
    """Describe a callable: by hand, by its signature, or by the first line of its docstring."""
    row: dict[str, Any] = {"args": [], "kwonly": [], "required": [], "varargs": False}
    if entry in _HAND:
        row |= _HAND[entry]
    else:
        parameters = _from_signature(function)
        if parameters is None:
            parameters = _from_docstring(_first_line(function))
        if parameters is None:
            raise LookupError(f"{entry} has no signature; read its source and add it to _HAND")
        _fill(row, parameters)
    if entry in _ALLOWED:
        row["allowed"] = _ALLOWED[entry]
    return row


def _first_line(function: Any) -> str:
    return (function.__doc__ or "").strip().partition("\n")[0]


def _from_signature(function: Any) -> str | None:
    import inspect

    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    # Annotations and defaults do not matter here, and can contain commas.
    plain = [
        parameter.replace(
            annotation=parameter.empty,
            default=parameter.empty if parameter.default is parameter.empty else ...,
        )
        for parameter in signature.parameters.values()
    ]
    return str(inspect.Signature(plain))[1:-1]


def _from_docstring(line: str) -> str | None:
    """Find ``self, _ndarray_base b, _ndarray_base out=None`` in what Cython writes."""
    match = re.fullmatch(r"[\w.]+\(([^\[\]]*)\)( -> [\w.]+)?", line)
    return match and match[1]


def _fill(row: dict[str, Any], parameters: str) -> None:
    """Put ``self, a, /, int axis=0, *, out=None, **kwargs`` into the row of a callable."""
    place = row["args"]
    for part in filter(None, (part.strip() for part in parameters.split(","))):
        declaration, has_default, _ = part.partition("=")
        name = declaration.split()[-1]  # Cython writes the type before the name
        if name == "self":
            continue
        if name == "/":
            row["posonly"] = len(row["args"])
        elif name.startswith("**"):
            row["varkw"] = True
        elif name.startswith("*"):
            row["varargs"] = row["varargs"] or name != "*"
            place = row["kwonly"]
        else:
            place.append(name)
            if not has_default:
                row["required"].append(name)
    row["kwonly"].sort()


# --- Writing it.


def dump(table: Mapping[str, Any]) -> str:
    """Write the table as JSON, one entry a line, so that a diff shows what a new CuPy changed."""

    def block(brackets: str, lines: Iterable[str]) -> str:
        return brackets[0] + "\n    " + ",\n    ".join(lines) + "\n  " + brackets[1]

    sections = []
    for key, value in table.items():
        if isinstance(value, dict):
            text = block("{}", (f"{json.dumps(n)}: {json.dumps(value[n])}" for n in sorted(value)))
        elif isinstance(value, list):
            text = block("[]", map(json.dumps, value))
        else:
            text = json.dumps(value)
        sections.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(sections) + "\n}\n"


def main() -> None:
    """Rewrite the table beside this file from the installed CuPy."""
    import cupy

    table = describe(cupy)
    path = Path(__file__).with_name(_TABLE_NAME)
    path.write_text(dump(table), encoding="utf-8", newline="\n")
    counts = (f"{len(rows)} {name}" for name, rows in table.items() if not isinstance(rows, str))
    print(f"{path.name}: CuPy {table['cupy_version']}: {', '.join(counts)}")


if __name__ == "__main__":
    main()
