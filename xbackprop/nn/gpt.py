"""GPT: blocks of attention and a small network, each added to what passes by."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, get_array_module
from xbackprop.backend.device import Device
from xbackprop.initializers import RandomSource, as_generator, normal
from xbackprop.module import Module, Parameter, current_frame, describe_layer
from xbackprop.nn.activations import GELU
from xbackprop.nn.attention import ScaledDotProductAttention
from xbackprop.nn.containers import ModuleList, Sequential
from xbackprop.nn.dropout import Dropout
from xbackprop.nn.embedding import Embedding
from xbackprop.nn.generation import generate
from xbackprop.nn.linear import Linear, linear_backward, linear_forward
from xbackprop.nn.normalization import LayerNorm
from xbackprop.nn.sizes import as_count
from xbackprop.ops.matmul import sum_rows

_STD = 0.02  # of the initial weights of GPT-2


class CausalSelfAttention(Module):
    """Every token takes from those up to itself: ``y = join(attention(q, k, v)) W_o + b_o``.

    ``q``, ``k`` and ``v`` are one linear map of ``x``, cut into heads.

    Parameters
    ----------
    embed_dim : int
        Features of a token.
    num_heads : int
        Divides ``embed_dim``.
    dropout : float, default 0.0
        Of the attention's weights and of the output, in training.
    bias : bool, default True
        Of both linear maps.
    block_size : int, optional
        Queries at a time, see :class:`ScaledDotProductAttention`.
    device : str or Device, optional
        Where the parameters live; None is the default device.
    dtype : dtype, optional
        Of the parameters, a float dtype; None is float32.
    rng : Generator, int or None
        Draws the initial values.

    Notes
    -----
    Backward goes through the output map, the attention of every head, and the joint map of ``q``,
    ``k`` and ``v``, whose three gradients lie side by side as its outputs did.

    References
    ----------
    Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.2.
    """

    samples_apart = True

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        *,
        block_size: int | None = None,
        device: str | Device | None = None,
        dtype: Any = None,
        rng: RandomSource = None,
    ) -> None:
        if embed_dim % num_heads:
            raise ValueError(
                f"CausalSelfAttention expects num_heads to divide embed_dim; got "
                f"embed_dim={embed_dim} and num_heads={num_heads}"
            )
        generator = as_generator(rng)
        place: dict[str, Any] = {"device": device, "dtype": dtype, "rng": generator}
        self.num_heads = num_heads
        self.c_attn = Linear(embed_dim, 3 * embed_dim, bias, **place)
        self.c_proj = Linear(embed_dim, embed_dim, bias, **place)
        self.attention = ScaledDotProductAttention(
            dropout, is_causal=True, block_size=block_size, device=device, rng=generator
        )
        self.dropout = Dropout(dropout, device=device, rng=generator)

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Return what every token of ``(batch, time, embed_dim)`` takes from those before it."""
        joined, joined_saved = self.c_attn.forward(x)
        mixed, mixed_saved = self.attention.forward(*self.split(joined))
        output, output_saved = self.c_proj.forward(self.join(mixed))
        output, dropout_saved = self.dropout.forward(output)
        return output, (joined_saved, mixed_saved, output_saved, dropout_saved)

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Go back through both linear maps and the attention between them."""
        joined_saved, mixed_saved, output_saved, dropout_saved = saved
        grad: Any = self.dropout.backward(grad_output, dropout_saved)
        grad = self.c_proj.backward(grad, output_saved)
        batch, time, features = grad.shape
        heads = grad.reshape(batch, time, self.num_heads, features // self.num_heads)
        grads: Any = self.attention.backward(heads.swapaxes(1, 2), mixed_saved)
        xp = get_array_module(grad)
        grad_joined = xp.empty((batch, time, 3, *heads.shape[2:]), dtype=grad.dtype)
        for part, grad_part in enumerate(grads):
            grad_joined[:, :, part] = grad_part.swapaxes(1, 2)
        grad_joined = grad_joined.reshape(batch, time, 3 * features)
        return self.c_attn.backward(grad_joined, joined_saved, input_grad=input_grad)

    def split(self, joined: Array) -> tuple[Array, Array, Array]:
        """View ``(batch, time, 3 * embed_dim)`` as three ``(batch, heads, time, features)``."""
        batch, time, features = joined.shape
        heads = joined.reshape(batch, time, 3, self.num_heads, features // (3 * self.num_heads))
        apart = heads.transpose(2, 0, 3, 1, 4)
        return apart[0], apart[1], apart[2]

    def join(self, mixed: Array) -> Array:
        """Put the heads of every token side by side again."""
        batch, heads, time, features = mixed.shape
        return mixed.swapaxes(1, 2).reshape(batch, time, heads * features)


class GPTBlock(Module):
    """Two sums, ``h = x + f(norm(x))`` and ``y = h + g(norm(h))``.

    ``f`` is :class:`CausalSelfAttention`; ``g`` has a hidden layer of four times the width.

    Parameters
    ----------
    embed_dim, num_heads, dropout, bias, block_size
        As :class:`CausalSelfAttention` takes them.
    device : str or Device, optional
        Where the parameters live; None is the default device.
    dtype : dtype, optional
        Of the parameters, a float dtype; None is float32.
    rng : Generator, int or None
        Draws the initial values.

    Notes
    -----
    A sum passes its gradient on to both sides, so with ``G = dLoss/dy``: ``dLoss/dh = G +
    norm.backward(g.backward(G)) =: H`` and ``dLoss/dx = H + norm.backward(f.backward(H))``. There
    is a way from the loss to every block without a product in it.

    References
    ----------
    Radford et al., "Language models are unsupervised multitask learners", 2019, section 2.3.
    """

    samples_apart = True

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        *,
        block_size: int | None = None,
        device: str | Device | None = None,
        dtype: Any = None,
        rng: RandomSource = None,
    ) -> None:
        generator = as_generator(rng)
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        drawn: dict[str, Any] = {**place, "rng": generator}
        self.ln_1 = LayerNorm(embed_dim, bias=bias, **place)
        self.attn = CausalSelfAttention(
            embed_dim, num_heads, dropout, bias, block_size=block_size, **drawn
        )
        self.ln_2 = LayerNorm(embed_dim, bias=bias, **place)
        self.mlp = Sequential(
            {
                "c_fc": Linear(embed_dim, 4 * embed_dim, bias, **drawn),
                "act": GELU(approximate="tanh"),
                "c_proj": Linear(4 * embed_dim, embed_dim, bias, **drawn),
                "dropout": Dropout(dropout, device=device, rng=generator),
            }
        )

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Return ``(batch, time, embed_dim)`` with what both parts add."""
        normed, first_norm = self.ln_1.forward(x)
        attended, attn_saved = self.attn.forward(normed)
        hidden = x + attended
        normed, second_norm = self.ln_2.forward(hidden)
        made, mlp_saved = self.mlp.forward(normed)
        return hidden + made, (first_norm, attn_saved, second_norm, mlp_saved)

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> Array | None:
        """Add what comes back through each part to what comes past it."""
        first_norm, attn_saved, second_norm, mlp_saved = saved
        grad_normed = self.mlp.backward(grad_output, mlp_saved)
        grad_hidden = grad_output + self.ln_2.backward(grad_normed, second_norm)
        grad_normed = self.attn.backward(grad_hidden, attn_saved)
        grad_input = self.ln_1.backward(grad_normed, first_norm, input_grad=input_grad)
        return None if grad_input is None else grad_hidden + grad_input


