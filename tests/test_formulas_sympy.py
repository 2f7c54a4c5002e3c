"""Formula texts as mathematics: differentiated by SymPy, the forward's text is the backward op."""

import ast
import builtins
import inspect
import math
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from layer_cases import CASES
from test_layers import WITHOUT_FORMULA, formula_shows, plain_arguments

import xbackprop as xb
from xbackprop.backend.device import Device
from xbackprop.dispatch import Op, OpCall, registered_ops
from xbackprop.nn import fusion, remade
from xbackprop.testing.structures import leaves, random_like

sympy = pytest.importorskip("sympy")
T = sympy.Symbol("t", real=True)

PLACES = 2  # elements of each argument that the formula is differentiated by


# --- evaluating a text with one element unknown -------------------------------------------


def at(value: Any, point: float) -> float:
    """Return a number, or an expression of t at a point."""
    return float(value.subs(T, point)) if isinstance(value, sympy.Basic) else float(value)


def elementwise(of_numbers: Any, of_expressions: Any) -> Any:
    """Return a function of arrays whose elements are numbers, or expressions of t."""

    def function(value: Any) -> Any:
        is_expression = isinstance(value, sympy.Basic)
        return of_expressions(value) if is_expression else of_numbers(value)

    return np.frompyfunc(function, 1, 1)


class _Compare(ast.NodeTransformer):
    """Comparisons are made at the point: it is on no kink, so they are the same around it."""

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        name = ast.Constant(type(node.ops[0]).__name__.lower().replace("gte", "ge"))
        arguments = [name, node.left, node.comparators[0]]
        return ast.Call(ast.Name("compare", ast.Load()), arguments, [])

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        """Truth values are numbers beside expressions, which do not know them."""
        self.generic_visit(node)
        if isinstance(node.op, (ast.BitAnd, ast.BitOr)):
            return node
        sides = (
            ast.Call(ast.Name("countable", ast.Load()), [side], [])
            for side in (node.left, node.right)
        )
        return ast.BinOp(next(sides), node.op, next(sides))


def names_at(point: float) -> dict[str, Any]:
    signs = {"gt": "gt", "lt": "lt", "ge": "ge", "lte": "le", "eq": "eq", "noteq": "ne"}
    number = np.frompyfunc(lambda value: at(value, point), 1, 1)

    def numeric(values: Any) -> Any:
        array = np.asarray(values)
        return number(array).astype(np.float64) if array.dtype == object else array

    def compare(sign: str, left: Any, right: Any) -> Any:
        return getattr(operator, signs[sign])(numeric(left), numeric(right))

    def choose(left: Any, right: Any, is_left: Any) -> Any:
        return np.where(is_left(numeric(left), numeric(right)), left, right)

    def maximum(left: Any, right: Any) -> Any:
        return choose(left, right, operator.ge)

    def minimum(left: Any, right: Any) -> Any:
        return choose(left, right, operator.le)

    smooth = ("exp", "log", "tanh", "cosh", "sqrt", "sin", "cos", "erf")
    return {
        **vars(np),
        **{name: elementwise(getattr(math, name), getattr(sympy, name)) for name in smooth},
        "log1p": elementwise(math.log1p, lambda e: sympy.log(1 + e)),
        "expm1": elementwise(math.expm1, lambda e: sympy.exp(e) - 1),
        "abs": lambda values: np.sign(numeric(values)) * values,
        "sign": lambda values: np.sign(numeric(values)),
        "maximum": maximum,
        "minimum": minimum,
        "clip": lambda values, low, high: minimum(maximum(values, low), high),
        "compare": compare,
        "countable": lambda values: (
            np.multiply(values, 1) if np.asarray(values).dtype.kind == "b" else values
        ),
        "len": len,
        "__builtins__": builtins,
    }


