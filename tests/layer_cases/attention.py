"""Rows of attention."""

from collections.abc import Callable
from typing import Any

import numpy as np

from layer_cases.case import Case, Rng, torch_function
from xbackprop import nn
from xbackprop.module import Module

QUERY, KEY = (2, 3, 4, 5), (2, 3, 6, 5)


def shaped(*shapes: tuple[int, ...]) -> Callable[[Rng], Any]:
    return lambda rng: tuple(rng.normal(size=shape) for shape in shapes)


QKV = shaped(QUERY, KEY, (2, 3, 6, 7))


def with_mask(
    inputs: Callable[[Rng], Any], *shape: int, of: type = bool
) -> Callable[[Rng], tuple[np.ndarray, ...]]:
    """A mask after the inputs: of bool half hides, or one to add."""

    def draw(rng: Rng) -> tuple[np.ndarray, ...]:
        mask = rng.normal(size=shape)
        return (*inputs(rng), mask > 0 if of is bool else mask)

    return draw


def attention(is_causal: bool = False, **options: Any) -> Callable[[Any], Any]:
    """PyTorch's function as a module; a mask that is bool here comes as numbers."""

    def make(torch: Any) -> Any:
        def function(q: Any, k: Any, v: Any, mask: Any = None) -> Any:
            if mask is not None and not mask.is_floating_point():
                mask = mask.bool()
            if mask is not None and is_causal:  # PyTorch wants both in one
                hidden = torch.ones(q.shape[-2], k.shape[-2]).tril() == 0
                mask = mask.masked_fill(hidden, -np.inf if mask.is_floating_point() else False)
            causal = is_causal and mask is None
            attend = torch.nn.functional.scaled_dot_product_attention
            return attend(q, k, v, mask, is_causal=causal, **options)

        return torch_function(torch, function)

    return make


def row(
    name: str, inputs: Callable[[Rng], Any] = QKV, has_batch: bool = True, **options: Any
) -> Case:
    """The layer with these options; what PyTorch has not is left out there."""
    theirs = {key: value for key, value in options.items() if key != "block_size"}
    theirs.pop("dropout_p", None)  # compared in evaluation
    return Case(
        f"ScaledDotProductAttention{name}",
        lambda: nn.ScaledDotProductAttention(**options, rng=0),
        inputs,
        attention(**theirs),
        has_batch=has_batch,
        is_random="dropout_p" in options,
        is_plain="broadcast" not in name and not options.get("enable_gqa"),
    )


GROUPED = shaped((2, 6, 4, 5), (2, 3, 7, 5), (2, 3, 7, 2))

ATTENTION = [
    row(""),
    row(" scale", scale=-0.3),
    row(" scale=0", scale=0.0),
    row(" causal", is_causal=True),
    row(" causal of more queries", shaped((2, 5, 3), (2, 2, 3), (2, 2, 3)), is_causal=True),
    row(" of one sample", shaped((4, 3), (5, 3), (5, 2)), has_batch=False),
    row(" of one token", shaped((2, 1, 3), (2, 1, 3), (2, 1, 3))),
    row(" of one feature", shaped((2, 4, 1), (2, 3, 1), (2, 3, 1))),
    row(" of broadcast keys", shaped(QUERY, (1, 6, 5), (2, 1, 6, 5)), has_batch=False),
    row(" of broadcast queries", shaped((4, 5), KEY, KEY), has_batch=False),
    row(" bool mask", with_mask(QKV, 4, 6), has_batch=False),
    row(" bool mask of samples", with_mask(QKV, 2, 1, 4, 6)),
    row(" bool mask of keys", with_mask(QKV, 2, 1, 1, 6)),
    row(" bool mask of queries", with_mask(QKV, 2, 3, 4, 1)),
    row(" float mask", with_mask(QKV, 4, 6, of=float), has_batch=False),
    row(" float mask of heads", with_mask(QKV, 3, 4, 6, of=float), has_batch=False),
    row(" float mask of samples", with_mask(QKV, 2, 3, 1, 6, of=float)),
    row(" float mask, causal", with_mask(QKV, 4, 6, of=float), has_batch=False, is_causal=True),
    row(" bool mask, causal", with_mask(QKV, 4, 6), has_batch=False, is_causal=True),
    row(" dropout", dropout_p=0.4),
    row(" dropout_p=1", dropout_p=1.0),
    row(" dropout, blocks, mask", with_mask(QKV, 2, 1, 4, 6), dropout_p=0.4, block_size=3),
    row(" groups", GROUPED, enable_gqa=True),
    row(" groups, blocks, causal", GROUPED, enable_gqa=True, block_size=3, is_causal=True),
    row(" groups, bool mask", with_mask(GROUPED, 4, 7), has_batch=False, enable_gqa=True),
    row(" groups, mask of heads", with_mask(GROUPED, 2, 6, 4, 7, of=float), enable_gqa=True),
    row(" groups, mask of samples", with_mask(GROUPED, 2, 1, 4, 7, of=float), enable_gqa=True),
    row(" groups, dropout", GROUPED, enable_gqa=True, dropout_p=0.4),
    *(row(f" block_size={size}", block_size=size) for size in (1, 3, 99)),
    row(" blocks, causal", block_size=3, is_causal=True),
    row(" blocks, causal, more queries", shaped((2, 7, 3), (2, 3, 3), (2, 3, 3)), block_size=2,
        is_causal=True),
    row(" blocks, float mask", with_mask(QKV, 4, 6, of=float), has_batch=False, block_size=3,
        is_causal=True),
    row(" blocks, mask of keys", with_mask(QKV, 2, 1, 1, 6, of=float), block_size=3),
]  # fmt: skip


