"""What the code itself says of a name: the formulas of its ops, and what its docstring has."""

import functools
import inspect
import json
import re
import types
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

from xbackprop.dispatch import Op
from xbackprop.docs.entries import Entry

# --- formulas -----------------------------------------------------------------------------


def ops_of(entry: Entry) -> list[Op]:
    """Return the ops that a class calls, forward ones first."""
    if not isinstance(entry.value, type):
        return []
    found: dict[str, Op] = {}
    for method in ("forward", "backward", "update"):
        if callable(getattr(entry.value, method, None)):
            collect(entry.value, getattr(entry.value, method), found, set())
    return list(found.values())


def collect(cls: type, function: Any, found: dict[str, Op], seen: set[Any]) -> None:
    """Add the ops that a function names, and those of this package's functions that it names."""
    function = inspect.unwrap(function) if callable(function) else None
    if function in seen or not isinstance(function, types.FunctionType):
        return
    seen.add(function)
    names = list(names_in(function.__code__))
    if "super" in names:
        for base in cls.__mro__:
            collect(cls, vars(base).get(function.__name__), found, seen)
    for name in names:
        value = function.__globals__.get(name) or inspect.getattr_static(cls, name, None)
        if isinstance(value, Op):
            if value.name.endswith(("_forward", "_backward", "_update")):
                found.setdefault(value.name, value)
        elif is_ours(str(getattr(value, "__module__", ""))):
            collect(cls, value, found, seen)


def is_ours(module: str) -> bool:
    """Tell whether functions of a module say what a layer computes; fused ones repeat others."""
    is_fused = module in ("xbackprop.nn.fusion", "xbackprop.nn.remade")
    return module.startswith(("xbackprop.nn", "xbackprop.optim")) and not is_fused


def names_in(code: types.CodeType) -> Iterator[str]:
    """Yield the global and attribute names of a function, those of its inner ones included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from names_in(constant)


def has_formula(entry: Entry) -> bool:
    """Tell whether an op or the docstring says what is computed."""
    text = inspect.getdoc(entry.value) or ""
    has_one = re.search(r"``[^`]* (?:[-+*/]|[-+*/]?=) [^`]*``", text)
    return bool(has_one) or any(op.formula for op in ops_of(entry))


# --- the docstring, PyTorch ---------------------------------------------------------------


def has_section(entry: Entry, title: str) -> bool:
    """Tell whether the docstring has a section of this title."""
    return f"\n{title}\n---" in (inspect.getdoc(entry.value) or "")


@functools.cache
def parity_rows() -> dict[str, dict[str, Any]]:
    """Return what ``nox -s torch_parity`` last counted, by name; the tests have the file."""
    spec = util.find_spec("parity")
    if spec is None or spec.origin is None:
        return {}
    text = Path(spec.origin).with_name("counts.json").read_text(encoding="utf-8")
    return {row["name"]: row for row in json.loads(text)["modules"]}


def parity_of(entry: Entry) -> dict[str, Any]:
    """Return what was counted for one name."""
    return parity_rows().get(entry.name, {})


def has_reference(entry: Entry) -> bool:
    """Tell whether there is a paper or book, or PyTorch's page, to compare with."""
    return has_section(entry, "References") or bool(parity_of(entry).get("pytorch"))
