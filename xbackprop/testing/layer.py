"""The whole protocol of a layer, checked on every device."""

from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np

from xbackprop.backend.device import Device, resolve_device, use_device
from xbackprop.initializers import RandomSource, as_generator
from xbackprop.module import Module
from xbackprop.testing.layer_checks import LAYER_CHECKS
from xbackprop.testing.subject import Subject


def check_layer(
    make_module: Callable[[], Module],
    make_inputs: Callable[[np.random.Generator], Any],
    *,
    devices: Iterable[str | Device] = ("cpu", "fake"),
    has_batch: bool = True,
    skip: Collection[str] = (),
    rng: RandomSource = 0,
) -> None:
    """Check that a layer follows the protocol, on every device.

    Parameters
    ----------
    make_module : callable
        Makes the layer, or the loss, on the default device.
    make_inputs : callable
        Takes a Generator and returns the input of ``forward``, or a tuple of its inputs, as host
        arrays. Floats are cast as each check needs them. The values must keep off kinks.
    devices : iterable of str
        Where to check; ``fake`` finds what would fail, or wait, on a GPU.
    has_batch : bool, default True
        Whether all inputs have the batch as their first axis; batches of one and none are checked
        then.
    skip : collection of str
        Names out of ``LAYER_CHECKS`` that this layer cannot pass, by its nature.
    rng : Generator, int or None
        Draws inputs and gradients.

    Raises
    ------
    AssertionError
        Names the layer, the device, the check, what was expected and what received.

    Examples
    --------
    >>> import xbackprop as xb
    >>> xb.testing.check_layer(xb.nn.Tanh, lambda rng: rng.normal(size=(4, 3)))
    """
    unknown = set(skip) - set(LAYER_CHECKS)
    if unknown:
        raise ValueError(
            f"skip expects names of checks, which are {', '.join(LAYER_CHECKS)}; "
            f"got {', '.join(sorted(unknown))}"
        )
    generator = as_generator(rng)
    for device in devices:
        place = resolve_device(device)
        subject = Subject(make_module, make_inputs, place, has_batch, generator)
        for name, check in LAYER_CHECKS.items():
            if name in skip:
                continue
            try:
                with use_device(place):
                    check(subject)
            except AssertionError as error:
                raise AssertionError(f"{subject.layer} on {place}, {name}: {error}") from error
            except Exception as error:
                error.add_note(f"{subject.layer} on {place}, while checking: {name}")
                raise
