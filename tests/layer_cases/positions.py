"""Rows of positions, and of the gated network."""

from typing import Any

import numpy as np

from layer_cases.case import Case, normal, torch_function
from xbackprop import nn


def rotary_torch(base: float, interleaved: bool) -> Any:
    """Turn complex numbers: another way to say it than ours."""

    def make(torch: Any) -> Any:
        def function(x: Any) -> Any:
            half = x.shape[-1] // 2
            pairs = x.unflatten(-1, (half, 2) if interleaved else (2, half))
            pairs = pairs if interleaved else pairs.transpose(-1, -2)
            turns = base ** (-torch.arange(half, dtype=torch.float64) / half)
            angles = torch.arange(x.shape[-2], dtype=torch.float64)[:, None] * turns
            wide = torch.view_as_complex(pairs.contiguous().double())
            turned = torch.view_as_real(wide * torch.polar(torch.ones_like(angles), angles))
            turned = turned if interleaved else turned.transpose(-1, -2)
            return turned.flatten(-2).to(x.dtype)

        return torch_function(torch, function)

    return make


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


def swiglu_torch(width: int, hidden: int, bias: bool) -> Any:
    def make(torch: Any) -> Any:
        class Gated(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.w1 = torch.nn.Linear(width, hidden, bias)
                self.w2 = torch.nn.Linear(hidden, width, bias)
                self.w3 = torch.nn.Linear(width, hidden, bias)

            def forward(self, x: Any) -> Any:
                return self.w2(torch.nn.functional.silu(self.w1(x)) * self.w3(x))

        return Gated()

    return make


POSITIONS = [
    Case("RotaryEmbedding", nn.RotaryEmbedding, normal(2, 3, 4, 6), rotary_torch(10000.0, True)),
    Case(
        "RotaryEmbedding of halves",
        lambda: nn.RotaryEmbedding(50.0, interleaved=False),
        normal(2, 5, 8),
        rotary_torch(50.0, False),
        is_plain=False,
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
    Case(
        "SwiGLU",
        lambda: nn.SwiGLU(3, 4, rng=0),
        normal(2, 5, 3),
        swiglu_torch(3, 4, False),
    ),
    Case(
        "SwiGLU with bias",
        lambda: nn.SwiGLU(2, 3, bias=True, rng=0),
        normal(4, 2),
        swiglu_torch(2, 3, True),
    ),
]
