"""``xbackprop parity``: the same network on several devices and in two precisions."""

import json
import math
from pathlib import Path

from xbackprop.backend.device import Device
from xbackprop.cli.devices import choose_device
from xbackprop.cli.errors import FAILED, CommandError
from xbackprop.cli.model_argument import GivenModel, read_model
from xbackprop.cli.parity_options import ParityOptions
from xbackprop.cli.run_folder import writing
from xbackprop.observe import OpParity, Parity, parity, record_parity, replay_parity
from xbackprop.training import CheckpointError

_TOKENS = 16


def run_parity(options: ParityOptions) -> int:
    """Print what each device and precision is worth.

    Parameters
    ----------
    options : ParityOptions
        The request.

    Returns
    -------
    int
        Exit code: 0, or 1 when an op is out of tolerance.

    Raises
    ------
    CommandError
        For a MODEL, a device or a file that cannot be had.
    """
    if options.replay is not None:
        return _report(_replayed(options), options)
    given = read_model(
        str(options.model),
        batch=options.batch,
        length=_TOKENS,
        shape=options.shape,
        seed=options.seed,
    )
    names: tuple[str | None, ...] = options.devices or (None,)
    devices = [choose_device(name, "--devices").device for name in names]
    if options.record is not None:
        return _record(given, devices[0], options.record, options.seed)
    found = parity(
        given.model,
        *given.inputs,
        devices=devices,
        rng=options.seed,
        own_tolerance=options.tolerance,
        accumulated_tolerance=options.accumulated_tolerance,
    )
    return _report(found, options)


def _replayed(options: ParityOptions) -> list[Parity]:
    path = str(options.replay)
    try:
        return replay_parity(path, rng=options.seed, own_tolerance=options.tolerance)
    except (OSError, CheckpointError) as error:
        reason = getattr(error, "strerror", None) or str(error).removeprefix(f"{path}: ")
        raise CommandError(f"--replay {path}: {reason}") from error


def _record(given: GivenModel, device: Device, path: str, seed: int) -> int:
    with writing(Path(path)):
        left_out = record_parity(path, given.model, *given.inputs, device=device, rng=seed)
    print(f"recorded {given.name} on {device} in float32: {path}")
    if left_out:
        print(f"left out, since their arguments are no plain values: {', '.join(left_out)}")
    return 0


def _report(found: list[Parity], options: ParityOptions) -> int:
    if options.json:
        print(json.dumps([_as_plain(each) for each in found], indent=2, allow_nan=False))
    else:
        for each in found:
            print("\n".join(parity_lines(each, has_ops=options.ops)))
    return FAILED if any(each.problem for each in found) else 0


def parity_lines(found: Parity, *, has_ops: bool) -> list[str]:
    """Return what there is to say of a device and a precision.

    Parameters
    ----------
    found : Parity
        Compared.
    has_ops : bool
        A line for each op as well.

    Returns
    -------
    list of str
    """
    lines = [_op_line(each) for each in found.ops] if has_ops else []
    if found.problem:
        first = found.first
        place = f"op {first.number}, {first.op} of {first.layer}: " if first else ""
        return [*lines, f"WRONG  {found.target}: first at {place}{found.problem}"]
    own = max(found.ops, key=lambda each: each.own, default=None)
    if own is None:
        return [*lines, f"ok     {found.target}: no ops"]
    text = f"ok     {found.target}: {len(found.ops)} ops; own error at most {own.own:.2g} units"
    text += f" ({own.op} of {own.layer})" if own.own else ""
    accumulated = [each.accumulated for each in found.ops if each.accumulated is not None]
    if accumulated:
        text += f", accumulated at most {max(accumulated):.2g}"
    return [*lines, text]


def _op_line(each: OpParity) -> str:
    accumulated = "" if each.accumulated is None else f"{each.accumulated:10.2g}"
    return f"{each.number:5} {each.own:10.2g} {accumulated:>10}  {each.op} of {each.layer}"


def _as_plain(found: Parity) -> dict[str, object]:
    """Return plain data; JSON has no infinity, so what cannot be compared has no error."""
    rows = [each.as_dict() for each in found.ops]
    for row in rows:
        for key in ("own", "accumulated"):
            row[key] = row[key] if row[key] is not None and math.isfinite(row[key]) else None
    first = None if found.first is None else found.first.number
    return {"target": found.target, "first": first, "problem": found.problem, "ops": rows}
