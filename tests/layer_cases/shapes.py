"""Rows of layers that rearrange."""

from layer_cases.case import Case, normal
from xbackprop import nn

SHAPES = [
    Case("Flatten", nn.Flatten, normal(3, 2, 2, 2), lambda t: t.nn.Flatten()),
    Case("Flatten of all axes", lambda: nn.Flatten(0), normal(3, 2, 2), lambda t: t.nn.Flatten(0)),
    Case(
        "Flatten of middle axes",
        lambda: nn.Flatten(1, 2),
        normal(3, 2, 2, 4),
        lambda t: t.nn.Flatten(1, 2),
    ),
    Case(
        "Flatten of last axes",
        lambda: nn.Flatten(-2),
        normal(3, 2, 2, 4),
        lambda t: t.nn.Flatten(-2),
    ),
    Case("Flatten of a flat batch", nn.Flatten, normal(3, 4), lambda t: t.nn.Flatten()),
    *(
        Case(
            f"{name}{arguments} of {shape}",
            lambda name=name, arguments=arguments: getattr(nn, name)(*arguments),
            normal(*shape),
            lambda t, name=name, arguments=arguments: getattr(t.nn, name)(*arguments),
            has_batch=has_batch,
        )
        for name, arguments, shape, has_batch in (
            ("Unflatten", (1, (2, 3)), (2, 6, 2), True),
            ("Unflatten", (-1, (2, -1, 1)), (3, 6), True),
            ("Unflatten", (0, (-1,)), (4, 2), False),
            ("PixelShuffle", (2,), (2, 8, 1, 3), True),
            ("PixelShuffle", (3,), (9, 2, 1), False),
            ("PixelShuffle", (1,), (2, 1, 2, 2), True),
            ("PixelUnshuffle", (2,), (2, 2, 2, 4), True),
            ("PixelUnshuffle", (3,), (2, 3, 3), False),
            ("PixelUnshuffle", (2,), (2, 1, 2, 2, 2), True),
            ("ChannelShuffle", (2,), (2, 6, 3), True),
            ("ChannelShuffle", (3,), (2, 6, 1, 2), True),
        )
    ),
]