def first_result(formula: str, arguments: dict[str, Any], point: float) -> Any:
    text = formula.split(";")[0].partition("=")[2].strip()
    tree = ast.fix_missing_locations(_Compare().visit(ast.parse(text, mode="eval")))
    return eval(compile(tree, "<formula>", "eval"), names_at(point), arguments)


# --- what ran -----------------------------------------------------------------------------


@dataclass(eq=False)
class Pair:
    """A forward op that ran, and what its backward made of a gradient."""

    op: Op
    arguments: dict[str, Any]
    output: Any
    saved: Any
    grad_output: Any = None
    gradients: tuple[Any, ...] = ()
    targets: tuple[str, ...] = ()


class Pairs:
    """Watches forward and backward ops, and joins those that share what was saved."""

    def __init__(self, wanted: set[str]) -> None:
        self.wanted = wanted
        self.pairs: list[Pair] = []
        self.open: list[dict[str, Any]] = []

    def before(self, call: OpCall) -> None:
        self.open.append(plain_arguments(call))

    def after(self, call: OpCall, result: Any) -> None:
        arguments = self.open.pop()
        name = f"{call.op.reference.__module__}.{call.op.name}"
        if call.op.formula is None or not formula_shows(call.op, arguments):
            return
        if name in self.wanted:
            output = result[0][0] if isinstance(result[0], tuple) else result[0]
            self.pairs.append(Pair(call.op, arguments, output, result[1]))
        elif name.endswith("_backward"):
            results = result if isinstance(result, tuple) else (result,)
            for pair in self.pairs:
                stem = pair.op.name.removesuffix("forward")
                same = [a is b for a, b in zip(pair.saved, call.args[1:], strict=False)]
                if f"{stem}backward" == call.op.name and all(same):
                    pair.grad_output, pair.gradients = call.args[0], results
                    pair.targets = tuple(
                        part.partition("=")[0].strip() for part in call.op.formula.split(";")
                    )


def differentiable(pair: Pair) -> list[tuple[str, np.ndarray]]:
    """Return arguments with their gradients: by the names of the text, else in their order."""
    floats = [
        name
        for name, value in pair.arguments.items()
        if isinstance(value, np.ndarray) and value.dtype.kind == "f"
    ]
    found = []
    for position, (target, gradient) in enumerate(zip(pair.targets, pair.gradients, strict=False)):
        name = target.removeprefix("grad_")
        name = name if name in floats else floats[position]
        if gradient is not None and gradient.size:
            found.append((name, gradient))
    return found


def check(pair: Pair, rng: np.random.Generator) -> None:
    """Differentiate the text by a few elements, and compare with what the backward gave."""
    weights = np.broadcast_to(pair.grad_output, np.shape(pair.output)).astype(object)
    for name, gradient in differentiable(pair):
        values = pair.arguments[name]
        assert gradient.shape == values.shape, (pair.op.name, name)
        for place in rng.choice(values.size, min(PLACES, values.size), replace=False):
            index = np.unravel_index(place, values.shape)
            point = float(values[index])
            unknown = values.astype(object)
            unknown[index] = T
            result = first_result(pair.op.formula or "", {**pair.arguments, name: unknown}, point)
            total = sympy.sympify(np.asarray(weights * result, dtype=object).sum())
            said = float(np.sum(weights * pair.output))
            assert at(total, point) == pytest.approx(said, rel=1e-9, abs=1e-9), pair.op.name
            assert at(sympy.diff(total, T), point) == pytest.approx(
                float(gradient[index]), rel=1e-8, abs=1e-9
            ), f"{pair.op.name}: {name}{list(index)} of {pair.op.formula!r}"


def pairs_with_formulas() -> set[str]:
    ours = registered_ops()
    return {
        name
        for name, op in ours.items()
        if name.startswith("xbackprop.nn.")
        and name.endswith("_forward")
        and op.formula is not None
        and name not in WITHOUT_FORMULA
    }


