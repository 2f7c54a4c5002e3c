"""The optimizer's cache: parameters of one group, device and dtype side by side in one array."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device
from xbackprop.backend.transfer import to_device
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
        Of one device and dtype.
    state_names : sequence of str
        The optimizer's per-element state.
    state : dict
        Earlier state of parameters, carried over.

    Attributes
    ----------
    steps : list
        Updates of each parameter: ints on the CPU, int64 device scalars elsewhere. While all
        parameters are always updated together the entries are one and the same object.
    counts : list of int
        Updates asked for, known on the host.
    moves_together : bool
        All parameters have had the same updates.
    array_bytes : int
        Memory that one more array of the group's size takes.
    scalar_bytes : int
        Memory for the scalars that one step makes on a device: those of the group, and first each
        parameter's square norm, then its count of steps.
    """

    def __init__(
        self,
        group: dict[str, Any],
        parameters: Sequence[Parameter],
        state_names: Sequence[str],
        state: dict[Parameter, State],
    ) -> None:
        self.group = group
        self.parameters = list(parameters)
        self.device: Device = parameters[0].device
        self.scalars: dict[str, tuple[float, Array]] = {}
        size = sum(parameter.size for parameter in parameters)
        dtype = parameters[0].dtype
        xp = self.device.xp
        self.scalar_bytes = _BLOCK_BYTES * (24 + len(parameters))
        self.array_bytes = -(-size * dtype.itemsize // _BLOCK_BYTES) * _BLOCK_BYTES
        with self.device.activate():
            self.data: Array = xp.empty(size, dtype=dtype)
            self.grad: Array = xp.zeros(size, dtype=dtype)
            self.state: dict[str, Array] = {
                name: xp.zeros(size, dtype=dtype) for name in state_names
            }
            self.counts = [state.get(p, {}).get("count", 0) for p in self.parameters]
            self.steps = self._collect_steps(state)
            self.moves_together = all(step is self.steps[0] for step in self.steps)
            self._fill(state)
            self._bind()  # last: by now no memory can run out

    def _fill(self, state: dict[Parameter, State]) -> None:
        """Move values, gradients and state into the flat arrays."""
        self.bindings: list[tuple[Parameter, Array, Array]] = []
        self.views: list[dict[str, Array]] = []
        offset = 0
        for parameter in self.parameters:
            part = slice(offset, offset + parameter.size)
            offset += parameter.size
            data = self.data[part].reshape(parameter.shape)
            grad = self.grad[part].reshape(parameter.shape)
            data[...] = parameter.data
            if parameter.has_grad:
                grad[...] = parameter.grad
            views = {
                name: array[part].reshape(parameter.shape) for name, array in self.state.items()
            }
            for name, view in views.items():
                earlier = state.get(parameter, {}).get(name)
                if earlier is not None:
                    moved = to_device(np.asarray(earlier) if np.isscalar(earlier) else earlier,
                                      self.device)  # fmt: skip
                    view[...] = moved.astype(view.dtype) if moved.dtype != view.dtype else moved
            self.bindings.append((parameter, data, grad))
            self.views.append(views)

    def _bind(self) -> None:
        """Make the parameters live in the flat arrays."""
        for parameter, data, grad in self.bindings:
            parameter.rebind(data, grad)

    def _collect_steps(self, state: dict[Parameter, State]) -> list[Any]:
        earlier = [state.get(parameter, {}).get("step", 0) for parameter in self.parameters]
        together = len(set(self.counts)) == 1 and (
            all(step is earlier[0] for step in earlier)
            or all(isinstance(step, int) and step == earlier[0] for step in earlier)
        )
        if together:
            return [self._place_step(earlier[0])] * len(earlier)
        return [self._place_step(step) for step in earlier]

    def _place_step(self, step: Any) -> Any:
        if self.device.kind == "cpu":
            return int(step)
        if isinstance(step, int):
            return self.device.xp.full((), step, dtype=np.int64)
        return to_device(step, self.device)

    def is_current(self) -> bool:
        """Tell whether every parameter still lives in this cache."""
        for parameter, data, grad in self.bindings:
            if (
                parameter._data is not data
                or parameter._grad is not grad
                or not parameter.requires_grad
            ):
                return False
        return True

    def scalar(self, name: str, value: float) -> Any:
        """Return a hyperparameter as what updates compute with: on a device, a float64 scalar.

        A changed value is written into the same device scalar, so a captured graph of kernels
        sees it; as a kernel's argument it needs no transfer.
        """
        if self.device.kind == "cpu":
            return float(value)
        known = self.scalars.get(name)
        if known is None:
            known = (value, self.device.xp.full((), value, dtype=np.float64))
        elif known[0] != value:
            known[1].fill(value)
            known = (value, known[1])
        self.scalars[name] = known
        return known[1]

    def advance_together(self, finite: Any) -> None:
        """Count one update of all parameters."""
        number = len(self.steps)
        self.steps = [self.steps[0] + _one(finite)] * number
        self.counts = [self.counts[0] + 1] * number

    def advance(self, index: int, finite: Any) -> None:
        """Count one update of one parameter."""
        self.moves_together = False
        self.steps[index] = self.steps[index] + _one(finite)
        self.counts[index] += 1

    def export_state(self) -> dict[Parameter, State]:
        """Return each parameter's state: views by name, the step, and the host's count."""
        return {
            parameter: {**views, "step": step, "count": count}
            for parameter, views, step, count in zip(
                self.parameters, self.views, self.steps, self.counts, strict=True
            )
        }


def _one(finite: Any) -> Any:
    """Count a step as 1, and on the device as 0 when it was skipped."""
    return 1 if finite is None else finite.astype(np.int64)
