"""The first NaN or infinity of a training step: which op made it, where, and out of what."""

import contextlib
import functools
import operator
import weakref
from collections.abc import Iterator
from typing import Any

from xbackprop.dispatch import OpCall, observe
from xbackprop.module import Module, current_frame
from xbackprop.module.frame import layer_path
from xbackprop.observe.finiteness import (
    all_finite,
    floats,
    named_arguments,
    named_results,
    named_saved,
    no_nan,
    told_bad,
    told_range,
)
from xbackprop.observe.record import direction_of, is_update
from xbackprop.training import NonFiniteError


class AnomalyError(NonFiniteError):
    """The first NaN or infinity, as :func:`detect_anomaly` found it.

    Parameters
    ----------
    message : str
        One line.
    op : str
        The op that made it, or that it came into.
    layer : str
        Path of the layer that called the op; empty for an optimizer's update.
    direction : {"forward", "backward", "update"}
        Of the training step.
    step : int
        Of the training, from 1 on.
    origin : str or None
        What held the NaN or infinity before the op: a parameter, a buffer, a gradient or an
        argument; None when the op made it out of finite numbers.

    Attributes
    ----------
    op, layer, direction, step, origin
        As given.
    """

    def __init__(
        self, message: str, op: str, layer: str, direction: str, step: int, origin: str | None
    ) -> None:
        super().__init__(message)
        self.op, self.layer, self.direction = op, layer, direction
        self.step, self.origin = step, origin


@contextlib.contextmanager
def detect_anomaly(*, steps_done: int = 0) -> Iterator[None]:
    """Raise at the first NaN or infinity that an op makes or is given.

    Every op's result is looked at, forward, backward and update; its arguments, and what it saves,
    for NaN only (an infinite argument may be a mask). Outside of the block nothing costs anything;
    inside of it each op waits for the device once.

    Parameters
    ----------
    steps_done : int, default 0
        Updates before this block, to be counted on from.

    Raises
    ------
    AnomalyError
        Names op, layer, step and the ranges of what the op was given.

    Examples
    --------
    >>> import numpy as np
    >>> import xbackprop as xb
    >>> layer = xb.nn.Linear(2, 1, device="cpu", rng=0)
    >>> try:
    ...     with xb.observe.detect_anomaly():
    ...         layer(np.array([[1.0, np.nan]], np.float32))
    ... except xb.observe.AnomalyError as error:
    ...     print(error.op, error.direction, error.origin)
    linear_forward forward 'x', an input of Linear
    """
    with observe(_Detector(steps_done)):
        yield


class _Detector:
    """Looks at every call of an op."""

    def __init__(self, steps_done: int) -> None:
        self._step = steps_done + 1
        # By depth: the calls that have begun, and for each of their arguments whether it is good.
        self._begun: dict[int, tuple[OpCall, list[tuple[str, Any]]]] = {}
        self._suspect: AnomalyError | None = None  # of an op inside the one that runs
        self._direction = ""
        self._outermost: Any = None
        self._is_first = True  # op of this forward or backward
        self._models: list[weakref.ref[Module]] = []

    def before(self, call: OpCall) -> None:
        """Look at the arguments, which an update writes into; do not wait for the answer."""
        self._notice(call)
        is_good = all_finite if is_update(call.op) else no_nan
        arguments = floats(named_arguments(call))
        self._begun[call.depth] = call, [(name, is_good(value)) for name, value in arguments]

    def after(self, call: OpCall, result: Any) -> None:
        """Look at the result; wait for both answers at once."""
        _, given = self._begun[call.depth]
        made = [all_finite(value) for _, value in floats(named_results(call, result))]
        saved = [no_nan(value) for _, value in floats(named_saved(call, result))]
        good = [*(answer for _, answer in given), *made, *saved]
        if good and not bool(functools.reduce(operator.and_, good)):
            self._suspect = self._suspect or self._error(*self._first_given(call), result)
            if not call.depth:
                raise self._suspect
        del self._begun[call.depth]
        if not call.depth:  # what an op passes over inside of it is its own affair
            self._suspect = None

    def _first_given(self, call: OpCall) -> tuple[OpCall, str | None]:
        """Return the outermost op around this one that was given what is bad, and as what.

        The op itself and None where all that it was given is good.
        """
        for depth in sorted(self._begun):
            around, given = self._begun[depth]
            for name, answer in given if depth <= call.depth else ():
                if not bool(answer):
                    return around, name
        return call, None

    def _notice(self, call: OpCall) -> None:
        """Keep count of the steps, and of where a forward, a backward or an update begins."""
        if call.depth:
            return
        stack = current_frame().stack
        outermost = stack[0] if stack else None
        direction = direction_of(call.op, self._direction if stack else "")
        self._is_first = direction != self._direction or outermost is not self._outermost
        if self._direction == "update" and direction != "update":
            self._step += 1
        self._direction, self._outermost = direction, outermost
        if outermost is not None and all(known() is not outermost for known in self._models):
            self._models = [known for known in self._models if known() is not None]
            self._models.append(weakref.ref(outermost))

    def _error(self, call: OpCall, bad: str | None, result: Any) -> AnomalyError:
        stack, direction, op = current_frame().stack, self._direction, call.op.name
        layer = layer_path()
        where = f"{direction} of {layer} ({type(stack[-1]).__name__})" if stack else "update"
        arguments = named_arguments(call)
        origin = self._origin(call, bad)
        if bad is None:
            made = named_results(call, result) + named_saved(call, result)
            what = f"{op} made the first NaN or infinity: {told_bad(made)}"
        else:
            what = f"{op} was given the first NaN or infinity: {told_bad(arguments, bad)}"
        source = f". It comes from {origin}" if origin else ""
        ranges = "; ".join(told_range(name, value) for name, value in floats(arguments))
        message = f"step {self._step}, {where}: {what}{source}. Arguments: {ranges or 'no floats'}"
        return AnomalyError(message, op, layer, direction, self._step, origin)

    def _origin(self, call: OpCall, bad: str | None) -> str | None:
        """Return what held the NaN or infinity before the op; None when the op made it."""
        if is_update(call.op):
            return None if bad is None else self._origin_of_update(bad)
        bad = bad or next((n for n, v in floats(named_arguments(call)) if not all_finite(v)), None)
        if bad is None:
            return None
        stack = current_frame().stack
        if stack and (found := _bad_state(stack[-1])) is not None:
            return f"{found} of {layer_path()}"
        if self._is_first and stack:
            given = "an input" if self._direction == "forward" else "what was given to backward"
            return f"{bad!r}, {given} of {type(stack[0]).__name__}"
        return f"{bad!r}, which no op made: arithmetic between ops, or an array from elsewhere"

    def _origin_of_update(self, bad: str) -> str:
        models = [model for known in self._models if (model := known()) is not None]
        for model in models:
            for name, parameter in model.named_parameters():
                array = parameter.grad if bad == "grad" else parameter.data
                if bad in ("grad", "data") and array is not None and not all_finite(array):
                    what = "the gradient of parameter" if bad == "grad" else "parameter"
                    return f"{what} {name!r} of {type(model).__name__}"
        return f"the optimizer's {bad!r}"


def _bad_state(module: Module) -> str | None:
    """Return the parameter or buffer of a layer that holds a NaN or an infinity."""
    for name, parameter in module.named_parameters():
        if not all_finite(parameter.value):
            return f"parameter {name!r}"
    for persistent in (True, False):
        for name, array in module.own_buffers(persistent=persistent):
            if array.dtype.kind == "f" and not all_finite(array):
                return f"buffer {name!r}"
    return None
