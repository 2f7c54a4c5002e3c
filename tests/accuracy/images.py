"""Train on images from the command line, and write down accuracy and time.

`python -m accuracy.images --out FILE` runs every row; it ends with 1 when one misses its bar.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Row:
    data: str
    model: str
    seeds: tuple[int, ...]
    least_accuracy: float | None = None  # of every seed
    most_seconds: float | None = None  # of every run, from the start of the process to its end


ROWS = [
    Row("digits", "mlp", (0, 1, 2)),
    Row("digits", "cnn", (0, 1, 2)),
    Row("mnist-5k", "mlp", (0, 1, 2)),
    Row("mnist-5k", "cnn", (0, 1, 2), least_accuracy=0.975, most_seconds=180.0),
    Row("mnist-5k", "resnet", (0,)),
]


def train(row: Row, seed: int) -> tuple[float, float]:
    """Run the command with its defaults; return the last test accuracy and the seconds it took."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "xbackprop", "train", "--quiet", "--device", "cpu"]
        command += ["--data", row.data, "--model", row.model, "--seed", str(seed)]
        started = time.perf_counter()
        subprocess.run([*command, "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        last = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    return float(json.loads(last)["test_accuracy"]), seconds


def measure(row: Row) -> dict[str, object]:
    runs = [train(row, seed) for seed in row.seeds]
    accuracies, seconds = (list(values) for values in zip(*runs, strict=True))
    is_met = (row.least_accuracy is None or min(accuracies) >= row.least_accuracy) and (
        row.most_seconds is None or max(seconds) < row.most_seconds
    )
    return {
        "data": row.data,
        "model": row.model,
        "seeds": list(row.seeds),
        "test_accuracy": accuracies,
        "seconds": [round(value, 1) for value in seconds],
        "least_accuracy": row.least_accuracy,
        "most_seconds": row.most_seconds,
        "is_met": is_met,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    figures = []
    for row in ROWS:
        figures.append(measure(row))
        print(json.dumps(figures[-1]), flush=True)
    environment = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "cores": os.cpu_count(),
    }
    document = {"environment": environment, "figures": figures}
    arguments.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0 if all(figure["is_met"] for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
