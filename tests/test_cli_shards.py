"""xbackprop train --shards: each batch over threads of the CPU, also in runs gone on with."""

import json
import sys

import numpy as np
import pytest
from command_line import call, folder_of_its_own, metrics_of
from reliability.crash import bits_of

import xbackprop as xb
from xbackprop.backend import threads

pytest.importorskip("threadpoolctl")
RUN = ("train", "--hidden", "16", "--epochs", "2", "--batch-size", "128", "--quiet")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    yield from folder_of_its_own(tmp_path, monkeypatch)


def weights_of(run):
    model = xb.load(run / "model.safetensors").model
    return np.concatenate([parameter.data.ravel() for parameter in model.parameters()])


def arguments_of(run):
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    return config["arguments"]["shards"], [w for w in config["command"] if "--shards" in w]


def test_batches_are_cut_and_the_numbers_are_those_of_the_whole(capsys, tmp_path, monkeypatch):
    from xbackprop.training import stepping

    cut, original = [], stepping.sharded_forward_backward

    def counted(model, loss_fn, x, y, shards, *rest):
        cut.append(shards)
        return original(model, loss_fn, x, y, shards, *rest)

    monkeypatch.setattr(stepping, "sharded_forward_backward", counted)
    assert call(capsys, *RUN, "--out", "whole")[0] == 0
    assert not cut
    code, _, err = call(capsys, *RUN, "--shards", "3", "--out", "cut")
    assert (code, err) == (0, "")
    assert set(cut) == {3}
    assert (arguments_of(tmp_path / "whole"), arguments_of(tmp_path / "cut")) == (
        (1, ["--shards=1"]), (3, ["--shards=3"]),
    )  # fmt: skip
    np.testing.assert_allclose(
        weights_of(tmp_path / "cut"), weights_of(tmp_path / "whole"), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("options", [[], ["--accumulate", "3", "--clip-norm", "1"]])
def test_a_run_goes_on_with_its_shards(capsys, tmp_path, options):
    call(capsys, *RUN, *options, "--shards", "3", "--epochs", "3", "--out", "whole")
    call(capsys, *RUN, *options, "--shards", "3", "--out", "part")
    code, out, err = call(capsys, "train", "--resume", "part", "--epochs", "3")
    assert (code, err) == (0, "")
    assert "batches of 128, each in 3 shards" in out.replace("3 x ", "")
    assert bits_of(tmp_path / "part") == bits_of(tmp_path / "whole")
    assert arguments_of(tmp_path / "part") == (3, ["--shards=3"])


def test_a_run_of_before_this_option_goes_on_unsharded(capsys, tmp_path):
    call(capsys, *RUN, "--out", "run")
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    del config["arguments"]["shards"]
    path.write_text(json.dumps(config), encoding="utf-8")
    assert call(capsys, "train", "--resume", "run", "--epochs", "3", "--quiet")[0] == 0
    assert arguments_of(tmp_path / "run") == (1, ["--shards=1"])


def test_a_run_goes_on_with_other_shards_where_its_own_cannot_be(capsys, tmp_path):
    call(capsys, *RUN, "--shards", "2", "--out", "run")
    again = ("train", "--resume", "run", "--epochs", "3", "--quiet", "--device", "fake")
    code, _, err = call(capsys, *again)
    assert (code, err.count("\n")) == (2, 1)
    assert "--shards 2" in err
    assert call(capsys, *again, "--shards", "1")[0] == 0
    assert arguments_of(tmp_path / "run") == (1, ["--shards=1"])


def test_a_report_needs_no_shards(capsys, tmp_path, monkeypatch):
    call(capsys, *RUN, "--shards", "2", "--out", "run")
    monkeypatch.setenv("XBACKPROP_DEVICE", "fake")
    xb.set_device(None)
    code, _, err = call(capsys, "report", "run")
    assert (code, err) == (0, "")
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "shards are threads of the CPU" not in page


def test_a_gpt_over_shards(capsys, tmp_path):
    (tmp_path / "text.txt").write_text("the quick brown fox\n" * 60, encoding="utf-8")
    words = ["train", "--model", "gpt", "--data", "text.txt", "--layers", "1", "--heads", "2"]
    words += ["--width", "16", "--context", "16", "--batch-size", "4", "--epochs", "1", "--quiet"]
    for shards in ("1", "2"):
        code, _, err = call(capsys, *words, "--shards", shards, "--out", shards)
        assert (code, err) == (0, "")
    losses = [metrics_of(tmp_path / name)[-1]["test_loss"] for name in ("1", "2")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--shards", "0"], "--shards: expected a whole number of at least 1; got '0'"),
        (["--shards", "two"], "at least 1; got 'two'"),
        (["--device", "fake"], "--shards 2: Trainer(shards=2) on fake:0: shards are threads"),
        (["--device", "fake:1"], "on fake:1"),
        (["--model", "cnn"], "with BatchNorm2d: it is not known to treat"),
        (["--model", "resnet"], "with ResNet"),
        (["--precision", "float16"], "another precision than float32"),
        (["--record-statistics"], "--shards 2: --record-statistics looks at whole batches"),
        (["--detect-anomaly"], "--shards 2: --detect-anomaly looks at whole batches"),
    ],
)
def test_what_cannot_be_cut_is_one_line(capsys, tmp_path, arguments, words):
    code, _, err = call(capsys, "train", "--shards", "2", "--out", "run", *arguments)
    assert (code, err.count("\n")) == (2, 1), err
    assert words in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["--record-statistics", "--detect-anomaly"])
def test_a_run_over_shards_is_not_looked_into_later(capsys, option):
    call(capsys, *RUN, "--shards", "2", "--out", "run")
    again = ("train", "--resume", "run", "--epochs", "3", "--quiet", option)
    code, _, err = call(capsys, *again)
    assert (code, err.count("\n")) == (2, 1)
    assert f"--shards 2: {option}" in err
    assert call(capsys, *again, "--shards", "1")[0] == 0


def test_without_threadpoolctl(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    monkeypatch.setattr(threads, "_controllers", [])  # nothing found yet
    code, _, err = call(capsys, *RUN, "--shards", "2")
    assert (code, err.count("\n")) == (2, 1)
    assert "xbackprop[fast]" in err
