"""Random bits, and masks of them, in one launch: a thread mixes one Philox block of four outputs.

Not yet measured on a GPU. The tests run the source beside this file on the CPU, and compare it with
the reference bit by bit.
"""

import math
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.cuda.sources import MOST_BLOCKS, Source
from xbackprop.ops.random_bits import next_call as next_op
from xbackprop.ops.random_bits import random_bits as bits_op
from xbackprop.ops.random_bits import random_kept as kept_op

THREADS = 256  # per CUDA block
_WORDS_IN_STATE = 4
SOURCE = Source(__file__, ["random_bits", "random_kept", "next_call"])


def is_state(state: ArraySpec) -> bool:
    """Tell whether this is a plain state of the generator."""
    return state.shape == (_WORDS_IN_STATE,) and state.dtype == np.uint32 and state.is_contiguous


def can_serve(state: ArraySpec, shape: tuple[int, ...], offset: int = 0) -> bool:
    """Tell whether the kernel can draw this: something, from a plain state, within its counters."""
    size = math.prod(shape)
    blocks = _count_blocks(size, offset)
    return (
        is_state(state)
        and size > 0
        and offset >= 0
        and offset // 4 + blocks <= 2**64
        and blocks <= THREADS * MOST_BLOCKS
    )


def can_serve_kept(
    state: ArraySpec, shape: tuple[int, ...], silenced_below: int, offset: int = 0
) -> bool:
    """Tell whether the bits can be drawn, and the bound is one of 32 bits."""
    return 0 <= silenced_below < 2**32 and can_serve(state, shape, offset)


def bytes_bits(state: ArraySpec, shape: tuple[int, ...], offset: int = 0) -> int:
    """Return the bytes read (the state) and written (the result)."""
    return 4 * (_WORDS_IN_STATE + math.prod(shape))


def bytes_kept(
    state: ArraySpec, shape: tuple[int, ...], silenced_below: int, offset: int = 0
) -> int:
    """Return the bytes read (the state) and written (the result)."""
    return 4 * _WORDS_IN_STATE + math.prod(shape)


@bits_op.kernel("cuda", when=can_serve, launches=1, bytes_moved=bytes_bits)
def random_bits(state: Array, shape: tuple[int, ...], offset: int = 0) -> Array:
    """Draw 32 random bits per element, as :func:`xbackprop.ops.random_bits.random_bits`.

    Parameters
    ----------
    state : cupy.ndarray of uint32, shape (4,)
        Key (two words) and call number (two words).
    shape : tuple of int
        Shape of the result.
    offset : int, default 0
        Position of the first element in the global batch.

    Returns
    -------
    cupy.ndarray of uint32
    """
    import cupy

    out = cupy.empty(shape, dtype=np.uint32)  # its memory is aligned to more than 16 bytes
    _launch("random_bits", state, out, offset)
    return out


@kept_op.kernel("cuda", when=can_serve_kept, launches=1, bytes_moved=bytes_kept)
def random_kept(
    state: Array, shape: tuple[int, ...], silenced_below: int, offset: int = 0
) -> Array:
    """Draw a mask, as :func:`xbackprop.ops.random_bits.random_kept`; one byte is written for each.

    Parameters
    ----------
    state : cupy.ndarray of uint32, shape (4,)
        Key (two words) and call number (two words).
    shape : tuple of int
        Shape of the result.
    silenced_below : int
        Elements whose bits are below it are not kept.
    offset : int, default 0
        Position of the first element in the global batch.

    Returns
    -------
    cupy.ndarray of bool
    """
    import cupy

    kept = cupy.empty(shape, dtype=bool)
    _launch("random_kept", state, kept, offset, np.uint32(silenced_below))
    return kept


@next_op.kernel(
    "cuda", when=is_state, launches=1, bytes_moved=lambda state: 2 * 4 * _WORDS_IN_STATE
)
def next_call(state: Array) -> Array:
    """Return ``state`` with its call number increased by one."""
    import cupy

    following = cupy.empty(_WORDS_IN_STATE, dtype=np.uint32)
    SOURCE.launch("next_call", 1, 32, state, following)
    return following


def _launch(name: str, state: Array, out: Array, offset: int, *options: Any) -> None:
    first_block, skip = divmod(offset, 4)
    cuda_blocks = -(-_count_blocks(out.size, offset) // THREADS)
    place = (np.uint64(first_block), np.uint32(skip), np.uint64(out.size))
    SOURCE.launch(name, cuda_blocks, THREADS, state, out, *options, *place)


def _count_blocks(size: int, offset: int) -> int:
    """Return how many Philox blocks the outputs lie in."""
    return (offset % 4 + size + 3) // 4
