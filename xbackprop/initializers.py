"""Initial weights: drawn by NumPy from an explicit Generator, then moved to the device."""

import contextlib
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.backend.device import CPU, Device, device_of
from xbackprop.backend.fork import renew_in_child
from xbackprop.backend.transfer import asarray, to_device

RandomSource = np.random.Generator | int | None

# Context-local: a load in one thread does not change what its neighbours draw.
_makes_placeholders: ContextVar[bool] = ContextVar("xbackprop_placeholders", default=False)

_process_generator = np.random.default_rng()


def _free_generator() -> None:
    """Go on, in a forked child, from the same state without NumPy's lock where a thread held it."""
    global _process_generator
    generator = _process_generator.bit_generator
    if generator.lock.acquire(blocking=False):
        generator.lock.release()
    else:
        fresh = type(generator)()
        fresh.state = generator.state  # read without the lock
        _process_generator = np.random.Generator(fresh)


renew_in_child(_free_generator)


def manual_seed(seed: int) -> np.random.Generator:
    """Seed the process generator, which draws whenever no ``rng`` is given.

    Parameters
    ----------
    seed : int
        Any non-negative integer.

    Returns
    -------
    numpy.random.Generator
        The process generator.
    """
    global _process_generator
    _process_generator = np.random.default_rng(seed)
    return _process_generator


def as_generator(rng: RandomSource = None) -> np.random.Generator:
    """Return a Generator for a Generator, a seed, or None (the process generator)."""
    if rng is None:
        return _process_generator
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, bool) or not isinstance(rng, (int, np.integer)):
        raise TypeError(
            "rng expects a seed (a non-negative integer) or a numpy.random.Generator; "
            f"got {type(rng).__name__}. Write rng=0 or rng=np.random.default_rng(0)."
        )
    if rng < 0:
        raise ValueError(f"rng expects a non-negative seed; got {rng}.")
    return np.random.default_rng(int(rng))


@contextlib.contextmanager
def placeholders() -> Iterator[None]:
    """Make layers without initial values, for a ``with`` block in this thread or task.

    Parameters and buffers are then read-only host arrays of the right shape and dtype that take no
    memory, whatever their size, and nothing is drawn: for who replaces them all, as loading does.

    Examples
    --------
    >>> import xbackprop as xb
    >>> with xb.initializers.placeholders():
    ...     layer = xb.nn.Linear(10**6, 10**6)
    >>> layer.weight.shape, layer.weight.data.strides
    ((1000000, 1000000), (0, 0))
    """
    token = _makes_placeholders.set(True)
    try:
        yield
    finally:
        _makes_placeholders.reset(token)


def makes_placeholders() -> bool:
    """Tell whether :func:`placeholders` is in force."""
    return _makes_placeholders.get()


def initial(
    shape: tuple[int, ...],
    dtype: Any,
    make: Callable[[], np.ndarray],
    device: str | Device | None = None,
) -> Array:
    """Return the first value of a parameter or buffer, or a placeholder for it.

    Parameters
    ----------
    shape : tuple of int
        Of the result.
    dtype : dtype
        Of the result.
    make : callable
        Returns the values on the host; not called for a placeholder.
    device : str or Device, optional
        Where the result lives; a placeholder lives on the host.

    Returns
    -------
    array
    """
    if _makes_placeholders.get():
        return np.broadcast_to(np.zeros((), dtype), shape)
    return to_device(make().astype(dtype, copy=False), device)


def given(values: Any) -> Array:
    """Return a buffer that its user gives, on the default device; among placeholders on the host.

    Parameters
    ----------
    values : array_like
        As :func:`xbackprop.asarray` takes them.

    Returns
    -------
    array
    """
    return asarray(values, device=CPU) if _makes_placeholders.get() else asarray(values)


def copied(array: Array) -> Array:
    """Return a copy on the same device, in storage of its own; of a placeholder, itself.

    Parameters
    ----------
    array : array
        Of a parameter or buffer.

    Returns
    -------
    array
    """
    if _makes_placeholders.get() and type(array) is np.ndarray and not array.flags.writeable:
        return array
    with device_of(array).activate():
        return array.copy()


def uniform(
    shape: tuple[int, ...],
    bound: float,
    *,
    rng: RandomSource = None,
    dtype: Any = None,
    device: str | Device | None = None,
) -> Array:
    """Draw from the uniform distribution on ``[-bound, bound)``.

    Parameters
    ----------
    shape : tuple of int
        Shape of the result.
    bound : float
        Half the width.
    rng : Generator, int or None
        Where the numbers come from.
    dtype : dtype, optional
        None is float32. The draw is in float64, so float32 and float64 networks agree.
    device : str or Device, optional
        Where the result lives.

    Returns
    -------
    array
    """

    def draw() -> np.ndarray:
        return as_generator(rng).uniform(-bound, bound, size=shape)

    return initial(shape, float_dtype(dtype), draw, device)


def normal(
    shape: tuple[int, ...],
    std: float,
    *,
    rng: RandomSource = None,
    dtype: Any = None,
    device: str | Device | None = None,
) -> Array:
    """Draw from the normal distribution of mean 0.

    Parameters
    ----------
    shape : tuple of int
        Shape of the result.
    std : float
        Standard deviation.
    rng, dtype, device
        As :func:`uniform`.

    Returns
    -------
    array
    """

    def draw() -> np.ndarray:
        return as_generator(rng).normal(0.0, std, size=shape)

    return initial(shape, float_dtype(dtype), draw, device)


def xavier_uniform(
    shape: tuple[int, ...],
    fan_in: int,
    fan_out: int,
    *,
    rng: RandomSource = None,
    dtype: Any = None,
    device: str | Device | None = None,
) -> Array:
    """Draw uniformly with bound ``sqrt(6 / (fan_in + fan_out))``.

    Parameters
    ----------
    shape : tuple of int
        Shape of the result.
    fan_in : int
        Number of inputs that meet in one output.
    fan_out : int
        Number of outputs that one input reaches.
    rng, dtype, device
        As :func:`uniform`.

    Returns
    -------
    array

    References
    ----------
    Glorot, Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    AISTATS 2010, equation 16.
    """
    bound = math.sqrt(6 / (fan_in + fan_out))
    return uniform(shape, bound, rng=rng, dtype=dtype, device=device)


def kaiming_uniform(
    shape: tuple[int, ...],
    fan_in: int,
    *,
    rng: RandomSource = None,
    dtype: Any = None,
    device: str | Device | None = None,
) -> Array:
    """Draw as PyTorch's ``Linear`` and ``Conv`` do: uniform with bound ``1 / sqrt(fan_in)``.

    Parameters
    ----------
    shape : tuple of int
        Shape of the result.
    fan_in : int
        Number of inputs that meet in one output.
    rng, dtype, device
        As :func:`uniform`.

    Returns
    -------
    array

    References
    ----------
    He, Zhang, Ren, Sun, "Delving deep into rectifiers", ICCV 2015, with the slope ``sqrt(5)``.
    """
    bound = 1.0 / math.sqrt(fan_in) if fan_in > 0 else 0.0
    return uniform(shape, bound, rng=rng, dtype=dtype, device=device)


def float_dtype(dtype: Any) -> np.dtype:
    """Return the dtype of a new layer.

    Parameters
    ----------
    dtype : dtype or None
        None is float32.

    Returns
    -------
    numpy.dtype

    Raises
    ------
    TypeError
        For anything that is not float32 or float64.
    """
    chosen = np.dtype(np.float32 if dtype is None else dtype)
    if chosen not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TypeError(f"a layer's dtype is float32 or float64; got {chosen}")
    return chosen
