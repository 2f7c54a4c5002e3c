"""The command line: what it does, what it says, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from command_line import call, metrics_of

import xbackprop as xb

QUICK = ["train", "--hidden", "16", "--epochs", "2", "--batch-size", "128"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XBACKPROP_DEVICE", "cpu")
    before = xb.default_device()
    xb.set_device(None)
    yield
    monkeypatch.undo()
    xb.set_device(before)


def spawn(tmp_path, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "xbackprop", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def csv(tmp_path, text, name="table.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return str(path)


# --- what a run does ----------------------------------------------------------------------


def test_defaults_reach_97_percent(capsys, tmp_path):
    code, out, err = call(capsys, "train", "--quiet")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == 1
    assert float(lines[0].split()[2]) >= 97.0, lines
    assert "run folder" in lines[0]
    assert sorted(path.name for path in (tmp_path / "runs" / "digits").iterdir()) == [
        "checkpoints", "config.json", "confusion.png", "curves.png", "metrics.jsonl",
        "model.safetensors", "timing.jsonl",
    ]  # fmt: skip


def test_a_run_says_device_and_reason_and_every_epoch(capsys):
    code, out, _ = call(capsys, *QUICK, "--device", "fake")
    assert code == 0
    assert "fake:0" in out
    assert "--device" in out
    rows = [line for line in out.splitlines() if line.strip().startswith(("1/2", "2/2"))]
    assert len(rows) == 2
    assert all(row.count("%") == 2 for row in rows), rows  # accuracy of both parts
    assert out.splitlines()[-1].startswith("test accuracy")


def test_run_folder_holds_all_of_a_run(capsys, tmp_path):
    call(capsys, *QUICK, "--out", "mine", "--seed", "3")
    rows = metrics_of(tmp_path / "mine")
    assert [row["epoch"] for row in rows] == [1, 2]
    assert {"train_loss", "train_accuracy", "test_loss", "test_accuracy"} <= rows[0].keys()
    config = json.loads((tmp_path / "mine" / "config.json").read_text())
    assert "digits" in json.dumps(config)
    found = xb.load(tmp_path / "mine" / "model.safetensors")
    assert found.counters["epochs"] == 2
    digits = xb.data.load_digits()
    predicted = xb.to_host(found.model(xb.asarray(digits.x_test))).argmax(axis=1)
    assert (predicted == digits.y_test).mean() == rows[-1]["test_accuracy"]
    assert (tmp_path / "mine" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_same_seed_same_numbers(capsys, tmp_path):
    def metrics(name, seed):
        call(capsys, *QUICK, "--out", name, "--seed", seed)
        return (tmp_path / name / "metrics.jsonl").read_bytes()

    assert metrics("a", "1") == metrics("b", "1")
    assert metrics("c", "2") != metrics("a2", "1")


def test_runs_are_numbered_and_never_overwritten(capsys, tmp_path):
    for _ in range(2):
        call(capsys, *QUICK, "--quiet")
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["digits", "digits-2"]
    call(capsys, *QUICK, "--out", "mine")
    code, _, err = call(capsys, *QUICK, "--out", "mine")
    assert code == 2
    assert "mine" in err


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_activation_and_optimizer_make_a_difference(capsys, tmp_path, activation, optimizer):
    code, _, err = call(
        capsys, *QUICK, "--activation", activation, "--optimizer", optimizer, "--out", "r"
    )
    assert (code, err) == (0, "")
    saved = xb.load(tmp_path / "r" / "model.safetensors")
    assert type(saved.model[1]).__name__.lower() == activation
    assert saved.optimizer_type.lower() == optimizer


@pytest.mark.parametrize("loss", ["cross-entropy", "mse", "half-squared-error", "bce-with-logits"])
def test_losses_learn(capsys, loss):
    code, out, err = call(
        capsys, "train", "--loss", loss, "--epochs", "12", "--lr", "0.003", "--quiet"
    )
    assert (code, err) == (0, "")
    assert float(out.split()[2]) > 80


def test_a_table_of_ones_own(capsys, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    rows = [f"{a:.4f},{b:.4f},{'up' if a + b > 0 else 'down'}" for a, b in x]
    path = csv(tmp_path, "\n".join(["a,b,side", *rows]) + "\n")
    code, out, err = call(
        capsys, "train", "--data", path, "--target", "side", "--epochs", "40", "--quiet"
    )
    assert (code, err) == (0, "")
    assert float(out.split()[2]) > 85


def test_without_matplotlib_a_run_says_what_is_missing(capsys, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "xbackprop.cli.plots", raising=False)
    code, out, _ = call(capsys, *QUICK, "--out", "r")
    assert code == 0
    assert "pip install matplotlib" in out
    assert not (tmp_path / "r" / "curves.png").exists()


# --- mistakes: one line, exit code 2, no traceback -----------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--device", "gpu"], ["gpu", "cuda:N", "fake"]),
        (["train", "--activation", "rellu"], ["rellu", "relu", "tanh"]),
        (["train", "--optimizer", "adm"], ["adm", "adamw", "sgd"]),
        (["train", "--loss", "l3"], ["l3", "mse"]),
        (["train", "--data", "digit"], ["digit", "digits"]),
        (["train", "--data", "nothing.csv", "--target", "y"], ["nothing.csv"]),
        (["train", "--epochs", "many"], ["--epochs", "many"]),
        (["train", "--lr", "-1"], ["--lr", "-1"]),
        (["train", "--hidden", "64,x"], ["--hidden", "x"]),
        (["train", "--ephocs", "3"], ["--ephocs", "--epochs"]),
        (["tarin"], ["tarin", "train", "doctor"]),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) and "-" not in value[-1] else None,
)
def test_a_mistake_is_one_line_that_lists_what_is_valid(capsys, arguments, words):
    code, out, err = call(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1, err
    for word in words:
        assert word in err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n", ["table.csv", "side"]),  # missing column
        ("a,side\n1,x\nfoo,y\n", ["table.csv", "line 3", "a"]),  # text in a numeric column
        ("a,side\n1,x\nnan,y\n", ["table.csv", "line 3", "a"]),
        ("a,side\n1,x\n2,x\n", ["table.csv", "side"]),  # one class
        ("a,side\n", ["table.csv"]),  # no rows
    ],
    ids=["missing-column", "text", "nan", "one-class", "no-rows"],
)
def test_a_bad_table_names_file_line_and_column(capsys, tmp_path, text, words):
    code, _, err = call(capsys, "train", "--data", csv(tmp_path, text), "--target", "side")
    assert code == 2
    assert err.count("\n") == 1
    for word in words:
        assert word in err


def test_an_explicit_gpu_that_is_not_there_is_an_error(capsys, monkeypatch):
    from xbackprop.backend import probe

    report = probe.probe_cuda(None)
    if report.state == "usable":
        pytest.skip("this machine has a usable GPU")
    code, _, err = call(capsys, *QUICK, "--device", "cuda")
    assert code != 0
    assert str(report.state) in err


def test_nan_stops_the_run_names_the_step_and_keeps_the_weights(capsys, tmp_path):
    code, _, err = call(
        capsys, "train", "--loss", "mse", "--optimizer", "sgd", "--lr", "1e6", "--out", "r"
    )
    assert code == 1
    assert "step" in err
    state = xb.load(tmp_path / "r" / "model.safetensors").model.state_dict()
    assert all(np.isfinite(array).all() for array in state.values())


# --- the process --------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one child process")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_a_signal_ends_the_run_and_keeps_what_there_is(tmp_path, number, code):
    # A shell that starts this in the background has it ignore Ctrl-C, which children inherit.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = spawn(tmp_path, "train", "--epochs", "100000", "--out", "r")
    for line in process.stdout:
        if line.strip().startswith("2/"):
            break
    signal.signal(signal.SIGINT, before)
    sent = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert time.monotonic() - sent < 20
    assert "stopped" in out
    assert "Traceback" not in err
    rows = metrics_of(tmp_path / "r")
    assert xb.load(tmp_path / "r" / "model.safetensors").counters["epochs"] >= len(rows) >= 2
    assert (tmp_path / "r" / "curves.png").exists()


@pytest.mark.skipif(os.name == "nt", reason="a pipe closes in another way on Windows")
def test_a_closed_pipe_ends_quietly(tmp_path):
    process = spawn(tmp_path, "train", "--epochs", "200")
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == ""
    process.stderr.close()


def test_ascii_terminals_and_other_encodings(tmp_path):
    process = spawn(tmp_path, *QUICK, PYTHONIOENCODING="ascii", NO_COLOR="1", TERM="dumb")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert "\x1b" not in out


def test_help_is_quick_and_a_cpu_run_never_imports_cupy(tmp_path):
    program = (
        "import sys; from xbackprop.cli.main import main; code = main({arguments}); "
        "print([n for n in ('cupy', 'rich', 'matplotlib') if n in sys.modules], code)"
    )
    for arguments, forbidden in [
        (["train", "--help"], ("cupy", "rich", "matplotlib")),
        ([*QUICK, "--device", "cpu"], ("cupy",)),
    ]:
        run = subprocess.run(
            [sys.executable, "-c", program.format(arguments=arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        last = run.stdout.splitlines()[-1]
        assert last.endswith(" 0")
        assert not any(f"'{name}'" in last for name in forbidden), last


def test_version(capsys):
    assert call(capsys, "--version") == (0, f"xbackprop {xb.__version__}\n", "")
