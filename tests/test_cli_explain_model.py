"""`xbackprop explain --model RUN --sample N`, on runs of every kind of network."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import call

import xbackprop as xb

SIZES = {
    "mlp": ["--hidden", "8"],
    "cnn": ["--model", "cnn", "--channels", "2"],
    "resnet": ["--model", "resnet", "--channels", "1"],
    "gpt": ["--model", "gpt", "--layers", "1", "--heads", "1", "--width", "8", "--context", "8"],
    "regression": ["--target", "price", "--regression", "--standardize", "--hidden", "4"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each kind, trained for an epoch; tests that change one copy it."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    rows = [(a, b, 100 * a + 3 * b + 7) for a, b in rng.normal(size=(40, 2))]
    table = "a,b,price\n" + "".join(f"{a},{b},{price}\n" for a, b, price in rows)
    (folder / "t.csv").write_text(table)
    (folder / "t.txt").write_text("to be or not to be, that is the question. " * 30)
    data = {"gpt": "t.txt", "regression": "t.csv"}
    from xbackprop.cli.main import main

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xbackprop.cli.train.draw_run", lambda run: None)  # seconds of plots
        patch.setenv("XBACKPROP_DEVICE", "cpu")
        before = xb.default_device()
        xb.set_device(None)
        for name, words in SIZES.items():
            given = ["--data", str(folder / data[name])] if name in data else []
            out = ["--out", str(folder / name), "--epochs", "1", "--batch-size", "256", "--quiet"]
            out += [] if name in ("gpt", "regression") else ["--lr", "0.01"]
            assert main(["train", *words, *given, *out]) == 0
    xb.set_device(before)
    return folder


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


@pytest.mark.parametrize("device", ["cpu", "fake"])
@pytest.mark.parametrize("name", list(SIZES))
def test_every_run_is_explained(capsys, runs, name, device):
    words = ["explain", "--model", str(runs / name), "--sample", "1", "--device", device]
    code, out, err = call(capsys, *words, "--format", "json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    model = xb.load(runs / name / "model.safetensors").model
    assert [row["name"] for row in told["parameters"]] == [n for n, _ in model.named_parameters()]
    assert all(row["gradient_norm"] is not None for row in told["layers"])
    assert told["sample"]["number"] == 1
    texts = {}
    for lang in ("en", "zh"):
        for form in ("text", "markdown", "latex"):
            code, out, err = call(capsys, *words, "--format", form, "--lang", lang)
            assert (code, err) == (0, "")
            texts[form, lang] = out
    number = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
    for form in ("text", "markdown", "latex"):
        assert number.findall(texts[form, "en"]) == number.findall(texts[form, "zh"])
    assert f"Loss {told['loss']:.6g};" in texts["text", "en"]


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet"])
def test_loss_and_prediction_are_those_of_the_model(capsys, runs, name):
    digits = xb.data.load_digits()
    out = call(capsys, "explain", "--model", str(runs / name), "--sample", "7", "--format", "json")
    told = json.loads(out[1])
    x = digits.x_test[7:8] if name == "mlp" else digits.x_test[7:8].reshape(1, 1, 8, 8)
    model = xb.load(runs / name / "model.safetensors").model.eval()
    output = xb.to_host(model(xb.asarray(x)))
    label = int(digits.y_test[7])
    assert told["output"] == output.tolist()
    assert told["sample"]["target"] == str(label)
    assert told["sample"]["prediction"] == str(output.argmax())
    wide = output[0].astype(np.float64)
    assert told["loss"] == pytest.approx(np.log(np.exp(wide).sum()) - wide[label], rel=1e-5)


def test_quantities_are_told_in_their_own_units(capsys, runs):
    words = ["explain", "--model", str(runs / "regression"), "--format", "json"]
    told = json.loads(call(capsys, *words)[1])
    loaded = xb.load(runs / "regression" / "model.safetensors")
    scaling = loaded.counters["standardize"]
    split = xb.data.load_dataset(str(runs / "t.csv"), target="price", regression=True)
    x = (split.x_test[:1] - np.array(scaling["x"]["mean"])) / np.array(scaling["x"]["scale"])
    output = loaded.model.eval()(xb.asarray(x.astype(np.float32)))
    assert told["output"] == xb.to_host(output).tolist()
    assert told["sample"]["target"] == split.y_test[0].tolist()
    mean, scale = scaling["y"]["mean"][0], scaling["y"]["scale"][0]
    own = told["output"][0][0] * scale + mean
    assert told["sample"]["prediction"] == pytest.approx([own])
    target = (told["sample"]["target"][0] - mean) / scale
    assert told["loss"] == pytest.approx((told["output"][0][0] - target) ** 2, rel=1e-5)


def test_a_text_is_told_by_its_next_token(capsys, runs):
    out = call(capsys, "explain", "--model", str(runs / "gpt"), "--format", "json")[1]
    sample = json.loads(out)["sample"]
    assert len(sample["target"]) == len(sample["prediction"]) == 1
    headline = call(capsys, "explain", "--model", str(runs / "gpt"))[1].splitlines()[0]
    assert headline.startswith("Sample 0 of the test part of t.txt: target ")


def test_files_of_a_run_stand_for_it(capsys, runs):
    folder = runs / "mlp"
    expected = call(capsys, "explain", "--model", str(folder))
    files = [folder / "model.safetensors", *(folder / "checkpoints").iterdir()]
    for file in files:
        assert call(capsys, "explain", "--model", str(file)) == expected


def test_a_model_without_a_run_takes_its_sample_from_the_command_line(capsys, tmp_path):
    layers = (xb.nn.Linear(2, 2, rng=0), xb.nn.Tanh(), xb.nn.Linear(2, 1, rng=0), xb.nn.Sigmoid())
    xb.save("bare.safetensors", xb.nn.Sequential(*layers))
    words = ["explain", "--model", "bare.safetensors", "--inputs", "1,2", "--target", "1"]
    code, out, err = call(capsys, *words, "--loss", "bce", "--format", "json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["loss"] == pytest.approx(-np.log(told["output"][0][0]), rel=1e-5)
    text = call(capsys, *words, "--loss", "bce", "--lang", "zh")[1]
    assert text.startswith("给定的样本")
    assert "目标 1" in text.splitlines()[0]


def spoil(runs, folder):
    """Copy a run of a table, and spoil it as the folder's name says."""
    shutil.copytree(runs / "regression", folder)
    config = json.loads((folder / "config.json").read_text())
    if folder.name == "other":
        shutil.copy(runs / "cnn" / "model.safetensors", folder / "model.safetensors")
    elif folder.name == "changed":
        Path("u.csv").write_text((runs / "t.csv").read_text().replace("0", "1", 1))
        config["arguments"]["data"] = "u.csv"
    elif folder.name == "gone":
        config["arguments"]["data"] = "nix.csv"
    elif folder.name == "broken":
        del config["arguments"]
    is_json = folder.name != "unreadable"
    (folder / "config.json").write_text(json.dumps(config) if is_json else "{")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model nix", "Expected a run folder"),
        ("--model {runs}", "Expected a run folder"),
        ("--model {runs}/t.csv", "not a readable checkpoint"),
        ("--model {runs}/mlp --sample 999", "expected a number from 0 to 359"),
        ("--model {runs}/mlp --sample -1", "at least 0"),
        ("--model {runs}/mlp --loss mse", "is a run, whose data is used"),
        ("--model {runs}/mlp --inputs 1,2", "is a run, whose data is used"),
        ("--model {runs}/mlp --format html", "expected one of text, markdown, latex, json"),
        ("--model {runs}/mlp --layers 2,2,1", "means nothing with --model"),
        ("--model {runs}/mlp --steps 2", "means nothing with --model"),
        ("--model {runs}/mlp --lr 1", "means nothing with --model"),
        ("--sample 1", "Add --model RUN"),
        ("--model bare.safetensors", "--inputs, --target, --loss"),
        ("--model bare.safetensors --sample 1", "--inputs, --target, --loss"),
        ("--model bare.safetensors --inputs 1 --target 1 --loss mse", "x of shape (..., 2)"),
        ("--model bare.safetensors --inputs 1,2 --target 1,2 --loss mse", "of one shape"),
        ("--model bare.safetensors --inputs 1,2 --target 5 --loss cross_entropy", "out of range"),
        ("--model bare.safetensors --inputs 1,2 --target 0.5 --loss cross_entropy", "a class"),
        ("--model bare.safetensors --inputs 1,2 --target 2 --loss bce", "from 0 to 1"),
        ("--model other --sample 0", "is not the one that"),
        ("--model changed --sample 0", "has changed"),
        ("--model gone --sample 0", "its data"),
        ("--model broken --sample 0", "does not describe a run"),
        ("--model unreadable --sample 0", "cannot be read"),
    ],
)
def test_mistakes_are_one_line(capsys, runs, words, message):
    xb.save("bare.safetensors", xb.nn.Linear(2, 1, rng=0))
    for name in {"other", "changed", "gone", "broken", "unreadable"} & set(words.split()):
        spoil(runs, Path(name))
    code, out, err = call(capsys, "explain", *words.format(runs=runs).split())
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert message in err
