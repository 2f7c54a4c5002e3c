"""``xbackprop explain``: backpropagation with its real numbers."""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from xbackprop import nn, optim
from xbackprop.backend.device import use_device
from xbackprop.cli.devices import choose_device
from xbackprop.cli.errors import FAILED, CommandError
from xbackprop.cli.explain_model import explain_model, make_loss
from xbackprop.cli.explain_options import ExplainOptions
from xbackprop.observe import Explanation, explain
from xbackprop.observe.page import page

_HIDDEN = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "tanh": nn.Tanh}
# Small numbers that are easy to follow; another shape draws its own.
_WEIGHTS = {"W1": [[0.15, 0.2], [0.25, 0.3]], "b1": [0.35, 0.35]}
_OUTPUT_WEIGHTS = ([[0.4, 0.45], [0.5, 0.55]], [0.6, 0.6])


def run_explain(options: ExplainOptions) -> int:
    """Print an explanation.

    Parameters
    ----------
    options : ExplainOptions
        The request.

    Returns
    -------
    int
        Exit code 0.

    Raises
    ------
    CommandError
        For sizes that do not fit, a target outside of the loss's domain, and a file of weights that
        cannot be used.
    """
    choice = choose_device(options.device)
    with use_device(choice.device):
        if options.model is not None:
            sys.stdout.write(explain_model(options) + "\n")
            return 0
        x, y, layers = _sample(options)
        model = _make_model(options, layers)
        loss = make_loss(options.loss, options.output)
        optimizer = _make_optimizer(options, model)
        told = [explain(model, loss, x, y, optimizer) for _ in range(options.steps)]
    sys.stdout.write(_printed(told, options))
    return 0


def _sample(options: ExplainOptions) -> tuple[list[float], Any, tuple[int, ...]]:
    """Return inputs, target and widths that fit each other."""
    is_class = options.loss == "cross_entropy"
    layers = options.layers or (2, 2, 2 if is_class else 1)
    inputs = options.inputs or tuple(0.05 * (place + 1) for place in range(layers[0]))
    if len(inputs) != layers[0]:
        raise CommandError(
            f"--inputs: expected {layers[0]} numbers, as --layers has inputs; got {len(inputs)}"
        )
    target = options.target
    if is_class:
        target = (float(layers[-1] - 1),) if target is None else target
        classes = range(layers[-1])
        if len(target) != 1 or target[0] not in classes:
            got = ",".join(f"{number:g}" for number in target)
            raise CommandError(
                f"--target: expected a class from 0 to {layers[-1] - 1} for cross_entropy; "
                f"got {got}"
            )
        return list(inputs), int(target[0]), layers
    target = (1.0,) * layers[-1] if target is None else target
    if len(target) != layers[-1]:
        raise CommandError(
            f"--target: expected {layers[-1]} numbers, as --layers has outputs; got {len(target)}"
        )
    if options.loss == "bce" and not all(0 <= number <= 1 for number in target):
        raise CommandError(f"--target: expected numbers from 0 to 1 for bce; got {max(target):g}")
    return list(inputs), list(target), layers


def _make_model(options: ExplainOptions, layers: tuple[int, ...]) -> nn.Module:
    """Return the network, in float64."""
    parts: list[nn.Module] = []
    for width, following in itertools.pairwise(layers):
        parts += [_HIDDEN[options.hidden]()] if parts else []
        parts.append(nn.Linear(width, following, dtype=np.float64))
    parts += [nn.Sigmoid()] if options.output == "sigmoid" else []
    model = nn.Sequential(*parts, rng=options.seed or 0)
    names = {
        f"{letter}{number}": f"{2 * (number - 1)}.{name}"
        for number in range(1, len(layers))
        for letter, name in (("W", "weight"), ("b", "bias"))
    }
    values = _weights(options, layers)
    if values is not None:
        expected = {key: model.state_dict()[name].shape for key, name in names.items()}
        arrays = {key: _as_array(key, values, shape) for key, shape in expected.items()}
        if extra := sorted(values.keys() - names.keys()):
            raise CommandError(
                f"--weights: expected {', '.join(names)} as --layers has them; got {extra[0]} too"
            )
        model.load_state_dict({name: arrays[key] for key, name in names.items()})
    return model


def _weights(options: ExplainOptions, layers: tuple[int, ...]) -> dict[str, Any] | None:
    """Return weights by name; None where they are drawn."""
    if options.weights is None:
        if options.seed is not None or layers not in ((2, 2, 1), (2, 2, 2)):
            return None
        weight, bias = (part[: layers[-1]] for part in _OUTPUT_WEIGHTS)
        return {**_WEIGHTS, "W2": weight, "b2": bias}
    try:
        values = json.loads(Path(options.weights).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CommandError(f"--weights {options.weights}: cannot be read ({reason})") from error
    if isinstance(values, dict) and isinstance(values.get("parameters"), dict):
        values = values["parameters"]  # what --format json printed
    if not isinstance(values, dict):
        raise CommandError(
            f"--weights {options.weights}: expected an object of W1, b1, W2, b2, ..."
        )
    return values


def _as_array(key: str, values: dict[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    try:
        array = np.array(values[key], dtype=np.float64)
        if array.shape == shape and np.isfinite(array).all():
            return array
        got = f"shape {array.shape}" if array.shape != shape else "a number that is not finite"
    except KeyError:
        got = "none"
    except (TypeError, ValueError):
        got = "something else"
    raise CommandError(f"--weights: expected {key} as nested lists of shape {shape}; got {got}")


def _make_optimizer(options: ExplainOptions, model: nn.Module) -> optim.Optimizer:
    if options.optimizer == "adam":
        return optim.Adam(model.parameters(), lr=options.lr)
    momentum = 0.9 if options.optimizer == "momentum" else 0.0
    return optim.SGD(model.parameters(), lr=options.lr, momentum=momentum)


def _printed(told: list[Explanation], options: ExplainOptions) -> str:
    """Return the explanations, those of several steps below each other."""
    if options.format == "json":
        parts = [one.as_dict() for one in told]
        return json.dumps(parts[0] if len(parts) == 1 else parts, indent=2, allow_nan=False) + "\n"
    if options.format == "html":
        try:
            return page(told, options.lang)
        except ImportError as error:
            raise CommandError(str(error), FAILED) from error
    write = {
        "text": Explanation.to_text,
        "markdown": Explanation.to_markdown,
        "latex": Explanation.to_latex,
    }[options.format]
    texts = [write(one, options.lang) for one in told]
    if len(texts) == 1:
        return texts[0] + "\n"
    word = "Step" if options.lang == "en" else "步骤"
    mark = {"text": "=== {} ===", "markdown": "# {}", "latex": r"\part*{{{}}}"}[options.format]
    return (
        "\n\n".join(
            f"{mark.format(f'{word} {number}')}\n\n{text}"
            for number, text in enumerate(texts, start=1)
        )
        + "\n"
    )
