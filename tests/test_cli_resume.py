"""`xbackprop train --resume`: the run that goes on is the run that was never stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import call, folder_of_its_own, metrics_of, stop_after
from reliability.crash import bits_of

RUN = ["train", "--hidden", "16", "--epochs", "5", "--batch-size", "128", "--quiet"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    yield from folder_of_its_own(tmp_path, monkeypatch)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize("options", [[], ["--accumulate", "3"], ["--optimizer", "sgd"]])
@pytest.mark.parametrize("steps", [1, 12, 17])
def test_a_stopped_run_goes_on(capsys, tmp_path, monkeypatch, steps, options):
    call(capsys, *RUN, *options, "--out", "whole")
    with monkeypatch.context() as patch:
        before = stop_after(patch, steps)
        code, out, _ = call(capsys, *RUN[:-1], *options, "--out", "stopped")
    signal.signal(signal.SIGINT, before)
    assert code == 130
    assert f"Ctrl-C after step {steps}" in out
    assert "go on     xbackprop train --resume stopped" in out
    # From the very step: an older checkpoint would end bit-equal too, and do the work again.
    newest = sorted((tmp_path / "stopped" / "checkpoints").iterdir())[-1]
    assert newest.name == f"step-{steps:08d}.safetensors"
    shutil.move("stopped", "moved")
    code, out, err = call(capsys, "train", "--resume", "moved", "--quiet")
    assert (code, err) == (0, "")
    assert bits_of(tmp_path / "moved") == bits_of(tmp_path / "whole")
    assert json.loads((tmp_path / "moved" / "config.json").read_text())["seed"] == 0


def test_a_killed_run_goes_on_from_its_checkpoint_or_from_nothing(capsys, tmp_path):
    call(capsys, *RUN, "--out", "whole", "--keep", "9")
    for kept in (3, 1, 0):
        shutil.copytree("whole", "killed")
        for path in sorted((tmp_path / "killed" / "checkpoints").iterdir())[kept:]:
            path.unlink()
        (tmp_path / "killed" / "model.safetensors").unlink()
        (tmp_path / "killed" / "metrics.jsonl").write_bytes(b'{"epoch": 1, "st')  # cut off
        (tmp_path / "killed" / ".xbackprop-00.tmp").write_bytes(b"")
        code, out, err = call(capsys, "train", "--resume", "killed")
        assert (code, err) == (0, "")
        assert ("from the beginning" in out) is (kept == 0)
        assert bits_of(tmp_path / "killed") == bits_of(tmp_path / "whole")
        assert not list(tmp_path.rglob("*.tmp"))
        shutil.rmtree("killed")


def test_a_finished_run_is_made_longer(capsys, tmp_path):
    call(capsys, *RUN, "--out", "short")
    call(capsys, *RUN, "--epochs", "8", "--out", "whole")
    for _ in range(2):  # and is then finished
        code, *_ = call(capsys, "train", "--resume", "short", "--epochs", "8", "--quiet")
        assert code == 0
    assert bits_of(tmp_path / "short") == bits_of(tmp_path / "whole")
    code, _, err = call(capsys, "train", "--resume", "short", "--epochs", "7")
    assert (code, err.count("\n")) == (2, 1)
    assert "has done 8 epochs already" in err


def test_on_another_device(capsys, tmp_path):
    call(capsys, *RUN, "--out", "whole")
    call(capsys, *RUN, "--epochs", "3", "--out", "half", "--device", "fake")
    code, out, _ = call(capsys, "train", "--resume", "half", "--epochs", "5", "--device", "cpu")
    assert code == 0
    assert "cpu (asked for by --device)" in out
    code, out, _ = call(capsys, "train", "--resume", "half")
    assert "cpu (asked for by the run)" in out
    expected, received = bits_of(tmp_path / "whole"), bits_of(tmp_path / "half")
    assert received[0].keys() == expected[0].keys()
    rows = [
        [row["test_accuracy"] for row in metrics_of(tmp_path / name)] for name in ("whole", "half")
    ]
    assert rows[0] == rows[1]


def table(path: Path, rows: int = 60) -> None:
    lines = [f"{i % 7},{i % 5},{'ab'[i % 2]}" for i in range(rows)]
    path.write_text("\n".join(["length,width,kind", *lines]), encoding="utf-8")


def test_the_table_is_found_wherever_the_run_goes_on(capsys, tmp_path, monkeypatch):
    table(tmp_path / "t.csv")
    call(capsys, *RUN, "--data", "t.csv", "--target", "kind", "--out", "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, *_ = call(capsys, "train", "--resume", "../run", "--quiet", "--epochs", "6")
    assert code == 0
    (tmp_path / "t.csv").rename(tmp_path / "u.csv")
    code, _, err = call(capsys, "train", "--resume", "../run", "--quiet", "--epochs", "7")
    assert (code, err.count("\n")) == (2, 1)
    assert "t.csv" in err
    again = ["train", "--resume", "../run", "--quiet", "--epochs", "7", "--data"]
    assert call(capsys, *again, "../u.csv")[0] == 0
    table(tmp_path / "v.csv", rows=59)
    code, _, err = call(capsys, *again, "../v.csv")
    assert (code, err.count("\n")) == (2, 1)
    assert "v.csv is not the data of this run" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--resume", "nowhere"], "nowhere: no such folder"),
        (["--resume", "."], "holds no run"),
        (["--resume", "run", "--lr", "1", "--seed", "3"], "leave out --lr, --seed"),
        (["--resume", "run", "--out", "x"], "leave out --out"),
        (["--resume", "run", "--device", "gpu"], "gpu"),
        (["--on-nan", "ignore"], "raise, skip, stop"),
        (["--keep", "0"], "at least 1"),
    ],
)
def test_a_mistake_is_one_line(capsys, arguments, words):
    if "run" in arguments:
        call(capsys, *RUN, "--epochs", "1", "--out", "run")
    code, _, err = call(capsys, "train", *arguments)
    assert (code, err.count("\n")) == (2, 1), err
    assert words in err


def test_a_damaged_folder_is_one_line(capsys, tmp_path):
    call(capsys, *RUN, "--epochs", "2", "--out", "run")
    files = sorted((tmp_path / "run" / "checkpoints").iterdir())
    files[-1].write_bytes(files[-1].read_bytes()[:-9])
    code, out, _ = call(capsys, "train", "--resume", "run")
    assert code == 0
    assert "damaged   " in out
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.write_bytes(b"no")
    code, _, err = call(capsys, "train", "--resume", "run")
    assert (code, err.count("\n")) == (1, 1), err
    for text in ("{", "[]", '{"seed": 1}', '{"seed": 1, "arguments": {"colour": 3}}'):
        (tmp_path / "run" / "config.json").write_text(text)
        code, _, err = call(capsys, "train", "--resume", "run")
        assert (code, err.count("\n")) == (2, 1), err
        assert "run" in err


@pytest.mark.skipif(os.name == "nt", reason="folders are locked on POSIX only")
def test_two_processes_do_not_go_on_with_one_run(capsys, tmp_path):
    command = [sys.executable, "-m", "xbackprop", *RUN[:-1], "--epochs", "100000", "--out", "run"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip().startswith("2/"):
                break
        try:  # in a process of its own: let in by mistake, it would train for hours
            second = subprocess.run(
                [*command[:3], "train", "--resume", "run"],
                cwd=tmp_path, capture_output=True, text=True, timeout=30,
            )  # fmt: skip
        finally:
            process.kill()
    assert (second.returncode, second.stderr.count("\n")) == (2, 1)
    assert "still going on" in second.stderr
    assert call(capsys, "train", "--resume", "run", "--epochs", "99999", "--help")[0] == 0


def test_checkpoints_are_few_and_the_best_is_named(capsys, tmp_path):
    code, out, _ = call(capsys, *RUN[:-1], "--out", "run", "--keep", "1", "--save-steps", "5")
    assert code == 0
    files = list((tmp_path / "run" / "checkpoints").iterdir())
    assert len(files) <= 2
    (best,) = (line.split()[1] for line in out.splitlines() if line.startswith("best"))
    rows = metrics_of(tmp_path / "run")
    step = min(rows, key=lambda row: row["test_loss"])["step"]
    assert best == str(Path("run", "checkpoints", f"step-{step:08d}.safetensors"))
    assert Path(best).exists()


def test_on_nan_from_the_shell(capsys, tmp_path):
    wild = ["train", "--loss", "mse", "--optimizer", "sgd", "--lr", "1e6", "--epochs", "2"]
    code, out, _ = call(capsys, *wild, "--on-nan", "stop", "--out", "stop")
    assert code == 0
    assert "stopped   by a loss or gradient that is NaN or infinite, at step" in out
    code, out, _ = call(capsys, *wild, "--on-nan", "skip", "--out", "skip")
    assert code == 0
    assert "skipped   " in out
    rows = metrics_of(tmp_path / "skip")
    assert rows[-1]["skipped_steps"] > 0


def test_a_full_disk_is_one_line_and_the_old_checkpoint_stays(capsys, tmp_path, monkeypatch):
    from xbackprop.training import atomic

    def refuse(descriptor):
        raise OSError(28, "No space left on device")

    call(capsys, *RUN, "--epochs", "2", "--out", "run")
    before = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", refuse)
        code, _, err = call(capsys, "train", "--resume", "run", "--epochs", "4")
    assert (code, err.count("\n")) == (1, 1), err
    assert "run" in err
    assert "No space left on device" in err
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == before
    call(capsys, *RUN, "--epochs", "4", "--out", "whole")
    assert call(capsys, "train", "--resume", "run", "--epochs", "4", "--quiet")[0] == 0
    assert bits_of(tmp_path / "run") == bits_of(tmp_path / "whole")
