"""The base of all optimizers: groups, the flat cache, the step, and the state dict."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device, device_of
from xbackprop.backend.heap import give_back_holes
from xbackprop.backend.transfer import to_device
from xbackprop.module import Parameter, UninitializedParameter, settle_parameters
from xbackprop.module.parameter import clock
from xbackprop.optim.flat import FlatGroup
from xbackprop.optim.norms import sums_of_squares
from xbackprop.optim.state_dict import (
    SCHEDULE_OPTIONS,
    Groups,
    State,
    check_groups,
    check_state,
    dump,
    host_entry,
    host_value,
)

ParameterSource = Iterable[Parameter] | Iterable[dict[str, Any]]


class Optimizer:
    """Base class of optimizers, with the interface of ``torch.optim.Optimizer``.

    Parameters
    ----------
    params : iterable of Parameter, or of dict
        What to optimize; dicts are groups with options of their own.
    defaults : dict
        Hyperparameters of groups that do not give them.

    Attributes
    ----------
    param_groups : list of dict
        The groups; change ``group["lr"]`` at any time.
    skip_nonfinite : bool
        True makes a step with a non-finite loss or gradient norm a no-op, recorded in
        :meth:`first_nonfinite_step`. False, as in PyTorch, writes what comes.
    stop_at_nonfinite : bool
        With ``skip_nonfinite``, the steps after a skipped one are no-ops too, until
        :meth:`first_nonfinite_step` has told of it: however seldom a device is asked, the weights
        are those from before the first bad step.
    last_finite : None, bool or device scalar
        Whether the last step changed anything, where ``skip_nonfinite`` looked: False (CPU), or a
        device scalar of bool; None for a step that was made without a doubt.
    last_sound : bool or device scalar
        Whether loss and gradients of the last step were finite, where ``skip_nonfinite`` looked.
    saves_step : bool
        Whether ``state_dict`` holds each parameter's number of updates, as PyTorch's does.
    writes_half : bool
        Whether :meth:`update` also writes ``flat.half_of(data)``, the rounded copy that layers read
        in half precision; else :meth:`step` writes it afterwards.
    elementwise : bool
        Whether :meth:`update` may be given all parameters of a group side by side; False calls it
        for each parameter, in its own shape.
    number_names : tuple of str
        State that is one float64 number per parameter; starts as 0.

    Notes
    -----
    The options ``foreach``, ``fused`` and ``capturable`` tell PyTorch by which kernels to make a
    step. They are kept in the groups, where PyTorch's state dicts have them, and change nothing:
    a group is always updated at once, from scalars on the device. ``differentiable=True`` is
    refused.
    """

    saves_step = True
    elementwise = True
    writes_half = False
    number_names: tuple[str, ...] = ()

    def __init__(self, params: ParameterSource, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.skip_nonfinite = False
        self.stop_at_nonfinite = False
        self._flats: list[FlatGroup] = []
        self._frozen: list[Parameter] = []
        self._state: dict[Parameter, dict[str, Any]] = {}
        self.calls = 0
        self.last_finite: Any = None
        self.last_sound: Any = True
        self._bad_call: Any = -1  # int, or a device scalar: the first step that was skipped
        self._skipped: Any = 0  # int, or a device scalar: steps skipped and not yet told of
        items: list[Any] = list(params)
        if not items:
            raise ValueError(f"{type(self).__name__} got no parameters")
        groups = items if isinstance(items[0], dict) else [{"params": items}]
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add a group of parameters with options of its own.

        Parameters
        ----------
        param_group : mapping
            ``params`` and any hyperparameters; the others take their defaults.
        """
        group = dict(param_group)
        params = group.pop("params")
        params = [params] if isinstance(params, Parameter) else list(params)
        unknown = [name for name in group if name not in {*self.defaults, *SCHEDULE_OPTIONS}]
        if unknown:
            raise ValueError(
                f"{type(self).__name__} has no option {', '.join(unknown)}; "
                f"it has {', '.join(self.defaults)}"
            )
        taken = {id(p) for other in self.param_groups for p in other["params"]}
        for parameter in params:
            if isinstance(parameter, UninitializedParameter):
                raise TypeError(
                    f"{type(self).__name__} got an UninitializedParameter: a lazy layer whose "
                    "shape is not known yet. Run one forward first, then make the optimizer."
                )
            if not isinstance(parameter, Parameter):
                raise TypeError(
                    f"{type(self).__name__} optimizes Parameters; got {type(parameter).__name__}. "
                    "Pass model.parameters()."
                )
            if id(parameter) in taken:
                raise ValueError("a parameter appears in more than one place of the groups")
            taken.add(id(parameter))
        group = {"params": params, **self.defaults, **group}
        self.check_options(group)
        self._keep_state()
        self.param_groups.append(group)

    def check_options(self, group: dict[str, Any]) -> None:
        """Refuse hyperparameters out of range; subclasses add their own checks."""
        for name in ("lr", "weight_decay", "eps", "momentum"):
            if name in group and not group[name] >= 0:
                raise ValueError(f"{type(self).__name__} expects {name} >= 0; got {group[name]}")
        if group.get("differentiable"):
            raise NotImplementedError(
                f"{type(self).__name__}: differentiable=True, gradients of the step itself"
            )
        if group.get("fused") and group.get("foreach"):
            raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
        for position, beta in enumerate(group.get("betas", ())):
            if not 0 <= beta < 1:
                raise ValueError(
                    f"{type(self).__name__} expects betas in [0, 1); got betas[{position}]={beta}"
                )

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Return the names of the per-element state arrays of a group."""
        return ()

    def state_shapes(
        self, group: dict[str, Any], parameter: Parameter
    ) -> dict[str, tuple[int, ...]]:
        """Return the shapes of a parameter's state arrays: its own, unless a subclass says else."""
        return dict.fromkeys(self.state_names(group), parameter.shape)

    def scratch_arrays(self, group: dict[str, Any]) -> int:
        """Return how many arrays of the size of ``data`` one :meth:`update` holds at once.

        Beside its arguments, and with the options of ``group``. A step reserves so much before it
        writes anything, so that it does not run out of memory half way.
        """
        return 4

    def update(
        self,
        flat: FlatGroup,
        data: Array,
        grad: Array,
        state: dict[str, Array],
        step: Any,
        finite: Any,
    ) -> None:
        """Update ``data`` and ``state`` in place.

        Parameters
        ----------
        flat : FlatGroup
            Gives the group's options, and device scalars for them.
        data, grad, state : array, array, dict of array
            All parameters of the group at once, or one of them.
        step : int or device scalar
            Number of this update, counted from 1.
        finite : None or device scalar of bool
            When given and False, nothing may change, whatever ``grad`` holds: see :func:`masked`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no update")

    # --- the step -------------------------------------------------------------------------

    def step(
        self,
        closure: Callable[[], Any] | None = None,
        *,
        loss: Array | None = None,
        may_overflow: Any = False,
    ) -> Any:
        """Update every parameter that has a gradient.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss and the gradients anew; its result is returned.
        loss : array, optional
            With ``skip_nonfinite``, a non-finite loss skips the step as well.
        may_overflow : bool or device scalar of bool, default False
            True where a loss scale is to blame for gradients that are not finite: the step is
            skipped, and :meth:`first_nonfinite_step` does not tell of it.

        Returns
        -------
        object
            What ``closure`` returned, else None.

        Raises
        ------
        MemoryError
            When there is no room for the update's temporaries; nothing was changed or counted.
        """
        result = None if closure is None else closure()
        flats = self.packed()
        self._reserve(flats)
        self.calls += 1
        finite = None
        if self.skip_nonfinite:
            finite = self._check_finite(flats, loss, may_overflow)
        self.last_finite = finite
        settle_parameters(finite)
        if finite is not False:
            for flat in flats:
                if flat.device.kind == "cpu":
                    self._update_flat(flat, finite)
                else:
                    with flat.device.activate():
                        self._update_flat(flat, finite)
        return result

    def count_updates(self, number: int) -> None:
        """Count updates of all parameters that were made by other means on :attr:`flats`.

        Parameters
        ----------
        number : int
            How many.
        """
        self.calls += number
        for flat in self._flats:
            for _ in range(number):
                flat.advance_together(None)
            time = clock.tick()
            for parameter in flat.parameters:
                parameter.version = time

    def rehearse(self) -> None:
        """Take the memory that :meth:`step` needs, give it back, and update nothing.

        Raises
        ------
        MemoryError
            Where :meth:`step` would.
        """
        self._reserve(self.packed())

    def _reserve(self, flats: list[FlatGroup]) -> None:
        """Take the memory that this step will need, and give it back: what follows cannot run out.

        Updates write in place, in several goes; after the first of them it is too late to refuse.
        """
        for flat in flats:
            size_bytes = flat.array_bytes * self.scratch_arrays(flat.group)
            if flat.device.kind == "cpu":
                np.empty(size_bytes, np.uint8)
            else:
                size_bytes += sum(other.scalar_bytes for other in flats)
                with flat.device.activate():
                    flat.device.xp.empty(size_bytes, dtype=np.uint8)

    def _update_flat(self, flat: FlatGroup, finite: Any) -> None:
        """Update the parameters that have a gradient: in one go when all have, else each."""
        parameters = flat.parameters
        active = [parameter for parameter in parameters if parameter.has_grad]
        if not active:
            return
        if self.elementwise and len(active) == len(parameters) and flat.moves_together:
            flat.advance_together(finite)
            numbers = flat.device_numbers(flat.state)
            self.update(flat, flat.data, flat.grad, flat.state, flat.steps[0], finite)
            flat.keep_numbers(flat.state, numbers)
            self._round(flat.half, flat.data)
        else:
            for i, (parameter, data, grad) in enumerate(flat.bindings):
                if parameter.has_grad:
                    flat.advance(i, finite)
                    numbers = flat.device_numbers(flat.views[i])
                    self.update(flat, data, grad, flat.views[i], flat.steps[i], finite)
                    flat.keep_numbers(flat.views[i], numbers)
                    self._round(flat.halves[i], data)
        time = clock.tick()
        for parameter in active:
            parameter.version = time

    def _round(self, half: Array | None, data: Array) -> None:
        """Write the half copy; of a skipped step it comes out as it was, like the data."""
        if half is not None and not self.writes_half:
            half[...] = data

    def _check_finite(self, flats: list[FlatGroup], loss: Array | None, may_overflow: Any) -> Any:
        """Return False (CPU), None (all well on the CPU) or a device scalar of bool."""
        squares = []
        with np.errstate(all="ignore"):  # a square that is too large is what is looked for
            for flat in flats:
                grads = [grad for parameter, _, grad in flat.bindings if parameter.has_grad]
                if flat.device.kind == "cpu":
                    squares += [grad.reshape(-1).dot(grad.reshape(-1)) for grad in grads]
                elif grads:
                    with flat.device.activate():
                        squares.append(sums_of_squares(*grads).sum())
        self.last_sound = True
        if not squares:
            return None
        place = flats[0].device
        if any(flat.device != place for flat in flats):
            raise NotImplementedError("skip_nonfinite with parameters on several devices")
        if place.kind == "cpu":
            total = sum(map(float, squares)) + (0.0 if loss is None else float(loss))
            earlier = self._bad_call = int(host_value(self._bad_call))
            self.last_sound = is_finite = math.isfinite(total)
            if not is_finite and not may_overflow:
                self._bad_call = self.calls if earlier < 0 else earlier
                self._skipped = host_value(self._skipped) + 1
            return None if is_finite and (earlier < 0 or not self.stop_at_nonfinite) else False
        xp = place.xp
        with place.activate():
            total = sum(squares[1:], squares[0])
            self.last_sound = finite = xp.isfinite(total if loss is None else total + loss)
            is_bad = ~finite if may_overflow is False else ~finite & ~_on(may_overflow, xp)
            # Written in place, and the number of the call read from the device: a recorded step
            # finds the arrays and numbers that it was recorded with.
            earlier = self._bad_call = counter_on(place, self._bad_call)
            is_well = earlier < 0
            call = flats[0].scalar("call", self.calls, np.int64)
            earlier[...] = xp.where(is_well & is_bad, call, earlier)
            if not self.stop_at_nonfinite:  # else the first one is all there is to tell
                self._skipped = counter_on(place, self._skipped)
                self._skipped += is_bad.astype(np.int64)
        return finite & is_well if self.stop_at_nonfinite else finite

    def scale_gradients(self, factor: Any) -> None:
        """Multiply the gradients of all parameters by a number.

        Parameters
        ----------
        factor : float or array, shape ()
            A float, or on the device of the parameters.
        """
        for flat in self.packed():
            with flat.device.activate(), np.errstate(all="ignore"):
                flat.grad *= factor

    def first_nonfinite_step(self) -> int | None:
        """Return the number of the first skipped step, counted from 1; None if there is none.

        Reads one scalar back from the device, and forgets it when it tells of a skipped step.
        """
        call = int(host_value(self._bad_call))
        if call < 0:
            return None
        self._bad_call = _reset(self._bad_call, -1)
        return call

    def count_skipped_steps(self) -> int:
        """Return how many steps were skipped since the last call of this; reads one scalar back."""
        skipped = int(host_value(self._skipped))
        self._skipped = _reset(self._skipped, 0)
        return skipped

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters.

        Parameters
        ----------
        set_to_none : bool, default True
            False fills them with zeros instead, so that :meth:`step` still updates (decays, moves
            by momentum) a parameter that the next backward does not reach.

        Notes
        -----
        The first call also makes the flat arrays, of which each gradient is a part: made in the
        first step, they would lie beside gradients in storage of their own.
        """
        for group in self.param_groups:
            for parameter in group["params"]:
                if set_to_none:  # the usual case, in every step
                    parameter.has_grad = False
                    parameter.contributions = 0
                else:
                    parameter.zero_grad(set_to_none=False)
        if not self._flats:
            self._pack()

    # --- the cache ------------------------------------------------------------------------

    def packed(self) -> list[FlatGroup]:
        """Return :attr:`flats`, packed anew where a parameter has other storage by now."""
        if not self._flats or self._is_stale():
            self._pack()
        return self._flats

    def _is_stale(self) -> bool:
        for flat in self._flats:
            if not flat.is_current():
                return True
            for name in self.state_names(flat.group):
                if name not in flat.state:  # momentum was switched on since
                    return True
        return any(parameter.requires_grad for parameter in self._frozen) if self._frozen else False

    def _pack(self) -> None:
        state = self._keep_state()
        frozen: list[Parameter] = []
        flats: list[FlatGroup] = []
        for group in self.param_groups:
            buckets: dict[Any, list[Parameter]] = {}
            for parameter in group["params"]:
                if parameter.requires_grad:
                    kind = parameter.device, parameter.dtype, parameter.compute_dtype
                    buckets.setdefault(kind, []).append(parameter)
                else:
                    frozen.append(parameter)
            flats += [
                FlatGroup(
                    group,
                    bucket,
                    [self.state_shapes(group, parameter) for parameter in bucket],
                    self.number_names,
                    state,
                    is_updated_at_once=self.elementwise,
                )
                for bucket in buckets.values()
            ]
        self._flats, self._frozen = flats, frozen  # only now: memory may have run out on the way
        for flat in flats:
            for parameter in flat.parameters:
                state.pop(parameter, None)  # views that would keep the previous cache alive
        give_back_holes()  # where the parameters' own arrays lay

    def _keep_state(self) -> dict[Parameter, dict[str, Any]]:
        """Take the state out of the cache and drop the cache."""
        for flat in self._flats:
            self._state |= flat.export_state()
        self._flats = []
        return self._state

    @property
    def flats(self) -> list[FlatGroup]:
        """The groups of the cache, as the last step left them."""
        return self._flats

    @property
    def state(self) -> dict[Parameter, dict[str, Any]]:
        """The state of every parameter that was updated, as in PyTorch."""
        current = dict(self._state)
        for flat in self._flats:
            current |= flat.export_state()
        return {p: entry for p, entry in current.items() if entry["count"]}

    # --- saving ---------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return state and options in PyTorch's layout, arrays on the host.

        Returns
        -------
        dict
            ``state`` maps a parameter's number to its arrays and its ``step``; parameters that were
            never updated are not in it. ``param_groups`` holds the options, with numbers in place
            of parameters.
        """
        return dump(self)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned, here or in PyTorch.

        Parameters
        ----------
        state_dict : mapping
            With the same groups in the same order.

        Raises
        ------
        ValueError
            When groups or shapes do not fit; nothing was changed then.
        """
        options, state = self.check_state_dict(state_dict)
        self._keep_state()
        self._state = state
        for group, loaded in zip(self.param_groups, options, strict=True):
            group |= loaded

    def check_state_dict(self, state_dict: Mapping[str, Any]) -> tuple[Groups, State]:
        """Return a loaded state ready for use, or raise what :meth:`load_state_dict` raises."""
        options = check_groups(self, state_dict["param_groups"])
        return options, check_state(self, state_dict["state"], options)

    def __getstate__(self) -> dict[str, Any]:
        # The cache stays behind; state travels as host arrays, like the parameters themselves.
        state = dict(vars(self))
        state["_state"] = {p: host_entry(self, entry) for p, entry in self.state.items()}
        state["_flats"] = []
        state["_bad_call"] = int(host_value(self._bad_call))
        state["_skipped"] = int(host_value(self._skipped))
        state["last_finite"] = None
        state["last_sound"] = True
        return state

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__}("]
        for number, group in enumerate(self.param_groups):
            options = ", ".join(f"{k}={v}" for k, v in group.items() if k != "params")
            lines.append(f"  group {number}: {len(group['params'])} parameters, {options}")
        return "\n".join([*lines, ")"])


def counter_on(place: Device, counter: Any) -> Array:
    """Return a counter as a device scalar of int64, the one it is if it lies there already."""
    if isinstance(counter, int):
        return place.xp.full((), counter, dtype=np.int64)
    return to_device(counter, place)


def _reset(counter: Any, value: int) -> Any:
    """Set a counter to a number: a device scalar in place, without an upload."""
    if isinstance(counter, int):
        return value
    with device_of(counter).activate():
        counter.fill(value)
    return counter


def _on(flag: Any, xp: Any) -> Any:
    """Return a bool, or a device scalar, as what stands beside device scalars."""
    return xp.full((), flag, dtype=bool) if isinstance(flag, bool) else flag
