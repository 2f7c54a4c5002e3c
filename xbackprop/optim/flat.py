"""The optimizer's cache: parameters of one group, device and dtype side by side in one array."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device
from xbackprop.backend.transfer import to_device, to_host
from xbackprop.module import Parameter

State = dict[str, Any]

_BLOCK_BYTES = 512  # CuPy's memory pool rounds up to multiples of it


class FlatGroup:
    """Values, gradients and state of some parameters, each kind in one flat array.

    The parameters' own storage becomes a view of the flat arrays, so that an update is a few
    operations however many parameters there are. It is a cache: :meth:`is_current` tells when a
    parameter has got other storage since (``to``, unpickling, a second optimizer), and the
    optimizer then packs anew.

    Parameters
    ----------
    group : dict
        The options of the group.
    parameters : sequence of Parameter
        Of one device, dtype and compute dtype.
    shapes : sequence of dict
        Of each parameter, the shapes of its state's arrays by name.
    numbers : sequence of str
        State that is one float64 number per parameter.
    state : dict
        Earlier state of parameters, carried over.
    is_updated_at_once : bool, default True
        False where an update is given one parameter after the other.

    Attributes
    ----------
    half : array or None
        The values rounded to the compute dtype, in the order of ``data``: what layers read in half
        precision. None where layers read ``data``.
    state : dict
        Arrays of all parameters by name, and their numbers while all parameters move together. An
        update writes into the arrays and puts new numbers in the place of the old.
    views : list of dict
        The same of each parameter; its numbers once it moves apart.
    steps : list
        Updates of each parameter: ints on the CPU, int64 device scalars elsewhere. While all
        parameters are always updated together the entries are one and the same object.
    counts : list of int
        Updates asked for, known on the host.
    moves_together : bool
        All parameters have had the same updates.
    array_bytes : int
        Memory that one more array takes: of the group's size, or of its largest parameter's.
    scalar_bytes : int
        Memory for the scalars that one step makes on a device: those of the group, and first each
        parameter's square norm, then its count of steps and its numbers.
    """

    def __init__(
        self,
        group: dict[str, Any],
        parameters: Sequence[Parameter],
        shapes: Sequence[dict[str, tuple[int, ...]]],
        numbers: Sequence[str],
        state: dict[Parameter, State],
        *,
        is_updated_at_once: bool = True,
    ) -> None:
        self.group = group
        self.parameters = list(parameters)
        self.numbers = tuple(numbers)
        self.device: Device = parameters[0].device
        self.scalars: dict[str, tuple[float, Array]] = {}
        size = sum(parameter.size for parameter in parameters)
        dtype = parameters[0].dtype
        xp = self.device.xp
        self.scalar_bytes = _BLOCK_BYTES * (24 + (1 + len(self.numbers)) * len(parameters))
        at_once = size if is_updated_at_once else max(parameter.size for parameter in parameters)
        self.array_bytes = -(-at_once * dtype.itemsize // _BLOCK_BYTES) * _BLOCK_BYTES
        with self.device.activate():
            self.data: Array = xp.empty(size, dtype=dtype)
            self.grad: Array = xp.zeros(size, dtype=dtype)
            self.half: Array | None = None
            if parameters[0].compute_dtype is not None:
                self.half = xp.empty(size, dtype=parameters[0].compute_dtype)
            self.state: dict[str, Any] = {
                name: xp.zeros(number, dtype=dtype) for name, number in _sizes(shapes).items()
            }
            self.counts = [state.get(p, {}).get("count", 0) for p in self.parameters]
            self.steps = self._collect_steps(state)
            self.moves_together = all(step is self.steps[0] for step in self.steps)
            self._fill(shapes, state)
            self._bind_numbers(state)
            self._bind()  # last: by now no memory can run out

    def _fill(
        self, shapes: Sequence[dict[str, tuple[int, ...]]], state: dict[Parameter, State]
    ) -> None:
        """Move values, gradients and state into the flat arrays."""
        self.bindings: list[tuple[Parameter, Array, Array]] = []
        self.halves: list[Array | None] = []
        self._half_by_view: dict[int, Array | None] = {}  # of the views in the bindings, by id
        self.views: list[dict[str, Array]] = []
        offset = 0
        offsets = dict.fromkeys(self.state, 0)
        for parameter, shapes_of_state in zip(self.parameters, shapes, strict=True):
            part = slice(offset, offset + parameter.size)
            offset += parameter.size
            data = self.data[part].reshape(parameter.shape)
            grad = self.grad[part].reshape(parameter.shape)
            data[...] = parameter.data
            if parameter.has_grad:
                grad[...] = parameter.grad
            views = {}
            for name, shape in shapes_of_state.items():
                start, offsets[name] = offsets[name], offsets[name] + math.prod(shape)
                views[name] = self.state[name][start : offsets[name]].reshape(shape)
            for name, view in views.items():
                earlier = state.get(parameter, {}).get(name)
                if earlier is not None:
                    moved = to_device(np.asarray(earlier) if np.isscalar(earlier) else earlier,
                                      self.device)  # fmt: skip
                    view[...] = moved.astype(view.dtype) if moved.dtype != view.dtype else moved
            self.bindings.append((parameter, data, grad))
            self.halves.append(self._round(parameter, part))
            self._half_by_view[id(data)] = self.halves[-1]
            self.views.append(views)

    def _round(self, parameter: Parameter, part: slice) -> Array | None:
        """Fill a parameter's part of the half copy, and return its view."""
        if self.half is None:
            return None
        half = self.half[part].reshape(parameter.shape)
        half[...] = parameter.data
        return half

    def _bind(self) -> None:
        """Make the parameters live in the flat arrays."""
        for (parameter, data, grad), half in zip(self.bindings, self.halves, strict=True):
            parameter.rebind(data, grad, half)

    def half_of(self, data: Array) -> Array | None:
        """Return the half copy that belongs to what an update is given: all, or one parameter's."""
        if self.half is None or data is self.data:
            return self.half
        return self._half_by_view[id(data)]

    def _collect_steps(self, state: dict[Parameter, State]) -> list[Any]:
        earlier = [state.get(parameter, {}).get("step", 0) for parameter in self.parameters]
        if len(set(self.counts)) == 1 and _are_equal(earlier):
            return [self._place_step(earlier[0])] * len(earlier)
        return [self._place_step(step) for step in earlier]

    def _place_step(self, step: Any) -> Any:
        if self.device.kind == "cpu":
            return int(step)
        if isinstance(step, int):
            return self.device.xp.full((), step, dtype=np.int64)
        return to_device(step, self.device).copy()  # written in place, so nobody else may have it

    def _bind_numbers(self, state: dict[Parameter, State]) -> None:
        """Give each parameter its numbers: one and the same object where all have the same."""
        for name in self.numbers:
            earlier = [state.get(parameter, {}).get(name, 0.0) for parameter in self.parameters]
            if self.moves_together and _are_equal(earlier):
                placed = [self._place_number(earlier[0])] * len(earlier)
            else:
                placed = [self._place_number(number) for number in earlier]
                self.moves_together = False
            self.state[name] = placed[0]
            for views, number in zip(self.views, placed, strict=True):
                views[name] = number

    def _place_number(self, number: Any) -> Any:
        if self.device.kind == "cpu":
            return float(to_host(number))
        if isinstance(number, float):
            return self.device.xp.full((), number, dtype=np.float64)
        return to_device(number, self.device).copy()

    def is_current(self) -> bool:
        """Tell whether every parameter still lives in this cache."""
        for i, (parameter, data, grad) in enumerate(self.bindings):
            if (
                parameter._data is not data
                or parameter._grad is not grad
                or not parameter.requires_grad
                or (parameter.compute_dtype is not None and parameter.value is not self.halves[i])
                or (parameter.compute_dtype is None and self.half is not None)
            ):
                return False
        return True

    def scalar(self, name: str, value: float, dtype: Any = np.float64) -> Any:
        """Return a hyperparameter as what updates compute with: on a device, a scalar.

        A changed value is written into the same device scalar, so a captured graph of kernels
        sees it; as a kernel's argument it needs no transfer.
        """
        if self.device.kind == "cpu":
            return float(value)
        known = self.scalars.get(name)
        if known is None:
            known = (value, self.device.xp.full((), value, dtype=dtype))
        elif known[0] != value:
            known[1].fill(value)
            known = (value, known[1])
        self.scalars[name] = known
        return known[1]

    def advance_together(self, finite: Any) -> None:
        """Count one update of all parameters; on a device in the scalar that is there."""
        number = len(self.steps)
        step = self.steps[0]
        step += _one(finite)
        self.steps = [step] * number
        self.counts = [self.counts[0] + 1] * number

    def advance(self, index: int, finite: Any) -> None:
        """Count one update of one parameter."""
        if self.moves_together:
            self._part()
        self.steps[index] += _one(finite)
        self.counts[index] += 1

    def _part(self) -> None:
        """Give each parameter a count and numbers of its own."""
        self._share_numbers()
        if self.device.kind != "cpu":
            self.steps = [step.copy() for step in self.steps]
            for views in self.views:
                views |= {name: views[name].copy() for name in self.numbers}
        self.moves_together = False

    def device_numbers(self, state: dict[str, Any]) -> dict[str, Array]:
        """Return the numbers in ``state`` that live on a device."""
        if self.device.kind == "cpu":
            return {}
        return {name: state[name] for name in self.numbers}

    def keep_numbers(self, state: dict[str, Any], numbers: dict[str, Array]) -> None:
        """Move what an update put in the place of numbers into the scalars that were there.

        Whatever a step changes keeps its address, so that a recorded step can be replayed.
        """
        for name, kept in numbers.items():
            kept[...] = state[name]
            state[name] = kept

    def _share_numbers(self) -> None:
        for views in self.views:
            views |= {name: self.state[name] for name in self.numbers}

    def export_state(self) -> dict[Parameter, State]:
        """Return each parameter's state: views and numbers, the step, and the host's count."""
        if self.moves_together:
            self._share_numbers()
        return {
            parameter: {**views, "step": step, "count": count}
            for parameter, views, step, count in zip(
                self.parameters, self.views, self.steps, self.counts, strict=True
            )
        }


def _sizes(shapes: Sequence[dict[str, tuple[int, ...]]]) -> dict[str, int]:
    """Return how many elements the arrays of each name have together."""
    sizes: dict[str, int] = {}
    for shapes_of_state in shapes:
        for name, shape in shapes_of_state.items():
            sizes[name] = sizes.get(name, 0) + math.prod(shape)
    return sizes


def _are_equal(values: Sequence[Any]) -> bool:
    """Tell whether all are one number, without asking a device for its value."""
    first = values[0]
    if isinstance(first, (int, float)):
        return all(isinstance(value, (int, float)) and value == first for value in values)
    return all(value is first for value in values)


def _one(finite: Any) -> Any:
    """Count a step as 1, and on the device as 0 when it was skipped."""
    return 1 if finite is None else finite.astype(np.int64)
