"""Sequences of several lengths: padded to one array, or packed so that no step is wasted.

Lengths are host data, as in PyTorch: nothing here waits for a device. What one of these functions
does to elements another one undoes, so they are each other's backward: the gradient of what
:func:`pack_padded_sequence` took is :func:`pad_packed_sequence` of the gradient of what it gave,
and the other way round; so are :func:`pad_sequence` and :func:`unpad_sequence`, and
:func:`pack_sequence` and :func:`unpack_sequence`.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module, is_array, is_device_array
from xbackprop.backend.device import Device, device_of
from xbackprop.backend.transfer import to_device, to_host
from xbackprop.ops.packing import pack_rows, pad_rows


class BatchSizes(tuple[int, ...]):
    """How many sequences are as long as each step, as plain numbers.

    Attributes
    ----------
    order : tuple of int or None
        ``sorted_indices`` on the host, so that lengths can be put back without a download; None
        where nothing was sorted.
    """

    order: tuple[int, ...] | None = None


class _Fields(NamedTuple):
    data: Array
    batch_sizes: BatchSizes
    sorted_indices: Array | None
    unsorted_indices: Array | None


class PackedSequence(_Fields):
    """Rows of sequences of several lengths, one step after the other; made by functions below.

    Parameters
    ----------
    data : array, shape (rows, ...)
        The rows of step 0, then those of step 1, and so on; longest sequences first.
    batch_sizes : sequence of int
        How many rows each step has; on the host.
    sorted_indices : array of int, shape (batch,), optional
        Where each sequence was before they were sorted; beside ``data``. None: nothing was sorted.
    unsorted_indices : array of int, shape (batch,), optional
        The inverse of ``sorted_indices``, made from it when it is not given.
    """

    def __new__(
        cls,
        data: Array,
        batch_sizes: Sequence[int] | np.ndarray,
        sorted_indices: Array | None = None,
        unsorted_indices: Array | None = None,
    ) -> Self:
        """Keep the sizes as plain numbers, and indices in this machine's byte order."""
        if not isinstance(batch_sizes, BatchSizes):
            batch_sizes = BatchSizes(_as_ints("PackedSequence", "batch_sizes", batch_sizes))
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        indices = (
            None if array is None else array.astype(np.int64, copy=False)
            for array in (sorted_indices, unsorted_indices)
        )
        return super().__new__(cls, data, batch_sizes, *indices)

    def to(self, device: str | Device | None = None, dtype: Any = None) -> "PackedSequence":
        """Move data and indices to a device, or cast the data, or both."""
        place = device_of(self.data) if device is None else device
        data, *indices = (
            None if array is None else to_device(array, place)
            for array in (self.data, self.sorted_indices, self.unsorted_indices)
        )
        with device_of(data).activate():
            data = data if dtype is None else data.astype(dtype, copy=False)  # type: ignore[union-attr]
        return PackedSequence(data, self.batch_sizes, *indices)


def invert_permutation(permutation: Array | None) -> Array | None:
    """Return the permutation that undoes one; None, which permutes nothing, undoes itself.

    Parameters
    ----------
    permutation : array of int, shape (n,), or None
        Each number from 0 to n - 1 once.

    Returns
    -------
    array of int, shape (n,), or None
    """
    if permutation is None:
        return None
    with device_of(permutation).activate():
        return get_array_module(permutation).argsort(permutation)