# --- multi-head attention -----------------------------------------------------------------


class Attend(Module):
    """Calls a layer of several inputs with options, and with masks by their names."""

    def __init__(self, module: Module, masks: list[str], options: dict[str, Any]) -> None:
        self.module, self.masks, self.options = module, masks, options

    def forward(self, *inputs: Any) -> tuple[Any, Any]:
        count = len(inputs) - len(self.masks)
        arrays = inputs[:count] * (3 if count == 1 else 1)  # of itself
        masks = dict(zip(self.masks, inputs[count:], strict=True))
        outputs, saved = self.module.forward(*arrays, **masks, **self.options)
        return outputs if self.shows_weights else outputs[0], (saved, count)

    def backward(self, grad_output: Any, saved: Any, **options: Any) -> Any:
        inner, count = saved
        grad_outputs = grad_output if self.shows_weights else (grad_output, None)
        grads = self.module.backward(grad_outputs, inner)
        places = {"key_padding_mask": 3, "attn_mask": 4}
        of_masks = tuple(grads[places[name]] for name in self.masks)
        of_arrays = (grads[0] + grads[1] + grads[2],) if count == 1 else grads[:3]
        return of_arrays + of_masks if len(of_arrays + of_masks) > 1 else of_arrays[0]

    @property
    def shows_weights(self) -> bool:
        return bool(self.options.get("need_weights", True))


class AttendUnseen(Attend):
    """Asks for weights, and nobody looks at them: their gradient is None."""

    shows_weights = False  # type: ignore[assignment]


def attend_torch(masks: list[str], options: dict[str, Any], **arguments: Any) -> Any:
    def make(torch: Any) -> Any:
        def call(module: Any, *inputs: Any) -> Any:
            count = len(inputs) - len(masks)
            given = [m if m.is_floating_point() else m.bool() for m in inputs[count:]]
            arrays = inputs[:count] * (3 if count == 1 else 1)
            outputs = module(*arrays, **dict(zip(masks, given, strict=True)), **options)
            return outputs if options.get("need_weights", True) else outputs[0]

        return torch_function(torch, call, torch.nn.MultiheadAttention(**arguments))

    return make


def heads(
    name: str,
    inputs: Callable[[Rng], Any],
    masks: str = "",
    options: dict[str, Any] | None = None,
    **arguments: Any,
) -> Case:
    """MultiheadAttention(4, 2) with these arguments, called with these options."""
    called, names = options or {}, masks.split()
    arguments = {"embed_dim": 4, "num_heads": 2} | arguments
    theirs = {key: value for key, value in arguments.items() if key != "block_size"}
    return Case(
        f"MultiheadAttention{name}",
        lambda: Attend(nn.MultiheadAttention(**arguments, rng=0), names, called),
        inputs,
        attend_torch(names, called, **theirs),
        has_batch=arguments.get("batch_first", False) and "attn_mask" not in names,
        is_random="dropout" in arguments,
        is_plain=not names,
    )


TOKENS = shaped((3, 2, 4))
CROSS = shaped((3, 2, 4), (5, 2, 4), (5, 2, 4))
BATCHES = shaped((2, 3, 4), (2, 5, 4), (2, 5, 4))
OTHER = shaped((3, 2, 4), (5, 2, 3), (5, 2, 6))
QUIET = {"need_weights": False}
EXTRA = {"add_bias_kv": True, "add_zero_attn": True}


def causal_mask(inputs: Callable[[Rng], Any], *shape: int) -> Callable[[Rng], Any]:
    return lambda rng: (
        *(np.atleast_1d(x) for x in as_tuple(inputs(rng))),
        np.triu(np.ones(shape, bool), 1),
    )


def as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def keys_hidden(inputs: Callable[[Rng], Any], *shape: int) -> Callable[[Rng], Any]:
    """A mask that hides the last key of the last sample, and never all of them."""

    def draw(rng: Rng) -> tuple[np.ndarray, ...]:
        mask = np.zeros(shape, bool)
        mask[-1:, ..., -2:] = len(shape) > 0
        return (*inputs(rng), mask)

    return draw


