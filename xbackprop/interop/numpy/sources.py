"""The source text of functions and of all they call, without the decorators that register ops."""

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

from xbackprop.backend.array_module import get_array_module
from xbackprop.dispatch import Op

_HERE = '''def get_array_module(*arrays):
    """Return NumPy: here all arrays live on the host."""
    return np
'''


class Sources:
    """Definitions in the order in which a program needs them.

    Attributes
    ----------
    imports : set of str
        Lines.
    texts : dict of str to str
        The source of each definition, by name.
    """

    def __init__(self) -> None:
        self.imports: set[str] = set()
        self.texts: dict[str, str] = {}
        self._objects: dict[str, Any] = {}

    def add(self, name: str, value: Any) -> None:
        """Add a definition after those that it needs.

        Parameters
        ----------
        name : str
            What the program calls it.
        value : object
            An op, function, class, module or plain constant.

        Raises
        ------
        NotImplementedError
            Names what has no source that could be printed.
        """
        plain = value.reference if isinstance(value, Op) else _unwrapped(value)
        if name in self._objects:
            if self._objects[name] is not plain:
                raise NotImplementedError(f"export to NumPy: two definitions of {name}")
            return
        self._objects[name] = plain
        if plain is get_array_module:
            self.texts[name] = _HERE
        elif isinstance(plain, ModuleType):
            alias = "" if plain.__name__ == name else f" as {name}"
            self.imports.add(f"import {plain.__name__}{alias}")
        elif isinstance(plain, (FunctionType, type)) and plain.__module__.startswith("xbackprop."):
            text, names = _definition(plain)
            scope = vars(sys.modules[plain.__module__])
            self._add_all({found: scope[found] for found in names if found in scope})
            self.texts[name] = text
        elif getattr(plain, "__module__", "").partition(".")[0] in ("typing", "collections"):
            self.imports.add(f"from {plain.__module__} import {name}")
        elif isinstance(plain, (int, float, str, tuple, dict)):
            self.texts[name] = f"{name} = {plain!r}\n"
        else:
            raise NotImplementedError(f"export to NumPy: {name} cannot be printed")

    def _add_all(self, found: dict[str, Any]) -> None:
        for name, value in found.items():
            if value is not None:
                self.add(name, value)


def _unwrapped(value: Any) -> Any:
    """Return the function below decorators such as a cache, which only spares work."""
    return inspect.unwrap(value) if callable(value) else value


def _definition(value: Any) -> tuple[str, list[str]]:
    """Return the text of a function or class from its first line on, and the names it reads."""
    text = textwrap.dedent(inspect.getsource(value))
    (node,) = ast.parse(text).body
    lines = text.splitlines()[node.lineno - 1 :]
    names = dict.fromkeys(_names_read(node))
    return "\n".join(lines) + "\n", list(names)


def _names_read(node: ast.AST) -> Iterator[str]:
    """Yield the names that running some code reads: annotations and decorators are not run."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield node.id
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _names_read(child)
