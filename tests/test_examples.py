"""The lessons: their numbers, derived by hand, and what their programs print."""

import ast
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.examples import classifier, convnet, deep_mlp, linear_unit, transformer, two_two_one

FOLDER = Path(xb.__file__).with_name("examples")
TOOLS = ("generate",)  # needs a trained model; test_cli_text.py runs it
LESSONS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("__init__", *TOOLS))
MOST_LINES = {"transformer": 120}  # a block has six parts, each with a backward of its own
EXCERPTS = dict(
    re.findall(
        r"^\$ python -m xbackprop\.examples\.(\w+)\n(.*?)^```$",
        (FOLDER / "README.md").read_text(encoding="utf-8"),
        re.M | re.S,
    )
)


# --- every lesson -------------------------------------------------------------------------


def test_readme_shows_every_lesson():
    assert sorted(EXCERPTS) == LESSONS


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_fits_on_a_page(lesson):
    source = (FOLDER / f"{lesson}.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) < MOST_LINES.get(lesson, 60)
    assert f"Run: python -m xbackprop.examples.{lesson}" in ast.get_docstring(ast.parse(source))


@pytest.mark.parametrize("lesson", LESSONS)
def test_readme_shows_what_a_lesson_prints(lesson):
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", f"xbackprop.examples.{lesson}"],
        env={**os.environ, "XBACKPROP_DEVICE": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    printed, shown = run.stdout.split(), EXCERPTS[lesson].split()
    starts = [at for at, word in enumerate(printed) if word == shown[0]]
    assert any(alike(printed[at : at + len(shown)], shown) for at in starts), run.stdout


def alike(printed, shown):
    """Words are equal; numbers may differ in the last digits, as machines do.

    Of a loss that falls over many steps more than the last digits: what differs grows with them.
    """
    if len(printed) != len(shown):
        return False
    near = [
        one == other or is_near(one, other, 0.5 if "epoch" in shown[max(0, at - 7) : at] else 0.02)
        for at, (one, other) in enumerate(zip(printed, shown, strict=True))
    ]
    return all(near)


def is_near(one, other, tolerance):
    try:
        return math.isclose(float(one.strip("[],%")), float(other.strip("[],%")), rel_tol=tolerance)
    except ValueError:
        return False


# --- linear_unit --------------------------------------------------------------------------


def test_linear_unit_by_hand_and_by_the_library(xb_device):
    w, b = 0.5, 0.25
    unit = xb.nn.Linear(1, 1, dtype=np.float64)
    unit.load_state_dict({"weight": np.array([[w]]), "bias": np.array([b])})
    optimizer = xb.optim.SGD(unit.parameters(), lr=linear_unit.ETA)
    for x, y in [(2.0, 3.0), (-1.5, 0.3), (0.0, 1.0)]:
        hand = linear_unit.step_by_hand(x, y, w, b)
        library = linear_unit.step(unit, optimizer, x, y)
        assert hand["dLoss/dw"] == pytest.approx((w * x + b - y) * x, abs=1e-15)
        for name, value in hand.items():
            assert library[name] == pytest.approx(value, abs=1e-12), name
        w, b = list(hand.values())[-2:]


def test_linear_unit_finds_the_line(xb_device, capsys):
    linear_unit.main(rounds=300 if xb_device.kind == "cpu" else 3)
    lines = capsys.readouterr().out.splitlines()
    for line in lines[2:8]:  # by hand and by the library
        assert line.split()[-1] == line.split()[-2]
    if xb_device.kind == "cpu":
        assert lines[-1].split()[-4:] == ["=", "2.0000", "x", "-1.0000"]


# --- two_two_one --------------------------------------------------------------------------


def gradients(activation, loss, x, y):
    model, loss_fn = two_two_one.make_network(activation, loss)
    output, saved = model.forward(x)
    value, loss_saved = loss_fn.forward(output, y)
    model.backward(loss_fn.backward(1.0, loss_saved), saved)
    found = {name: xb.to_host(parameter.grad) for name, parameter in model.named_parameters()}
    return model, float(value), found


def test_relu_and_half_squared_error_by_hand(xb_device):
    # Hidden sums (-0.6, 0.8), hidden values (0, 0.8), y_hat = 0.4 * 0.8 - 0.1 = 0.22.
    x = xb.asarray([0.0, 1.0], dtype=np.float64)
    y = xb.asarray([1.0], dtype=np.float64)
    _, loss, found = gradients("relu", "half", x, y)
    delta = 0.22 - 1.0  # dLoss/dy_hat = y_hat - y
    expected = {
        "2.weight": [[delta * 0.0, delta * 0.8]],
        "2.bias": [delta],
        "0.weight": [[0.0, 0.0], [0.0, delta * 0.4 * 1.0]],
        "0.bias": [0.0, delta * 0.4],
    }
    assert loss == pytest.approx(0.5 * 0.78**2, abs=1e-12)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-12, err_msg=name)


def test_sigmoid_and_binary_cross_entropy_by_hand(xb_device):
    x = xb.asarray([1.0, 1.0], dtype=np.float64)
    y = xb.asarray([0.0], dtype=np.float64)
    _, loss, found = gradients("sigmoid", "bce", x, y)
    hidden = 1 / (1 + np.exp(-np.array([0.8 - 0.7 + 0.1, -0.9 + 0.6 + 0.2])))
    y_hat = 1 / (1 + np.exp(-(0.5 * hidden[0] + 0.4 * hidden[1] - 0.1)))
    delta = y_hat - 0.0  # the sigmoid and the logarithm cancel to y_hat - y
    back = delta * np.array([0.5, 0.4]) * hidden * (1 - hidden)
    assert loss == pytest.approx(-np.log(1 - y_hat), abs=1e-12)
    np.testing.assert_allclose(found["2.weight"], [delta * hidden], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["2.bias"], [delta], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["0.weight"], np.outer(back, [1, 1]), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["0.bias"], back, rtol=0, atol=1e-12)


@pytest.mark.parametrize("xb_device", ["cpu"], indirect=True)
def test_a_sample_as_a_learner_types_it(xb_device):
    model, loss_fn = two_two_one.make_network()
    output, saved = model.forward(np.array([0.0, 1.0]))
    assert output.shape == (1,)
    assert output.dtype == np.float64
    _, loss_saved = loss_fn.forward(output, np.array([1.0]))
    grad_input = model.backward(loss_fn.backward(1.0, loss_saved), saved)
    np.testing.assert_allclose(grad_input, -0.78 * 0.4 * np.array([-0.9, 0.6]), atol=1e-12)


def test_one_update_by_hand(xb_device):
    x = xb.asarray([0.0, 1.0], dtype=np.float64)
    y = xb.asarray([1.0], dtype=np.float64)
    model, _, _ = gradients("relu", "half", x, y)
    xb.optim.SGD(model.parameters(), lr=0.5).step()
    state = model.state_dict()
    np.testing.assert_allclose(state["2.weight"], [[0.5, 0.4 + 0.5 * 0.78 * 0.8]], atol=1e-12)
    np.testing.assert_allclose(state["2.bias"], [-0.1 + 0.5 * 0.78], atol=1e-12)


@pytest.mark.parametrize("loss", ["half", "bce"])
@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_two_two_one_learns_exclusive_or(xb_device, capsys, activation, loss):
    steps = 3000 if xb_device.kind == "cpu" else 40
    two_two_one.main(["--activation", activation, "--loss", loss, "--steps", str(steps)])
    lines = capsys.readouterr().out.splitlines()
    assert any("dLoss/d(0.weight)" in line for line in lines)
    if steps == 3000:
        answers = [float(line.rpartition("=")[2]) for line in lines[-4:]]
        np.testing.assert_allclose(answers, [0, 1, 1, 0], atol=0.02)


# --- classifier ---------------------------------------------------------------------------


def test_gradient_of_cross_entropy_by_hand(xb_device):
    for logits, label in (([0.3, -1.0, 2.0], 1), ([0.0] * 10, 7), ([4.0, -4.0], 0)):
        hand = classifier.gradient_by_hand(np.array(logits), label)
        library = classifier.gradient_of_library(np.array(logits), label)
        assert hand.sum() == pytest.approx(0.0, abs=1e-15)
        np.testing.assert_allclose(library, hand, rtol=0, atol=1e-12)


def test_classifier_learns_the_digits(xb_device, capsys):
    classifier.main(epochs=15 if xb_device.kind == "cpu" else 2)
    lines = capsys.readouterr().out.splitlines()
    by_hand, by_library = (line for line in lines if line.startswith(("  by hand", "  library")))
    assert by_hand.split("[")[1] == by_library.split("[")[1]
    (score,) = (line for line in lines if line.startswith("right on"))
    assert float(score.split()[2].strip("%")) > (95 if xb_device.kind == "cpu" else 60)


# --- deep_mlp -----------------------------------------------------------------------------


def test_scales_follow_the_gain(xb_device):
    rng = np.random.default_rng(0)
    x, y = xb.asarray(rng.uniform(size=(256, 64))), xb.asarray(rng.integers(10, size=256))
    for gain in (*deep_mlp.GAINS.values(), 2.0):
        sizes = deep_mlp.scales(deep_mlp.make_network(gain), x, y)
        assert len(sizes) == deep_mlp.DEPTH + 1
        first, last = np.log(sizes[0]), np.log(sizes[-2])
        per_layer = (last - first) / (deep_mlp.DEPTH - 1)
        expected = np.log(gain / math.sqrt(2))
        np.testing.assert_allclose(per_layer, [expected, -expected], atol=0.1)


def test_scales_are_what_the_container_computes(xb_device):
    model = deep_mlp.make_network(1.0)
    x, y = xb.asarray(np.eye(3, 64)), xb.asarray([1, 2, 3])
    deep_mlp.scales(model, x, y)
    by_layers = [xb.to_host(parameter.grad).copy() for parameter in model.parameters()]
    model.zero_grad()
    xb.value_and_grad(model, xb.nn.CrossEntropyLoss())(x, y)
    for parameter, expected in zip(model.parameters(), by_layers, strict=True):
        np.testing.assert_array_equal(xb.to_host(parameter.grad), expected)


def test_deep_network_learns_from_one_of_the_two_starts(xb_device, capsys):
    epochs = 5 if xb_device.kind == "cpu" else 2
    deep_mlp.main(epochs)
    lines = [line for line in capsys.readouterr().out.splitlines() if "Loss of" in line]
    default, he = (float(line.split()[-1]) for line in lines)
    assert default == pytest.approx(math.log(10), abs=0.01)
    assert he < (1.0 if epochs == 5 else 2.0)


# --- convnet ------------------------------------------------------------------------------


def test_convolution_by_hand(xb_device):
    rng = np.random.default_rng(0)
    for image, w in ((5, 3), (8, 1), (4, 4), (6, 2)):
        image, w = rng.normal(size=(image, image)), rng.normal(size=(w, w))
        hand, library = convnet.by_hand(image, w), convnet.by_library(image, w)
        for one, other in zip(hand, library, strict=True):
            np.testing.assert_allclose(other.ravel(), one.ravel(), rtol=0, atol=1e-12)


def test_convnet_learns_the_digits(xb_device, capsys):
    convnet.main(epochs=10 if xb_device.kind == "cpu" else 2)
    lines = capsys.readouterr().out.splitlines()
    by_hand, by_library = (
        [x.split("[")[1] for x in lines if word in x] for word in ("hand", "libr")
    )
    assert by_hand == by_library
    assert len(by_hand) == 3
    score = float(lines[-1].split()[2].strip("%"))
    assert score > (95 if xb_device.kind == "cpu" else 60)


# --- transformer --------------------------------------------------------------------------


def test_the_block_by_hand_has_the_gradients_of_differences():
    assert transformer.largest_difference() < 1e-7


def test_the_block_by_hand_hides_what_comes_later():
    rng = np.random.default_rng(0)
    W = {name: rng.normal(size=(4, 4)) for name in "qkvo12"}
    x = rng.normal(size=(5, 4))
    changed = x.copy()
    changed[3:] += 1
    before, after = (transformer.block(values, W)[0] for values in (x, changed))
    np.testing.assert_array_equal(before[:3], after[:3])
    assert (before[3:] != after[3:]).any(axis=1).all()


def test_transformer_learns_a_sentence_by_heart(xb_device, capsys):
    transformer.main(steps=60 if xb_device.kind == "cpu" else 2)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("step")
    if xb_device.kind == "cpu":
        assert last.endswith("to| be, or not to be, that is the question:")
