"""Floating-point operations of an op by the text of its formula.

Every operator, comparison and function that has an array among its operands is one operation for
each element of its result; a sum of ``n`` numbers is ``n``, and a mean one more for its division.
A part that stands twice in the text is computed once. What is made of plain numbers alone is free.
"""

import ast
import functools
import inspect
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from xbackprop.dispatch import ArraySpec, Op

_ELEMENTWISE = frozenset(
    "abs clip cos cosh erf exp expm1 log maximum minimum sign sin sqrt tanh where".split()
)
_OPERATORS: dict[str, Callable[..., Any]] = {
    "Add": operator.add, "Sub": operator.sub, "Mult": operator.mul, "Div": operator.truediv,
    "Pow": operator.pow, "USub": operator.neg, "Gt": operator.gt,
}  # fmt: skip

_OF_SHAPES: dict[str, Callable[..., Any]] = {
    "flatnonzero": np.flatnonzero, "not_equal": np.not_equal, "tuple": tuple,
}  # fmt: skip


class NotCountedError(Exception):
    """A formula holds what this file has no rule for."""


def formula_flops(op: Op, arguments: dict[str, Any]) -> int | None:
    """Return the operations of a call, or None where its formula does not tell.

    Parameters
    ----------
    op : Op
        Of which there may be a formula.
    arguments : dict
        All of the call's, by name, arrays as :class:`ArraySpec`.

    Returns
    -------
    int or None
        None too where an argument that the formula does not name differs from its default.
    """
    if op.formula is None:
        return None
    names, assignments = _parsed(op.formula)
    for name, parameter in inspect.signature(op.reference).parameters.items():
        if name not in names and not _is_default(arguments.get(name), parameter.default):
            return None
    walk = _Walk(arguments)
    try:
        for value in assignments:
            walk.visit(value)
    except (NotCountedError, ValueError, IndexError, ArithmeticError):
        return None  # or it is not of such a shape or such an option, as a norm with p = 0
    return sum(walk.operations.values())


@functools.lru_cache(maxsize=512)
def _parsed(formula: str) -> tuple[frozenset[str], tuple[ast.expr, ...]]:
    tree = ast.parse(formula)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return frozenset(names), tuple(
        statement.value for statement in tree.body if isinstance(statement, ast.Assign)
    )


def _is_default(value: Any, default: Any) -> bool:
    return value is None or (not isinstance(value, ArraySpec) and value == default)


