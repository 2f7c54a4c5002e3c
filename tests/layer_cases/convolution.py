"""Rows of convolutions."""

import warnings
from typing import Any

from layer_cases.case import Case, normal
from layer_cases.linear import frozen
from xbackprop import nn


def same(
    what: str,
    name: str,
    *arguments: Any,
    x: tuple[int, ...],
    has_batch: bool = True,
    **options: Any,
) -> Case:
    """A convolution of the same arguments in both libraries."""
    return Case(
        f"{name} {what}".strip(),
        lambda: getattr(nn, name)(*arguments, **options, rng=0),
        normal(*x),
        lambda torch: quiet(getattr(torch.nn, name), *arguments, **options),
        has_batch=has_batch,
    )


def plain(
    what: str, name: str, *arguments: Any, x: tuple[int, ...], has_batch: bool = True
) -> Case:
    """A layer without parameters, of the same arguments in both libraries."""
    return Case(
        f"{name} {what}".strip(),
        lambda: getattr(nn, name)(*arguments),
        normal(*x),
        lambda torch: getattr(torch.nn, name)(*arguments),
        has_batch=has_batch,
    )


def quiet(make: Any, *arguments: Any, **options: Any) -> Any:
    """PyTorch's layer without its warning of even kernels that keep the shape."""
    module = make(*arguments, **options)
    forward = module.forward

    def call(*inputs: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return forward(*inputs)

    module.forward = call
    return module


IMAGE = (2, 4, 5, 6)

CONVOLUTIONS = [
    same("", "Conv2d", 2, 3, 3, x=(2, 2, 4, 5)),
    same("of one element", "Conv2d", 2, 3, 1, x=(2, 2, 2, 3)),
    same("of an oblong kernel", "Conv2d", 2, 3, (2, 3), x=(2, 2, 4, 5)),
    same("as large as the image", "Conv2d", 2, 3, (4, 5), x=(2, 2, 4, 5)),
    same("without bias", "Conv2d", 2, 3, 3, bias=False, x=(2, 2, 4, 5)),
    same("stride", "Conv2d", 2, 3, 2, 2, x=(2, 2, 5, 6)),  # a row is left over
    same("stride (3, 2)", "Conv2d", 2, 3, 2, (3, 2), x=(2, 2, 6, 5)),
    same("padding", "Conv2d", 2, 3, 3, 1, 1, x=(2, 2, 3, 4)),
    same("padding (0, 3)", "Conv2d", 2, 3, 3, 1, (0, 3), x=(2, 2, 3, 4)),
    same("padding same", "Conv2d", 2, 3, 3, padding="same", x=(2, 2, 3, 4)),
    same("padding same of even kernels", "Conv2d", 2, 3, (2, 4), padding="same", x=(2, 2, 3, 4)),
    same("padding valid", "Conv2d", 2, 3, 3, padding="valid", x=(2, 2, 4, 4)),
    same("dilation", "Conv2d", 2, 3, 2, dilation=(2, 3), x=(2, 2, 4, 5)),
    same("stride, padding, dilation", "Conv2d", 2, 3, 3, 2, (2, 1), (1, 2), x=(2, 2, 4, 5)),
    same("groups", "Conv2d", 4, 6, 2, groups=2, x=(2, 4, 3, 4)),
    same("of every channel", "Conv2d", 4, 8, 2, groups=4, x=(2, 4, 3, 4)),
    *(
        same(f"padding_mode {mode}", "Conv2d", 2, 3, 3, 2, (2, 1), padding_mode=mode,
             x=(2, 2, 3, 4))
        for mode in ("reflect", "replicate", "circular")
    ),
    *(
        same(f"padding same, padding_mode {mode}", "Conv2d", 1, 2, (4, 3), dilation=(1, 2),
             padding="same", padding_mode=mode, x=(2, 1, 4, 3))
        for mode in ("reflect", "replicate", "circular")
    ),
    same("every option", "Conv2d", 4, 6, (3, 2), (2, 1), (2, 1), (1, 2), 2, False, "circular",
         x=IMAGE),
    same("of one sample", "Conv2d", 2, 3, 3, x=(2, 4, 5), has_batch=False),
    same("with many elements", "Conv2d", 8, 16, 3, padding=1, x=(8, 8, 7, 7)),
    Case(
        "Conv2d with frozen weight",
        lambda: frozen(nn.Conv2d(2, 3, 3, rng=0), "weight"),
        normal(2, 2, 4, 5),
        lambda t: frozen(t.nn.Conv2d(2, 3, 3), "weight"),
    ),
    Case(
        "Conv2d with frozen bias",
        lambda: frozen(nn.Conv2d(2, 3, 3, rng=0), "bias"),
        normal(2, 2, 4, 5),
        lambda t: frozen(t.nn.Conv2d(2, 3, 3), "bias"),
    ),
    same("", "Conv1d", 2, 3, 3, x=(2, 2, 5)),
    same("every option", "Conv1d", 4, 6, 3, 2, 3, 2, 2, False, "reflect", x=(2, 4, 7)),
    same("padding same", "Conv1d", 2, 3, (4,), padding="same", x=(2, 2, 5)),
    same("of one sample", "Conv1d", 2, 3, 3, x=(2, 5), has_batch=False),
    same("", "Conv3d", 2, 3, 2, x=(2, 2, 3, 3, 2)),
    same("every option", "Conv3d", 2, 4, (2, 3, 1), (1, 2, 2), (1, 2, 0), (2, 1, 1), 2, False,
         "replicate", x=(2, 2, 3, 4, 3)),
    same("padding same", "Conv3d", 1, 2, (2, 1, 3), padding="same", x=(2, 1, 2, 2, 3)),
    same("of one sample", "Conv3d", 1, 2, 2, x=(1, 3, 2, 3), has_batch=False),
    # transposed
    same("", "ConvTranspose2d", 2, 3, 3, x=(2, 2, 3, 4)),
    same("of one element", "ConvTranspose2d", 2, 3, 1, x=(2, 2, 2, 3)),
    same("of an oblong kernel", "ConvTranspose2d", 2, 3, (1, 4), x=(2, 2, 3, 2)),
    same("without bias", "ConvTranspose2d", 2, 3, 2, bias=False, x=(2, 2, 3, 4)),
    same("stride", "ConvTranspose2d", 2, 3, 3, (2, 3), x=(2, 2, 3, 2)),
    same("stride beyond the kernel", "ConvTranspose2d", 2, 3, 2, 3, x=(2, 2, 2, 3)),
    same("padding", "ConvTranspose2d", 2, 3, 3, 1, (1, 2), x=(2, 2, 3, 4)),
    same("padding that leaves one row", "ConvTranspose2d", 2, 3, 3, 1, (3, 0), x=(2, 2, 5, 2)),
    same("output_padding", "ConvTranspose2d", 2, 3, 3, 2, 1, (1, 0), x=(2, 2, 3, 2)),
    same("output_padding beyond the stride", "ConvTranspose2d", 2, 3, 2, 1, 1, 2, dilation=3,
         x=(2, 2, 3, 2)),
    same("dilation", "ConvTranspose2d", 2, 3, (2, 3), dilation=(3, 2), x=(2, 2, 3, 2)),
    same("groups", "ConvTranspose2d", 4, 6, 2, groups=2, x=(2, 4, 3, 2)),
    same("of every channel", "ConvTranspose2d", 3, 6, 2, groups=3, x=(2, 3, 3, 2)),
    same("every option", "ConvTranspose2d", 4, 6, (3, 2), (3, 2), (2, 1), (2, 1), 2, False, (2, 1),
         x=(2, 4, 2, 3)),
    same("of one sample", "ConvTranspose2d", 2, 3, 3, x=(2, 3, 4), has_batch=False),
    Case(
        "ConvTranspose2d with frozen weight",
        lambda: frozen(nn.ConvTranspose2d(2, 3, 3, rng=0), "weight"),
        normal(2, 2, 3, 2),
        lambda t: frozen(t.nn.ConvTranspose2d(2, 3, 3), "weight"),
    ),
    same("", "ConvTranspose1d", 2, 3, 3, x=(2, 2, 4)),
    same("every option", "ConvTranspose1d", 4, 6, 3, 3, 2, 2, 2, False, 2, x=(2, 4, 4)),
    same("of one sample", "ConvTranspose1d", 2, 3, 3, x=(2, 4), has_batch=False),
    same("", "ConvTranspose3d", 2, 3, 2, x=(2, 2, 2, 3, 2)),
    same("every option", "ConvTranspose3d", 2, 4, (2, 1, 3), (2, 1, 2), (1, 0, 1), (1, 0, 1), 2,
         False, (1, 1, 2), x=(2, 2, 2, 3, 2)),
    same("of one sample", "ConvTranspose3d", 1, 2, 2, x=(1, 3, 2, 3), has_batch=False),
    # windows as columns, and back
    plain("", "Unfold", 2, x=(2, 3, 3, 4)),
    plain("of an oblong kernel", "Unfold", (3, 2), x=(2, 3, 3, 4)),
    plain("dilation", "Unfold", 2, (1, 3), x=(2, 3, 3, 5)),
    plain("padding", "Unfold", 2, 1, (1, 2), x=(2, 3, 2, 3)),
    plain("stride", "Unfold", 2, 1, 0, (2, 3), x=(2, 3, 5, 6)),
    plain("every option", "Unfold", (3, 2), (1, 2), (2, 1), (2, 1), x=(2, 3, 3, 4)),
    plain("of one sample", "Unfold", 2, x=(3, 3, 4), has_batch=False),
    plain("", "Fold", (3, 4), 2, x=(2, 8, 6)),
    plain("of a square", "Fold", 3, (3, 2), x=(2, 12, 2)),
    plain("dilation", "Fold", (3, 5), 2, (1, 3), x=(2, 8, 4)),
    plain("padding", "Fold", (2, 3), 2, 1, (1, 2), x=(2, 8, 18)),
    plain("stride", "Fold", (5, 6), 2, 1, 0, (2, 3), x=(2, 8, 4)),
    plain("every option", "Fold", (3, 4), (3, 2), (1, 2), (2, 1), (2, 1), x=(2, 12, 12)),
    plain("of one sample", "Fold", (3, 4), 2, x=(8, 6), has_batch=False),
]  # fmt: skip
