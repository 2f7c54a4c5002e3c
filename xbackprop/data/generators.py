"""Explicit random generators on the host, and their state as plain data."""

from typing import Any

import numpy as np

from xbackprop import initializers


def as_generator(rng: int | np.random.Generator) -> np.random.Generator:
    """Return a generator: the given one itself, or a new one from a seed.

    Parameters
    ----------
    rng : int or numpy.random.Generator
        A non-negative seed, or a generator. A generator is used and advanced, not copied.

    Returns
    -------
    numpy.random.Generator

    Raises
    ------
    TypeError
        For anything else, None included: no permutation here is drawn from hidden state.
    ValueError
        For a negative seed.
    """
    if rng is None:
        raise TypeError("rng expects a seed (a non-negative integer) or a numpy.random.Generator")
    return initializers.as_generator(rng)


def generator_state(rng: np.random.Generator) -> dict[str, Any]:
    """Return the state of a generator as plain data that JSON can hold.

    Parameters
    ----------
    rng : numpy.random.Generator
        With any of NumPy's bit generators.

    Returns
    -------
    dict
        ``rng.bit_generator.state`` with lists in place of arrays. The integers have up to 128
        bits; Python's JSON keeps them exact.
    """
    state: dict[str, Any] = _to_plain(rng.bit_generator.state)
    return state


def generator_from_state(rng: np.random.Generator, state: object) -> np.random.Generator:
    """Return a new generator of the kind of ``rng`` in a saved state; ``rng`` is left alone.

    Parameters
    ----------
    rng : numpy.random.Generator
        Its bit generator must be of the class that the state was saved from.
    state : dict
        As :func:`generator_state` returned it, perhaps after a trip through JSON.

    Returns
    -------
    numpy.random.Generator

    Raises
    ------
    ValueError
        When the state is of another bit generator, or damaged.
    """
    expected = type(rng.bit_generator).__name__
    received = state.get("bit_generator") if isinstance(state, dict) else None
    if received != expected:
        raise ValueError(
            f"Expected the state of a {expected} generator; got "
            f"{received or type(state).__name__}. Pass rng= of the kind the state was saved with."
        )
    bit_generator = type(rng.bit_generator)()
    try:
        bit_generator.state = _like(bit_generator.state, state)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise ValueError(f"The saved state of the {expected} generator is damaged: {error}.") from (
            error
        )
    return np.random.Generator(bit_generator)


def _to_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value


def _like(template: Any, value: Any) -> Any:
    """Give plain data the array types that a bit generator's own state has."""
    if isinstance(template, dict):
        return {key: _like(entry, value[key]) for key, entry in template.items()}
    if isinstance(template, np.ndarray):
        array = np.array(value, dtype=template.dtype)
        if array.shape != template.shape:
            raise ValueError(f"expected {template.shape} numbers, got {array.shape}")
        return array
    return value
