"""A model whose weights are the running average of another's."""

import copy
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import Device, device_of, resolve_device
from xbackprop.backend.transfer import to_device
from xbackprop.module import Module
from xbackprop.optim.swa_utils.averages import (
    AverageFunction,
    MultiAverageFunction,
    get_swa_avg_fn,
)


class AveragedModel(Module):
    """A copy of a model that holds the average of its weights, ``W += (w - W) / (n + 1)``.

    Parameters
    ----------
    model : Module
        What is copied now, and averaged at each ``update_parameters``.
    device : str or Device, optional
        Where the average lives; None is where the model is.
    avg_fn : callable, optional
        ``avg_fn(averaged, current, num_averaged)`` returns the new average of one array. None, with
        ``multi_avg_fn`` None too, is the average of equal weights.
    multi_avg_fn : callable, optional
        ``multi_avg_fn(averaged, current, num_averaged)`` writes new averages into a list of arrays
        of one device and dtype.
    use_buffers : bool, default False
        Average the model's buffers as well; False copies them at each update.

    Attributes
    ----------
    module : Module
        The averaged copy.
    n_averaged : array, shape ()
        int64 buffer: how many models were averaged.

    Raises
    ------
    ValueError
        When both functions are given.

    Notes
    -----
    The first update copies. Nothing is downloaded: the count stays on the device, so that a
    function is called in the first update too and its result is not used. Buffers are those of
    ``state_dict``; random counters are left alone. The functions are in no state.

    References
    ----------
    Izmailov et al., "Averaging weights leads to wider optima and better generalization", UAI 2018,
    algorithm 1; Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", SIAM
    Journal on Control and Optimization 30, 1992.

    Examples
    --------
    >>> import xbackprop as xb
    >>> swa = xb.optim.swa_utils
    >>> model = xb.nn.Linear(2, 1, rng=0)
    >>> averaged = swa.AveragedModel(model, multi_avg_fn=swa.get_ema_multi_avg_fn(0.9))
    >>> averaged.update_parameters(model)
    >>> list(averaged.state_dict())
    ['n_averaged', 'module.weight', 'module.bias']
    """

    def __init__(
        self,
        model: Module,
        device: str | Device | None = None,
        avg_fn: AverageFunction | None = None,
        multi_avg_fn: MultiAverageFunction | None = None,
        use_buffers: bool = False,
    ) -> None:
        if avg_fn is not None and multi_avg_fn is not None:
            raise ValueError("AveragedModel expects one of avg_fn and multi_avg_fn; got both")
        self.module = copy.deepcopy(model)
        self.module.zero_grad()
        if device is not None:
            self.module.to(device)
        place = self.module.device or resolve_device(device)
        with place.activate():
            self.register_buffer("n_averaged", place.xp.zeros((), dtype=np.int64))
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers
        # What `config` describes is the copy: the original need not live as long as this.
        arguments = (self.module, device, avg_fn, multi_avg_fn, use_buffers)
        self.__dict__["_constructor_arguments"] = (arguments, {})

    def forward(self, *inputs: Any, **options: Any) -> tuple[Any, Any]:
        """Return what the averaged model's forward returns."""
        output, saved = self.module.forward(*inputs, **options)
        return output, saved

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        """Return what the averaged model's backward returns."""
        return self.module.backward(grad_output, saved, input_grad=input_grad)

    def update_parameters(self, model: Module) -> None:
        """Let the weights of ``model`` enter the average.

        Parameters
        ----------
        model : Module
            Of the same architecture.

        Raises
        ------
        ValueError
            When parameters or buffers do not correspond; nothing was changed then.
        """
        parameters = match("parameters", self.module.parameters(), model.parameters())
        buffers = match("buffers", buffers_of(self.module), buffers_of(model))
        pairs = [(own.data, other.data) for own, other in parameters]
        kept = [(own.data, other.data) for own, other in buffers]
        with np.errstate(all="ignore"):
            averages = self._average([*pairs, *kept] if self.use_buffers else pairs)
        for (own, _), array in zip(parameters, averages, strict=False):
            own.data = array
        copies = averages[len(pairs) :] if self.use_buffers else [other for _, other in kept]
        for (buffer, _), array in zip(buffers, copies, strict=True):
            place = device_of(buffer.data)
            with place.activate():
                buffer.module.commit_buffer(buffer.name, to_device(array, place))
        with device_of(self.n_averaged).activate():
            self.commit_buffer("n_averaged", self.n_averaged + 1)

    def _average(self, pairs: list[tuple[Array, Array]]) -> list[Array]:
        """Return the new averages, in new arrays."""
        groups: dict[tuple[Device, np.dtype], list[int]] = {}
        for number, (own, _) in enumerate(pairs):
            groups.setdefault((device_of(own), own.dtype), []).append(number)
        averages: list[Array] = [None] * len(pairs)
        for (place, dtype), numbers in groups.items():
            with place.activate():
                count = to_device(self.n_averaged, place)
                averaged = [pairs[number][0] for number in numbers]
                current = [
                    to_device(pairs[number][1], place).astype(dtype, copy=False)
                    for number in numbers
                ]
                results = self._call(averaged, current, count)
                for number, value, result in zip(numbers, current, results, strict=True):
                    averages[number] = place.xp.where(count == 0, value, result.astype(dtype))
        return averages

    def _call(self, averaged: list[Array], current: list[Array], count: Array) -> list[Array]:
        if self.multi_avg_fn is not None:
            averaged = [array.copy() for array in averaged]
            self.multi_avg_fn(averaged, current, count)
            return averaged
        average = self.avg_fn or get_swa_avg_fn()
        return [average(own, value, count) for own, value in zip(averaged, current, strict=True)]


class Buffer(NamedTuple):
    """A buffer and where it is."""

    module: Module
    name: str
    data: Array


def buffers_of(model: Module) -> Iterator[Buffer]:
    """Yield the buffers of a model's state, a shared module's once."""
    for module in model.modules():
        for name, array in module.own_buffers(persistent=True):
            yield Buffer(module, name, array)


def match(what: str, own: Iterable[Any], others: Iterable[Any]) -> list[tuple[Any, Any]]:
    """Return corresponding parts of two models, when they do correspond."""
    mine, theirs = list(own), list(others)
    shapes = [part.data.shape for part in mine], [part.data.shape for part in theirs]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"update_parameters expects {what} of shapes {shapes[0]}, as in the averaged model; "
            f"got {shapes[1]}"
        )
    return list(zip(mine, theirs, strict=True))
