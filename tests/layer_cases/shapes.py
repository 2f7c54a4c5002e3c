"""Rows of layers that rearrange."""

from typing import Any

from layer_cases.case import Case, normal
from xbackprop import nn

IMAGES = {1: normal(2, 2, 7), 2: normal(2, 2, 4, 5), 3: normal(2, 1, 3, 4, 3)}
ALIGNABLE = {1: "linear", 2: "bilinear", 3: "trilinear"}
UP, DOWN, FACTORS = (9, 11, 7), (2, 3, 1), (1.7, 0.6, 2.5)


def upsample(ndim: int, name: str = "Upsample", **options: Any) -> Case:
    shown = ", ".join(f"{key}={value}" for key, value in options.items())
    return Case(
        f"{name} {shown} of {ndim} axes",
        lambda: getattr(nn, name)(**options),
        IMAGES[ndim],
        lambda t: getattr(t.nn, name)(**options),
    )


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
    *(
        upsample(n, **{how: given[:n]}, mode=mode)
        for mode in ("nearest", "nearest-exact", "area")
        for n in (1, 2, 3)
        for how, given in (("size", UP), ("size", DOWN), ("scale_factor", FACTORS))
    ),
    *(
        upsample(n, **{how: given[:n]}, mode=mode, align_corners=align)
        for n, mode in (*ALIGNABLE.items(), (2, "bicubic"))
        for how, given in (("size", UP), ("size", DOWN), ("scale_factor", FACTORS))
        for align in (False, True)
    ),
    *(upsample(n, scale_factor=2) for n in (1, 2, 3)),
    *(upsample(n, scale_factor=0.6, recompute_scale_factor=True) for n in (1, 2)),
    *(
        upsample(2, scale_factor=1.6, mode=mode, recompute_scale_factor=True)
        for mode in ("nearest-exact", "bilinear", "bicubic", "area")
    ),
    # One length stays: PyTorch copies there, but not with bicubic.
    *(
        upsample(2, scale_factor=(1.2, 1.5), mode=mode)
        for mode in ("nearest-exact", "bilinear", "bicubic")
    ),
    *(upsample(2, size=1, mode=mode) for mode in ("nearest", "bilinear", "bicubic")),
    *(upsample(2, size=1, mode=mode, align_corners=True) for mode in ("bilinear", "bicubic")),
    upsample(1, "UpsamplingNearest2d", size=4),
    upsample(2, "UpsamplingNearest2d", scale_factor=(2, 3)),
    upsample(2, "UpsamplingBilinear2d", size=(7, 3)),
    upsample(2, "UpsamplingBilinear2d", scale_factor=2.5),
]
