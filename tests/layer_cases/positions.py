"""Rows of the gated feed-forward block and of positions, beside their formulas in PyTorch."""

from typing import Any

import numpy as np

from layer_cases.attention import shaped
from layer_cases.case import Case, Rng, normal, torch_function
from xbackprop import nn


def swiglu(torch: Any, dim: int, hidden: int, bias: bool) -> Any:
    linear = torch.nn.Linear

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w1, self.w2 = linear(dim, hidden, bias), linear(hidden, dim, bias)
            self.w3 = linear(dim, hidden, bias)

        def forward(self, x: Any) -> Any:
            return self.w2(torch.nn.functional.silu(self.w1(x)) * self.w3(x))

    return Block()


def rotary(interleaved: bool, base: float = 10000.0) -> Any:
    """Pairs as complex numbers, times a number on the unit circle."""

    def make(torch: Any) -> Any:
        def turn(x: Any, positions: Any = None) -> Any:
            half = x.shape[-1] // 2
            if positions is None:
                positions = torch.arange(x.shape[-2])
            powers = torch.arange(half, dtype=torch.float64) / half
            turns = torch.outer(positions.double(), base**-powers)
            order = (half, 2) if interleaved else (2, half)
            pairs = x.unflatten(-1, order)
            pairs = pairs if interleaved else pairs.transpose(-1, -2)
            unit = torch.polar(torch.ones_like(turns), turns)
            unit = unit.to(torch.complex64 if x.dtype == torch.float32 else torch.complex128)
            y = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * unit)
            return (y if interleaved else y.transpose(-1, -2)).flatten(-2)

        return torch_function(torch, turn)

    return make


def normal_x(rng: Rng) -> np.ndarray:
    return rng.normal(size=(2, 3, 5, 4))


def waves_torch(batch_first: bool) -> Any:
    def make(torch: Any) -> Any:
        def function(x: Any) -> Any:
            features = x.shape[-1]
            time = x.shape[-2] if batch_first or x.ndim == 2 else x.shape[0]
            table = np.array(
                [
                    [
                        (np.cos if i % 2 else np.sin)(t / 10000.0 ** ((i - i % 2) / features))
                        for i in range(features)
                    ]
                    for t in range(time)
                ]
            )
            table = torch.tensor(table, dtype=x.dtype)
            return x + (table if batch_first or x.ndim == 2 else table[:, None])

        return torch_function(torch, function)

    return make


def learned_torch(positions: int, width: int, batch_first: bool) -> Any:
    def make(torch: Any) -> Any:
        class Learned(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = torch.nn.Parameter(torch.zeros(positions, width))

            def forward(self, x: Any) -> Any:
                is_last = batch_first or x.ndim == 2
                table = self.weight[: x.shape[-2 if is_last else 0]]
                return x + (table if is_last else table[:, None])

        return Learned()

    return make


POSITIONS = [
    Case(
        "SwiGLU", lambda: nn.SwiGLU(4, 6, rng=0), shaped((3, 4)), lambda t: swiglu(t, 4, 6, False)
    ),
    Case(
        "SwiGLU bias",
        lambda: nn.SwiGLU(3, 5, True, rng=0),
        shaped((2, 4, 3)),
        lambda t: swiglu(t, 3, 5, True),
    ),
    Case(
        "SwiGLU default hidden_dim",
        lambda: nn.SwiGLU(4, multiple_of=4, rng=0),
        shaped((3, 4)),
        lambda t: swiglu(t, 4, 12, False),
    ),
    Case("RotaryEmbedding", lambda: nn.RotaryEmbedding(4), normal_x, rotary(False)),
    Case(
        "RotaryEmbedding interleaved",
        lambda: nn.RotaryEmbedding(4, interleaved=True),
        normal_x,
        rotary(True),
    ),
    Case(
        "RotaryEmbedding base",
        lambda: nn.RotaryEmbedding(4, 7.0),
        shaped((2, 5, 4)),
        rotary(False, 7.0),
    ),
    Case(
        "RotaryEmbedding positions",
        lambda: nn.RotaryEmbedding(4),
        lambda rng: (normal_x(rng), np.array([9, 0, 3, 3, 70])),
        rotary(False),
        has_batch=False,
    ),
    Case(
        "SinusoidalPositionalEncoding",
        lambda: nn.SinusoidalPositionalEncoding(6, batch_first=True),
        normal(2, 5, 6),
        waves_torch(True),
    ),
    Case(
        "SinusoidalPositionalEncoding with time first",
        lambda: nn.SinusoidalPositionalEncoding(5),
        normal(4, 2, 5),
        waves_torch(False),
        has_batch=False,
        is_plain=False,
    ),
    Case(
        "SinusoidalPositionalEncoding of one sample",
        lambda: nn.SinusoidalPositionalEncoding(4),
        normal(3, 4),
        waves_torch(False),
        has_batch=False,
    ),
    Case(
        "LearnedPositionalEmbedding",
        lambda: nn.LearnedPositionalEmbedding(7, 3, batch_first=True, rng=0),
        normal(2, 5, 3),
        learned_torch(7, 3, True),
    ),
    Case(
        "LearnedPositionalEmbedding with time first",
        lambda: nn.LearnedPositionalEmbedding(4, 3, rng=0),
        normal(4, 2, 3),
        learned_torch(4, 3, False),
        has_batch=False,
        is_plain=False,
    ),
    Case(
        "LearnedPositionalEmbedding of one sample",
        lambda: nn.LearnedPositionalEmbedding(6, 3, rng=0),
        normal(4, 3),
        learned_torch(6, 3, False),
        has_batch=False,
    ),
]
