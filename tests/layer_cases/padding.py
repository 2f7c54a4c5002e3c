"""Rows of padding."""

from layer_cases.case import Case, normal
from xbackprop import nn

IMAGES = {1: normal(3, 2, 5), 2: normal(2, 2, 4, 3), 3: normal(2, 1, 3, 4, 3)}
SAMPLES = {1: normal(2, 5), 2: normal(2, 4, 3), 3: normal(1, 3, 4, 3)}
WIDTHS = {1: (2, 1), 2: (1, 2, 0, 2), 3: (0, 1, 2, 1, 1, 0)}
CUTTING = {1: (2, -1), 2: (-1, 1, 0, -2), 3: (1, -1, -2, 1, 0, 1)}
NAMES = ["ConstantPad", "ZeroPad", "ReflectionPad", "ReplicationPad", "CircularPad"]


def row(title: str, name: str, padding: object, inputs: object, **options: object) -> Case:
    arguments = (padding, 1.5) if name.startswith("Constant") else (padding,)
    return Case(
        f"{name}{title}",
        lambda: getattr(nn, name)(*arguments),
        inputs,
        lambda t: getattr(t.nn, name)(*arguments),
        **options,
    )


PADDING = [
    *(row("", f"{name}{n}d", WIDTHS[n], IMAGES[n]) for name in NAMES for n in (1, 2, 3)),
    *(row(" by 1", f"{name}{n}d", 1, IMAGES[n]) for name in NAMES for n in (1, 2, 3)),
    *(
        row(" cutting", f"{name}{n}d", CUTTING[n], IMAGES[n], is_plain=False)
        for name in NAMES
        for n in (1, 2, 3)
    ),
    *(
        row(" of one sample", f"{name}{n}d", WIDTHS[n], SAMPLES[n], has_batch=False)
        for name in NAMES
        for n in (1, 2, 3)
    ),
    row(" of numbers", "ConstantPad1d", (1, 0), normal(4), has_batch=False),
    row(" of more axes", "ConstantPad2d", 1, normal(2, 1, 2, 1, 2)),
    row(" to the last element", "ReflectionPad1d", 4, IMAGES[1]),
    row(" wider than x", "ReplicationPad1d", (7, 9), IMAGES[1]),
    row(" of all there is", "ReplicationPad1d", (-6, 3), IMAGES[1], is_plain=False),
    row(" once around", "CircularPad1d", 5, IMAGES[1]),
    row(" to nothing", "CircularPad1d", (-2, -3), IMAGES[1], is_plain=False),
]