ATTENTION += [
    Case(
        "MultiheadAttention",
        lambda: nn.MultiheadAttention(4, 2, rng=0),
        CROSS,
        lambda t: t.nn.MultiheadAttention(4, 2),
        has_batch=False,
    ),
    Case(
        "MultiheadAttention batch_first",
        lambda: nn.MultiheadAttention(4, 2, batch_first=True, rng=0),
        BATCHES,
        lambda t: t.nn.MultiheadAttention(4, 2, batch_first=True),
    ),
    Case(
        "MultiheadAttention of one sample",
        lambda: nn.MultiheadAttention(4, 1, rng=0),
        shaped((3, 4), (5, 4), (5, 4)),
        lambda t: t.nn.MultiheadAttention(4, 1),
        has_batch=False,
    ),
    Case(
        "MultiheadAttention with weights that nobody uses",
        lambda: AttendUnseen(nn.MultiheadAttention(4, 2, rng=0), [], {}),
        CROSS,
        lambda t: torch_function(
            t, lambda module, *inputs: module(*inputs)[0], t.nn.MultiheadAttention(4, 2)
        ),
        has_batch=False,
    ),
    heads(" of itself", TOKENS),
    heads(" of itself, without weights", TOKENS, options=QUIET),
    heads(" of itself, batch_first", shaped((2, 3, 4)), options=QUIET, batch_first=True),
    heads(" of one token", shaped((1, 2, 4))),
    heads(" of one sample, batch_first", shaped((3, 4), (5, 4), (5, 4)), options=QUIET,
          batch_first=True, ),
    heads(" without weights", CROSS, options=QUIET),
    heads(" all weights", CROSS, options={"average_attn_weights": False}),
    heads(" without bias", CROSS, bias=False),
    heads(" kdim", shaped((3, 2, 4), (5, 2, 3), (5, 2, 4)), kdim=3),
    heads(" kdim and vdim", OTHER, kdim=3, vdim=6, options=QUIET),
    heads(" kdim and vdim without bias", OTHER, kdim=3, vdim=6, bias=False),
    heads(" bias_kv", CROSS, add_bias_kv=True),
    heads(" bias_kv without weights", CROSS, add_bias_kv=True, options=QUIET, bias=False),
    heads(" zero_attn", CROSS, add_zero_attn=True),
    heads(" both, batch_first", BATCHES, **EXTRA, batch_first=True),
    heads(" dropout", CROSS, dropout=0.4),
    heads(" dropout without weights", CROSS, dropout=0.4, options=QUIET),
    heads(" dropout=1", CROSS, dropout=1.0),
    heads(" block_size", CROSS, block_size=2, options=QUIET),
    *(
        heads(f" {name}{'' if shown else ' without weights'}", inputs, masks,
              options={} if shown else QUIET, **arguments)
        for shown in (True, False)
        for name, inputs, masks, arguments in (
            ("bool mask", keys_hidden(CROSS, 3, 5), "attn_mask", {}),
            ("float mask", with_mask(CROSS, 3, 5, of=float), "attn_mask", {}),
            ("bool mask of heads", keys_hidden(CROSS, 4, 3, 5), "attn_mask", {}),
            ("float mask of heads", with_mask(CROSS, 4, 3, 5, of=float), "attn_mask", {}),
            ("bool padding", keys_hidden(BATCHES, 2, 5), "key_padding_mask",
             {"batch_first": True}),
            ("float padding", with_mask(CROSS, 2, 5, of=float), "key_padding_mask", {}),
            ("both bool", keys_hidden(keys_hidden(CROSS, 2, 5), 3, 5),
             "key_padding_mask attn_mask", {}),
            ("both float", with_mask(with_mask(CROSS, 2, 5, of=float), 4, 3, 5, of=float),
             "key_padding_mask attn_mask", EXTRA),
            ("bool padding, extra keys", keys_hidden(CROSS, 2, 5), "key_padding_mask", EXTRA),
            ("float mask, extra keys", with_mask(CROSS, 3, 5, of=float), "attn_mask", EXTRA),
            ("masks of one sample",
             with_mask(with_mask(shaped((3, 4), (5, 4), (5, 4)), 5, of=float), 2, 3, 5, of=float),
             "key_padding_mask attn_mask", {}),
        )
    ),
    *(
        heads(f" causal{name}", causal_mask(inputs, *shape), "attn_mask",
              options={"is_causal": True} | options, **arguments)
        for name, inputs, shape, options, arguments in (
            ("", TOKENS, (3, 3), QUIET, {}),
            (" with weights", TOKENS, (3, 3), {}, {}),
            (" in blocks", TOKENS, (3, 3), QUIET, {"block_size": 2}),
            (" with extra keys", CROSS, (3, 5), QUIET, EXTRA),
        )
    ),
    heads(" causal and padding", keys_hidden(causal_mask(CROSS, 3, 5), 2, 5),
          "attn_mask key_padding_mask", options={"is_causal": True} | QUIET),
]  # fmt: skip
