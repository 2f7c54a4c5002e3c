"""What stands where in a checkpoint: the header's entries, and the tensors that belong to each.

The model's ``state_dict`` stands under PyTorch's own keys; ``extra:<key>`` holds random counters,
``optimizer:<number>:<name>`` an optimizer's arrays, ``training:<key>`` those of a training run.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xbackprop import nn
from xbackprop.optim import Optimizer
from xbackprop.training.container import Container

EXTRA, OPTIMIZER, TRAINING = "extra:", "optimizer:", "training:"
_PREFIXES = (EXTRA, OPTIMIZER, TRAINING)

# A run's own arrays have no architecture to be compared with: the order of the samples, gradients
# in accumulation, the best weights. They may take this much, and this many times the model.
_FREE_BYTES, _MOST_MODELS = 256 * 2**20, 4


@dataclass(frozen=True)
class Sections:
    """The checked parts of a file; tensors are still to be read.

    Parameters
    ----------
    file : Container
        The open file.
    architecture : dict
        For ``from_config``.
    frozen : list of str
        Paths of parameters.
    counters : dict
        Plain data.
    training : dict or None
        Plain data of a training run.
    optimizer : dict or None
        The header's entry.
    keys : dict of str to list of str
        The tensors of each part, by its prefix; the model's stand under "".
    """

    file: Container
    architecture: dict[str, Any]
    frozen: list[str]
    counters: dict[str, Any]
    training: dict[str, Any] | None
    optimizer: dict[str, Any] | None
    keys: dict[str, list[str]]

    def read(self, prefix: str) -> dict[str, np.ndarray]:
        """Read the tensors of one part, under their keys without the prefix."""
        return {key.removeprefix(prefix): self.file.read(key) for key in self.keys[prefix]}

    def read_optimizer(self) -> dict[str, Any] | None:
        """Read what ``Optimizer.load_state_dict`` takes."""
        if self.optimizer is None:
            return None
        state: dict[int, dict[str, Any]] = {
            int(number): dict(entry) for number, entry in self.optimizer["state"].items()
        }
        for key, array in self.read(OPTIMIZER).items():
            number, _, name = key.partition(":")
            state.setdefault(int(number), {})[name] = array
        return {"state": state, "param_groups": self.optimizer["param_groups"]}


def refuse_clashes(keys: list[str]) -> None:
    """Refuse a model whose own keys would be taken for another part's."""
    clashing = [key for key in keys if key.startswith(_PREFIXES)]
    if clashing:
        raise ValueError(f"save: rename the layer of {clashing[0]!r}; files use that beginning")


def check_training_size(model: Iterable[int], arrays: Iterable[int]) -> None:
    """Refuse a run's arrays that are out of proportion to its model; sizes in bytes."""
    taken, most = sum(arrays), _FREE_BYTES + _MOST_MODELS * sum(model)
    if taken > most:
        raise ValueError(f"arrays of the training run take {taken} bytes; at most {most} are read")


def split_optimizer(
    optimizer: Optimizer, model: nn.Module
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return an optimizer's plain data and its arrays."""
    state = optimizer.state_dict()
    plain: dict[str, dict[str, Any]] = {}
    tensors: dict[str, np.ndarray] = {}
    for number, entry in state["state"].items():
        for name, value in entry.items():
            if isinstance(value, np.ndarray):
                tensors[f"{OPTIMIZER}{number}:{name}"] = value
            else:
                plain.setdefault(str(number), {})[name] = value
    paths = {id(parameter): path for path, parameter in model.named_parameters()}
    return {
        "type": type(optimizer).__name__,
        "param_groups": state["param_groups"],
        # So that a reader can tell the shape each array must have.
        "parameters": [
            paths.get(id(p)) for group in optimizer.param_groups for p in group["params"]
        ],
        "state": plain,
    }, tensors


def read_sections(file: Container) -> Sections:
    """Check the header of a file and sort its tensors; CheckpointError when it is none of ours."""
    header = file.header
    keys: dict[str, list[str]] = {prefix: [] for prefix in ("", *_PREFIXES)}
    for key in file.table:
        keys[next((p for p in _PREFIXES if key.startswith(p)), "")].append(key)
    try:
        sections = Sections(
            file,
            _expect(header, "architecture", dict),
            _expect(header, "frozen", list),
            _expect(header, "counters", dict),
            _expect(header, "training", dict, None),
            _expect(header, "optimizer", dict, None),
            keys,
        )
        _check_optimizer(sections)
        if keys[TRAINING] and sections.training is None:
            raise ValueError(f"unexpected: {', '.join(keys[TRAINING])}")
        model, arrays = ([file.table[k].nbytes for k in keys[prefix]] for prefix in ("", TRAINING))
        check_training_size(model, arrays)
    except ValueError as error:
        raise file.refusal(f"does not describe a model: {error}") from error
    return sections


def _expect(entries: dict[str, Any], name: str, kind: type, *default: Any) -> Any:
    value = entries.get(name, *default)
    if isinstance(value, kind) or (default and value == default[0]):
        return value
    raise ValueError(f"{name} expects a {kind.__name__}; got {type(value).__name__}")


def _check_optimizer(sections: Sections) -> None:
    """Check numbers and shapes of everything that an optimizer left."""
    entry, arrays = sections.optimizer, sections.keys[OPTIMIZER]
    if entry is None:
        if arrays:
            raise ValueError(f"unexpected: {', '.join(arrays)}")
        return
    _expect(entry, "type", str)
    count = _count_parameters(_expect(entry, "param_groups", list))
    for number, values in _expect(entry, "state", dict).items():
        if _number(number, count) is None or not isinstance(values, dict):
            raise ValueError(f"optimizer state of a parameter {number!r}; there are {count}")
    table = sections.file.table
    paths = _expect(entry, "parameters", list, None)
    if paths is not None and len(paths) != count:
        raise ValueError(f"an optimizer of {count} parameters names {len(paths)}")
    for path in paths or ():
        if path is not None and not (isinstance(path, str) and path in table):
            raise ValueError(f"an optimizer's parameter {path!r} has no values")
    # Format version 1 names no parameters; then any of the model's shapes will do.
    known = {table[key].shape for key in sections.keys[""]}
    for key in arrays:
        number = _number(key.removeprefix(OPTIMIZER).partition(":")[0], count)
        if number is None:
            raise ValueError(f"{key} is of no parameter; there are {count}")
        path = None if paths is None else paths[number]
        shapes = known if path is None else {table[path].shape}
        if table[key].shape not in {(), *shapes}:
            raise ValueError(f"{key} has shape {table[key].shape}, and its parameter another")


def _count_parameters(groups: list[Any]) -> int:
    """Return how many parameters the groups hold, each under one of the numbers from 0."""
    numbers: list[Any] = []
    for group in groups:
        if not isinstance(group, dict):
            raise ValueError(f"param_groups expects dicts; got {type(group).__name__}")
        numbers += _expect(group, "params", list)
    if not all(type(number) is int for number in numbers) or sorted(numbers) != list(
        range(len(numbers))
    ):
        raise ValueError("param_groups expects every parameter once, numbered from 0")
    return len(numbers)


def _number(text: str, count: int) -> int | None:
    is_number = text.isascii() and text.isdigit() and len(text) < 10 and str(int(text)) == text
    return int(text) if is_number and int(text) < count else None
