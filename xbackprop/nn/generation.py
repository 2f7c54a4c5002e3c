"""Text from a GPT: one token at a time, with the keys and values of those before kept."""

import math
from collections.abc import Iterator, Sequence
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.device import device_of
from xbackprop.backend.transfer import to_device, to_host
from xbackprop.initializers import RandomSource, as_generator
from xbackprop.module import as_one_call, inference
from xbackprop.nn.attention.dot_product import scaled_dot_product_attention_forward
from xbackprop.nn.linear import linear_forward

if TYPE_CHECKING:
    from xbackprop.nn.gpt import GPT


class KeyValueCache:
    """The keys and values of the tokens that a model has seen, for every block.

    A new token asks all tokens before it, whose keys and values depend on what came before them
    only: they never change, so a token costs one row of every product in place of all.

    Parameters
    ----------
    model : GPT
        Says how many, of which size, and where.
    batch : int, default 1
        Texts at a time.

    Attributes
    ----------
    length : int
        Tokens seen.
    """

    def __init__(self, model: "GPT", batch: int = 1) -> None:
        like = model.wte.weight.data  # what layers that are called alone return
        features = model.embed_dim // model.num_heads
        shape = (batch, model.num_heads, model.context_length, features)
        self.length = 0
        with device_of(like).activate():
            xp = get_array_module(like)
            self.layers = [
                (xp.zeros(shape, dtype=like.dtype), xp.zeros(shape, dtype=like.dtype))
                for _ in range(model.num_layers)
            ]


def next_logits(model: "GPT", tokens: Array, cache: KeyValueCache) -> Array:
    """Return the logits after the last of some tokens that follow those of a cache.

    Parameters
    ----------
    model : GPT
        In evaluation mode.
    tokens : array of int, shape (batch, time)
        The new tokens, on the model's device.
    cache : KeyValueCache
        Of the model; the new keys and values are put into it.

    Returns
    -------
    array, shape (batch, vocab_size)

    Raises
    ------
    ValueError
        When the context is not long enough, and for another number of texts than the cache's.
    """
    model.check_tokens(tokens)
    start, stop = cache.length, cache.length + tokens.shape[1]
    if stop > model.context_length:
        raise ValueError(
            f"GPT: {stop} tokens do not fit into context_length={model.context_length}"
        )
    batch = len(cache.layers[0][0])
    if len(tokens) != batch:
        raise ValueError(f"GPT: the cache is of {batch} texts; got tokens of {len(tokens)}")
    with as_one_call(tokens), inference():
        x = model.wte(tokens) + model.wpe.weight.value[start:stop]
        xp = get_array_module(x)
        is_past = xp.arange(stop) <= xp.arange(start, stop).reshape(-1, 1)  # a query, its keys
        for block, layer in zip(model.h, cache.layers, strict=True):
            x = _extend(block, x, layer, start, is_past)
        last = model.ln_f(x[:, -1])
        logits, _ = linear_forward(last, model.wte.weight.value, None)
    cache.length = stop
    return logits


def _extend(block: Any, x: Array, layer: tuple[Array, Array], start: int, is_past: Array) -> Array:
    """Run a block on new tokens, after their keys and values were put behind the others."""
    attn, (keys, values), stop = block.attn, layer, start + x.shape[1]
    q, k, v = attn.split(attn.c_attn(block.ln_1(x)))
    keys[:, :, start:stop], values[:, :, start:stop] = k, v
    mixed, _ = scaled_dot_product_attention_forward(
        q, keys[:, :, :stop], values[:, :, :stop], 1 / math.sqrt(q.shape[-1]), is_past
    )
    x = x + attn.c_proj(attn.join(mixed))
    return x + block.mlp(block.ln_2(x))


def generate(
    model: "GPT",
    prompt: Sequence[int] | np.ndarray,
    length: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    rng: RandomSource = None,
) -> Iterator[int]:
    """Yield tokens that go on from a prompt.

    Each is drawn on the host, for which its logits are downloaded: one download a token. When the
    context is full, the second half of it is read anew and the rest forgotten.

    Parameters
    ----------
    model : GPT
        Is in evaluation mode meanwhile.
    prompt : sequence of int
        At least one token; of a long one the last ``context_length`` count.
    length : int
        How many tokens to draw.
    temperature, top_k, top_p
        See :func:`draw_token`.
    rng : Generator, int or None
        Draws.

    Yields
    ------
    int
        The next token.

    Raises
    ------
    IndexError
        For a token that the model does not know.
    ValueError
        For an empty prompt, and for what says nothing about how to draw.
    """
    check_sampling(temperature, top_k, top_p)
    context = [index(token) for token in prompt][-model.context_length :]
    if not context:
        raise ValueError("generate expects a prompt of at least one token; got none")
    if min(context) < 0 or max(context) >= model.vocab_size:
        raise IndexError(f"generate expects tokens from 0 to {model.vocab_size - 1}; got {context}")
    generator, cache = as_generator(rng), KeyValueCache(model)
    new = context
    for _ in range(length):
        if cache.length + len(new) > model.context_length:
            cache = KeyValueCache(model)
            context = context[-max(1, model.context_length // 2) :]
            new = context
        was_training = model.training
        model.eval()
        try:
            tokens = to_device(np.array([new], dtype=np.int64), model.device)
            logits = to_host(next_logits(model, tokens, cache))[0]
        finally:
            model.train(was_training)
        token = draw_token(logits, temperature=temperature, top_k=top_k, top_p=top_p, rng=generator)
        context.append(token)
        new = [token]
        yield token


def draw_token(
    logits: np.ndarray,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    rng: RandomSource = None,
) -> int:
    """Draw from ``softmax(logits / temperature)``, of which the unlikely part may be cut off.

    Parameters
    ----------
    logits : numpy.ndarray, shape (vocab_size,)
        Scores of the tokens.
    temperature : float, default 1.0
        Below 1 the likely become more likely; 0 takes the likeliest.
    top_k : int, optional
        Only the ``top_k`` likeliest are drawn from.
    top_p : float, optional
        Only the likeliest whose probabilities together reach ``top_p``, 0 to 1.
    rng : Generator, int or None
        Draws.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        For NaN among the logits.

    References
    ----------
    Holtzman et al., "The curious case of neural text degeneration", ICLR 2020, for ``top_p``.
    """
    check_sampling(temperature, top_k, top_p)
    scores = np.asarray(logits, dtype=np.float64)
    if np.isnan(scores).any():
        raise ValueError("draw_token: logits hold NaN; the model's weights are no good")
    order = np.argsort(-scores, kind="stable")  # of equals, the first
    if temperature == 0:
        return int(order[0])
    kept = scores[order[:top_k]]
    with np.errstate(all="ignore"):
        probability = np.exp((kept - kept[0]) / temperature)
    probability[kept == kept[0]] = 1.0  # of infinite ones too, whose difference is NaN
    probability /= probability.sum()
    if top_p is not None:
        before = np.cumsum(probability) - probability
        probability = probability[before < top_p]
        probability /= probability.sum()
    # By inversion: the same number from the generator gives the same token on every machine.
    place = np.searchsorted(np.cumsum(probability), as_generator(rng).random(), side="right")
    return int(order[min(int(place), len(probability) - 1)])


def check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Refuse what says nothing about how to draw.

    Parameters
    ----------
    temperature, top_k, top_p
        See :func:`draw_token`.

    Raises
    ------
    ValueError
        Says what is expected.
    """
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature expects a number from 0 on; got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k expects a whole number from 1 on; got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p expects a number above 0, at most 1; got {top_p}")
