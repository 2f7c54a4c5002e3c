"""The forward ops of a network that ran, each with its backward."""

from dataclasses import dataclass
from typing import Any

from xbackprop.backend.array_module import is_array
from xbackprop.dispatch import Op, OpCall
from xbackprop.module import Module
from xbackprop.module.frame import current_frame


@dataclass(eq=False)
class Pass:
    """A forward op, and the backward that had what it saved."""

    op: Op
    module: Module
    args: tuple[Any, ...]
    output: Any
    saved: tuple[Any, ...]
    backward: OpCall | None = None

    @property
    def grad_output(self) -> Any:
        """The derivative of the loss by the output; None where none came back."""
        grad = None if self.backward is None else self.backward.args[0]
        return grad if is_array(grad) else None


class Watcher:
    """Keeps the outermost forward ops in their order, each with its backward."""

    def __init__(self, model: Module) -> None:
        self.model = model
        self.passes: list[Pass] = []

    def before(self, call: OpCall) -> None:
        """Wait for the result."""

    def after(self, call: OpCall, result: Any) -> None:
        """Keep a forward op, or find the forward of a backward op."""
        stem, _, kind = call.op.name.rpartition("_")
        if call.depth or kind not in ("forward", "backward"):
            return
        stack = current_frame().stack
        module = stack[-1] if stack else self.model
        if kind == "forward":
            output, saved = result
            output = output[0] if isinstance(output, tuple) else output  # with statistics beside it
            self.passes.append(Pass(call.op, module, call.args, output, saved))
            return
        candidates = [
            one
            for one in reversed(self.passes)
            if one.backward is None and one.module is module and one.op.name == f"{stem}_forward"
        ]
        # A layer that is used several times is told apart by what it saved.
        known = [one for one in candidates if _is_given(one.saved, call.args[1:])]
        for one in (known or candidates)[:1]:
            one.backward = call


def _is_given(saved: tuple[Any, ...], args: tuple[Any, ...]) -> bool:
    return all(mine is theirs for mine, theirs in zip(saved, args, strict=False) if is_array(mine))
