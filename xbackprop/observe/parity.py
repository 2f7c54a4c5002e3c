"""The same network on several devices and in two precisions, op by op."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from xbackprop.backend.device import CPU, Device, resolve_device
from xbackprop.dispatch import Op, OpCall
from xbackprop.initializers import RandomSource, as_generator
from xbackprop.module import Module
from xbackprop.observe.tape import Tape, Taped, cast, on_host, results_of, run_taped
from xbackprop.testing.structures import moved, random_like, transform

OWN_TOLERANCE = 100.0  # sums of many terms, and functions of other libraries
ACCUMULATED_TOLERANCE = 1000.0


@dataclass(frozen=True)
class OpParity:
    """How far one call of an op is from float64.

    Attributes
    ----------
    number : int
        In the order in which the calls end, from 1 on.
    op, layer : str
        What was called, and by which layer.
    own : float
        The error that the op makes itself, fed with the float64 run's inputs in its precision, in
        units.
    accumulated : float or None
        The error of its result in the network, in units; None inside of another op.
    result : str
        The result with the largest own error.

    Notes
    -----
    A unit is the last place of the result's largest element, or what a change of the inputs in
    their last place does to the result, where that is more: a sum of terms that cancel is not
    blamed for the digits that its terms never had.
    """

    number: int
    op: str
    layer: str
    own: float
    accumulated: float | None
    result: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Parity:
    """A device and a precision beside float64 on the CPU.

    Attributes
    ----------
    target : str
        Such as ``fake:0 float32``.
    ops : list of OpParity
        Forward and backward.
    first : OpParity or None
        The first one out of tolerance.
    problem : str or None
        What is wrong there.
    """

    target: str
    ops: list[OpParity]
    first: OpParity | None = None
    problem: str | None = None


def parity(
    model: Module,
    *inputs: Any,
    devices: Sequence[str | Device] = (),
    rng: RandomSource = 0,
    own_tolerance: float = OWN_TOLERANCE,
    accumulated_tolerance: float = ACCUMULATED_TOLERANCE,
) -> list[Parity]:
    """Compare float32 on the CPU, and both precisions on devices, with float64 on the CPU.

    Parameters
    ----------
    model : Module
        Stays as it is.
    *inputs : array
        One batch, as ``forward`` takes it.
    devices : sequence of str or Device
        Beside the CPU.
    rng : Generator, int or None
        Draws the gradients of the outputs, and noise.
    own_tolerance, accumulated_tolerance : float
        In units, see :class:`OpParity`.

    Returns
    -------
    list of Parity

    Examples
    --------
    >>> import numpy as np
    >>> import xbackprop as xb
    >>> model = xb.nn.Sequential(xb.nn.Linear(3, 4), xb.nn.Tanh(), rng=0)
    >>> found = xb.observe.parity(model, np.ones((2, 3)), devices=["fake"])
    >>> [(each.target, each.problem) for each in found]
    [('cpu float32', None), ('fake:0 float64', None), ('fake:0 float32', None)]
    """
    reference = Reference(model, inputs, as_generator(rng))
    targets = [(CPU, "float32")]
    for device in devices:
        place = resolve_device(device)
        targets += [(place, dtype) for dtype in ("float64", "float32") if (place, dtype) not in
                    [*targets, (CPU, "float64")]]  # fmt: skip
    tolerances = (own_tolerance, accumulated_tolerance)
    return [_compare(reference, place, dtype, *tolerances) for place, dtype in targets]


class Reference:
    """The float64 run on the CPU.

    Parameters
    ----------
    model : Module
        Stays as it is.
    inputs : tuple
        Of ``forward``.
    rng : Generator
        Draws the gradients of the outputs, and noise.

    Attributes
    ----------
    tape : Tape
        Every op.
    """

    def __init__(self, model: Module, inputs: tuple[Any, ...], rng: np.random.Generator) -> None:
        self.rng = rng
        self._model = copy.deepcopy(model)
        self._inputs = cast(on_host(inputs), np.float64)
        output = self._copy(CPU, "float64")(*self._inputs)
        self._factors = random_like(output, rng)
        self.tape = self.run(CPU, "float64")

    def _copy(self, device: Device, dtype: str) -> Module:
        return copy.deepcopy(self._model).to(device=device, dtype=dtype)

    def run(self, device: Device, dtype: str) -> Tape:
        """Run the network on a device."""
        model = self._copy(device, dtype)
        return run_taped(model, self._inputs, self._factors, device, np.dtype(dtype))

    def run_with_noise(self, dtype: str) -> Tape:
        """Run in float64, with all weights and inputs moved in the last place of a precision."""
        model = self._copy(CPU, "float64")
        for parameter in model.parameters():
            parameter.data = noisy(parameter.data, dtype, self.rng)
        inputs = noisy(self._inputs, dtype, self.rng)
        return run_taped(model, inputs, self._factors, CPU, np.dtype("float64"))


def _compare(
    reference: Reference, device: Device, dtype: str, own_tolerance: float, tolerance: float
) -> Parity:
    target = f"{device} {dtype}"
    tape, noise = reference.run(device, dtype), reference.run_with_noise(dtype)
    ops: list[OpParity] = []
    first, problem = None, None
    for exact, received, noised in zip(
        reference.tape.groups(), tape.groups(), noise.groups(), strict=False
    ):
        if exact[-1].op is not received[-1].op:
            problem = problem or (
                f"{received[-1].layer} calls {received[-1].op.name} where it calls "
                f"{exact[-1].op.name} in float64 on the CPU"
            )
            break
        for call, dtypes in _with_dtypes(exact, received):
            given = cast_arguments(call.args, dtypes, dtype)
            measured = measure(call, given, dtype, reference.rng)
            own, result = own_error(measured, run_op(call.op, given, call.options, device))
            accumulated = None
            if call is exact[-1]:
                accumulated = _accumulated(measured, call, received[-1], noised[-1], dtype)
            found = OpParity(len(ops) + 1, call.op.name, call.layer, own, accumulated, result)
            ops.append(found)
            if first is None and (words := judged(found, own_tolerance, tolerance)):
                first, problem = found, words
    return Parity(target, ops, first, problem)


def judged(found: OpParity, own_tolerance: float, tolerance: float) -> str | None:
    """Return what is wrong with an op; None when it is within the tolerances."""
    if not found.own <= own_tolerance:
        return (
            f"its own error of {found.result} is {found.own:.3g} units; at most {own_tolerance:g}"
        )
    if found.accumulated is not None and not found.accumulated <= tolerance:
        return f"the accumulated error is {found.accumulated:.3g} units; at most {tolerance:g}"
    return None


def _with_dtypes(exact: list[Taped], received: list[Taped]) -> Iterator[tuple[Taped, Any]]:
    """Pair each call with the dtypes of its arguments in the other run; statistics stay float64."""
    is_same = [call.op for call in exact] == [call.op for call in received]
    for place, call in enumerate(exact):
        if is_same or call is exact[-1]:
            like = received[place] if is_same else received[-1]
            yield call, _dtypes(like.args)
        else:
            yield call, None


def _dtypes(args: Any) -> list[Any]:
    found: list[Any] = []
    transform(args, lambda leaf: found.append(getattr(leaf, "dtype", None)))
    return found


class Measured(NamedTuple):
    """A result of an op in float64, and what its errors are measured in."""

    name: str
    exact: np.ndarray
    unit: float


def measure(call: Taped, given: Any, dtype: str, rng: np.random.Generator) -> list[Measured]:
    """Run an op in float64 on inputs of a precision, and find the units of its results.

    Parameters
    ----------
    call : Taped
        The op and its options.
    given : tuple
        The inputs on the host, in the precision.
    dtype : str
        The precision.
    rng : Generator
        Draws the change of the inputs.

    Returns
    -------
    list of Measured
    """
    widened = cast(given, np.float64)
    exact = run_op(call.op, widened, call.options, CPU)
    noised = run_op(call.op, noisy(widened, dtype, rng), call.options, CPU)
    return [
        Measured(name, array, unit_of(array, changed, dtype))
        for (name, array), (_, changed) in zip(exact, noised, strict=True)
    ]


def own_error(
    measured: Sequence[Measured], received: Sequence[tuple[str, np.ndarray]]
) -> tuple[float, str]:
    """Return the largest error among the results of an op, in units, and which it is of."""
    if [name for name, _ in received] != [name for name, _, _ in measured]:
        return float("inf"), "its results, which are others"
    errors = [
        (error_in_units(exact, found, unit), name)
        for (name, exact, unit), (_, found) in zip(measured, received, strict=True)
    ]
    return max(errors, key=lambda pair: pair[0], default=(0.0, ""))


def _accumulated(
    measured: Sequence[Measured], call: Taped, received: Taped, noised: Taped, dtype: str
) -> float:
    """Return the largest error of a result in the network.

    A gradient that is 0 whatever the weights (of a bias before a normalization) does not move with
    them; there the op's own unit is the larger one.
    """
    names = [name for name, _ in call.results]
    if [name for name, _ in received.results] != names:
        return float("inf")
    errors = [0.0]
    for one, (_, exact), (_, found), (_, changed) in zip(
        measured, call.results, received.results, noised.results, strict=True
    ):
        unit = max(one.unit, unit_of(exact, changed, dtype))
        errors.append(error_in_units(exact, found, unit))
    return max(errors)


def unit_of(exact: np.ndarray, changed: np.ndarray, dtype: str) -> float:
    """Return the last place of an array's largest element, or how far it has changed, if more."""
    if exact.dtype.kind != "f" or not exact.size:
        return 1.0
    finite = np.isfinite(exact)
    largest = float(np.abs(exact[finite]).max(initial=0.0))
    change = np.zeros(1)
    if changed.shape == exact.shape:
        change = np.abs(changed[finite] - exact[finite])
    moved_by = float(change[np.isfinite(change)].max(initial=0.0))
    limits = np.finfo(dtype)
    return max(float(limits.eps) * largest, moved_by, float(limits.tiny))