class _Walk:
    """Walks through expressions with shapes in the place of arrays.

    Attributes
    ----------
    operations : dict
        Counted so far, by the text of the part.
    """

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.operations: dict[str, int] = {}
        self._arguments = arguments
        self._known: dict[str, Any] = {}

    def visit(self, node: ast.expr) -> Any:
        """Return the shape of a part as :class:`ArraySpec`, or its value where it is plain."""
        text = ast.dump(node)
        if text not in self._known:
            method: Callable[..., Any] | None = getattr(self, f"_{type(node).__name__}", None)
            if method is None:
                raise NotCountedError(type(node).__name__)
            self._known[text] = method(node)
        return self._known[text]

    def _Name(self, node: ast.Name) -> Any:
        found = self._arguments.get(node.id, math.pi if node.id == "pi" else None)
        if found is None:  # unknown, or an array that this call goes without
            raise NotCountedError(node.id)
        return found

    def _Constant(self, node: ast.Constant) -> Any:
        return node.value

    def _Tuple(self, node: ast.Tuple) -> Any:
        return tuple(self.visit(part) for part in node.elts)

    def _BinOp(self, node: ast.BinOp) -> Any:
        if isinstance(node.op, ast.MatMult):
            raise NotCountedError("@")
        return self._elementwise(node, node.left, node.right)

    def _UnaryOp(self, node: ast.UnaryOp) -> Any:
        return self._elementwise(node, node.operand)

    def _Compare(self, node: ast.Compare) -> Any:
        return self._elementwise(node, node.left, *node.comparators)

    def _IfExp(self, node: ast.IfExp) -> Any:
        return self.visit(node.body if self.visit(node.test) else node.orelse)

    def _Attribute(self, node: ast.Attribute) -> Any:
        value = self.visit(node.value)
        if isinstance(value, ArraySpec) and node.attr in ("size", "ndim", "shape"):
            sizes = {"size": math.prod(value.shape), "ndim": len(value.shape)}
            return sizes.get(node.attr, value.shape)
        raise NotCountedError(node.attr)

    def _Call(self, node: ast.Call) -> Any:
        if isinstance(node.func, ast.Attribute):
            return self._reduction(node, node.func)
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name == "len":
            value = self.visit(node.args[0])
            return value.shape[0] if isinstance(value, ArraySpec) else len(value)
        if name in _OF_SHAPES:
            return _of_shapes(name, [self.visit(part) for part in node.args])
        if name == "expand_dims":
            return self._expanded(*(self.visit(part) for part in node.args))
        if name not in _ELEMENTWISE:
            raise NotCountedError(name)
        return self._elementwise(node, *node.args)

    def _expanded(self, value: ArraySpec, axis: int) -> ArraySpec:
        shape = list(value.shape)
        shape.insert(axis % (len(shape) + 1), 1)
        return ArraySpec(tuple(shape), value.dtype)

    def _elementwise(self, node: ast.expr, *parts: ast.expr) -> Any:
        values = [self.visit(part) for part in parts]
        specs = [value for value in values if isinstance(value, ArraySpec)]
        if not specs:
            return _plain(node, values)
        result = ArraySpec(np.broadcast_shapes(*(spec.shape for spec in specs)), specs[0].dtype)
        self.operations[ast.dump(node)] = math.prod(result.shape)
        return result

    def _reduction(self, node: ast.Call, function: ast.Attribute) -> ArraySpec:
        value = self.visit(function.value)
        if isinstance(value, ArraySpec) and function.attr == "var":
            return self.visit(_mean_of_squares(node, function))
        if not isinstance(value, ArraySpec) or function.attr not in ("sum", "mean"):
            raise NotCountedError(function.attr)
        options = {option.arg: self.visit(option.value) for option in node.keywords}
        axis = self.visit(node.args[0]) if node.args else options.get("axis")
        shape = _reduced(value.shape, axis, bool(options.get("keepdims")))
        size, kept = math.prod(value.shape), math.prod(shape)
        self.operations[ast.dump(node)] = size if function.attr == "sum" else size + kept
        return ArraySpec(shape, value.dtype)


def _reduced(shape: tuple[int, ...], axis: Any, keeps_axes: bool) -> tuple[int, ...]:
    axes = range(len(shape)) if axis is None else (axis,) if isinstance(axis, int) else axis
    gone = {number % len(shape) for number in axes}
    if keeps_axes:
        return tuple(1 if place in gone else n for place, n in enumerate(shape))
    return tuple(n for place, n in enumerate(shape) if place not in gone)


def _of_shapes(name: str, values: list[Any]) -> Any:
    if any(isinstance(value, ArraySpec) for value in values):
        raise NotCountedError(name)
    return _OF_SHAPES[name](*values)


def _mean_of_squares(node: ast.Call, function: ast.Attribute) -> ast.Call:
    """Return `x.var(...)` in terms of the mean, which may stand elsewhere in the formula too."""
    keeps_axes = ast.keyword("keepdims", ast.Constant(True))
    mean = ast.Call(ast.Attribute(function.value, "mean", ast.Load()), node.args, [keeps_axes])
    difference = ast.BinOp(function.value, ast.Sub(), mean)
    square = ast.BinOp(difference, ast.Mult(), difference)
    return ast.Call(ast.Attribute(square, "mean", ast.Load()), node.args, node.keywords)


def _plain(node: ast.expr, values: list[Any]) -> Any:
    """Compute what holds no array: free, but a condition may depend on it."""
    if isinstance(node, ast.Call):
        function = getattr(math, node.func.id if isinstance(node.func, ast.Name) else "", None)
    else:
        sign = node.ops[0] if isinstance(node, ast.Compare) else getattr(node, "op", None)
        function = _OPERATORS.get(type(sign).__name__)
    if function is None:
        raise NotCountedError(ast.dump(node))
    return function(*values)
