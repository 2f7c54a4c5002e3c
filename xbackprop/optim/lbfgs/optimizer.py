"""L-BFGS: steps along an inverse Hessian that is guessed from the last gradients."""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device, device_of
from xbackprop.module import Parameter
from xbackprop.optim.lbfgs.direction import two_loops
from xbackprop.optim.lbfgs.line_search import Point, strong_wolfe
from xbackprop.optim.lbfgs.reading import largest_of, read
from xbackprop.optim.lbfgs.state import check_memory, moved, on_host
from xbackprop.optim.optimizer import Optimizer, ParameterSource
from xbackprop.optim.state_dict import Groups, State, check_groups

Closure = Callable[[], Any]


class LBFGS(Optimizer):
    """L-BFGS, ``w += t d`` with ``d = -H g`` and ``H`` from the last gradients.

    Parameters
    ----------
    params : iterable of Parameter, or one dict
        What to optimize: one group, on one device and of one dtype.
    lr : float, default 1
        Step length ``t``; with a line search the one that is tried first.
    max_iter : int, default 20
        Most iterations of a step.
    max_eval : int, optional
        Most calls of the closure in a step; None is ``max_iter * 5 // 4``.
    tolerance_grad : float, default 1e-7
        Stop when no element of the gradient is larger.
    tolerance_change : float, default 1e-9
        Stop when neither the loss nor any weight changes by more.
    history_size : int, default 100
        How many pairs of changes (of weights and of the gradient) are kept.
    line_search_fn : {None, "strong_wolfe"}
        How the step length is found.

    Raises
    ------
    ValueError
        For options out of range and for a second group.

    Notes
    -----
    ``H g`` by the two-loop recursion over pairs ``s = t d``, ``y = g - g_before`` with
    ``s y > 1e-10``, from ``H_0 = (s y) / (y y)``. The first direction is ``-g``, of length
    ``min(1, 1 / sum |g|) lr``.

    How it goes on is decided on the host. So a step downloads, and waits for, on a device: the loss
    and the largest element of the gradient at first; then in each iteration the two products of the
    newest pair, the slope, and what came of it (loss, largest elements of gradient and step). With
    a line search, one more for the direction's largest element, and the loss and slope at each
    point tried: one download each time.

    It needs a closure, so :class:`xbackprop.Trainer` cannot use it. With ``skip_nonfinite``, a step
    that starts or ends at a loss or gradient that is not finite is taken back; so is one that an
    error breaks off, in the closure or for want of memory.

    References
    ----------
    Nocedal and Wright, "Numerical optimization", 2006, algorithms 7.4 and 7.5.

    Examples
    --------
    >>> import xbackprop as xb
    >>> model = xb.nn.Linear(2, 1, rng=0)
    >>> x, y = xb.asarray([[1.0, 2.0], [3.0, 4.0], [0.0, 1.0]]), xb.asarray([[1.0], [2.0], [0.5]])
    >>> optimizer = xb.optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe")
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss, _ = xb.value_and_grad(model, xb.nn.MSELoss())(x, y)
    ...     return loss
    >>> first = optimizer.step(closure)
    >>> bool(closure() < 1e-6)
    True
    """

    def __init__(
        self,
        params: ParameterSource,
        lr: float = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
        }
        self._memory: dict[str, Any] = {}
        super().__init__(params, defaults)

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Take the one group; refuse a second."""
        if self.param_groups:
            raise ValueError("LBFGS expects one group of parameters; got a second")
        super().add_param_group(param_group)

    def check_options(self, group: dict[str, Any]) -> None:
        """Refuse hyperparameters out of range."""
        super().check_options(group)
        if group["line_search_fn"] not in (None, "strong_wolfe"):
            raise ValueError(
                "LBFGS expects line_search_fn None or 'strong_wolfe'; got "
                f"{group['line_search_fn']!r}"
            )

    # --- the step -------------------------------------------------------------------------

    def step(
        self,
        closure: Closure | None = None,
        *,
        loss: Array | None = None,
        may_overflow: Any = False,
    ) -> Any:
        """Go up to ``max_iter`` iterations.

        Parameters
        ----------
        closure : callable
            Computes the loss and the gradients anew, and returns the loss.
        loss : array, optional
            Not used: the closure gives it.
        may_overflow : bool, default False
            Only False: its searches compare losses and gradients of one scale.

        Returns
        -------
        object
            What the closure returned first.

        Raises
        ------
        TypeError
            Without a closure.
        NotImplementedError
            With ``may_overflow``: from :class:`xbackprop.GradScaler`.
        MemoryError
            Among other errors; nothing was changed or counted then.
        """
        if closure is None:
            raise TypeError("LBFGS.step expects a closure that computes the loss and the gradients")
        if may_overflow is not False:
            raise NotImplementedError("LBFGS: loss scaling for float16. Take bfloat16.")
        self.calls += 1
        if self.skip_nonfinite and self.stop_at_nonfinite and self._bad_call >= 0:
            self.last_finite = False
            return closure()
        place, dtype = self._place()
        with place.activate(), np.errstate(all="ignore"):
            self._move_memory(place, dtype)
            before, memory = self._gather_values(), copy.copy(self._memory)
            try:
                result, is_finite = self._minimize(closure)
            except BaseException:
                self._take_back(before, memory)
                self.calls -= 1
                raise
            is_skipped = self.skip_nonfinite and not is_finite
            if is_skipped:
                self._take_back(before, memory)
                self._bad_call = self.calls if self._bad_call < 0 else self._bad_call
                self._skipped += 1
            self.last_finite = False if is_skipped else None
        return result

    def _take_back(self, values: Array, memory: dict[str, Any]) -> None:
        self._scatter(values)
        self._memory = memory

    def _minimize(self, closure: Closure) -> tuple[Any, bool]:
        """Return what the closure returned first, and whether all is finite at the end."""
        group, memory = self.param_groups[0], self._memory
        result = closure()
        grad = self._gather_grad()
        loss, largest = read(result, largest_of(grad))
        memory["func_evals"] = memory.get("func_evals", 0) + 1
        memory.setdefault("n_iter", 0)
        evaluations, change = 1, 0.0
        is_bad = self.skip_nonfinite and not math.isfinite(loss + largest)
        if is_bad or largest <= group["tolerance_grad"]:
            return result, not is_bad
        for iteration in range(1, group["max_iter"] + 1):
            direction = self._next_direction(grad)
            memory |= {"d": direction, "prev_flat_grad": grad, "prev_loss": loss}
            (slope,) = read(grad.dot(direction))
            if slope > -group["tolerance_change"]:
                break
            start, is_last = Point(0.0, loss, grad, slope), iteration == group["max_iter"]
            point, calls = self._go(
                closure, start, group["max_eval"] - evaluations, is_last=is_last
            )
            memory["t"], loss, grad = point.t, point.loss, point.grad
            memory["func_evals"] += calls
            evaluations += calls
            largest, change = read(largest_of(grad), largest_of(direction * point.t))
            if (
                evaluations >= group["max_eval"]
                or largest <= group["tolerance_grad"]
                or change <= group["tolerance_change"]
                or abs(loss - start.loss) < group["tolerance_change"]
            ):
                break
        return result, math.isfinite(loss + largest + change)

    def _next_direction(self, grad: Array) -> Array:
        """Take the newest pair into the history and return ``-H g``."""
        memory, group = self._memory, self.param_groups[0]
        memory["n_iter"] += 1
        if memory["n_iter"] == 1:
            memory |= {"old_dirs": [], "old_stps": [], "ro": [], "H_diag": 1.0}
            (total,) = read(abs(grad).sum())
            memory["t"] = 1.0 / max(1.0, total) * group["lr"]
            return -grad
        change, step = grad - memory["prev_flat_grad"], memory["d"] * memory["t"]
        product, square = read(change.dot(step), change.dot(change))
        memory["t"] = group["lr"]
        if product > 1e-10:
            kept = group["history_size"] - 1
            for name, newest in (("old_dirs", change), ("old_stps", step), ("ro", 1.0 / product)):
                earlier = memory[name]
                memory[name] = [*earlier[max(len(earlier) - kept, 0) :], newest]
            memory["H_diag"] = product / square
        return two_loops(grad, *(memory[name] for name in ("old_dirs", "old_stps", "ro", "H_diag")))

    def _go(
        self, closure: Closure, start: Point, max_evaluations: int, *, is_last: bool
    ) -> tuple[Point, int]:
        """Move along the direction; return where that led, and how often the closure was called."""
        direction, t = self._memory["d"], self._memory["t"]
        values = self._gather_values()

        def evaluate(length: float) -> Point:
            self._scatter(values + direction * length)
            loss = closure()
            grad = self._gather_grad()
            loss, slope = read(loss, grad.dot(direction))
            return Point(length, loss, grad, slope)

        if self.param_groups[0]["line_search_fn"] is None:
            if not is_last:
                return evaluate(t), 1
            self._scatter(values + direction * t)  # and nobody asks for what is there
            return start._replace(t=t), 0
        (largest,) = read(largest_of(direction))
        point, calls = strong_wolfe(evaluate, start, t, largest, max_evaluations=max_evaluations)
        self._scatter(values + direction * point.t)
        return point, calls

    # --- parameters side by side ----------------------------------------------------------

    @property
    def _parameters(self) -> list[Parameter]:
        parameters: list[Parameter] = self.param_groups[0]["params"]
        return parameters

    def _place(self) -> tuple[Device, np.dtype]:
        places = {(parameter.device, parameter.dtype) for parameter in self._parameters}
        if len(places) > 1:
            names = sorted(f"{dtype} on {device}" for device, dtype in places)
            raise ValueError(
                f"LBFGS expects parameters of one dtype on one device; got {', '.join(names)}"
            )
        return places.pop()

    def _gather_values(self) -> Array:
        xp = device_of(self._parameters[0].data).xp
        return xp.concatenate([parameter.data.reshape(-1) for parameter in self._parameters])

    def _gather_grad(self) -> Array:
        xp = device_of(self._parameters[0].data).xp
        return xp.concatenate(
            [
                xp.zeros(parameter.size, dtype=parameter.dtype)
                if parameter.grad is None or not parameter.requires_grad
                else parameter.grad.reshape(-1)
                for parameter in self._parameters
            ]
        )

    def _scatter(self, values: Array) -> None:
        """Give the parameters their values; frozen ones keep theirs."""
        offset = 0
        for parameter in self._parameters:
            part = values[offset : offset + parameter.size]
            offset += parameter.size
            if parameter.requires_grad:
                parameter.data[...] = part.reshape(parameter.shape)
                parameter.mark_changed()

    # --- what is remembered ---------------------------------------------------------------

    def _move_memory(self, place: Device, dtype: np.dtype) -> None:
        """Bring the history to where the parameters are by now."""
        self._memory = {
            name: [moved(part, place, dtype) for part in value]
            if isinstance(value, list)
            else moved(value, place, dtype)
            for name, value in self._memory.items()
        }

    @property
    def state(self) -> dict[Parameter, dict[str, Any]]:
        """What the first parameter holds for all, as in PyTorch."""
        return {self._parameters[0]: dict(self._memory)} if self._memory else {}

    def state_dict(self) -> dict[str, Any]:
        """Return state and options in PyTorch's layout, arrays on the host.

        Returns
        -------
        dict
            ``state[0]`` holds everything, ``old_dirs``, ``old_stps`` and ``ro`` as lists.
        """
        group = {**self.param_groups[0], "params": list(range(len(self._parameters)))}
        state = {0: on_host(self._memory)} if self._memory else {}
        return {"state": state, "param_groups": [group]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned, here or in PyTorch.

        Parameters
        ----------
        state_dict : mapping
            Of parameters with as many elements.

        Raises
        ------
        ValueError
            When group or history do not fit; nothing was changed then.
        """
        (options,), state = self.check_state_dict(state_dict)
        self._memory = state[self._parameters[0]]
        self.param_groups[0] |= options

    def check_state_dict(self, state_dict: Mapping[str, Any]) -> tuple[Groups, State]:
        """Return a loaded state ready for use, or raise what :meth:`load_state_dict` raises."""
        options = check_groups(self, state_dict["param_groups"])
        size = sum(parameter.size for parameter in self._parameters)
        return options, {self._parameters[0]: check_memory(state_dict["state"], size)}

    def _pack(self) -> None:
        """Leave the parameters where they are: a step gathers them itself."""

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_memory": on_host(self._memory)}
