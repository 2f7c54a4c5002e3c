"""Batches of host data on a device, in a new order for each epoch."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.utils import gen_batches

from xbackprop.backend.device import Device
from xbackprop.backend.transfer import to_device
from xbackprop.sklearn.rows import sum_of_weights


def choose_batch_size(asked: Any, samples: int) -> int:
    """Return the samples per update, as scikit-learn's MLPs take it: "auto" is 200, or all."""
    if asked == "auto":
        return min(200, samples)
    if asked > samples:
        warnings.warn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
            stacklevel=2,
        )
    return int(np.clip(asked, 1, samples))


class Epochs:
    """Batches on a device, in a new order each time they are gone through.

    Parameters
    ----------
    x, y : ResidentRows or StreamedRows
        Inputs and targets.
    count, batch_size : int
        Samples in all, and in a batch.
    random : RandomState or None
        Draws the order; None keeps that of the data.
    device : Device
        Where the batches lie.
    weight : array, shape (count,), optional
        Factors of the samples, on the host: a batch whose factors sum up to 0 has no mean, and is
        refused by ZeroDivisionError.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        count: int,
        batch_size: int,
        random: Any,
        device: Device,
        weight: np.ndarray | None = None,
    ) -> None:
        self.x, self.y = x, y
        self.count, self.batch_size = count, batch_size
        self.random, self.device = random, device
        self.weight = weight

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        host = None if self.random is None else self.random.permutation(self.count)
        order = None if host is None else to_device(host, self.device)
        slices = list(gen_batches(self.count, self.batch_size))
        inputs = self.x.batches(slices, order, host)
        for chosen in slices:
            if self.weight is not None:
                sum_of_weights(self.weight, chosen, host)
            yield next(inputs), self.y.take(order, chosen, host)
