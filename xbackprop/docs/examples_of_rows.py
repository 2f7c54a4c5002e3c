"""Shapes and examples of the catalogue, made of the rows of the tests' tables and run.

The tests have to be on the path; their tables are read when they are asked for.
"""

import ast
import contextlib
import functools
import inspect
import io
import re
from importlib import import_module, util
from typing import Any

import numpy as np

import xbackprop as xb
from xbackprop.docs.entries import Entry, issubclass_of
from xbackprop.testing.structures import leaves

MOST_NUMBERS = 40  # that an example writes out

# --- rows ---------------------------------------------------------------------------------


@functools.cache
def rows_of_layers() -> dict[str, list[Any]]:
    """Return the rows of the tables of layers and losses, by the class that they make."""
    found: dict[str, list[Any]] = {}
    for case in import_module("layer_cases").CASES:
        found.setdefault(type(case.make()).__name__, []).append(case)
    return found


def shapes_of(entry: Entry) -> list[tuple[str, str]]:
    """Return the shapes that go in and come out, as the rows have them, each pair once."""
    found = []
    for case in rows_of_layers().get(entry.name, ()):
        inputs = arrays_of(case)
        output = case.make()(*inputs)
        outputs = [array for _, array in leaves(output, "")]
        pair = tuple(", ".join(describe(array) for array in part) for part in (inputs, outputs))
        found.append((pair[0], pair[1]))
    return list(dict.fromkeys(found))


def arrays_of(case: Any) -> list[Any]:
    """Return a row's inputs on the default device, floats in float32 with two digits."""
    made = case.inputs(np.random.default_rng(0))
    arrays = [np.asarray(array) for array in (made if isinstance(made, tuple) else (made,))]
    return [xb.asarray(a.round(2) if a.dtype.kind == "f" else a, dtype=dtype_of(a)) for a in arrays]


def dtype_of(array: np.ndarray) -> np.dtype:
    """Return float32 for floats, else the dtype."""
    return np.dtype(np.float32) if array.dtype.kind == "f" else array.dtype


def describe(array: Any) -> str:
    """Return an array's shape, and its dtype where that is not float."""
    text = str(tuple(array.shape))
    return text if array.dtype.kind == "f" else f"{text} {array.dtype}"


# --- examples -----------------------------------------------------------------------------


def example_of(entry: Entry) -> str:
    """Return a doctest made of the entry's first row that can be written down, or nothing."""
    if issubclass_of(entry.value, xb.Module):
        # Rows of dropout and the like first where they draw.
        rows = sorted(rows_of_layers().get(entry.name, ()), key=lambda row: not row.is_random)
        candidates = (layer_example(entry, row) for row in rows)
    elif entry.family == "optimizers":
        candidates = (optimizer_example(entry.name, case) for case in rows_in("optimizer_cases"))
    elif entry.family == "schedules":
        candidates = (schedule_example(entry.name, case) for case in rows_in("schedule_cases"))
    else:
        return ""
    for lines in candidates:
        if lines and (text := with_results(lines)):
            return text
    return ""


def rows_in(table: str) -> list[Any]:
    """Return the rows of a table of optimizers or schedules; none where there is no such table."""
    if util.find_spec(table) is None:
        return []
    module = import_module(table)
    return list(getattr(module, "OPTIMIZERS", None) or module.SCHEDULES)


def layer_example(entry: Entry, case: Any) -> list[str]:
    """Return the lines that make a row's layer and call it, with two samples."""
    inputs = [array[:2] if case.has_batch else array for array in arrays_of(case)]
    call = call_of(case.make().config())
    if not call:
        return []
    parameters = inspect.signature(inspect.unwrap(entry.value.forward)).parameters.values()
    names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD][1 : 1 + len(inputs)]
    names = names if len(names) == len(inputs) else [f"x{n}" for n, _ in enumerate(inputs, 1)]
    made = "loss_fn" if entry.family == "losses" else "layer"
    lines = [f"{made} = {call}"]
    if sum(array.size for array in inputs) <= MOST_NUMBERS:
        lines += [f"{n} = xb.asarray({written(a)})" for n, a in zip(names, inputs, strict=True)]
        return [*lines, f"{made}({', '.join(names)}).round(3)"]
    if any(array.dtype.kind != "f" for array in inputs):
        return []
    lines += ["import numpy as np", "rng = np.random.default_rng(0)"]
    for name, array in zip(names, inputs, strict=True):
        lines.append(f"{name} = xb.asarray(rng.normal(size={tuple(array.shape)}))")
    return [*lines, f"{made}({', '.join(names)}).shape"]


