"""`xbackprop explain`."""

import itertools
import json

import pytest
from command_line import call

import xbackprop as xb


@pytest.fixture(autouse=True)
def on_the_cpu(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XBACKPROP_DEVICE", "cpu")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    before = xb.default_device()
    xb.set_device(None)
    yield
    monkeypatch.undo()
    xb.set_device(before)


def test_without_arguments_it_is_the_lesson(capsys):
    code, out, err = call(capsys, "explain")
    assert (code, err) == (0, "")
    headings = [line for line in out.splitlines() if line and line[0] != " "]
    assert headings == ["Forward pass", "Loss", "Backward pass", "Update", "Summary"]
    assert "w2[1,1]_new = w2[1,1] - eta * dLoss/dw2[1,1]" in out
    assert max(map(len, out.splitlines())) <= 90


def test_the_language_is_that_of_the_locale(capsys, monkeypatch):
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert "前向传播" in call(capsys, "explain")[1]
    assert "Forward pass" in call(capsys, "explain", "--lang", "en")[1]


@pytest.mark.parametrize("device", ["cpu", "fake"])
def test_every_choice_is_explained(capsys, device):
    for hidden, output, loss, optimizer in itertools.product(
        ("sigmoid", "relu", "tanh"),
        ("linear", "sigmoid"),
        ("half_squared", "mse", "bce", "cross_entropy"),
        ("sgd", "momentum", "adam"),
    ):
        code, out, err = call(
            capsys, "explain", "--hidden", hidden, "--output", output, "--loss", loss,
            "--optimizer", optimizer, "--format", "json", "--device", device, "--lr", "1e-3",
        )  # fmt: skip
        assert (code, err) == (0, "")
        told = json.loads(out)
        assert told["loss_after"] < told["loss"]
        assert not any("formula" in note for note in told["notes"])
        checks = [check for step in told["steps"] for check in step["checks"]]
        assert max(check["relative_difference"] for check in checks) < 1e-7


def test_json_can_be_given_back_as_weights(capsys, tmp_path):
    words = ["explain", "--layers", "2,3,3,1", "--seed", "4", "--format", "json"]
    code, out, _ = call(capsys, *words, "--steps", "2")
    first, second = json.loads(out)
    assert code == 0
    assert second["parameters"] == first["new_parameters"]
    (tmp_path / "w.json").write_text(json.dumps(first["new_parameters"]))
    _, out, _ = call(
        capsys, "explain", "--layers", "2,3,3,1", "--weights", "w.json", "--format", "json"
    )
    assert json.loads(out) == second


@pytest.mark.parametrize("form", ["text", "markdown", "latex"])
def test_steps_stand_below_each_other(capsys, form):
    code, out, err = call(capsys, "explain", "--steps", "2", "--format", form)
    assert (code, err) == (0, "")
    assert out.count("Summary") == 2
    assert "Step 2" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--inputs 1,2,3", "expected 2 numbers"),
        ("--inputs a", "expected finite numbers"),
        ("--target 1,0", "expected 1 numbers"),
        ("--loss bce --target 2", "from 0 to 1 for bce"),
        ("--loss cross_entropy --target 2", "a class from 0 to 1"),
        ("--loss cross_entropy --target 0.5", "a class from 0 to 1"),
        ("--loss huber", "half_squared, mse, bce, cross_entropy"),
        ("--format pdf", "text, markdown, latex, html, json"),
        ("--layers 2", "such as 2,3,3,1"),
        ("--layers 100,100,1", "at most 200 weights"),
        ("--weights none.json", "cannot be read"),
        ("--weights bad.json", "expected W1 as nested lists of shape (2, 2)"),
        ("--weights none.json --seed 1", "expected one of them"),
        ("--steps 0", "at least 1"),
        ("--model runs/x", "unknown option"),
    ],
)
def test_mistakes_are_one_line(capsys, tmp_path, words, message):
    (tmp_path / "bad.json").write_text('{"W1": [1, 2]}')
    code, out, err = call(capsys, "explain", *words.split())
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert message in err
