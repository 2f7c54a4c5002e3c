"""Fresh processes give the same bits, weights and files, whatever Python's hashes are."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import hashlib, pathlib, sys, tempfile
import numpy as np
import xbackprop as xb
from workload import Workload

steps = int(sys.argv[1])
workload = Workload(1).run(steps)
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "model.safetensors"
    xb.save(path, workload.model, workload.optimizer, counters={"steps": steps, "b": 1, "a": 2})
    print("file", hashlib.sha256(path.read_bytes()).hexdigest())
print("weights", workload.digest())

model = xb.nn.Sequential(xb.nn.Linear(64, 16), xb.nn.ReLU(), xb.nn.Linear(16, 10), rng=3)
optimizer = xb.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
trainer = xb.Trainer(model, xb.nn.CrossEntropyLoss(), optimizer)
digits = xb.data.load_digits()
rows = trainer.fit(digits.x_train[:320], digits.y_train[:320], epochs=1, batch_size=32, rng=5)
print("metrics", rows[-1].train_loss, rows[-1].train_accuracy)
print("fitted", hashlib.sha256(b"".join(a.tobytes() for a in model.state_dict().values())).hexdigest())
"""  # noqa: E501 - a script on its own


def outcome(hash_seed: int, steps: int, device: str = "cpu") -> str:
    """Return what a fresh process with this seed of Python's hashes printed."""
    env = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "XBACKPROP_DEVICE": device}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(steps)],
        capture_output=True, text=True, timeout=120, env=env,
        cwd=Path(__file__).parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_fresh_processes_give_the_same_bits() -> None:
    first, *others = (outcome(seed, 20) for seed in (0, 1, 4242))
    assert len(first.split()) == 9, first
    assert others == [first, first]


def test_fresh_processes_give_the_same_bits_on_the_stand_in() -> None:
    assert outcome(7, 5, "fake") == outcome(8, 5, "fake")
