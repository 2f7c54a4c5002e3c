"""What really ran: the outermost ops of one training step, with their arguments and results."""

import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np

from xbackprop.backend.array_module import is_array
from xbackprop.backend.transfer import to_host
from xbackprop.dispatch import Op, OpCall
from xbackprop.module.frame import layer_path


@dataclass(frozen=True, eq=False)
class Ran:
    """One call of an op.

    Attributes
    ----------
    op : Op
        What was called.
    arguments : dict
        By the names of its parameters; of an update, copies on the host from before it.
    result : object
        What it returned; of an update, what it has written.
    path : str
        The layer that called it.
    """

    op: Op
    arguments: dict[str, Any]
    result: Any
    path: str


class Recorder:
    """Keeps the outermost op calls in their order.

    Attributes
    ----------
    calls : list of Ran
        So far.
    """

    def __init__(self) -> None:
        self.calls: list[Ran] = []
        self._before: dict[str, Any] = {}

    def before(self, call: OpCall) -> None:
        """Copy what an update is going to write into."""
        if call.depth == 0 and is_update(call.op):
            self._before = {name: _copy(value) for name, value in _named(call).items()}

    def after(self, call: OpCall, result: Any) -> None:
        """Keep a call."""
        if call.depth:
            return
        arguments = _named(call)
        if is_update(call.op):
            arguments, result = self._before, _copy(call.args[0])
        self.calls.append(Ran(call.op, arguments, result, layer_path()))


def is_update(op: Op) -> bool:
    """Tell whether an op is the update of an optimizer, which writes in place."""
    return op.name.endswith("_update")


def direction_of(op: Op, before: str) -> str:
    """Return `forward`, `backward` or `update`; a helper belongs to what ran ``before`` it."""
    if is_update(op):
        return "update"
    if op.name.endswith("_backward"):
        return "backward"
    if op.name.endswith("_forward") or before in ("", "update"):
        return "forward"
    return before  # a helper, such as random bits


def _named(call: OpCall) -> dict[str, Any]:
    bound = inspect.signature(call.op.reference).bind(*call.args, **call.options)
    bound.apply_defaults()
    return dict(bound.arguments)


def _copy(value: Any) -> Any:
    return np.array(to_host(value)) if is_array(value) else value
