"""Rows of transformers: GPT beside a PyTorch module with the names of GPT-2."""

from typing import Any

from layer_cases.case import Case, Rng
from xbackprop import nn


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
    ),
    Case(
        "gpt_without_bias_in_blocks_of_queries",
        lambda: gpt(7, 5, 1, 1, 8, bias=False, block_size=2),
        tokens,
        lambda torch: gpt_torch(torch, 7, 5, 1, 1, 8, bias=False),
    ),
    Case(
        "gpt_dropout",
        lambda: gpt(7, 6, 1, 2, 8, dropout=0.3),
        tokens,
        lambda torch: gpt_torch(torch, 7, 6, 1, 2, 8),
        is_random=True,
    ),
]
