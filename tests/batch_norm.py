"""A small batch normalization with PyTorch's names, for tests of what averages weights."""

from typing import Any

import numpy as np

import xbackprop as xb


class BatchNorm(xb.Module):
    """Running statistics of (batch, features), and a count of batches; trains nothing."""

    def __init__(self, features: int, dtype: Any = np.float32) -> None:
        self.momentum: float | None = 0.1
        self.register_buffer("running_mean", xb.asarray(np.zeros(features), dtype=dtype))
        self.register_buffer("running_var", xb.asarray(np.ones(features), dtype=dtype))
        self.register_buffer("num_batches_tracked", xb.asarray(np.array(0)))

    def reset_running_stats(self) -> None:
        for name, value in (("running_mean", 0), ("running_var", 1), ("num_batches_tracked", 0)):
            getattr(self, name)[...] = value

    def forward(self, x: Any) -> tuple[Any, Any]:
        if not self.training:
            return (x - self.running_mean) / (self.running_var + 1e-5) ** 0.5, ()
        xp = xb.get_array_module(x)
        mean, var = x.mean(axis=0), x.var(axis=0)
        count = self.read_buffer("num_batches_tracked") + 1
        share = self.momentum or (1 / count).astype(x.dtype)
        unbiased = var * (x.shape[0] / (x.shape[0] - 1))
        for name, value in (("running_mean", mean), ("running_var", unbiased)):
            earlier = self.read_buffer(name)
            self.update_buffer(name, earlier * (1 - share) + value * share)
        self.update_buffer("num_batches_tracked", count)
        return (x - mean) / xp.sqrt(var + 1e-5), ()
