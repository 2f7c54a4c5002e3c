"""Batches: gathered on the host, cast there, and moved to the device one ahead of the loop."""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from xbackprop.backend.device import Device, parse_device
from xbackprop.backend.half import is_float_dtype
from xbackprop.backend.staging import stream_to_device
from xbackprop.data.arrays import (
    as_host_array,
    as_inputs,
    check_finite,
    check_same_length,
)
from xbackprop.data.generators import as_generator, generator_from_state, generator_state


def batches(
    X: Any,
    y: Any = None,
    batch_size: int = 64,
    *,
    rng: int | np.random.Generator | None = None,
    shuffle: bool | None = None,
    drop_last: bool = False,
    dtype: Any = np.float32,
    device: str | Device | None = None,
    check_finite: bool = True,
) -> "Batches":
    """Iterate over a data set in batches that lie on a device.

    Parameters
    ----------
    X : array_like of shape (samples, ...), or tuple of such
        Inputs on the host. A tuple is several inputs per sample; ``x`` is then a tuple too.
    y : array_like of shape (samples, ...), optional
        Targets on the host. Without them the iterator yields ``x`` alone.
    batch_size : int, default 64
        Samples per batch; the last batch of an epoch holds what is left.
    rng : int or numpy.random.Generator, optional
        Seed or generator of the order, drawn on the host. None keeps the order of the data.
    shuffle : bool, optional
        Says the same as ``rng`` does, for readers; True without ``rng`` and False with it are
        errors.
    drop_last : bool, default False
        Leave out a last batch that is not full.
    dtype : dtype, default float32
        Floating-point dtype of the model. Floats are cast to it on the host, before the upload.
        Integer and boolean targets become int64; integer and boolean inputs keep their dtype.
    device : str or Device, optional
        Where to; None is the default device at the time a batch is made.
    check_finite : bool, default True
        Read all floats once now and refuse NaN, infinities and what overflows ``dtype``.

    Returns
    -------
    Batches
        Has a length, and can be iterated over many times.

    Raises
    ------
    TypeError
        For arrays on a device (call ``xb.to_host`` first) and dtypes that are not numbers.
    ValueError
        For unequal lengths, empty sets, a batch size below 1, NaN and infinities.

    Notes
    -----
    Each ``for`` loop over the object is one epoch and draws one permutation: the first one is
    ``rng.permutation(samples)``, the second loop draws the next. A loop that was left early is
    over; the next one starts the next epoch. See :meth:`Batches.state_dict` for how to stop and
    go on within an epoch.

    A batch is one upload per array: two for a plain ``x, y``. On a GPU the next batch is gathered
    and copied while a batch is computed with; see :mod:`xbackprop.backend.staging`.

    Examples
    --------
    >>> for x, y in batches([[0.0], [1.0], [2.0]], [0, 1, 1], 2, device="cpu"):
    ...     print(x.ravel(), y)
    [0. 1.] [0 1]
    [2.] [1]
    """
    size = _checked_batch_size(batch_size)
    if device is not None:
        parse_device(device)  # a name that is none is refused here, not at the first batch
    float_dtype = _checked_dtype(dtype)
    if shuffle is not None:
        _check_shuffle(shuffle, has_rng=rng is not None)
    inputs = as_inputs(X)
    target = None if y is None else as_host_array(y, "y")
    arrays = inputs if target is None else {**inputs, "y": target}
    num_samples = check_same_length(**arrays)
    if drop_last and num_samples < size:
        raise ValueError(
            f"drop_last=True leaves no batch: batch_size is {size}, the data has "
            f"{num_samples} samples. Choose a smaller batch_size."
        )
    if check_finite:
        _check_numbers(arrays, float_dtype)
    return Batches(
        tuple(inputs.values()),
        target,
        size,
        rng=None if rng is None else as_generator(rng),
        drop_last=drop_last,
        dtype=float_dtype,
        device=device,
        has_several_inputs=isinstance(X, tuple),
    )


