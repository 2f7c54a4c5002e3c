"""Random bits from a counter: the same on every device, and at every place in a batch.

Philox 4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011)
is a bijection of a 128-bit counter under a 64-bit key. The first two counter words number the block
of four outputs within a call, the last two number the call; so any element can be drawn alone, and
a shard that knows its offset draws what the whole batch would have drawn there.
"""

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.dispatch import op

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


@op(formula=None)
def random_bits(state: Array, shape: tuple[int, ...], offset: int = 0) -> Array:
    """Draw 32 random bits per element.

    Parameters
    ----------
    state : array of uint32, shape (4,)
        Key (two words) and call number (two words), on the device that shall draw.
    shape : tuple of int
        Shape of the result.
    offset : int, default 0
        Position of the first element in the global batch: global sample index times row size.

    Returns
    -------
    array of uint32
    """
    xp = get_array_module(state)
    size = int(np.prod(shape, dtype=np.int64))
    if size == 0:
        return xp.zeros(shape, dtype=np.uint32)
    first_block, skip = divmod(offset, 4)
    blocks = (skip + size + 3) // 4
    block = xp.arange(first_block, first_block + blocks, dtype=np.uint64)
    words = philox(state, block)
    return xp.stack(words, axis=1).reshape(-1)[skip : skip + size].reshape(shape)


@op(formula=None)
def random_kept(
    state: Array, shape: tuple[int, ...], silenced_below: int, offset: int = 0
) -> Array:
    """Tell of each element whether its random bits reach a bound: what dropout keeps.

    Parameters
    ----------
    state, shape
        As for :func:`random_bits`.
    silenced_below : int
        ``p * 2**32`` keeps an element with probability ``1 - p``; at most ``2**32 - 1``.
    offset : int, default 0
        As for :func:`random_bits`.

    Returns
    -------
    array of bool
    """
    return random_bits(state, shape, offset) >= np.uint32(silenced_below)


def philox(state: Array, block: Array) -> list[Array]:
    """Return the four output words of each numbered block, uint32 arrays of ``block``'s shape."""
    xp = get_array_module(state)
    low, high = np.uint64(0xFFFFFFFF), np.uint64(32)
    key = [state[0:1].astype(np.uint64), state[1:2].astype(np.uint64)]
    call = state[2:4].astype(np.uint64)
    zeros = xp.zeros_like(block)
    words = [block & low, block >> high, call[0:1] + zeros, call[1:2] + zeros]
    for round_number in range(_ROUNDS):
        if round_number:
            key = [(k + np.uint64(weyl)) & low for k, weyl in zip(key, _WEYL, strict=True)]
        first = words[0] * np.uint64(_MULTIPLIERS[0])
        second = words[2] * np.uint64(_MULTIPLIERS[1])
        words = [
            (second >> high) ^ words[1] ^ key[0],
            second & low,
            (first >> high) ^ words[3] ^ key[1],
            first & low,
        ]
    return [word.astype(np.uint32) for word in words]


@op(formula=None)
def next_call(state: Array) -> Array:
    """Return ``state`` with its call number increased by one."""
    xp = get_array_module(state)
    number = state[2:3].astype(np.uint64) + np.uint64(1)
    carried = state[3:4].astype(np.uint64) + (number >> np.uint64(32))
    mask = np.uint64(0xFFFFFFFF)
    words = [(number & mask).astype(np.uint32), (carried & mask).astype(np.uint32)]
    return xp.concatenate([state[:2], *words])


def new_state(rng: np.random.Generator) -> np.ndarray:
    """Draw a key on the host; the call number starts at zero."""
    state = np.zeros(4, dtype=np.uint32)
    state[:2] = rng.integers(0, 1 << 32, size=2, dtype=np.uint32)
    return state
