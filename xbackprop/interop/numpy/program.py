"""Write a chain of layers as one Python file with its weights beside it."""

import copy
import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from xbackprop import nn
from xbackprop.backend.device import use_device
from xbackprop.interop.numpy.sources import Sources
from xbackprop.interop.numpy.tracing import Step, Tracer
from xbackprop.module import Module
from xbackprop.training.atomic import write_atomically

_HEAD = '''"""A network with hand-written gradients, for NumPy alone. Its weights are in {weights}.

The functions are those that trained it. ``forward`` does what the network does in evaluation mode:
dropout lets everything pass, and normalization of channels uses the running statistics.
"""

from __future__ import annotations

'''
_LOAD = """
PARAMETERS = dict(np.load(Path(__file__).with_name({weights!r}), allow_pickle=False))


"""


def save_numpy(path: str | os.PathLike[str], model: Module, x: Any) -> None:
    """Write a chain of layers as a Python file with ``forward`` and ``backward``.

    ``forward(x)`` returns the output and what ``backward(grad_output, saved)`` needs, which returns
    the gradient of ``x`` and those of the parameters by name. The weights stand beside it, in an
    ``.npz`` file of the same name, which is written first.

    Parameters
    ----------
    path : path
        Ends in ``.py``.
    model : Module
        A layer, or a Sequential of layers, nested as you like. Nothing of it changes.
    x : array_like
        An input: its shape and dtype matter, and the batch may later have another length.

    Raises
    ------
    NotImplementedError
        Names a layer whose forward and backward are not one op each, and shared weights.
    ValueError
        For another extension, and an ``x`` without a batch axis.
    OSError
        When the disk refuses; names the file.
    """
    target = Path(path)
    if target.suffix != ".py":
        raise ValueError(f"save_numpy expects a .py file; got {target}")
    weights = target.with_suffix(".npz")
    array = np.asarray(x)
    if array.dtype.kind == "f":
        array = np.random.default_rng(0).normal(size=array.shape)
        array = array.astype(model.dtype or np.float32)
    if not array.ndim:
        raise ValueError("save_numpy expects x with a batch axis; got a number")
    layers = _chain(copy.deepcopy(model).to("cpu").eval(), "")
    _refuse_shared(layers)
    with use_device("cpu"):
        steps, arrays = _traced(layers, array)
        try:
            longer = _traced(layers, np.concatenate([array, array[:1]]))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"save_numpy expects x with a batch axis; got {array.shape}"
            ) from error
    if steps != longer[0] or not _are_equal(arrays, longer[1]):
        raise NotImplementedError("export to NumPy: a layer's arguments depend on the batch")
    named = [(name, layer, step) for (name, layer), step in zip(layers, steps, strict=True)]
    text = _program(named, weights.name)
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    with write_atomically(weights) as file:
        file.write(content.getvalue())
    with write_atomically(target) as file:
        file.write(text.encode("utf-8"))


def _traced(
    layers: list[tuple[str, Module]], x: np.ndarray
) -> tuple[list[Step], dict[str, np.ndarray]]:
    tracer, steps = Tracer(), []
    for name, layer in layers:
        step, x = tracer.trace(layer, name, x)
        steps.append(step)
    return steps, tracer.arrays


def _are_equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def _refuse_shared(layers: list[tuple[str, Module]]) -> None:
    seen: dict[int, str] = {}
    for path, layer in layers:
        for name, parameter in layer.named_parameters():
            first = seen.setdefault(id(parameter), f"{path}.{name}")
            if first != f"{path}.{name}":
                raise NotImplementedError(
                    f"export to NumPy: {path}.{name} is {first} too, and shared weights are not "
                    "printed"
                )


def _chain(model: Module, path: str) -> list[tuple[str, Module]]:
    """Return the layers of nested Sequentials in order, with their paths."""
    if not isinstance(model, nn.Sequential):
        return [(path or "layer", model)]
    return [
        part
        for name, child in model.named_children()
        for part in _chain(child, f"{path}.{name}" if path else name)
    ]


def _program(steps: list[tuple[str, Module, Step]], weights: str) -> str:
    sources = Sources()
    sources.add("np", np)
    for _, _, step in steps:
        for op in (step.forward, step.backward):
            if op is not None:
                sources.add(op.name, op)
                for value in (step.arguments, step.more):
                    _add_classes(sources, op, value)
    imports = sorted(
        {*sources.imports, "from pathlib import Path"}, key=lambda line: line.split()[1]
    )
    definitions = "\n\n".join(sources.texts.values())
    return (
        _HEAD.format(weights=weights) + "\n".join(imports) + "\n" + _LOAD.format(weights=weights)
        + definitions + "\n\n" + _forward(steps) + "\n\n" + _backward(steps)
    )  # fmt: skip


def _add_classes(sources: Sources, op: Any, arguments: list[str]) -> None:
    """Add classes that the arguments are written with."""
    scope = vars(__import__(op.reference.__module__, fromlist=["_"]))
    for name, value in scope.items():
        if isinstance(value, type) and any(f"{name}(" in argument for argument in arguments):
            sources.add(name, value)


def _forward(steps: list[tuple[str, Module, Step]]) -> str:
    lines = [
        "def forward(x):",
        '    """Return the output for a batch, and what `backward` needs."""',
        "    p, saved = PARAMETERS, {}",
    ]
    for name, layer, step in steps:
        if step.forward is not None:
            call = f"{step.forward.name}({', '.join(['x', *step.arguments])})"
            target = "(x, *_)" if step.is_first else "x"
            lines.append(f"    {target}, saved[{name!r}] = {call}  # {type(layer).__name__}")
        elif step.arguments:
            (shape,) = step.arguments
            lines.append(f"    saved[{name!r}] = x.shape  # {type(layer).__name__}")
            lines.append(f"    x = x.reshape(len(x), *{shape})")
    return "\n".join([*lines, "    return x, saved", ""])


def _backward(steps: list[tuple[str, Module, Step]]) -> str:
    lines = [
        "def backward(grad_output, saved):",
        '    """Return the gradient of the input, and those of the parameters by name."""',
        "    p, g, grads = PARAMETERS, grad_output, {}",
    ]
    for name, _, step in reversed(steps):
        if step.backward is not None:
            call = f"{step.backward.name}({', '.join(['g', f'*saved[{name!r}]', *step.more])})"
            targets = ["g"] if step.has_input_grad else []
            targets += [f"grads[{key!r}]" if key else "_" for key in step.grads]
            lines.append(f"    {', '.join(targets)} = {call}")
            lines += [
                f"    grads[{key!r}] = grads[{key!r}].reshape(p[{key!r}].shape)"
                for key in step.reshaped
            ]
            lines += [] if step.has_input_grad else ["    g = None"]
        elif step.arguments:
            lines.append(f"    g = g.reshape(saved[{name!r}])")
    return "\n".join([*lines, "    return g, grads", ""])
