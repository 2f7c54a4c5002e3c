"""The package works where Python drops asserts, warns of everything, or has no place to write.

The whole suite runs so in `reliability/soak.py`; here is one training for each.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import xbackprop as xb

SCRIPT = """
import warnings
import xbackprop as xb
from workload import Workload, train

workload = Workload(0).run(3)
workload.refuse()
train(0, 2, "fake")
digits = xb.data.load_digits()
model = xb.nn.Sequential(xb.nn.Linear(64, 10), rng=0)
optimizer = xb.optim.AdamW(model.parameters())
trainer = xb.Trainer(model, xb.nn.CrossEntropyLoss(), optimizer)
trainer.fit(digits.x_train[:64], digits.y_train[:64], epochs=1, rng=0)
xb.save("model.safetensors", model, optimizer)
xb.load("model.safetensors")
print(xb.__file__)
"""


def train_in(folder: Path, *options: str, **environment: str | None) -> Path:
    """Train, save and load in a fresh process, in this folder; return where the package was."""
    tests = Path(__file__).parent
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", ""), str(tests)])
    env: dict[str, str | None] = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(folder)}
    env |= environment
    done = subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", SCRIPT],
        cwd=folder, env={name: value for name, value in env.items() if value is not None},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return Path(done.stdout.strip())


@pytest.mark.parametrize("options", [("-O",), ("-OO",), ("-X", "dev"), ("-b",)])
def test_options_of_python(options: tuple[str, ...], tmp_path: Path) -> None:
    train_in(tmp_path, *options)


@pytest.mark.parametrize("home", [None, os.devnull + "/home"], ids=["unset", "impossible"])
def test_no_home_directory(home: str | None, tmp_path: Path) -> None:
    train_in(tmp_path, HOME=home, USERPROFILE=home, XDG_CACHE_HOME=None, XDG_CONFIG_HOME=None)


def test_a_read_only_installation(tmp_path: Path) -> None:
    from reliability.soak import listing, set_writable

    source = Path(xb.__file__).parent
    copy = tmp_path / "xbackprop"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    set_writable(copy, False)
    before = listing(copy)
    try:
        found = train_in(tmp_path, PYTHONDONTWRITEBYTECODE="1")
        assert found.parent == copy
        assert listing(copy) == before
    finally:
        set_writable(copy, True)
