"""The explanation of a training step, against arithmetic in pure Python."""

import json
import math

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.observe.expression import evaluate
from xbackprop.observe.wording import HEADINGS, NOTES, PHRASES

W1, B1 = [[0.8, -0.7], [-0.9, 0.6]], [0.1, 0.2]
W2, B2 = [[0.5, 0.4]], [0.15]
X, Y, LR = [0.05, 0.1], 1.0, 0.5
HIDDEN = {"sigmoid": xb.nn.Sigmoid, "relu": xb.nn.ReLU, "tanh": xb.nn.Tanh}
LOSSES = ("half_squared", "mse", "bce", "cross_entropy")


def make(hidden, output, loss):
    layers = [xb.nn.Linear(2, 2, dtype=np.float64), HIDDEN[hidden]()]
    layers.append(xb.nn.Linear(2, 1, dtype=np.float64))
    layers += [xb.nn.Sigmoid()] if output == "sigmoid" else []
    model = xb.nn.Sequential(*layers)
    names = {"0.weight": W1, "0.bias": B1, "2.weight": W2, "2.bias": B2}
    model.load_state_dict({name: np.array(values) for name, values in names.items()})
    make_loss = {
        "half_squared": xb.nn.HalfSquaredError, "mse": xb.nn.MSELoss,
        "bce": xb.nn.BCELoss if output == "sigmoid" else xb.nn.BCEWithLogitsLoss,
        "cross_entropy": xb.nn.CrossEntropyLoss,
    }[loss]  # fmt: skip
    target = 0 if loss == "cross_entropy" else [Y]
    return model, make_loss(), target


def by_hand(hidden, output, loss):
    """Every number of the step, by name, with nothing but `math`."""
    numbers = {}
    function = {
        "sigmoid": lambda z: 1 / (1 + math.exp(-z)), "relu": lambda z: max(z, 0.0),
        "tanh": math.tanh,
    }[hidden]  # fmt: skip
    slope = {
        "sigmoid": lambda a: a * (1 - a), "relu": lambda a: float(a > 0),
        "tanh": lambda a: 1 - a * a,
    }[hidden]  # fmt: skip
    z = [sum(w * x for w, x in zip(row, X, strict=True)) + b for row, b in zip(W1, B1, strict=True)]
    a = list(map(function, z))
    z2 = sum(w * value for w, value in zip(W2[0], a, strict=True)) + B2[0]
    p = 1 / (1 + math.exp(-z2)) if output == "sigmoid" else z2
    q = p
    if loss == "bce" and output == "linear":  # of logits
        q = 1 / (1 + math.exp(-p))
    numbers["Loss"] = {
        "half_squared": (p - Y) ** 2 / 2, "mse": (p - Y) ** 2,
        "bce": -math.log(q) if loss == "bce" else 0.0,
        "cross_entropy": 0.0,
    }[loss]  # fmt: skip
    g = {
        "half_squared": p - Y,
        "mse": 2 * (p - Y),
        "bce": -1 / p if output == "sigmoid" else q - 1,
        "cross_entropy": 0.0,
    }[loss]
    numbers |= {"y_hat": p, "dLoss/dy_hat": g}
    if output == "sigmoid":
        g *= p * (1 - p)
        numbers |= {"z2[1]": z2, "dLoss/dz2[1]": g, "dy_hat/dz2[1]": p * (1 - p)}
    numbers["dLoss/db2[1]"] = g
    numbers["b2[1]_new"] = B2[0] - LR * g
    for i in (0, 1):
        ga = g * W2[0][i]
        gz = ga * slope(a[i])
        numbers |= {
            f"z1[{i + 1}]": z[i], f"a1[{i + 1}]": a[i], f"dLoss/da1[{i + 1}]": ga,
            f"dLoss/dz1[{i + 1}]": gz, f"da1[{i + 1}]/dz1[{i + 1}]": slope(a[i]),
            f"dLoss/dw2[1,{i + 1}]": g * a[i], f"w2[1,{i + 1}]_new": W2[0][i] - LR * g * a[i],
            f"dLoss/db1[{i + 1}]": gz, f"b1[{i + 1}]_new": B1[i] - LR * gz,
        }  # fmt: skip
        for j in (0, 1):
            numbers[f"dLoss/dw1[{i + 1},{j + 1}]"] = gz * X[j]
            numbers[f"dz1[{i + 1}]/dw1[{i + 1},{j + 1}]"] = X[j]
            numbers[f"w1[{i + 1},{j + 1}]_new"] = W1[i][j] - LR * gz * X[j]
    return numbers


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("output", ["linear", "sigmoid"])
@pytest.mark.parametrize("hidden", list(HIDDEN))
def test_every_number_is_that_of_arithmetic_by_hand(hidden, output, loss, xb_device):
    model, loss_fn, target = make(hidden, output, loss)
    optimizer = xb.optim.SGD(model.parameters(), lr=LR)
    told = xb.observe.explain(model, loss_fn, X, target, optimizer)
    plain = json.loads(told.to_json())
    quantities = {q["symbol"]: q for step in plain["steps"] for q in step["quantities"]}
    for name, number in by_hand(hidden, output, loss).items():
        assert quantities[name]["value"] == pytest.approx(number, rel=1e-12, abs=1e-15), name
    for quantity in (q for section in told.steps for q in section.quantities if q.formula):
        assert evaluate(quantity.formula) == pytest.approx(quantity.value, rel=1e-9, abs=1e-15)
    checks = plain["steps"][4]["checks"]
    assert len(checks) == 9
    for check in checks:
        assert check["gradient"] == pytest.approx(check["above"] * check["local"], rel=1e-12)
        assert check["relative_difference"] < 1e-8
    formulas = [q["symbol"] for q in quantities.values() if q["formula"] is None]
    assert set(formulas) <= {"m[1]", "s[1]", "m", "s"}
    assert plain["parameters"] == {"W1": W1, "b1": B1, "W2": W2, "b2": B2}
    state = model.state_dict()
    assert plain["new_parameters"]["W1"] == state["0.weight"].tolist()
    after = loss_fn.forward(model(xb.asarray([X], dtype=np.float64)), told_target(target))[0]
    assert plain["loss_after"] == float(xb.to_host(after))


