"""`xbackprop train --record-statistics` and `--tensorboard`: what is kept, and what it changes."""

import json
import struct
import sys

import numpy as np
import pytest
from command_line import call, folder_of_its_own
from reliability.crash import bits_of

import xbackprop as xb
from xbackprop.cli.run_folder import read_rows
from xbackprop.training.stepping import Stepper

RUN = ["train", "--hidden", "8", "--epochs", "4", "--batch-size", "128", "--quiet"]
RECORDED = ["statistics.jsonl", "transfers.jsonl"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    yield from folder_of_its_own(tmp_path, monkeypatch)


def test_equal_runs_record_the_same_and_train_as_without(capsys, tmp_path):
    call(capsys, *RUN, "--out", "plain")
    for name in ("one", "other"):
        code, _, err = call(capsys, *RUN, "--record-statistics=5", "--out", name)
        assert (code, err) == (0, "")
    texts = [(tmp_path / name / "statistics.jsonl").read_bytes() for name in ("one", "other")]
    assert texts[0] == texts[1]
    rows = read_rows(tmp_path / "one" / "statistics.jsonl")
    assert [row["step"] for row in rows] == [1, *range(5, 49, 5)]
    metrics = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("one", "plain")]
    assert metrics[0] == metrics[1]
    weights = [xb.load(tmp_path / name / "model.safetensors").model for name in ("one", "plain")]
    states = [model.state_dict() for model in weights]
    for key, array in states[0].items():
        assert (array == states[1][key]).all()
    assert not list((tmp_path / "plain").glob("[st][tr]a*.jsonl"))
    config = json.loads((tmp_path / "one" / "config.json").read_text())
    assert "--record-statistics=5" in config["command"]


def test_a_resumed_run_goes_on_recording(capsys, tmp_path, monkeypatch):
    call(capsys, *RUN, "--record-statistics=5", "--out", "whole")
    original = Stepper.run

    def run(self, x, y):
        answer = original(self, x, y)
        if self.steps == 27:  # killed, as far as the folder can tell
            raise MemoryError
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "run", run)
        call(capsys, *RUN, "--record-statistics=5", "--out", "killed")
    path = tmp_path / "killed" / "statistics.jsonl"
    assert [row["step"] for row in read_rows(path)][-1] == 25  # newer than the checkpoint
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"step": 26, "la')
    code, _, err = call(capsys, "train", "--resume", "killed", "--quiet")
    assert (code, err) == (0, "")
    for name in RECORDED:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert bits_of(tmp_path / "killed") == bits_of(tmp_path / "whole")


def test_recording_may_begin_with_a_resume(capsys, tmp_path):
    call(capsys, *RUN, "--out", "run")
    code, _, err = call(
        capsys, "train", "--resume", "run", "--epochs", "5", "--record-statistics=12", "--quiet"
    )
    assert (code, err) == (0, "")
    assert [row["step"] for row in read_rows(tmp_path / "run" / "statistics.jsonl")] == [60]


def test_what_epochs_move_is_counted(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("XBACKPROP_DEVICE", "fake")
    xb.set_device(None)
    for every in ("1", "1000"):
        call(capsys, *RUN, f"--record-statistics={every}", "--save-every=9", "--out", every)
    often, seldom = (read_rows(tmp_path / every / "transfers.jsonl") for every in ("1", "1000"))
    assert [row["epoch"] for row in often] == [1, 2, 3, 4]
    # One download for each update that is recorded, and the edges of the bins once.
    more = [a["downloads"] - b["downloads"] for a, b in zip(often, seldom, strict=True)]
    assert more == [11, 12, 12, 12]
    assert often[1]["uploads"] == seldom[1]["uploads"] == 2 * 12 + 2  # batches, and the test part
    assert often[1]["bytes_uploaded"] > 1437 * 64 * 4


@pytest.mark.parametrize(
    "options",
    [
        ["--accumulate", "3"],
        ["--model", "cnn", "--channels", "4,4", "--hidden", "none"],
        ["--clip-norm", "0.1", "--optimizer", "sgd"],
    ],
    ids=["accumulate", "cnn", "clip"],
)
def test_kinds_of_runs(capsys, tmp_path, options):
    words = [word for word in RUN if word not in ("--hidden", "8")] if "cnn" in options else RUN
    code, _, err = call(capsys, *words, *options, "--record-statistics=2", "--out", "run")
    assert (code, err) == (0, "")
    for row in read_rows(tmp_path / "run" / "statistics.jsonl"):
        assert all("outputs" in layer for layer in row["layers"].values())


def test_a_full_disk_ends_the_run_in_good_order(capsys, monkeypatch):
    from xbackprop.cli import run_folder

    def write(self, row):
        with run_folder.writing(self._path):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder.RowsFile, "write", write)
    code, _, err = call(capsys, *RUN, "--record-statistics", "--out", "run")
    assert code == 1
    assert "cannot write run/statistics.jsonl: No space left on device" in err.replace("\\", "/")


def test_tensorboard_reads_what_was_recorded(capsys, tmp_path):
    pytest.importorskip("tensorboardX")
    code, _, err = call(
        capsys, *RUN, "--tensorboard", "--record-statistics=5", "--out", "run", "--epochs", "2"
    )
    assert (code, err) == (0, "")
    call(capsys, "train", "--resume", "run", "--epochs", "3", "--quiet")
    values = events_of(tmp_path / "run" / "tensorboard")
    metrics = read_rows(tmp_path / "run" / "metrics.jsonl")
    for key, tag in (
        ("train_loss", "loss/train"),
        ("test_accuracy", "accuracy/test"),
        ("lr", "lr"),
    ):
        read = [(step, value.simple_value) for step, value in values[tag]]
        wanted = [(row["step"], pytest.approx(row[key], rel=1e-6)) for row in metrics]
        assert read == wanted
    rows = read_rows(tmp_path / "run" / "statistics.jsonl")
    assert [step for step, _ in values["gradients/0"]] == [row["step"] for row in rows]
    for row, (_, value) in zip(rows, values["outputs/1"], strict=True):
        told, read = row["layers"]["1"]["outputs"], value.histo
        assert read.num == sum(read.bucket) == sum(told["counts"])
        assert list(read.bucket_limit) == sorted(set(read.bucket_limit))
        assert (read.min, read.max) == (told["min"], told["max"])
        reached = np.array(read.bucket_limit)[np.nonzero(read.bucket)[0]]
        assert reached[-1] >= read.max
        assert read.sum == pytest.approx(told["mean"] * read.num)
    ratio = rows[0]["layers"]["0"]["update_norm"] / rows[0]["layers"]["0"]["weight_norm"]
    assert values["update_ratio/0"][0][1].simple_value == pytest.approx(ratio)


def events_of(folder):
    """Return the values of all event files by tag, as steps and values, without TensorBoard."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value))
    return found


def test_tensorboard_alone_writes_scalars(capsys, tmp_path):
    pytest.importorskip("tensorboardX")
    call(capsys, *RUN, "--tensorboard", "--out", "run")
    tags = set(events_of(tmp_path / "run" / "tensorboard"))
    assert tags == {"loss/train", "loss/test", "accuracy/train", "accuracy/test", "lr"}


def test_without_tensorboardx_one_line_names_the_extra(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    code, out, err = call(capsys, *RUN, "--tensorboard", "--out", "run")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert 'pip install "xbackprop[tensorboard]"' in err
    assert not (tmp_path / "run").exists()
