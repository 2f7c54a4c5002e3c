"""xbackprop train --precision, also in runs that are gone on with."""

import pytest
from command_line import call, metrics_of

RUN = ("train", "--epochs", "1", "--device", "cpu", "--quiet")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_run_in_half_precision(capsys, tmp_path, precision):
    losses = []
    for name in ("float32", precision):
        code, _, err = call(capsys, *RUN, "--precision", name, "--out", name)
        assert code == 0, err
        losses.append(metrics_of(tmp_path / name)[-1]["test_loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.03)
    code, out, _ = call(capsys, "train", "--resume", precision, "--epochs", "2")
    assert code == 0
    assert f"precision {precision}" in out
    assert len(metrics_of(tmp_path / precision)) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--precision", "half"), "float32, bfloat16, float16, tf32"),
        (("--precision", "tf32"), "--precision tf32: precision 'tf32' on cpu: only GPUs have TF32"),
    ],
)
def test_a_precision_that_cannot_be_had(capsys, arguments, words):
    code, _, err = call(capsys, *RUN, *arguments)
    assert code == 2
    assert words in err
