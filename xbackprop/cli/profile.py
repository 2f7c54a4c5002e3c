"""``xbackprop profile``: where the time of a training step goes, and budgets for a CI."""

import json
from pathlib import Path
from typing import Any

from xbackprop.backend.device import Device, synchronize, use_device
from xbackprop.backend.peak import METERS, PeakMemory, peak_memory
from xbackprop.backend.timing import has_time
from xbackprop.cli.devices import choose_device
from xbackprop.cli.errors import FAILED, CommandError
from xbackprop.cli.model_argument import read_model
from xbackprop.cli.profile_budget import budget_lines, excess_of
from xbackprop.cli.profile_comparison import compare
from xbackprop.cli.profile_options import ProfileOptions
from xbackprop.cli.profile_tables import profile_lines
from xbackprop.cli.run_folder import writing
from xbackprop.cli.training_step import TrainingStep
from xbackprop.observe.profiling.peak import MachinePeak, measure_peak
from xbackprop.observe.profiling.profile import Profile
from xbackprop.observe.profiling.recording import profile
from xbackprop.testing.structures import arrays


def run_profile(options: ProfileOptions) -> int:
    """Print what a training step does.

    Parameters
    ----------
    options : ProfileOptions
        The request.

    Returns
    -------
    int
        Exit code: 0, or 1 when a step goes beyond the budget.

    Raises
    ------
    CommandError
        For a MODEL, a device or a file that cannot be had.
    """
    if options.is_comparison:
        return compare(options)
    device = choose_device(options.device).device
    _refuse_what_needs_another_device(options, device)
    given = read_model(
        options.model, batch=options.batch[0], shape=options.shape, seed=options.seed
    )
    with use_device(device):
        step = TrainingStep(given, device, options.optimizer, options.loss, options.seed)
        step.run()  # lays out flat storage, and fills caches
        with peak_memory(device) as memory:
            step.run()
        synchronize(device)
        found = _median_step(step, device, options.steps)
        peak = measure_peak(device, "float32")
    if options.trace is not None:
        with writing(Path(options.trace)):
            text = json.dumps(found.trace(), allow_nan=False)
            Path(options.trace).write_text(text, encoding="utf-8")
    excess = excess_of(found, options.budget or {})
    if options.json:
        content = _as_plain(options, device, step.loss_name, found, peak, memory)
        print(json.dumps({**content, "excess": excess}, indent=2, allow_nan=False))
        return FAILED if excess else 0
    print(f"{given.name} on {device}: {_told(given.inputs)}, {options.optimizer}, "
          f"loss {step.loss_name}")  # fmt: skip
    print("\n".join(profile_lines(found, options.rows, peak, memory, METERS[device.kind])))
    if options.budget is not None:
        print("\n".join(["", *budget_lines(found, options.budget, excess)]))
    return FAILED if excess else 0


def _refuse_what_needs_another_device(options: ProfileOptions, device: Device) -> None:
    if options.budget is not None and device.kind != "fake":
        raise CommandError(
            f"--budget needs --device fake, which counts everything; got {device.kind}"
        )
    if options.trace is not None and not has_time(device):
        raise CommandError("--trace needs times, and fake has none; use cpu or cuda")


def _median_step(step: TrainingStep, device: Device, steps: int) -> Profile:
    """Return the profile of the step in the middle by its time; a mean is spoilt by one pause."""
    found = []
    for _ in range(steps if has_time(device) else 1):  # without times one is like the other
        with profile(device) as recorded:
            step.run(recorded.phase)
        found.append(recorded)
    found.sort(key=lambda each: sum(phase.seconds or 0.0 for phase in each.phases))
    return found[(len(found) - 1) // 2]


def _told(inputs: tuple[Any, ...]) -> str:
    shapes = [str(array.shape) for array in arrays(inputs, "").values()]
    return f"input{'s' if len(shapes) > 1 else ''} {', '.join(shapes)}"


def _as_plain(
    options: ProfileOptions,
    device: Device,
    loss: str,
    found: Profile,
    peak: MachinePeak | None,
    memory: PeakMemory,
) -> dict[str, Any]:
    """Return plain data of one step."""
    return {
        "model": options.model, "device": str(device), "optimizer": options.optimizer,
        "loss": loss,
        "phases": [{**vars(each), "traffic": vars(each.traffic)} for each in found.phases],
        "ops": [each.as_dict() for each in found.by_op()],
        "layers": [each.as_dict() for each in found.by_layer()],
        "traffic": vars(found.traffic),
        "transfers": [vars(each) for each in found.transfers],
        "overhead_seconds": found.overhead_seconds,
        "peak": None if peak is None else vars(peak),
        "memory": {**vars(memory), "meter": METERS[device.kind]},
    }  # fmt: skip
