"""Expressions of named numbers, which the formula texts of ops are evaluated to."""

import ast
import builtins
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

_ADD, _MULTIPLY, _POWER, _ATOM = range(1, 5)
_STRENGTH = {"+": _ADD, "-": _ADD, "neg": _ADD, "*": _MULTIPLY, "/": _MULTIPLY, "^": _POWER}
_STRENGTH |= dict.fromkeys(("<", ">", "<=", ">=", "and", "where"), 0)


class Expression:
    """A number, a name that has one, or an operation on other expressions.

    Parameters
    ----------
    kind : str
        ``number``, ``symbol``, an operator, or the name of a function.
    *parts : Expression
        What it operates on.
    value : float
        Of a number or symbol.
    text, latex : str
        Of a symbol.
    """

    __hash__ = object.__hash__

    def __init__(
        self,
        kind: str,
        *parts: "Expression",
        value: float = 0.0,
        text: str = "",
        latex: str = "",
    ) -> None:
        self.kind = kind
        self.parts = parts
        self.value = value
        self.text = text
        self.latex = latex

    def __add__(self, other: Any) -> "Expression":
        other = as_expression(other)
        return other if _is(self, 0) else self if _is(other, 0) else Expression("+", self, other)

    def __sub__(self, other: Any) -> "Expression":
        other = as_expression(other)
        return -other if _is(self, 0) else self if _is(other, 0) else Expression("-", self, other)

    def __mul__(self, other: Any) -> "Expression":
        other = as_expression(other)
        if _is(self, 0) or _is(other, 0):
            return as_expression(0)
        return other if _is(self, 1) else self if _is(other, 1) else Expression("*", self, other)

    def __truediv__(self, other: Any) -> "Expression":
        other = as_expression(other)
        return self if _is(other, 1) or _is(self, 0) else Expression("/", self, other)

    def __radd__(self, other: Any) -> "Expression":
        return as_expression(other) + self

    def __rsub__(self, other: Any) -> "Expression":
        return as_expression(other) - self

    def __rmul__(self, other: Any) -> "Expression":
        return as_expression(other) * self

    def __rtruediv__(self, other: Any) -> "Expression":
        return as_expression(other) / self

    def __pow__(self, other: Any) -> "Expression":
        return Expression("^", self, as_expression(other))

    def __neg__(self) -> "Expression":
        return Expression("neg", self)

    def __and__(self, other: Any) -> "Expression":
        return Expression("and", self, as_expression(other))


def as_expression(value: Any) -> Expression:
    """Return a number as an expression."""
    return value if isinstance(value, Expression) else Expression("number", value=float(value))


def symbol(text: str, latex: str, value: float) -> Expression:
    """Return a named number."""
    return Expression("symbol", value=value, text=text, latex=latex)


def _is(expression: Expression, number: float) -> bool:
    return expression.kind == "number" and expression.value == number


def _function(name: str, count: int) -> Any:
    return np.frompyfunc(lambda *parts: Expression(name, *map(as_expression, parts)), count, 1)


def _compare(name: str, left: Any, right: Any) -> Any:
    """Compare numbers; where there are expressions, keep the question."""
    arrays = (left, right)
    if all(np.asarray(side).dtype != object for side in arrays):
        return _COMPARISONS[name](left, right)
    return _function(name, 2)(left, right)


_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    ">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le,
    "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