def pack_padded_sequence(
    input: Array,
    lengths: Sequence[int] | np.ndarray,
    batch_first: bool = False,
    enforce_sorted: bool = True,
) -> PackedSequence:
    """Pack padded sequences.

    Parameters
    ----------
    input : array, shape (time, batch, ...)
        With ``batch_first`` ``(batch, time, ...)``.
    lengths : sequence of int
        Of every sequence, at least 1; on the host.
    batch_first : bool, default False
        Whether the batch is the first axis of the input.
    enforce_sorted : bool, default True
        Refuse lengths that rise. False sorts the sequences, equal lengths in their order, for which
        the order is uploaded; layers put states and results back.

    Returns
    -------
    PackedSequence

    Raises
    ------
    ValueError
        For a length below 1 or beyond the input, for another number of lengths than sequences, and
        for lengths that rise.
    TypeError
        For lengths that are no integers, or on a device.

    Examples
    --------
    >>> import xbackprop as xb
    >>> from xbackprop.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
    >>> packed = pack_padded_sequence(xb.asarray([[1.0, 3.0], [2.0, 0.0]]), [2, 1])
    >>> packed.data, packed.batch_sizes
    (array([1., 3., 2.], dtype=float32), (2, 1))
    >>> pad_packed_sequence(packed)
    (array([[1., 3.],
           [2., 0.]], dtype=float32), array([2, 1]))
    """
    _check_array("pack_padded_sequence", "input", input, 2)
    sizes = _as_ints("pack_padded_sequence", "lengths", lengths)
    time, batch = input.shape[:2][::-1] if batch_first else input.shape[:2]
    if len(sizes) != batch or not batch:
        raise ValueError(
            f"pack_padded_sequence expects one length for each of {batch} sequences, and at least "
            f"one; got {len(sizes)}"
        )
    if not all(1 <= size <= time for size in sizes):
        raise ValueError(
            f"pack_padded_sequence expects lengths from 1 to {time}; got {list(sizes)}"
        )
    is_sorted = all(now >= after for now, after in pairwise(sizes))
    if enforce_sorted and not is_sorted:
        raise ValueError(
            f"pack_padded_sequence expects lengths that do not rise; got {list(sizes)}. Sort the "
            "sequences, or pass enforce_sorted=False."
        )
    order = None
    with device_of(input).activate():
        x = input.swapaxes(0, 1) if batch_first else input
        if not enforce_sorted:
            host_order = np.argsort(-np.array(sizes), kind="stable")
            order = to_device(host_order, device_of(input))
            x = get_array_module(x).take(x, order, axis=1)
    batch_sizes = BatchSizes(sum(size > step for size in sizes) for step in range(max(sizes)))
    batch_sizes.order = None if enforce_sorted else tuple(host_order.tolist())
    return PackedSequence(pack_rows(x, batch_sizes), batch_sizes, order)


def pad_packed_sequence(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Array, np.ndarray]:
    """Pad packed sequences, and put them back into the order in which they were packed.

    Parameters
    ----------
    sequence : PackedSequence
        As a layer or :func:`pack_padded_sequence` returns it.
    batch_first : bool, default False
        Return ``(batch, time, ...)`` in place of ``(time, batch, ...)``.
    padding_value : float, default 0.0
        Stands where a sequence has ended.
    total_length : int, optional
        Steps of the result, at least as many as the longest sequence has; None takes those.

    Returns
    -------
    padded : array, shape (time, batch, ...)
    lengths : numpy.ndarray of int64, shape (batch,)

    Raises
    ------
    ValueError
        For a ``total_length`` below the longest sequence.
    TypeError
        For anything but a PackedSequence.
    """
    if not isinstance(sequence, PackedSequence):
        raise TypeError(
            f"pad_packed_sequence expects a PackedSequence; got {type(sequence).__name__}"
        )
    data, sizes, _, unsorted_indices = sequence
    longest = len(sizes)
    if total_length is not None and total_length < longest:
        raise ValueError(
            f"pad_packed_sequence expects total_length of at least {longest}, the longest "
            f"sequence; got {total_length}"
        )
    padded = pad_rows(data, sizes, longest if total_length is None else total_length, padding_value)
    lengths = (np.array(sizes)[:, None] > np.arange(sizes[0])).sum(axis=0, dtype=np.int64)
    with device_of(data).activate():
        if unsorted_indices is not None:
            padded = get_array_module(padded).take(padded, unsorted_indices, axis=1)
            lengths = lengths[_on_host(sizes, unsorted_indices)]
        return padded.swapaxes(0, 1) if batch_first else padded, lengths