def told_target(target):
    array = np.array([target])
    return xb.asarray(array, dtype=array.dtype)


def test_formulas_have_names_and_numbers():
    model, loss_fn, target = make("relu", "linear", "half_squared")
    text = xb.observe.explain(model, loss_fn, X, target).to_text()
    assert "a1[1] = max(z1[1], 0) = max(0.07, 0) = 0.07" in text
    assert "dLoss/dy_hat = y_hat - y = 0.271 - 1 = -0.729" in text
    assert "dLoss/dw2[1,1] = dLoss/dy_hat * a1[1] = -0.729 * 0.07 = -0.05103" in text
    assert "Update" not in text


@pytest.mark.parametrize("momentum", [0.9, None])
def test_momentum_and_adam_show_their_formulas(momentum, xb_device):
    model, loss_fn, target = make("tanh", "linear", "mse")
    if momentum is None:
        optimizer = xb.optim.Adam(model.parameters(), lr=0.1)
    else:
        optimizer = xb.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)
    for _ in range(2):
        told = xb.observe.explain(model, loss_fn, X, target, optimizer)
    (section,) = [section for section in told.steps if section.key == "weight_update"]
    assert all(quantity.formula is not None for quantity in section.quantities)


def test_without_an_optimizer_the_model_stays_as_it_is(xb_device):
    model, loss_fn, target = make("sigmoid", "linear", "mse")
    before = model.state_dict()
    told = xb.observe.explain(model, loss_fn, X, target)
    assert told.new_parameters is None
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, values in model.state_dict().items():
        np.testing.assert_array_equal(values, before[name])


def test_chinese_headings_follow_the_classical_outline():
    model, loss_fn, target = make("sigmoid", "linear", "half_squared")
    optimizer = xb.optim.SGD(model.parameters(), lr=LR)
    told = xb.observe.explain(model, loss_fn, X, target, optimizer)
    chinese = [heading for _, heading in HEADINGS.values()]
    found = [line.strip() for line in told.to_text("zh").splitlines() if line.strip() in chinese]
    steps = ["前向传播", "计算误差", "反向传播误差", "更新权重"]
    sections = ["损失函数对输出的导数", "输出对权重的导数", "链式法则", "权重更新", "总结"]
    assert [line for line in found if line in steps] == steps
    assert [line for line in found if line in sections] == sections
    for table in (HEADINGS, PHRASES, NOTES):
        assert all(english and chinese for english, chinese in table.values())


def test_both_languages_have_the_same_numbers():
    model, loss_fn, target = make("sigmoid", "sigmoid", "bce")
    told = xb.observe.explain(model, loss_fn, X, target)
    english, chinese = ([line for line in told.to_text(lang).splitlines() if line[:4] == "    "]
                        for lang in ("en", "zh"))  # fmt: skip
    assert [" ".join(line.split()) for line in english if "weight" not in line] == [
        " ".join(line.split()) for line in chinese if "权重" not in line
    ]


@pytest.mark.parametrize("size", [0.0, 1e-45, 1e30, -1e30, 1e200])
@pytest.mark.parametrize("hidden", list(HIDDEN))
def test_extreme_numbers_are_shown(hidden, size):
    model, loss_fn, target = make(hidden, "linear", "half_squared")
    told = xb.observe.explain(model, loss_fn, [size, 0.1], target)
    for lang in ("en", "zh"):
        assert told.to_text(lang)
        assert told.to_markdown(lang)
        assert told.to_latex(lang)
    assert f"{size + 0.0:.6g}" in told.to_text()
    json.loads(told.to_json())
    keys = {note.key for note in told.notes}
    assert ("saturated" in keys) == (hidden != "relu" and abs(size) > 1)
    assert ("off" in keys) == (hidden == "relu" and abs(size) > 1)


def test_what_cannot_be_told_is_refused():
    loss = xb.nn.MSELoss()
    with pytest.raises(NotImplementedError, match="Sequential of Linear layers"):
        xb.observe.explain(xb.nn.LayerNorm(2), loss, X, X)
    with pytest.raises(ValueError, match="one sample"):
        xb.observe.explain(xb.nn.Linear(2, 2), loss, [X, X], [X, X])
    told = xb.observe.explain(xb.nn.Linear(2, 2, rng=0), loss, X, X)
    with pytest.raises(ValueError, match="en, zh"):
        told.to_text("fr")