_SIGNS = {
    ast.Gt: ">", ast.Lt: "<", ast.GtE: ">=", ast.LtE: "<=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip
_ONE = ("exp", "log", "log1p", "expm1", "tanh", "abs", "sqrt", "erf")
_KNOWN: dict[str, Any] = {
    **{name: _function(name, 1) for name in _ONE},
    **{name: _function(name, 2) for name in ("maximum", "minimum")},
    "where": _function("where", 3),
    "arange": np.arange,
    "len": len,
    "_compare": _compare,
    "__builtins__": builtins,  # NumPy imports in the name of who calls it
}


class _KeepComparisons(ast.NodeTransformer):
    """Turn ``a > b`` into a call: NumPy would ask an array of expressions for truth values."""

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        """Replace a comparison of two sides."""
        self.generic_visit(node)
        sign = ast.Constant(_SIGNS[type(node.ops[0])])
        arguments = [sign, node.left, node.comparators[0]]
        return ast.Call(ast.Name("_compare", ast.Load()), arguments, [])


def apply_formula(formula: str, arguments: Mapping[str, Any]) -> list[np.ndarray]:
    """Evaluate the text of an op's formula with arrays of expressions.

    Parameters
    ----------
    formula : str
        Assignments in NumPy notation, separated by ``;``.
    arguments : mapping
        From the op's parameters to arrays of expressions, or plain values.

    Returns
    -------
    list of numpy.ndarray
        One array of expressions per assignment.
    """
    results = []
    for assignment in formula.split(";"):
        text = assignment.partition("=")[2].strip()
        tree = ast.fix_missing_locations(_KeepComparisons().visit(ast.parse(text, mode="eval")))
        result = eval(compile(tree, "<formula>", "eval"), _KNOWN, dict(arguments))
        results.append(np.asarray(result, dtype=object))
    return results


def number_text(value: float) -> str:
    """Return a number in six significant digits; zero has no sign."""
    return f"{value + 0.0:.6g}"


def number_latex(value: float) -> str:
    """Return a number in LaTeX, with powers of ten."""
    text = number_text(value).replace("inf", r"\infty").replace("nan", r"\mathrm{NaN}")
    mantissa, _, exponent = text.partition("e")
    return rf"{mantissa} \times 10^{{{int(exponent)}}}" if exponent else text


def to_text(expression: Expression, numbers: bool = False) -> str:
    """Return an expression as one writes it in a program, with names or with numbers."""
    return _Writer(numbers, is_latex=False).write(expression)


def to_latex(expression: Expression, numbers: bool = False) -> str:
    """Return an expression in LaTeX, with names or with numbers."""
    return _Writer(numbers, is_latex=True).write(expression)


class _Writer:
    """Writes expressions, with parentheses where they are needed."""

    def __init__(self, numbers: bool, is_latex: bool) -> None:
        self.numbers = numbers
        self.is_latex = is_latex

    def write(self, e: Expression, strength: int = 0, *, first: bool = True) -> str:
        """Return the text; ``strength`` is that of the operator around it."""
        text = self._write(e, first)
        own = _STRENGTH.get(e.kind, _ATOM)
        if e.kind in ("number", "symbol") and text.startswith("-") and not first:
            own = 0  # 2 * (-3)
        if own >= strength:
            return text
        if e.kind not in ("number", "symbol"):
            text = self._write(e, True)  # inside parentheses a minus may stand first
        return rf"\left({text}\right)" if self.is_latex else f"({text})"

    def _write(self, e: Expression, first: bool) -> str:
        if e.kind == "number" or (e.kind == "symbol" and self.numbers):
            return number_latex(e.value) if self.is_latex else number_text(e.value)
        if e.kind == "symbol":
            return e.latex if self.is_latex else e.text
        if e.kind == "neg":
            return f"-{self.write(e.parts[0], _MULTIPLY, first=False)}"
        if e.kind in _STRENGTH and e.kind != "where":
            return self._write_operator(e, first)
        if e.kind == "where":
            condition, yes, no = map(self.write, e.parts)
            if not self.is_latex:
                return f"{yes} if {condition} else {no}"
            rows = rf"{yes} & {condition} \\ {no} & \text{{else}}"
            return rf"\begin{{cases}} {rows} \end{{cases}}"
        return self._write_function(e)

    def _write_operator(self, e: Expression, first: bool) -> str:
        if e.kind == "/" and self.is_latex:
            return rf"\frac{{{self.write(e.parts[0])}}}{{{self.write(e.parts[1])}}}"
        own = _STRENGTH[e.kind]
        left = self.write(e.parts[0], own + (e.kind == "^"), first=first and e.kind != "^")
        if e.kind == "^" and self.is_latex:
            return f"{left}^{{{self.write(e.parts[1])}}}"
        # a - (b + c), a / (b * c); in a sum or product of equals none are needed.
        right = self.write(e.parts[1], max(own + (e.kind in "-/"), 1), first=False)
        signs = {"*": r"\cdot", ">=": r"\ge", "<=": r"\le", "and": r"\wedge"}
        sign = signs.get(e.kind, e.kind) if self.is_latex else e.kind
        return f"{left}^{right}" if e.kind == "^" else f"{left} {sign} {right}"

    def _write_function(self, e: Expression) -> str:
        name = {"maximum": "max", "minimum": "min", "log": "ln"}.get(e.kind, e.kind)
        inside = ", ".join(map(self.write, e.parts))
        if not self.is_latex:
            return f"{name}({inside})"
        if name == "exp":
            return f"e^{{{inside}}}"
        known = ("max", "min", "ln", "tanh")
        macro = rf"\{name}" if name in known else rf"\operatorname{{{name}}}"
        return rf"{macro}\left({inside}\right)"


def evaluate(expression: Expression) -> float:
    """Return the value of an expression in float64, overflow and all."""
    if expression.kind in ("number", "symbol"):
        return expression.value
    values = [np.float64(evaluate(part)) for part in expression.parts]
    with np.errstate(all="ignore"):
        return float(_COMPUTE[expression.kind](*values))


_COMPUTE: dict[str, Callable[..., Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
    "^": operator.pow, "neg": operator.neg, "and": np.logical_and, **_COMPARISONS,
    **{name: getattr(np, name) for name in _ONE if name != "erf"}, "erf": math.erf,
    "maximum": np.maximum, "minimum": np.minimum,
    "where": lambda condition, yes, no: yes if condition else no,
}  # fmt: skip
