"""One small training for the tests of threads, processes and long runs: everything in it at once.

Dropout and recomputation (random state), Adam (state of its own), clipping, a schedule, inference
and calls that are refused.
"""

import hashlib
from typing import Any

import numpy as np

import xbackprop as xb

nn = xb.nn


class Workload:
    """A network in training; `run` goes on where it stopped."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([7, seed])
        self.model = nn.Sequential(
            nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.3),
            nn.Recompute(nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.2), nn.ReLU())),
            nn.Residual(nn.Linear(8, 8)), nn.Linear(8, 3), rng=seed,
        )  # fmt: skip
        self.loss_fn = nn.CrossEntropyLoss()
        self.optimizer = xb.optim.Adam(self.model.parameters(), lr=0.01, weight_decay=0.01)
        self.scheduler = xb.optim.StepLR(self.optimizer, step_size=50, gamma=0.9)
        self.x = xb.asarray(self.rng.normal(size=(6, 5)))
        self.y = xb.asarray(self.rng.integers(0, 3, size=6))
        self.seen: Any = 0.0

    def run(self, steps: int) -> "Workload":
        for _ in range(steps):
            self.step()
        return self

    def step(self) -> None:
        self.optimizer.zero_grad()
        output, saved = self.model.forward(self.x)
        _, loss_saved = self.loss_fn.forward(output, self.y)
        self.model.backward(self.loss_fn.backward(1.0, loss_saved), saved, input_grad=False)
        xb.optim.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.scheduler.step()
        self.model.eval()
        self.seen = self.seen + self.model(self.x).sum()
        self.model.train()

    def refuse(self) -> None:
        """Make calls that raise, as a program does that tries something and goes on."""
        self.model.forward(self.x)  # and no backward
        for call in (
            lambda: self.model.forward(self.x[:, :2]),
            lambda: self.model(self.x[:, :2]),
            lambda: self.loss_fn.forward(self.x, self.y[:2]),
            lambda: self.model.backward(self.x, None),
            lambda: self.model.load_state_dict({}),
            lambda: xb.value_and_grad(self.model, self.loss_fn)(self.x, self.y[:3]),
        ):
            try:
                call()
            except (ValueError, RuntimeError):
                continue
            raise AssertionError("a call that must be refused was not")

    def digest(self) -> str:
        """Return a hash of weights, state, random counters and of what inference gave."""
        found = {**self.model.state_dict(), **self.model.extra_state(), "seen": self.seen}
        for number, entry in self.optimizer.state_dict()["state"].items():
            found |= {f"{name} {number}": value for name, value in entry.items()}
        content = hashlib.sha256()
        for name in sorted(found):
            value = found[name]
            host = np.asarray(value) if np.isscalar(value) else xb.to_host(value)
            content.update(name.encode() + host.tobytes())
        return content.hexdigest()


def train(seed: int, steps: int, device: str = "cpu") -> str:
    """Train from the start and return the digest."""
    with xb.use_device(device):
        return Workload(seed).run(steps).digest()