def written(array: Any) -> str:
    """Return an array's numbers as a nested list, floats with two digits."""
    text = str(xb.to_host(array).tolist())
    return re.sub(r"\d+\.\d{6,}", lambda digits: f"{float(digits[0]):.2f}", text)


def call_of(config: Any) -> str:
    """Return the call that makes what a config describes, or nothing where it is not plain."""
    if not isinstance(config, dict) or set(config) != {"type", "args"}:
        return ""
    parts = []
    for name, value in config["args"].items():
        values = value if isinstance(value, list) else [value]
        if any(isinstance(part, dict) for part in values):
            texts = [call_of(part) for part in values]
            if not all(texts):
                return ""
            text = ", ".join(texts)
        else:
            text = repr(value)
        parts.append(text if isinstance(value, (list, dict)) else f"{name}={text}")
    if "rng" in inspect.signature(getattr(xb.nn, config["type"])).parameters:
        parts.append("rng=0")
    return f"xb.nn.{config['type']}({', '.join(parts)})"


def optimizer_example(name: str, case: Any) -> list[str]:
    """Return the lines that make a row's optimizer and let it take a step."""
    if case.cls != name:
        return []
    options = "".join(f", {option}={value!r}" for option, value in case.options.items())
    return [
        "layer = xb.nn.Linear(2, 1, bias=False, rng=0)",
        f"optimizer = xb.optim.{name}(layer.parameters(), lr=0.1{options})",
        "x, y = xb.asarray([[1.0, 2.0]]), xb.asarray([[3.0]])",
        "loss, output = xb.value_and_grad(layer, xb.nn.MSELoss())(x, y)",
        "optimizer.step()",
        "layer.weight.data.round(3)",
    ]


class Recorded:
    """A call of a schedule's constructor that was written down instead of made."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


class Recorder:
    """Stands for the module ``lr_scheduler`` and writes down what is made of it."""

    __name__ = "xbackprop.optim.lr_scheduler"

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **options: Any) -> Recorded:
            options.pop("last_epoch", None)
            parts = [repr(arg) for arg in args] + [f"{k}={v!r}" for k, v in options.items()]
            return Recorded(f"xb.optim.lr_scheduler.{name}({', '.join(parts)})")

        return call


def schedule_example(name: str, case: Any) -> list[str]:
    """Return the lines that make a row's schedule and let it take steps."""
    text = ""
    with contextlib.suppress(Exception):  # a row may do more than call constructors
        text = repr(case.make(Recorder(), Recorded("optimizer"), -1))
    if not text.startswith(f"xb.optim.lr_scheduler.{name}("):
        return []
    step = inspect.signature(getattr(xb.optim.lr_scheduler, name).step).parameters
    metric = "1.0" if "metrics" in step else ""
    return [
        "groups = [{'params': [xb.Parameter(xb.asarray([1.0]))], 'lr': lr} for lr in (0.1, 0.2)]",
        f"optimizer = xb.optim.{case.optimizer}(groups)",
        f"schedule = {text}",
        "rates = []",
        "for epoch in range(4):",
        "    optimizer.step()",
        f"    schedule.step({metric})",
        "    rates.append([round(lr, 4) for lr in schedule.get_last_lr()])",
        "rates",
    ]


def with_results(lines: list[str]) -> str:
    """Run statements on the CPU and return them as a doctest, or nothing where they fail."""
    known: dict[str, Any] = {"xb": xb}
    printed = [">>> import xbackprop as xb"]
    with xb.use_device("cpu"), contextlib.suppress(Exception), np.errstate(all="ignore"):
        for statement in ast.parse("\n".join(lines)).body:
            first, *rest = lines[statement.lineno - 1 : statement.end_lineno]
            printed += [f">>> {first}", *(f"... {line}" for line in rest)]
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile(ast.Interactive([statement]), "<example>", "single"), known)
            printed += [line or "<BLANKLINE>" for line in output.getvalue().splitlines()]
        return "\n".join(printed)
    return ""
