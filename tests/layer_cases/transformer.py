"""Rows of transformers: PyTorch's, and GPT beside a PyTorch module with the names of GPT-2."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from layer_cases.attention import shaped
from layer_cases.case import Case, Rng, torch_function
from xbackprop import nn
from xbackprop.module import Module


def tokens(rng: Rng) -> Any:
    return rng.integers(0, 7, (3, 5))


def gpt(*sizes: int, **options: Any) -> nn.GPT:
    """A GPT whose weights are of the order of one: with those of GPT-2, which are of 0.02, its
    normalizations are too curved for differences."""
    model = nn.GPT(*sizes, rng=0, **options)
    state = model.state_dict()
    model.load_state_dict({name: a * 12 if a.ndim > 1 else a for name, a in state.items()})
    return model


def gpt_torch(
    torch: Any, vocab: int, context: int, layers: int, heads: int, width: int, bias: bool = True
) -> Any:
    module, functional = torch.nn.Module, torch.nn.functional
    linear, norm = torch.nn.Linear, torch.nn.LayerNorm

    class Attention(module):
        def __init__(self) -> None:
            super().__init__()
            self.c_attn = linear(width, 3 * width, bias)
            self.c_proj = linear(width, width, bias)

        def forward(self, x: Any) -> Any:
            q, k, v = (
                part.unflatten(-1, (heads, width // heads)).transpose(1, 2)
                for part in self.c_attn(x).split(width, -1)
            )
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.c_proj(y.transpose(1, 2).flatten(2))

    class Block(module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.attn = norm(width, bias=bias), Attention()
            self.ln_2 = norm(width, bias=bias)
            self.mlp = torch.nn.Sequential()
            self.mlp.c_fc = linear(width, 4 * width, bias)
            self.mlp.act = torch.nn.GELU(approximate="tanh")
            self.mlp.c_proj = linear(4 * width, width, bias)

        def forward(self, x: Any) -> Any:
            x = x + self.attn(self.ln_1(x))
            return x + self.mlp(self.ln_2(x))

    class TorchGPT(module):
        def __init__(self) -> None:
            super().__init__()
            self.wte = torch.nn.Embedding(vocab, width)
            self.wpe = torch.nn.Embedding(context, width)
            self.h = torch.nn.ModuleList([Block() for _ in range(layers)])
            self.ln_f = norm(width, bias=bias)

        def forward(self, x: Any) -> Any:
            y = self.wte(x) + self.wpe(torch.arange(x.shape[1]))
            for block in self.h:
                y = block(y)
            return self.ln_f(y) @ self.wte.weight.T

    return TorchGPT()


TRANSFORMERS = [
    Case(
        "gpt",
        lambda: gpt(7, 6, 2, 2, 8),
        tokens,
        lambda torch: gpt_torch(torch, 7, 6, 2, 2, 8),
        is_network=True,
    ),
    Case(
        "gpt_without_bias_in_blocks_of_queries",
        lambda: gpt(7, 5, 1, 1, 8, bias=False, block_size=2),
        tokens,
        lambda torch: gpt_torch(torch, 7, 5, 1, 1, 8, bias=False),
        is_network=True,
    ),
    Case(
        "gpt_dropout",
        lambda: gpt(7, 6, 1, 2, 8, dropout=0.3),
        tokens,
        lambda torch: gpt_torch(torch, 7, 6, 1, 2, 8),
        is_network=True,
        is_random=True,
    ),
]


# --- encoder, decoder, both ---------------------------------------------------------------


class Masked(Module):
    """Calls a layer with masks by their names, and with options."""

    def __init__(self, module: Module, masks: list[str], options: dict[str, Any]) -> None:
        self.module, self.masks, self.options = module, masks, options

    def forward(self, *inputs: Any) -> tuple[Any, Any]:
        count = len(inputs) - len(self.masks)
        masks = dict(zip(self.masks, inputs[count:], strict=True))
        output, saved = self.module.forward(*inputs[:count], **masks, **self.options)
        return output, (saved, count)

    def backward(self, grad_output: Any, saved: Any, **options: Any) -> Any:
        inner, count = saved
        grads = self.module.backward(grad_output, inner, **options)
        if grads is None or not self.masks:
            return grads
        places = list(inspect.signature(self.module.forward).parameters)
        return (*grads[:count], *(grads[places.index(name)] for name in self.masks))


def masked_torch(
    make: Callable[[Any], Any], masks: list[str], options: dict[str, Any]
) -> Callable[[Any], Any]:
    def made(torch: Any) -> Any:
        def call(module: Any, *inputs: Any) -> Any:
            count = len(inputs) - len(masks)
            given = [m if m.is_floating_point() else m.bool() for m in inputs[count:]]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of masks of two kinds, which it converts
                return module(*inputs[:count], **dict(zip(masks, given, strict=True)), **options)

        return torch_function(torch, call, quiet(make)(torch))

    return made


def quiet(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def made(torch: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the fast path, which it will not take
            module = make(torch)
        for part in module.modules():  # a copy of its decoder layer forgets a module for relu
            if "activation" in part._modules:
                vars(part).pop("activation", None)
        return module

    return made


def row(
    name: str,
    make: Callable[[Any], Any],
    inputs: Callable[[Rng], Any],
    masks: str = "",
    options: dict[str, Any] | None = None,
    **kind: bool,
) -> Case:
    """One maker for both libraries: called with our `nn`, then with `torch.nn`."""
    names, called = masks.split(), options or {}
    if not names and not called:
        ours, theirs = lambda: make(nn), quiet(lambda torch: make(torch.nn))
    else:
        ours = lambda: Masked(make(nn), names, called)  # noqa: E731
        theirs = masked_torch(lambda torch: make(torch.nn), names, called)
    return Case(name, ours, inputs, theirs, is_plain=not names, is_network=True, **kind)


def with_masks(
    inputs: Callable[[Rng], Any], *masks: tuple[str, tuple[int, ...]]
) -> Callable[[Rng], Any]:
    """Masks after the inputs: to add, hiding at random (never the first key), or causal."""

    def draw(rng: Rng) -> tuple[np.ndarray, ...]:
        found = inputs(rng)
        arrays = list(found) if isinstance(found, tuple) else [found]
        for kind, shape in masks:
            mask = rng.normal(size=shape)
            if kind == "bool":
                mask = mask > 0.3
                mask[..., 0] = False
            elif kind == "causal":
                mask = np.triu(np.ones(shape, bool), 1)
            arrays.append(mask)
        return tuple(arrays)

    return draw


def smooth(options: dict[str, Any]) -> dict[str, Any]:
    """With an activation that has no kink where differences would cross it."""
    return {"activation": "gelu"} | options


def encoder_layer(library: Any, dropout: float = 0.0, **options: Any) -> Any:
    rng = {"rng": 0} if library is nn else {}
    return library.TransformerEncoderLayer(4, 2, 5, dropout, **smooth(options), **rng)


def decoder_layer(library: Any, dropout: float = 0.0, **options: Any) -> Any:
    rng = {"rng": 0} if library is nn else {}
    return library.TransformerDecoderLayer(4, 2, 5, dropout, **smooth(options), **rng)


def encoder(library: Any, norm: bool = False, layers: int = 2, **options: Any) -> Any:
    rng = {"rng": 0} if library is nn else {}
    nested = {"enable_nested_tensor": options.pop("enable_nested_tensor", True)}
    last = library.LayerNorm(4) if norm else None
    return library.TransformerEncoder(
        encoder_layer(library, **options), layers, last, **nested, **rng
    )


def decoder(library: Any, norm: bool = False, **options: Any) -> Any:
    rng = {"rng": 0} if library is nn else {}
    last = library.LayerNorm(4) if norm else None
    return library.TransformerDecoder(decoder_layer(library, **options), 2, last, **rng)


def transformer(library: Any, dropout: float = 0.0, **options: Any) -> Any:
    rng = {"rng": 0} if library is nn else {}
    return library.Transformer(4, 2, 1, 2, 5, dropout, **smooth(options), **rng)


SRC = shaped((3, 2, 4))
BATCHED_SRC = shaped((2, 3, 4))
PAIR = shaped((3, 2, 4), (5, 2, 4))
BATCHED_PAIR = shaped((2, 3, 4), (2, 5, 4))

OPTIONS: list[tuple[str, dict[str, Any], dict[str, bool]]] = [
    ("", {}, {"has_batch": False}),
    (" norm_first", {"norm_first": True}, {"has_batch": False}),
    (" relu", {"activation": "relu"}, {"has_batch": False}),
    (" without bias", {"bias": False}, {"has_batch": False}),
    (" norm_first without bias", {"bias": False, "norm_first": True}, {"has_batch": False}),
    (" layer_norm_eps", {"layer_norm_eps": 0.5}, {"has_batch": False}),
    (" dropout", {"dropout": 0.4}, {"has_batch": False, "is_random": True}),
]


def of_options(name: str, make: Any, inputs: Any, batched: Any, single: Any) -> list[Case]:
    """The rows that every class has."""
    return [
        *(
            row(name + suffix, lambda n, options=options: make(n, **options), inputs, **kind)
            for suffix, options, kind in OPTIONS
        ),
        row(
            f"{name} activation of a module",
            lambda n: make(n, activation=n.SiLU()),
            inputs,
            has_batch=False,
        ),
        row(
            f"{name} activation with a parameter",
            lambda n: make(n, activation=n.PReLU()),
            inputs,
            has_batch=False,
        ),
        row(f"{name} batch_first", lambda n: make(n, batch_first=True), batched),
        row(f"{name} of one sample", make, single, has_batch=False),
    ]


TRANSFORMERS += [
    row(
        "TransformerDecoderLayer dropout norm_first",
        lambda n: decoder_layer(n, 0.4, norm_first=True),
        PAIR,
        has_batch=False,
        is_random=True,
    ),
    *of_options("TransformerEncoderLayer", encoder_layer, SRC, BATCHED_SRC, shaped((3, 4))),
    *of_options(
        "TransformerDecoderLayer", decoder_layer, PAIR, BATCHED_PAIR, shaped((3, 4), (5, 4))
    ),
    *of_options("TransformerEncoder", encoder, SRC, BATCHED_SRC, shaped((3, 4))),
    *of_options("TransformerDecoder", decoder, PAIR, BATCHED_PAIR, shaped((3, 4), (5, 4))),
    *of_options("Transformer", transformer, PAIR, BATCHED_PAIR, shaped((3, 4), (5, 4))),
    *(
        row(f"{name} norm", lambda n, make=make: make(n, norm=True), inputs, has_batch=False)
        for name, make, inputs in (
            ("TransformerEncoder", encoder, SRC),
            ("TransformerDecoder", decoder, PAIR),
        )
    ),
    row("TransformerEncoder of one layer", lambda n: encoder(n, layers=1), SRC, has_batch=False),
    row(
        "TransformerEncoder enable_nested_tensor=False",
        lambda n: encoder(n, enable_nested_tensor=False, batch_first=True, norm=True),
        with_masks(BATCHED_SRC, ("causal", (2, 3))),
        "src_key_padding_mask",
    ),
    row(
        "Transformer custom_encoder and custom_decoder",
        lambda n: n.Transformer(
            4,
            2,
            custom_encoder=encoder(n, layers=1, norm=True),
            custom_decoder=decoder(n, norm=True),
            **({"rng": 0} if n is nn else {}),
        ),
        shaped((4, 2, 4), (5, 2, 4)),
        has_batch=False,
    ),
]


def of_masks(name: str, make: Any, inputs: Any, masks: list[tuple[str, Any]]) -> list[Case]:
    """One row for every mask alone, of each kind, and rows for all of them."""
    names = " ".join(mask for mask, _ in masks)
    rows = [
        row(
            f"{name} {kind} {mask}",
            make,
            with_masks(inputs, (kind, shape)),
            mask,
            has_batch=False,
        )
        for mask, shape in masks
        for kind in ("bool", "float")
    ]
    rows += [
        row(
            f"{name} {kind} masks{suffix}",
            lambda n, first=first: make(n, norm_first=first),
            with_masks(inputs, *((kind, shape) for _, shape in masks)),
            names,
            has_batch=False,
        )
        for kind in ("bool", "float")
        for suffix, first in (("", False), (", norm_first", True))
    ]
    return rows


DECODER_MASKS = [
    ("tgt_mask", (3, 3)),
    ("memory_mask", (3, 5)),
    ("tgt_key_padding_mask", (2, 3)),
    ("memory_key_padding_mask", (2, 5)),
]
TRANSFORMERS += [
    *of_masks("TransformerEncoderLayer", encoder_layer, SRC,
              [("src_mask", (3, 3)), ("src_key_padding_mask", (2, 3))]),
    *of_masks("TransformerEncoder", encoder, SRC,
              [("mask", (3, 3)), ("src_key_padding_mask", (2, 3))]),
    *of_masks("TransformerDecoderLayer", decoder_layer, PAIR, DECODER_MASKS),
    *of_masks("TransformerDecoder", decoder, PAIR, DECODER_MASKS),
    *of_masks("Transformer", transformer, shaped((5, 2, 4), (3, 2, 4)),
              [("src_mask", (5, 5)), *DECODER_MASKS[:2], ("src_key_padding_mask", (2, 5)),
               *DECODER_MASKS[2:]]),
    row("TransformerEncoderLayer mask of heads", encoder_layer,
        with_masks(SRC, ("float", (4, 3, 3))), "src_mask", has_batch=False),
    row("TransformerEncoderLayer causal", encoder_layer, with_masks(SRC, ("causal", (3, 3))),
        "src_mask", {"is_causal": True}, has_batch=False),
    row("TransformerEncoder causal", encoder, with_masks(SRC, ("causal", (3, 3))),
        "mask", {"is_causal": True}, has_batch=False),
    row("TransformerEncoder causal, not said", encoder, with_masks(SRC, ("causal", (3, 3))),
        "mask", {"is_causal": None}, has_batch=False),
    row("TransformerDecoderLayer causal", decoder_layer,
        with_masks(PAIR, ("causal", (3, 3)), ("causal", (3, 5))), "tgt_mask memory_mask",
        {"tgt_is_causal": True, "memory_is_causal": True}, has_batch=False),
    row("TransformerDecoder causal", decoder,
        with_masks(PAIR, ("causal", (3, 3)), ("causal", (3, 5))), "tgt_mask memory_mask",
        {"tgt_is_causal": True, "memory_is_causal": True}, has_batch=False),
    row("Transformer causal", transformer,
        with_masks(PAIR, ("causal", (3, 3)), ("causal", (5, 5)), ("causal", (5, 3))),
        "src_mask tgt_mask memory_mask",
        {"src_is_causal": True, "tgt_is_causal": True, "memory_is_causal": True},
        has_batch=False),
]  # fmt: skip
