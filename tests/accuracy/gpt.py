"""Train a GPT on Shakespeare for some minutes, and the same network in PyTorch for as many steps.

`python -m accuracy.gpt --out FILE --picture FILE` writes figures and curves; it ends with 1 when
our validation loss is more than 2 % above PyTorch's.
"""

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from layer_cases.transformer import gpt_torch

import xbackprop as xb
from xbackprop.cli.choices import MODELS, PRESETS, WARMUP
from xbackprop.optim.lr_scheduler import WarmupStableDecayLR

LR, BETAS = 1e-3, (0.9, 0.99)
POINTS = 12  # of the curve
PROBE = 30  # steps, to know how many fit into the time
MOST_ABOVE = 0.02


def schedule(step: int, total: int) -> float:
    """The factor of the learning rate at a step, as WarmupStableDecayLR has it."""
    warmup = WARMUP
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + np.cos(np.pi * min(1.0, (step - warmup) / max(total - warmup, 1))))


def windows(corpus: Any, seed: int) -> Any:
    """Yield batches for ever, in the order that both sides get."""
    epoch = 0
    while True:
        yield from xb.data.batches(
            corpus.x_train, corpus.y_train, MODELS["gpt"]["batch_size"], rng=seed + epoch
        )
        epoch += 1


class Ours:
    name = "xbackprop"

    def __init__(self, corpus: Any, total: int, seed: int) -> None:
        sizes = PRESETS["nano"]
        self.model = xb.nn.GPT(
            corpus.tokenizer.vocab_size, sizes["context"], sizes["layers"], sizes["heads"],
            sizes["width"], rng=seed,
        )  # fmt: skip
        groups = self.model.parameter_groups(MODELS["gpt"]["weight_decay"])
        optimizer = xb.optim.AdamW(groups, lr=LR, betas=BETAS)
        self.trainer = xb.Trainer(
            self.model,
            xb.nn.TokenCrossEntropyLoss(),
            optimizer,
            clip_norm=MODELS["gpt"]["clip_norm"],
            scheduler=WarmupStableDecayLR(optimizer, WARMUP, 0, total - WARMUP, decay="cosine"),
            scheduler_interval="step",
        )

    def step(self, x: np.ndarray, y: np.ndarray) -> None:
        self.trainer.step(x, y)

    def evaluate(self, x: np.ndarray, y: np.ndarray) -> float:
        return self.trainer.evaluate(x, y, batch_size=16).loss


class PyTorchs:
    name = "PyTorch"

    def __init__(self, corpus: Any, total: int, seed: int) -> None:
        sizes = PRESETS["nano"]
        ours = Ours(corpus, total, seed).model  # the same initial weights
        self.model = gpt_torch(
            torch, corpus.tokenizer.vocab_size, sizes["context"], sizes["layers"], sizes["heads"],
            sizes["width"],
        )  # fmt: skip
        self.model.load_state_dict({k: torch.tensor(a) for k, a in ours.state_dict().items()})
        decay = MODELS["gpt"]["weight_decay"]
        groups = [
            {"params": [p for p in self.model.parameters() if p.ndim > 1], "weight_decay": decay},
            {"params": [p for p in self.model.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: schedule(step, total)
        )

    def _loss(self, x: np.ndarray, y: np.ndarray) -> Any:
        logits = self.model(torch.from_numpy(np.ascontiguousarray(x)))
        target = torch.from_numpy(np.ascontiguousarray(y))
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())

    def step(self, x: np.ndarray, y: np.ndarray) -> None:
        self.optimizer.zero_grad()
        self._loss(x, y).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), MODELS["gpt"]["clip_norm"])
        self.optimizer.step()
        self.schedule.step()

    def evaluate(self, x: np.ndarray, y: np.ndarray) -> float:
        with torch.no_grad():
            parts = [
                float(self._loss(x[at : at + 16], y[at : at + 16])) * len(x[at : at + 16])
                for at in range(0, len(x), 16)
            ]
        return sum(parts) / len(x)


def train(side: Any, corpus: Any, total: int, seed: int) -> tuple[float, dict[str, Any]]:
    """Train for some steps; return seconds of training, and validation losses on the way.

    One side runs after the other, so their seconds are not to be compared: benchmarks do that.
    """
    curve, seconds = [], 0.0
    some = slice(0, 160)
    every = max(1, total // POINTS)
    for number, (x, y) in enumerate(windows(corpus, seed), 1):
        started = time.perf_counter()
        side.step(x, y)
        seconds += time.perf_counter() - started
        if number % every == 0:
            loss = float(side.evaluate(corpus.x_test[some], corpus.y_test[some]))
            curve.append([number, loss])
            print(f"{side.name} step {number}/{total}  {loss:.4f}  {seconds:.0f} s", flush=True)
        if number == total:
            break
    final = float(side.evaluate(corpus.x_test, corpus.y_test))
    return seconds, {"curve": curve, "validation_loss": final}


def steps_in(seconds: float, corpus: Any, seed: int) -> int:
    """Return how many steps of ours fit into a time."""
    side = Ours(corpus, 1000, seed)
    source = windows(corpus, seed)
    for _ in range(3):
        side.step(*next(source))
    started = time.perf_counter()
    for _ in range(PROBE):
        side.step(*next(source))
    return max(10 * WARMUP, int(seconds * PROBE / (time.perf_counter() - started)))


def draw(document: dict[str, Any], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.9), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, colour, line in (("PyTorch", "#D55E00", "-"), ("xbackprop", "#0072B2", "--")):
        steps, losses = zip(*document["sides"][name]["curve"], strict=True)
        axes.plot(steps, losses, color=colour, linestyle=line, label=name, marker="o", markersize=3)
    axes.set_xlabel("step")
    axes.set_ylabel("validation loss (nats a character)")
    axes.set_title(f"GPT nano on Shakespeare, {document['steps']:,} steps", fontsize=11)
    axes.grid(True, color="0.9")
    axes.set_axisbelow(True)
    axes.legend(frameon=False)
    figure.savefig(path, format="png")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    xb.set_device("cpu")
    corpus = xb.data.load_corpus("shakespeare", context_length=PRESETS["nano"]["context"])
    total = steps_in(given.seconds, corpus, given.seed)
    seconds, ours = train(Ours(corpus, total, given.seed), corpus, total, given.seed)
    _, theirs = train(PyTorchs(corpus, total, given.seed), corpus, total, given.seed)
    sides = {Ours.name: ours, PyTorchs.name: theirs}
    ratio = sides["xbackprop"]["validation_loss"] / sides["PyTorch"]["validation_loss"]
    document = {
        "environment": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": torch.__version__,
            "cores": os.cpu_count(),
        },
        "seed": given.seed,
        "steps": total,
        "seconds": round(seconds, 1),
        "sides": sides,
        "ratio": ratio,
        "is_met": ratio <= 1 + MOST_ABOVE,
    }
    given.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    draw(document, given.picture)
    print(f"ratio of validation losses {ratio:.4f}")
    return 0 if document["is_met"] else 1


if __name__ == "__main__":
    sys.exit(main())