def ran_in(case: Any, wanted: set[str]) -> list[Pair]:
    rng = np.random.default_rng(1)
    module = case.make().to("cpu", dtype=np.float64)
    made = case.inputs(rng)
    inputs = made if isinstance(made, tuple) else (made,)
    watcher = Pairs(wanted)
    with xb.observe(watcher):
        output, saved = module.forward(*inputs)
        grad = random_like(output, rng)
        module.backward(grad, saved)
    assert leaves(output, "output")
    return [pair for pair in watcher.pairs if pair.gradients]


FUSED: tuple[tuple[Op, Op, tuple[Any, ...]], ...] = (  # with the shapes of their arguments
    (*fusion.BIAS_RELU, ((3, 4), (4,))),
    (*fusion.BIAS_GELU_TANH, ((3, 4), (4,))),
    (remade.gelu_tanh_linear_forward, remade.gelu_tanh_linear_backward, ((3, 4), (5, 4), (5,))),
)


def ran_fused(
    forward: Op, backward: Op, shapes: Any, wanted: Any, rng: np.random.Generator
) -> list[Any]:
    watcher = Pairs(wanted)
    with xb.observe(watcher):
        output, saved = forward(*(rng.normal(size=shape) for shape in shapes))
        backward(rng.normal(size=output.shape), *saved)
    return watcher.pairs


def test_derivatives_of_forward_texts_are_what_backward_ops_compute() -> None:
    wanted = pairs_with_formulas()
    missing = set(wanted)
    rng = np.random.default_rng(0)
    with xb.use_device("cpu"):
        for case in CASES:
            if not case.is_plain or case.is_network:
                continue
            for pair in ran_in(case, wanted):
                name = f"{pair.op.reference.__module__}.{pair.op.name}"
                if name in missing and "1-D sample" not in case.name and differentiable(pair):
                    check(pair, rng)
                    missing.discard(name)
        for forward, backward, shapes in FUSED:  # a watched layer is not fused
            for pair in ran_fused(forward, backward, shapes, wanted, rng):
                check(pair, rng)
                missing.discard(f"{pair.op.reference.__module__}.{pair.op.name}")
    assert missing == set(), "texts that no row differentiates"


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_texts_of_updates_are_what_their_ops_write(name: str, xb_device: Device) -> None:
    rng = np.random.default_rng(3)
    (op,) = (op for op in registered_ops().values() if op.name == f"{name}_update")
    names = inspect.signature(op.reference).parameters
    drawn = {key: float(rng.uniform(0.1, 0.9)) for key in names} | {"finite": None}
    drawn |= {"max_exp_avg_sq": None, "nesterov": False, "maximize": False}
    arrays = [
        key for key in ("data", "grad", "exp_avg", "exp_avg_sq", "momentum_buffer") if key in names
    ]
    before = {key: rng.uniform(0.1, 0.9, 5) for key in arrays}
    on_device = {key: xb.asarray(values.copy(), dtype=np.float64) for key, values in before.items()}
    given = {key: drawn[key] for key in names} | on_device
    op(**given)
    symbols = {key: sympy.Symbol(key, positive=True) for key in names}
    written = 0
    for assignment in (op.formula or "").split(";"):
        target, _, text = assignment.partition("=")
        expression = sympy.sympify(text, locals=symbols)
        key = target.strip().removesuffix("_new")
        for place, value in enumerate(xb.to_host(given[key])):
            point = {
                symbols[k]: before[k][place] if k in before else given[k]
                for k in names
                if symbols[k] in expression.free_symbols
            }
            assert value == pytest.approx(float(expression.subs(point)), rel=1e-12)
        written += 1
    assert written == len([key for key in arrays if key != "grad"])


def test_every_other_op_with_a_text_is_evaluated_elsewhere() -> None:
    """test_layers.py evaluates those of layers, and this file these three of optimizers."""
    updates = {
        op.name
        for name, op in registered_ops().items()
        if name.startswith("xbackprop.optim.") and op.formula is not None
    }
    assert updates == {"sgd_update", "momentum_update", "adam_update"}
