"""The tables of ``xbackprop profile``."""

from collections.abc import Sequence

from xbackprop.backend.peak import PeakMemory
from xbackprop.cli.profile_budget import place_of
from xbackprop.observe.profiling.peak import MachinePeak
from xbackprop.observe.profiling.profile import Profile
from xbackprop.observe.profiling.records import PhaseRecord, Traffic
from xbackprop.observe.profiling.totals import Total, outermost_total

_PHASES = ("batch", "forward", "backward", "update")
_LINES_SHOWN = 10


def profile_lines(
    found: Profile,
    rows: int,
    peak: MachinePeak | None,
    memory: PeakMemory,
    meter: str,
) -> list[str]:
    """Return what there is to say of a profile.

    Parameters
    ----------
    found : Profile
        Of one step.
    rows : int
        How many a table may have.
    peak : MachinePeak or None
        What the machine can do; None where there is no time.
    memory : PeakMemory
        Of a step.
    meter : str
        What the memory was read from.

    Returns
    -------
    list of str
    """
    lines = ["", *_phase_table(found, peak), ""]
    lines += _total_table("op", found.by_op(), rows, peak)
    lines += ["", *_total_table("layer", found.by_layer(), rows, peak), ""]
    if peak is not None:
        lines.append(
            f"this machine at most: {_rate(peak.flops_per_second, 'FLOP/s')} in a product, "
            f"{_rate(peak.bytes_per_second, 'B/s')} in a copy: the percentages are of that"
        )
        lines.append(
            f"the observer took {_time(found.overhead_seconds)}, which no time above contains"
        )
    held = memory.peak - memory.before
    lines.append(f"memory of a step: {_size(held)} at most beside the model ({meter})")
    return [*lines, *_transfer_lines(found)]


def _phase_table(found: Profile, peak: MachinePeak | None) -> list[str]:
    header = ["phase", "time", "in ops", "FLOP", "FLOP/s", "launches", "uploads", "downloads"]
    body = []
    for name in (*_PHASES, "step"):
        blocks = [each for each in found.phases if name in (each.name, "step")]
        inside = [each for each in found.records if name in (each.phase, "step")]
        total, traffic = outermost_total(inside, name), Traffic()
        for block in blocks:
            traffic += block.traffic
        seconds = _seconds_of(blocks)
        body.append([
            name, _time(seconds), _time(total.seconds), _flops(total),
            _achieved(total.flops, seconds, peak), *map(str, traffic.counts()[:3]),
        ])  # fmt: skip
    return _aligned(header, body)


def _seconds_of(blocks: Sequence[PhaseRecord]) -> float | None:
    known = [block.seconds for block in blocks if block.seconds is not None]
    return sum(known) if known else None


def _total_table(
    kind: str, totals: Sequence[Total], rows: int, peak: MachinePeak | None
) -> list[str]:
    header = [kind, "calls", "self", "total", "FLOP", "FLOP/s", "bytes", "B/s", "launches"]
    if kind == "layer":
        header += ["forward", "backward"]
    body = []
    for total in totals[:rows]:
        row = [
            total.name, str(total.calls), _time(total.self_seconds),
            _time(total.seconds), _flops(total),
            _achieved(None if total.uncounted else total.flops, total.seconds, peak),
            _size(total.bytes), _moved(total, peak),
            str(total.traffic.launches),
        ]  # fmt: skip
        if kind == "layer":
            row += [_time(total.phases.get(phase)) for phase in ("forward", "backward")]
        body.append(row)
    lines = _aligned(header, body)
    if len(totals) > rows:
        lines.append(f"... and {len(totals) - rows} more (--rows)")
    return lines


def _transfer_lines(found: Profile) -> list[str]:
    """Return the source lines of all that is no launch."""
    chosen = [each for each in found.transfers if each.kind != "launch"]
    chosen.sort(key=lambda each: (-each.bytes, each.kind, each.filename, each.line))
    lines = [
        f"{each.kind}: {each.count} ({_size(each.bytes)}) at "
        f"{place_of(each.filename)}:{each.line}, {each.what}"
        for each in chosen[:_LINES_SHOWN]
    ]
    rest = len(chosen) - _LINES_SHOWN
    return [*lines, f"... and {rest} more lines"] if rest > 0 else lines


def _aligned(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, without the columns that say nothing on this device."""
    columns = [
        column for column in zip(header, *body, strict=True) if not {"-", "0"} >= set(column[1:])
    ]
    header, *body = zip(*columns, strict=True)
    widths = [max(map(len, column)) for column in columns]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *body)
    ]


def _flops(total: Total) -> str:
    """Return operations; with a `+` where some of the calls are not counted."""
    if total.flops is None:
        return "-"
    return _scaled(total.flops) + ("+" if total.uncounted else "")


def _achieved(flops: int | None, seconds: float | None, peak: MachinePeak | None) -> str:
    if not flops or not seconds or peak is None:
        return "-"
    return f"{_scaled(flops / seconds)} {flops / seconds / peak.flops_per_second:4.0%}"


def _moved(total: Total, peak: MachinePeak | None) -> str:
    if not total.seconds or peak is None:
        return "-"
    rate = total.bytes / total.seconds
    return f"{_scaled(rate)} {rate / peak.bytes_per_second:4.0%}"


def _rate(number: float, unit: str) -> str:
    return f"{_scaled(number)}{unit}"


def _size(number: float) -> str:
    return f"{_scaled(number)}B"


def _scaled(number: float) -> str:
    for unit in ("", "k", "M", "G"):
        if number < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} T"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1e6:.1f} us" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"
