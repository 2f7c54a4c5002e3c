"""Layers that draw random bits: who owns the key and the counter."""

import math
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.device import Device, device_of
from xbackprop.backend.half import is_half
from xbackprop.initializers import RandomSource, as_generator, initial
from xbackprop.module import Module, current_frame, describe_layer
from xbackprop.ops.random_bits import new_state, next_call, random_bits, random_kept


class RandomLayer(Module):
    """A layer that draws Philox bits of (key, call number, position): the same on every device.

    Parameters
    ----------
    device : str or Device, optional
        Where the random counter lives; None is the default device.
    rng : Generator, int or None
        Draws the key of the random stream.
    """

    def __init__(self, device: str | Device | None, rng: RandomSource) -> None:
        state = initial((4,), np.uint32, lambda: new_state(as_generator(rng)), device)
        self.register_buffer("random_state", state, persistent=False)

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Draw a new key and start counting at zero."""
        self.load_extra_state({"random_state": new_state(as_generator(rng))})

    def renew_key(self, rng: np.random.Generator) -> None:
        """Take a new key, as a copy does that is to draw other bits."""
        RandomLayer.__init__(self, device_of(self.random_state), rng)

    def check_random_input(self, x: Any, name: str = "x") -> None:
        """Check that an input is an array of floats on the device of the counter."""
        self.check_device(name, x, self.read_buffer("random_state"))
        is_taken = x.dtype.kind == "f" or (self.in_half == "half" and is_half(x.dtype))
        if not is_taken:
            raise TypeError(
                f"{describe_layer(self)} expects {name} of a float dtype; got {x.dtype}"
            )

    def draw_bits(self, shape: tuple[int, ...]) -> Array:
        """Return 32 fresh random bits per element; the counter moves when the call succeeds."""
        return random_bits(self._count_call(), shape, _offset_of(shape))

    def draw_kept(self, shape: tuple[int, ...], p: float) -> tuple[Array, float]:
        """Draw what dropout keeps, each element with probability ``1 - p``.

        Returns the mask, and the ``p`` whose ``1 / (1 - p)`` scales what is kept: 0 where nothing
        is, since ``1 / (1 - p)`` has no value there.
        """
        state = self._count_call()
        if p == 1.0:
            return get_array_module(state).zeros(shape, dtype=bool), 0.0
        silenced_below = min(round(p * 2.0**32), 2**32 - 1)
        return random_kept(state, shape, silenced_below, _offset_of(shape)), p

    def _count_call(self) -> Array:
        """Return the state to draw from; the next call has another."""
        state = self.read_buffer("random_state")
        self.update_buffer("random_state", next_call(state))
        return state


def _offset_of(shape: tuple[int, ...]) -> int:
    """Return where in the whole batch's draw this one begins, whose first axis is the batch."""
    shard = current_frame().shard
    if shard is None or not shard[0]:
        return 0
    first, samples = shard
    return first * (math.prod(shape) // samples)
