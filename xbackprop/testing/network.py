"""The gradients of every layer of a network, where it stands."""

import contextlib
import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from xbackprop.backend.device import Device
from xbackprop.backend.transfer import to_device, to_host
from xbackprop.initializers import RandomSource, as_generator
from xbackprop.module import Module
from xbackprop.testing.generic import generic_inputs, make_generic
from xbackprop.testing.repeatable import RepeatableCall
from xbackprop.testing.slopes import Deviation, Measurement
from xbackprop.testing.structures import is_float, transform
from xbackprop.testing.watching import LayerCall, watching_layers

_MAX_CALLS = 3  # of one layer: a cell in a loop over time is called at every step


@dataclass(frozen=True)
class LayerGradients:
    """What checking one layer gave.

    Attributes
    ----------
    path : str
        Inside the network; empty for the network itself.
    kind : str
        The layer's class.
    calls : int
        How often the network calls it; the first three calls are checked.
    arrays : int
        Inputs and parameters whose gradients were compared, over all calls that were checked.
    worst : float
        The largest relative error.
    worst_subject : str
        Of which input or parameter.
    problem : str or None
        What is wrong, with the first failing element.
    wrong_inside : str or None
        The path of a wrong layer inside, because of which this one is not judged.
    kinks : int
        Elements and directions that were left out: there is no derivative.
    """

    path: str
    kind: str
    calls: int
    arrays: int = 0
    worst: float = 0.0
    worst_subject: str = ""
    problem: str | None = None
    wrong_inside: str | None = None
    kinks: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def check_network(
    model: Module,
    *inputs: Any,
    rng: RandomSource = 0,
    max_elements: int = 64,
    directions: int = 3,
    device: str | Device = "cpu",
    on_layer: Callable[[LayerGradients], None] | None = None,
) -> list[LayerGradients]:
    """Compare every layer's ``backward`` with central differences, where it stands in the network.

    A copy of the network runs forward in float64, and what each layer was called with is kept. Then
    every call is compared on its own: its output times random factors, as a function of each float
    input and each parameter. Parameters, running statistics and inputs are moved to generic values
    first: a weight of 1, a bias of 0 or equal inputs would hide mistakes. What holds other layers
    is compared as a whole after them, which shows whether it puts their gradients together rightly;
    it is not judged where one of them is wrong.

    Parameters
    ----------
    model : Module
        In training or evaluation mode; stays as it is.
    *inputs : array
        One batch, as ``forward`` takes it; floats are cast to float64.
    rng : Generator, int or None
        Draws noise, factors and directions.
    max_elements : int, default 64
        Up to this size every element of an array is moved on its own; a larger one is moved along
        random directions, and the first failing element is found by halving.
    directions : int, default 3
        How many of them; one for what holds other layers.
    device : str or Device, default "cpu"
        Where to compute.
    on_layer : callable, optional
        Told of each layer when it is done.

    Returns
    -------
    list of LayerGradients
        Each layer that was called, in the order in which the calls ended: layers before what holds
        them.

    Examples
    --------
    >>> import numpy as np
    >>> import xbackprop as xb
    >>> model = xb.nn.Sequential(xb.nn.Linear(3, 4), xb.nn.Tanh(), rng=0)
    >>> [layer.problem for layer in xb.testing.check_network(model, np.ones((2, 3)))]
    [None, None, None]
    """
    generator = as_generator(rng)
    copied = copy.deepcopy(model).to(device=device, dtype=np.float64)
    make_generic(copied, generator)
    values = transform(inputs, lambda leaf: _widened(leaf, device))
    calls = _calls_of(copied, values, generator)
    results: list[LayerGradients] = []
    for path in dict.fromkeys(call.path for call in calls):
        own = [call for call in calls if call.path == path]
        inside = [layer for layer in results if _is_inside(layer.path, path)]
        found = _check_layer(own, inside, generator, max_elements, directions)
        results.append(found)
        if on_layer is not None:
            on_layer(found)
    return results


def _calls_of(model: Module, inputs: Any, rng: np.random.Generator) -> list[LayerCall]:
    """Run the network forward on inputs with noise, or on the inputs where it refuses those."""
    noisy = generic_inputs(inputs, rng, 0.1)
    with contextlib.suppress(ValueError, IndexError), watching_layers(model) as calls:
        model.forward(*noisy)
        return calls
    with watching_layers(model) as calls:
        model.forward(*inputs)
    return calls


def _check_layer(
    calls: Sequence[LayerCall],
    inside: Sequence[LayerGradients],
    rng: np.random.Generator,
    max_elements: int,
    directions: int,
) -> LayerGradients:
    path, kind = calls[0].path, type(calls[0].module).__name__
    wrong = next((layer for layer in inside if layer.problem), None)
    if wrong is not None:
        return LayerGradients(path, kind, len(calls), wrong_inside=wrong.path)
    deviations: list[Deviation] = []
    sizes = (0, 1) if inside else (max_elements, directions)
    try:
        for call in calls[:_MAX_CALLS]:
            deviations += _deviations(call, rng, *sizes)
    except AssertionError as error:
        return LayerGradients(path, kind, len(calls), worst=float("inf"), problem=str(error))
    worst = max(deviations, key=lambda found: found.worst, default=Deviation("", 0.0))
    failed = next((found for found in deviations if found.place is not None), None)
    return LayerGradients(
        path=path,
        kind=kind,
        calls=len(calls),
        arrays=len(deviations),
        worst=worst.worst,
        worst_subject=worst.subject,
        problem=None if failed is None else _told(failed),
        kinks=sum(found.kinks for found in deviations),
    )


def _deviations(
    call: LayerCall, rng: np.random.Generator, max_elements: int, directions: int
) -> list[Deviation]:
    """Compare one call of a layer, on inputs that are off the kinks where zeros meet."""
    repeatable = _repeatable(call, rng)
    measurement = Measurement(repeatable, max_elements, directions)
    deviations = []
    for subject, gradient in repeatable.gradients():
        if gradient is not None and gradient.shape != subject.values.shape:
            raise AssertionError(
                f"the gradient of {subject.name} has shape {gradient.shape}; "
                f"expected {subject.values.shape}"
            )
        if not subject.frozen:
            deviations.append(measurement.compare(subject, gradient))
        elif gradient is not None:
            raise AssertionError(f"{subject.name} is frozen and received a gradient")
    return deviations


def _repeatable(call: LayerCall, rng: np.random.Generator) -> RepeatableCall:
    inputs = list(generic_inputs(call.inputs, rng, 0.01))
    with contextlib.suppress(ValueError, IndexError):
        return RepeatableCall(call.module, inputs, call.options, rng)
    return RepeatableCall(call.module, list(call.inputs), call.options, rng)


def _told(failed: Deviation) -> str:
    return (
        f"{failed.subject} at {failed.place}: expected {failed.expected:.6g} (central "
        f"differences), received {failed.received:.6g} (backward)"
    )


def _is_inside(path: str, outer: str) -> bool:
    return path != outer and (not outer or path.startswith(f"{outer}."))


def _widened(leaf: Any, device: str | Device) -> Any:
    if not hasattr(leaf, "dtype"):
        return leaf
    host = np.array(to_host(leaf), dtype=np.float64 if is_float(leaf) else None)
    return to_device(host, device)
