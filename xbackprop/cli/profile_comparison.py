"""Whole training steps by device and batch, which tell where a GPU begins to pay."""

import json
import statistics
import time

from xbackprop.backend.device import Device, synchronize, use_device
from xbackprop.backend.timing import has_time
from xbackprop.cli.devices import choose_device
from xbackprop.cli.errors import CommandError
from xbackprop.cli.model_argument import read_model
from xbackprop.cli.profile_options import ProfileOptions
from xbackprop.cli.training_step import TrainingStep


def compare(options: ProfileOptions) -> int:
    """Print the time of a step for every device and batch.

    Parameters
    ----------
    options : ProfileOptions
        The request.

    Returns
    -------
    int
        0.

    Raises
    ------
    CommandError
        For a MODEL or a device that cannot be had, or one without time.
    """
    devices = [_timed_device(name) for name in options.devices or (options.device,)]
    found = {
        (batch, str(device)): _median_seconds(options, device, batch)
        for batch in options.batch
        for device in devices
    }
    names = [str(device) for device in devices]
    if options.json:
        rows = [
            {"batch": batch, "device": name, "seconds": seconds}
            for (batch, name), seconds in found.items()
        ]
        print(json.dumps({"model": options.model, "steps": options.steps, "rows": rows}, indent=2))
    else:
        print("\n".join(comparison_lines(found, options.batch, names)))
    return 0


def _timed_device(name: str | None) -> Device:
    """Return a device; one that is not there is a mistake in the request."""
    asked_by = "--device" if name is None else "--devices"
    try:
        device = choose_device(name, asked_by).device
    except CommandError as error:
        raise CommandError(str(error)) from error
    if not has_time(device):
        raise CommandError(f"{asked_by}: fake has no time to compare; expected cpu or cuda")
    return device


def _median_seconds(options: ProfileOptions, device: Device, batch: int) -> float:
    """Return the time of a step: the median of some, each until the device is done."""
    given = read_model(options.model, batch=batch, shape=options.shape, seed=options.seed)
    if len(given.inputs[0]) != batch:
        raise CommandError(
            f"--batch {batch}: {given.name} brings inputs of its own; let its function return the "
            "model alone"
        )
    taken = []
    with use_device(device):
        step = TrainingStep(given, device, options.optimizer, options.loss, options.seed)
        for _ in range(options.steps + 1):
            start = time.perf_counter()
            step.run()
            synchronize(device)
            taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def comparison_lines(
    found: dict[tuple[int, str], float], batches: tuple[int, ...], names: list[str]
) -> list[str]:
    """Return a table, and from which batch on another device is faster than the first.

    Parameters
    ----------
    found : dict
        Seconds, by batch and device.
    batches : tuple of int
        The rows.
    names : list of str
        Of devices, the columns.

    Returns
    -------
    list of str
    """
    width = max(12, *(len(name) + 3 for name in names))
    lines = ["batch".rjust(8) + "".join(f"{name} ms".rjust(width) for name in names)
             + "".join(f"{name}/s".rjust(width) for name in names)]  # fmt: skip
    for batch in batches:
        times = [found[batch, name] for name in names]
        lines.append(
            f"{batch:8}"
            + "".join(f"{seconds * 1000:{width}.3f}" for seconds in times)
            + "".join(f"{batch / seconds:{width}.4g}" for seconds in times)
        )
    first, *others = names
    return lines + [_crossover(found, sorted(set(batches)), first, other) for other in others]


def _crossover(
    found: dict[tuple[int, str], float], batches: list[int], first: str, other: str
) -> str:
    faster = [found[batch, other] < found[batch, first] for batch in batches]
    begin = next((n for n in range(len(batches)) if all(faster[n:])), None)
    if begin is None:
        return f"{other} is not faster than {first} at batch {batches[-1]}"
    return f"{other} pays from batch {batches[begin]} on"