class Batches:
    """A data set that yields batches, epoch after epoch; made by :func:`batches`.

    Parameters
    ----------
    inputs : tuple of numpy.ndarray
        Host arrays of equal length.
    target : numpy.ndarray or None
        Host array of that length.
    batch_size : int
        Samples per full batch.
    rng : numpy.random.Generator or None
        None keeps the order of the data.
    drop_last : bool
        Leave out a last batch that is not full.
    dtype : numpy.dtype
        What floats are cast to.
    device : str, Device or None
        Where batches go.
    has_several_inputs : bool
        Yield the inputs as a tuple.

    Attributes
    ----------
    epoch : int
        Number of the epoch that runs or comes next, from 0.
    position : int
        Samples of this epoch that have been handed out.
    num_samples : int
        Samples in the data set.
    batch_size : int
        Samples per full batch.
    """

    def __init__(
        self,
        inputs: tuple[np.ndarray, ...],
        target: np.ndarray | None,
        batch_size: int,
        *,
        rng: np.random.Generator | None,
        drop_last: bool,
        dtype: np.dtype[Any],
        device: str | Device | None,
        has_several_inputs: bool,
    ) -> None:
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.num_samples = len(inputs[0])
        self.epoch = 0
        self.position = 0
        self._inputs = inputs
        self._target = target
        self._rng = rng
        self._dtype = dtype
        self._device = device
        self._has_several_inputs = has_several_inputs
        # Samples of an epoch: all, or those of the whole batches.
        self._end = self.num_samples - (self.num_samples % batch_size if drop_last else 0)
        self._permutation: np.ndarray | None = None
        self._state_at_start: dict[str, Any] | None = None  # the generator's, before the draw
        self._has_started = False
        self._is_resuming = False
        self._running: object = None  # the loop that counts; an older one goes on uncounted

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return -(-self._end // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        """Start the next epoch, or go on within the one that was loaded."""
        if self._is_resuming:
            self._is_resuming = False
        else:
            if self._has_started:
                self._finish_epoch()
            self._start_epoch()
        self._running = token = object()
        return self._run(token, self._permutation, self.position)

    def state_dict(self) -> dict[str, Any]:
        """Return where the iteration stands, as plain data that JSON can hold.

        Returns
        -------
        dict
            Epoch, position, sizes, and the generator's state at the start of the epoch and now.
            Inside the loop, the batch just handed out counts as done.
        """
        now = None if self._rng is None else generator_state(self._rng)
        return {
            "epoch": self.epoch,
            "position": self.position,
            "has_started": self._has_started,
            "num_samples": self.num_samples,
            "batch_size": self.batch_size,
            "drop_last": self.drop_last,
            "generator_at_epoch_start": (
                copy.deepcopy(self._state_at_start) if self._has_started else now
            ),
            "generator": now,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken: the next loop yields the batches left.

        Parameters
        ----------
        state : dict
            From an object over the same data with the same options. The generator that was passed
            as ``rng`` is set to the saved state, so draws of others from it agree too.

        Raises
        ------
        ValueError
            When the state does not fit this object; nothing has changed then.

        Notes
        -----
        A state taken at the last batch of an epoch, before its loop ended, leaves a next loop
        without any batch: what a program does at the end of an epoch is still to be done.
        """
        self._check_state(state)
        permutation = state_at_start = None
        if self._rng is not None:
            at_start = generator_from_state(self._rng, state["generator_at_epoch_start"])
            now = generator_from_state(self._rng, state["generator"])
            state_at_start = generator_state(at_start)
            if state["has_started"]:
                permutation = at_start.permutation(self.num_samples)
            self._rng.bit_generator.state = now.bit_generator.state
        self.epoch = state["epoch"]
        self.position = state["position"]
        self._permutation = permutation
        self._state_at_start = state_at_start
        self._has_started = self._is_resuming = state["has_started"]
        self._running = None

    def _start_epoch(self) -> None:
        self._has_started = True
        if self._rng is not None:
            self._state_at_start = generator_state(self._rng)
            self._permutation = self._rng.permutation(self.num_samples)

    def _finish_epoch(self) -> None:
        self.epoch += 1
        self.position = 0
        self._has_started = False

    def _run(self, token: object, permutation: np.ndarray | None, start: int) -> Iterator[Any]:
        rows = (
            slice(first, first + self.batch_size)
            if permutation is None
            else permutation[first : first + self.batch_size]
            for first in range(start, self._end, self.batch_size)
        )
        moved = stream_to_device(map(self._gather, rows), self._device)
        with contextlib.closing(moved):
            last = start
            for arrays in moved:
                last = min(last + self.batch_size, self._end)
                if self._running is token:
                    self.position = last
                yield self._arrange(arrays)
                del arrays  # the next batch may need the room
        if self._running is token:
            self._running = None
            self._finish_epoch()

    def _gather(self, rows: slice | np.ndarray) -> list[np.ndarray]:
        """Return the rows of all inputs, and of the target as the last."""
        gathered = [self._cast(array[rows], array.dtype) for array in self._inputs]
        if self._target is not None:
            is_label = not is_float_dtype(self._target.dtype)
            dtype = np.dtype(np.int64) if is_label else self._dtype
            gathered.append(self._cast(self._target[rows], dtype))
        return gathered

    def _arrange(self, arrays: list[Any]) -> Any:
        inputs = tuple(arrays[: len(self._inputs)])
        x = inputs if self._has_several_inputs else inputs[0]
        return x if self._target is None else (x, arrays[-1])

    def _cast(self, rows: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
        if is_float_dtype(rows.dtype):
            dtype = self._dtype
        # Always a fresh array in row-major order and native bytes: on the CPU the batch would
        # otherwise be a window onto the user's data.
        return np.array(rows, dtype=dtype.newbyteorder("="), order="C")

    def _check_state(self, state: dict[str, Any]) -> None:
        if not isinstance(state, dict):
            raise TypeError(f"Expected the dict of state_dict(); got {type(state).__name__}.")
        expected = self.state_dict()
        missing = [key for key in expected if key not in state]
        if missing:
            raise ValueError(f"The saved state of the batches lacks {', '.join(missing)}.")
        for key in ("num_samples", "batch_size", "drop_last"):
            if state[key] != expected[key]:
                raise ValueError(
                    f"The saved state is of batches with {key}={state[key]}; these have "
                    f"{key}={expected[key]}. Make them as they were made when the state was saved."
                )
        if (state["generator"] is None) != (self._rng is None):
            was, now = "in order", "shuffled"
            if self._rng is None:
                was, now = now, was
            raise ValueError(f"The saved state is of batches {was}; these are {now}. See rng=.")
        epoch, position, has_started = (state[k] for k in ("epoch", "position", "has_started"))
        boundaries = (*range(0, self._end, self.batch_size), self._end)
        if (
            type(epoch) is not int
            or epoch < 0
            or type(has_started) is not bool
            or type(position) is not int
            or position not in (boundaries if has_started else (0,))
        ):
            raise ValueError(
                f"The saved state of the batches is damaged: epoch {epoch!r}, "
                f"position {position!r}, has_started {has_started!r}."
            )


def _checked_batch_size(batch_size: object) -> int:
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer):
        raise TypeError(f"batch_size expects a whole number; got {batch_size!r}.")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}.")
    return int(batch_size)


def _checked_dtype(dtype: Any) -> np.dtype[Any]:
    # np.dtype(None) is float64.
    checked = None if dtype is None else np.dtype(dtype)
    if checked is None or not is_float_dtype(checked):
        raise TypeError(f"dtype expects a floating-point dtype such as np.float32; got {dtype!r}.")
    return checked


def _check_shuffle(shuffle: bool, *, has_rng: bool) -> None:
    if shuffle and not has_rng:
        raise ValueError("shuffle=True needs rng=, a seed or a numpy.random.Generator, e.g. rng=0.")
    if has_rng and not shuffle:
        raise ValueError("shuffle=False keeps the order, so rng= would go unused. Leave out one.")


def _check_numbers(arrays: dict[str, np.ndarray], dtype: np.dtype[Any]) -> None:
    for name, array in arrays.items():
        check_finite(array, name, dtype)
    labels = arrays.get("y")
    if labels is not None and labels.dtype.kind == "u" and labels.max() > np.iinfo(np.int64).max:
        raise ValueError(f"y holds the label {labels.max()}, too large for int64.")
