"""`xbackprop explain`."""

import itertools
import json
import math
import re

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


@pytest.mark.parametrize(
    ("variables", "language"),
    [
        ({"LC_ALL": "en_GB.UTF-8", "LANG": "zh_CN.UTF-8"}, "en"),
        ({"LC_MESSAGES": "zh_TW", "LANG": "en_US.UTF-8"}, "zh"),
        ({"LC_ALL": "", "LANG": "zh_CN.GB18030"}, "zh"),
        ({"LANG": "fr_FR.UTF-8"}, "en"),
        ({"LANG": "C"}, "en"),
        ({}, "en"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value.values()) or "none",
)
def test_the_first_variable_of_the_locale_decides(capsys, monkeypatch, variables, language):
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("locale.getlocale", lambda: (None, None))
    assert call(capsys, "explain") == call(capsys, "explain", "--lang", language)


def test_chinese_headings_stand_in_the_order_of_the_outline(capsys):
    outline = [
        "前向传播", "计算误差", "反向传播误差", "损失函数对输出的导数", "输出对权重的导数",
        "链式法则", "更新权重", "权重更新", "总结",
    ]  # fmt: skip
    patterns = {"text": r"^ *(\w+)$", "markdown": r"^#+ (.*)$", "latex": r"\*\{(.*)\}$"}
    for form, pattern in patterns.items():
        out = call(capsys, "explain", "--lang", "zh", "--format", form)[1]
        assert re.findall(pattern, out, re.M) == outline


def test_numbers_may_be_negative(capsys):
    joined = call(capsys, "explain", "--inputs=-1,-.5", "--target=-2")
    assert joined[0] == 0
    assert call(capsys, "explain", "--inputs", "-1,-.5", "--target", "-2") == joined
    assert "dLoss/dy_hat = y_hat - y = 1.02937 - (-2) = 3.02937" in joined[1]


FIRST = {"W1": [[0.15, 0.2], [0.25, 0.3]], "b1": [0.35, 0.35]}


@pytest.mark.parametrize(
    ("weights", "words", "english", "chinese"),
    [
        (
            {"W2": [[0.4, 0.45]], "b2": [1000]}, "--output sigmoid --loss bce --target 0",
            ["= 100\n", "dLoss/dy_hat = 1e+12", "y_hat = 1: saturated", "taken literally"],
            ["= 100\n", "dLoss/dy_hat = 1e+12", "已饱和", "按字面计算公式"],
        ),
        (
            {"W2": [[0.4, 0.45]], "b2": [-1000]}, "--loss bce --target 1",
            ["Loss = 999.494\n", "taken literally"],
            ["Loss = 999.494\n", "按字面计算公式"],
        ),
        (
            {"W2": [[1e200, 1e200]], "b2": [0]}, "",
            ["Loss = inf: beyond", "Loss inf -> "], ["超出数值格式的范围", "误差 inf -> "],
        ),
        (
            {"W2": [[1e-45, 0]], "b2": [1e30]}, "",
            ["y_hat = a1[1] * w2[1,1]", "1e-45", "= 1e+30\n"],
            ["1e-45", "= 1e+30\n"],
        ),
        (
            {"W2": [[0, 0]], "b2": [0]}, "",
            ["dLoss/da1[1] = dLoss/dy_hat * w2[1,1] = -1 * 0 = 0\n"],
            ["dLoss/da1[1] = dLoss/dy_hat * w2[1,1] = -1 * 0 = 0\n"],
        ),
    ],
    ids=["saturated", "large-logit", "infinite", "tiny-and-large", "zero"],
)  # fmt: skip
def test_extreme_weights_are_shown_and_explained(
    capsys, tmp_path, weights, words, english, chinese
):
    (tmp_path / "w.json").write_text(json.dumps({**FIRST, **weights}))
    given = ["explain", "--weights", "w.json", *words.split()]
    for lang, expected in (("en", english), ("zh", chinese)):
        for form in ("text", "markdown", "latex", "json"):
            code, out, err = call(capsys, *given, "--lang", lang, "--format", form)
            assert (code, err) == (0, "")
            if form == "text":
                assert [part for part in expected if part not in out] == []
            if form == "json":
                json.loads(out, parse_constant=pytest.fail)


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
        ("--weights more.json", "got W3 too"),
        ("--weights less.json", "expected b1 as nested lists of shape (2,); got none"),
        ("--weights nan.json", "not finite"),
        ("--weights list.json", "expected an object of W1"),
        ("--weights bad.json --layers 2,3,1", "shape (3, 2)"),
        ("--hidden gelu", "sigmoid, relu, tanh"),
        ("--output softmax", "linear, sigmoid"),
        ("--optimizer lion", "sgd, momentum, adam"),
        ("--lang fr", "en, zh"),
        ("--lr 0", "above 0"),
        ("--lr nan", "above 0"),
        ("--seed -1", "at least 0"),
        ("--device gpu", "auto, cpu, cuda"),
        ("--layers 2,0,1", "such as 2,3,3,1"),
        ("--inputs nan,1", "expected finite numbers"),
        ("--inputs 1e999,1", "expected finite numbers"),
        ("--loss bce --target -0.1", "from 0 to 1 for bce"),
        ("--steps 0", "at least 1"),
        ("--model runs/x", "Expected a run folder"),
    ],
)
def test_mistakes_are_one_line(capsys, tmp_path, words, message):
    whole = {**FIRST, "W2": [[1, 2]], "b2": [3]}
    files = {
        "bad": {"W1": [1, 2]}, "more": {**whole, "W3": [[1]]}, "list": [1],
        "less": {"W1": FIRST["W1"]}, "nan": {**whole, "b2": [math.nan]},
    }  # fmt: skip
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    code, out, err = call(capsys, "explain", *words.split())
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert message in err