class GPT(Module):
    """GPT-2: from the tokens so far to a score for each token that may come next.

    Embeddings of tokens and positions are added, pass through the blocks and a last normalization,
    and are multiplied with the embeddings of all tokens: ``y = norm(blocks(E[tokens] + P)) E^T``.

    Parameters
    ----------
    vocab_size : int
        Number of tokens.
    context_length : int
        Most tokens at a time.
    num_layers : int
        Blocks.
    num_heads : int
        Of attention; divides ``embed_dim``.
    embed_dim : int
        Features of a token.
    dropout : float, default 0.0
        Of the embeddings, the attention's weights and what each part of a block adds, in training.
    bias : bool, default True
        Of linear maps and normalizations.
    block_size : int, optional
        Queries at a time, see :class:`ScaledDotProductAttention`: memory is then linear in tokens.
    device : str or Device, optional
        Where the parameters live; None is the default device.
    dtype : dtype, optional
        Of the parameters, a float dtype; None is float32.
    rng : Generator, int or None
        Draws the initial values.

    Raises
    ------
    IndexError
        In ``forward`` for a token out of range, where looking costs nothing (host arrays).

    Notes
    -----
    The embedding ``E`` is used twice, so its gradient has two parts: ``g^T x`` from the last
    product, and from its rows the sum over the places of each token. ``dLoss/dP`` is the sum over
    the batch.

    Initial weights are GPT-2's: normal with deviation 0.02, biases 0, and the maps that end in a
    sum divided by ``sqrt(2 num_layers)``, since so many terms add up. Parameters have the names of
    its published weights; :mod:`xbackprop.interop.gpt2` reads and writes them.

    References
    ----------
    Radford et al., "Language models are unsupervised multitask learners", 2019, section 2.3.
    Press, Wolf, "Using the output embedding to improve language models", EACL 2017.

    Examples
    --------
    >>> import xbackprop as xb
    >>> model = xb.nn.GPT(65, 16, num_layers=1, num_heads=2, embed_dim=8, rng=0)
    >>> model(xb.asarray([[1, 2, 3]])).shape
    (1, 3, 65)
    """

    samples_apart = True

    def __init__(
        self,
        vocab_size: int,
        context_length: int,
        num_layers: int,
        num_heads: int,
        embed_dim: int,
        dropout: float = 0.0,
        bias: bool = True,
        *,
        block_size: int | None = None,
        device: str | Device | None = None,
        dtype: Any = None,
        rng: RandomSource = None,
    ) -> None:
        self.vocab_size = as_count("GPT", "vocab_size", vocab_size, 1)
        self.context_length = as_count("GPT", "context_length", context_length, 1)
        self.num_layers = as_count("GPT", "num_layers", num_layers, 1)
        self.num_heads = as_count("GPT", "num_heads", num_heads, 1)
        self.embed_dim = as_count("GPT", "embed_dim", embed_dim, 1)
        generator = as_generator(rng)
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        drawn: dict[str, Any] = {**place, "rng": generator}
        self.wte = Embedding(self.vocab_size, self.embed_dim, **drawn)
        self.wpe = Embedding(self.context_length, self.embed_dim, **drawn)
        self.drop = Dropout(dropout, device=device, rng=generator)
        sizes = (self.embed_dim, self.num_heads, dropout, bias)
        self.h = ModuleList(
            [GPTBlock(*sizes, block_size=block_size, **drawn) for _ in range(self.num_layers)]
        )
        self.ln_f = LayerNorm(self.embed_dim, bias=bias, **place)
        self._draw(generator)

    def reset_parameters(self, rng: RandomSource = None) -> None:
        """Draw the initial values anew, and new keys for the dropouts."""
        generator = as_generator(rng)
        for module in self.modules():
            if isinstance(module, (LayerNorm, Dropout, ScaledDotProductAttention)):
                module.reset_parameters(generator)
        self._draw(generator)

    def _draw(self, generator: Any) -> None:
        of_sum = _STD / math.sqrt(2 * self.num_layers)
        for name, module in self.named_modules():
            if not isinstance(module, (Linear, Embedding)):
                continue
            weight = module.weight
            std = of_sum if name.endswith("c_proj") else _STD
            at: dict[str, Any] = {"dtype": weight.dtype, "device": weight.device}
            values = {"weight": normal(weight.shape, std, rng=generator, **at)}
            bias = getattr(module, "bias", None)
            if bias is not None:
                values["bias"] = normal(bias.shape, 0.0, rng=generator, **at)
            module.load_state_dict(values)

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Return the groups for an optimizer: matrices decay, biases and normalizations do not.

        Parameters
        ----------
        weight_decay : float
            Of the first group.

        Returns
        -------
        list of dict
        """
        groups: dict[bool, list[Parameter]] = {True: [], False: []}
        for parameter in self.parameters():
            groups[len(parameter.shape) > 1].append(parameter)
        return [
            {"params": groups[True], "weight_decay": weight_decay},
            {"params": groups[False], "weight_decay": 0.0},
        ]

    def forward(self, tokens: Array) -> tuple[Array, Any]:
        """Return logits ``(batch, time, vocab_size)`` of integer tokens ``(batch, time)``."""
        self.check_tokens(tokens)
        embedded, wte_saved = self.wte.forward(tokens)
        x = embedded + self.wpe.weight.value[: tokens.shape[1]]
        x, drop_saved = self.drop.forward(x)
        saved: list[Any] = [wte_saved, drop_saved]
        for block in self.h:
            x, block_saved = block.forward(x)
            saved.append(block_saved)
        x, norm_saved = self.ln_f.forward(x)
        logits, head_saved = linear_forward(x, self.wte.weight.value, None)
        return logits, [*saved, norm_saved, head_saved]

    def backward(self, grad_output: Array, saved: Any, *, input_grad: bool = True) -> None:
        """Pass the gradient back to every parameter; tokens have none."""
        if current_frame().keep:
            saved = list(saved)
        grad: Any  # never None: every part is asked for the gradient of its input
        embedding = self.wte.weight
        grad, grad_embedding, _ = linear_backward(
            grad_output, *saved.pop(), True, embedding.requires_grad, False
        )
        if grad_embedding is not None:
            embedding.accumulate(grad_embedding)
        grad = self.ln_f.backward(grad, saved.pop())
        for block in reversed(list(self.h)):
            grad = block.backward(grad, saved.pop())
        grad = self.drop.backward(grad, saved.pop())
        positions = self.wpe.weight
        if positions.requires_grad:
            grad_positions = get_array_module(grad).zeros(positions.shape, dtype=positions.dtype)
            grad_positions[: grad.shape[1]] = sum_rows(grad)
            positions.accumulate(grad_positions)
        self.wte.backward(grad, saved.pop())

    def check_tokens(self, tokens: Array) -> None:
        """Refuse what is not ``(batch, time)`` of integers, or longer than the context."""
        self.check_device("tokens", tokens, self.wte.weight.value)
        if tokens.dtype.kind not in "iu":
            raise TypeError(f"{describe_layer(self)} expects integer tokens; got {tokens.dtype}")
        if tokens.ndim != 2 or not 0 < tokens.shape[1] <= self.context_length:
            raise ValueError(
                f"{describe_layer(self)} expects tokens of shape (batch, time) with time from 1 to "
                f"context_length={self.context_length}; got {tokens.shape}"
            )

    def generate(
        self,
        prompt: Sequence[int] | np.ndarray,
        length: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        rng: RandomSource = None,
    ) -> Iterator[int]:
        """Yield tokens that go on from a prompt.

        Parameters
        ----------
        prompt, length, temperature, top_k, top_p, rng
            As for :func:`xbackprop.nn.generation.generate`.

        Yields
        ------
        int
            The next token.
        """
        return generate(
            self, prompt, length, temperature=temperature, top_k=top_k, top_p=top_p, rng=rng
        )

    def extra_repr(self) -> str:
        """Return the constructor arguments shown by ``repr``."""
        return (
            f"{self.vocab_size}, {self.context_length}, num_layers={self.num_layers}, "
            f"num_heads={self.num_heads}, embed_dim={self.embed_dim}"
        )