def pad_sequence(
    sequences: Array | Iterable[Array],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Array:
    """Put sequences of several lengths into one array.

    Parameters
    ----------
    sequences : iterable of array, shape (length, ...)
        Of one dtype, on one device, with the same further axes.
    batch_first : bool, default False
        Return ``(batch, time, ...)`` in place of ``(time, batch, ...)``.
    padding_value : float, default 0.0
        Stands where a sequence has ended.
    padding_side : {"right", "left"}, default "right"
        Where the padding goes.

    Returns
    -------
    array, shape (time, batch, ...)

    Raises
    ------
    ValueError
        For no sequences, and for shapes that differ beyond the length.
    TypeError
        For other things than arrays, and for dtypes that differ.
    """
    if padding_side not in ("left", "right"):
        raise ValueError(
            f"pad_sequence expects padding_side 'left' or 'right'; got {padding_side!r}"
        )
    given = _as_list("pad_sequence", sequences)
    time = max(len(x) for x in given)
    with device_of(given[0]).activate():
        xp, shape = get_array_module(given[0]), (len(given), time, *given[0].shape[1:])
        padded = xp.full(shape, padding_value, dtype=given[0].dtype)
        for row, x in enumerate(given):
            start = time - len(x) if padding_side == "left" else 0
            padded[row, start : start + len(x)] = x
        return padded if batch_first else padded.swapaxes(0, 1)


def unpad_sequence(
    padded_sequences: Array, lengths: Sequence[int] | np.ndarray, batch_first: bool = False
) -> list[Array]:
    """Return the sequences of a padded array, as views of it.

    Parameters
    ----------
    padded_sequences : array, shape (time, batch, ...)
        With ``batch_first`` ``(batch, time, ...)``; padded on the right.
    lengths : sequence of int
        Of every sequence; on the host.
    batch_first : bool, default False
        Whether the batch is the first axis of the input.

    Returns
    -------
    list of array, shape (length, ...)

    Raises
    ------
    ValueError
        For a length beyond the array, and for another number of lengths than sequences.
    TypeError
        For lengths that are no integers, or on a device.
    """
    _check_array("unpad_sequence", "padded_sequences", padded_sequences, 2)
    sizes = _as_ints("unpad_sequence", "lengths", lengths)
    x = padded_sequences if batch_first else padded_sequences.swapaxes(0, 1)
    if len(sizes) != len(x) or not all(0 <= size <= x.shape[1] for size in sizes):
        raise ValueError(
            f"unpad_sequence expects {len(x)} lengths from 0 to {x.shape[1]}; got {list(sizes)}"
        )
    return [x[row, :size] for row, size in enumerate(sizes)]


def pack_sequence(sequences: Iterable[Array], enforce_sorted: bool = True) -> PackedSequence:
    """Pack sequences of several lengths.

    Parameters
    ----------
    sequences : iterable of array, shape (length, ...)
        As :func:`pad_sequence` takes them.
    enforce_sorted : bool, default True
        As :func:`pack_padded_sequence` takes it.

    Returns
    -------
    PackedSequence
    """
    given = _as_list("pack_sequence", sequences)
    lengths = [len(x) for x in given]
    return pack_padded_sequence(pad_sequence(given), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Array]:
    """Return the sequences that were packed, in their order.

    Parameters
    ----------
    packed_sequences : PackedSequence
        As a layer or :func:`pack_sequence` returns it.

    Returns
    -------
    list of array, shape (length, ...)
    """
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)


def _on_host(sizes: BatchSizes, unsorted_indices: Array) -> np.ndarray:
    """Return ``unsorted_indices`` on the host; by a download where nothing else tells them."""
    if sizes.order is None:
        return to_host(unsorted_indices)
    return np.argsort(sizes.order)


def _as_ints(function: str, name: str, values: Any) -> tuple[int, ...]:
    """Return host integers as plain numbers, and refuse what would need a download."""
    if is_device_array(values):
        raise TypeError(
            f"{function} expects {name} on the host; got an array on {device_of(values)}. Keep "
            "lengths as NumPy arrays or lists."
        )
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise TypeError(
            f"{function} expects {name} to be a sequence of integers; got {array.dtype} of shape "
            f"{array.shape}"
        )
    return tuple(array.tolist())


def _as_list(function: str, sequences: Any) -> list[Array]:
    """Return sequences as a list, each checked to fit the first one."""
    if is_array(sequences):
        _check_array(function, "sequences", sequences, 1)
        sequences = [sequences[row] for row in range(len(sequences))]
    given = list(sequences)
    if not given:
        raise ValueError(f"{function} expects at least one sequence; got none")
    for number, x in enumerate(given):
        _check_array(function, f"sequences[{number}]", x, 1)
        if x.shape[1:] != given[0].shape[1:]:
            raise ValueError(
                f"{function} expects sequences that differ in their length only; got shapes "
                f"{given[0].shape} and {x.shape}"
            )
        if x.dtype != given[0].dtype:
            raise TypeError(
                f"{function} expects sequences of one dtype; got {given[0].dtype} and {x.dtype}"
            )
    return given


def _check_array(function: str, name: str, x: Any, ndim: int) -> None:
    """Refuse what is no array of so many axes or more."""
    if not is_array(x):
        raise TypeError(
            f"{function} expects {name} to be an array; got {type(x).__name__}. Call "
            f"xbackprop.asarray({name})."
        )
    if x.ndim < ndim:
        raise ValueError(f"{function} expects {name} of {ndim} axes or more; got shape {x.shape}")