def error_in_units(exact: np.ndarray, found: np.ndarray, unit: float) -> float:
    """Return the largest error of an array; infinity for another shape, or NaN in other places."""
    if exact.shape != found.shape:
        return float("inf")
    if exact.dtype.kind != "f":
        return 0.0 if np.array_equal(exact, found) else float("inf")
    finite = np.isfinite(exact)
    if not np.array_equal(exact[~finite], found[~finite], equal_nan=True):
        return float("inf")
    if not np.isfinite(found[finite]).all():
        return float("inf")
    return float(np.abs(found[finite].astype(np.float64) - exact[finite]).max(initial=0.0)) / unit


def cast_arguments(args: Any, dtypes: list[Any] | None, dtype: str) -> Any:
    """Return the float64 run's arguments in the dtypes of another run."""
    if dtypes is None or len(dtypes) != len(_dtypes(args)):
        return cast(args, np.dtype(dtype))
    wanted = iter(dtypes)

    def change(leaf: Any) -> Any:
        found = next(wanted)
        is_float = isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f"
        return leaf.astype(found) if is_float and found is not None else leaf

    return transform(args, change)


def noisy(value: Any, dtype: Any, rng: np.random.Generator) -> Any:
    """Return nested float64 arrays whose elements are moved by a last place of a precision."""
    eps = float(np.finfo(dtype).eps)

    def move(leaf: Any) -> Any:
        if not isinstance(leaf, np.ndarray) or leaf.dtype.kind != "f":
            return leaf
        return leaf * (1 + eps * rng.choice([-1.0, 1.0], size=leaf.shape))

    return transform(value, move)


def run_op(
    op: Op, args: tuple[Any, ...], options: dict[str, Any], device: Device
) -> list[tuple[str, np.ndarray]]:
    """Run an op on copies of host arrays; return its float results on the host."""
    placed = tuple(moved(value, device) for value in args)
    kept = {key: moved(value, device) for key, value in options.items()}
    with device.activate(), np.errstate(all="ignore"):
        result = op(*placed, **kept)
    return results_of(OpCall(op, placed, kept, device, 0), result)
