"""Random bits in one launch: each thread mixes one Philox block of four outputs.

Not yet measured on a GPU. The tests run this very source on the CPU, compiled as C, and compare it
with the reference bit by bit.
"""

import functools
import math
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array
from xbackprop.dispatch import ArraySpec
from xbackprop.ops.random_bits import random_bits as op

THREADS = 256  # per CUDA block
_MOST_CUDA_BLOCKS = 2**31 - 1  # along x
_WORDS_IN_STATE = 4

# All positions are counted in 64 bits: a draw may hold more than 2**32 elements and start anywhere.
SOURCE = r"""
extern "C" __global__ void random_bits(
    const unsigned int* state,       // key, key, call number, call number
    unsigned int* out,
    unsigned long long first_block,  // number of the Philox block of the first output
    unsigned int skip,               // outputs of that block before the first one wanted
    unsigned long long size)
{
    unsigned long long index = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= (size + skip + 3) / 4) return;

    unsigned long long number = first_block + index;
    unsigned int key0 = state[0], key1 = state[1];
    unsigned int word0 = (unsigned int)number, word1 = (unsigned int)(number >> 32);
    unsigned int word2 = state[2], word3 = state[3];
    for (int round = 0; round < 10; ++round) {
        unsigned long long first = (unsigned long long)0xD2511F53u * word0;
        unsigned long long second = (unsigned long long)0xCD9E8D57u * word2;
        word0 = (unsigned int)(second >> 32) ^ word1 ^ key0;
        word1 = (unsigned int)second;
        word2 = (unsigned int)(first >> 32) ^ word3 ^ key1;
        word3 = (unsigned int)first;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }

    if (skip == 0 && 4 * index + 4 <= size) {  // whole and aligned: one store of 16 bytes
        *(uint4*)(out + 4 * index) = make_uint4(word0, word1, word2, word3);
        return;
    }
    unsigned int words[4] = {word0, word1, word2, word3};
    for (unsigned int lane = 0; lane < 4; ++lane) {
        unsigned long long place = 4 * index + lane;  // counted from the start of the first block
        if (place >= skip && place - skip < size) out[place - skip] = words[lane];
    }
}
"""


def can_serve(state: ArraySpec, shape: tuple[int, ...], offset: int = 0) -> bool:
    """Tell whether the kernel can draw this: something, from a plain state, within its counters."""
    size = math.prod(shape)
    blocks = _count_blocks(size, offset)
    return (
        state.shape == (_WORDS_IN_STATE,)
        and state.dtype == np.uint32
        and size > 0
        and offset >= 0
        and offset // 4 + blocks <= 2**64
        and blocks <= THREADS * _MOST_CUDA_BLOCKS
    )


def count_bytes(state: ArraySpec, shape: tuple[int, ...], offset: int = 0) -> int:
    """Return the bytes read (the state) and written (the result)."""
    return 4 * (_WORDS_IN_STATE + math.prod(shape))


@op.kernel("cuda", when=can_serve, launches=1, bytes_moved=count_bytes)
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

    first_block, skip = divmod(offset, 4)
    out = cupy.empty(shape, dtype=np.uint32)  # its memory is aligned to more than 16 bytes
    cuda_blocks = -(-_count_blocks(out.size, offset) // THREADS)
    arguments = (
        cupy.ascontiguousarray(state),
        out,
        np.uint64(first_block),
        np.uint32(skip),
        np.uint64(out.size),
    )
    _compiled()((cuda_blocks,), (THREADS,), arguments)
    return out


def _count_blocks(size: int, offset: int) -> int:
    """Return how many Philox blocks the outputs lie in."""
    return (offset % 4 + size + 3) // 4


@functools.cache
def _compiled() -> Any:
    import cupy

    return cupy.RawKernel(SOURCE, "random_bits")  # compiled at the first call on each device
