"""Every number that `xbackprop explain` prints, against arithmetic in pure Python."""

import itertools
import json
import math
import re
from fractions import Fraction

import pytest
from command_line import call
from explain_by_hand import Network, Update

HIDDEN = ("sigmoid", "relu", "tanh")
OUTPUTS = ("linear", "sigmoid")
LOSSES = ("half_squared", "mse", "bce", "cross_entropy")
OPTIMIZERS = ("sgd", "momentum", "adam")
LR, STEPS = 0.125, 2
X = [0.05, 0.1]

every_network = pytest.mark.parametrize(
    ("hidden", "output", "loss"), list(itertools.product(HIDDEN, OUTPUTS, LOSSES))
)


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


def targets(loss, outputs):
    """The target on the command line, and as the arithmetic has it."""
    if loss == "cross_entropy":
        return "1", 1
    numbers = [0.25, 0.75][:outputs]
    return ",".join(map(str, numbers)), list(map(Fraction, numbers))


def words_for(hidden, output, loss, optimizer, layers, *more):
    given = {
        "hidden": hidden, "output": output, "loss": loss, "optimizer": optimizer,
        "layers": layers, "lr": LR, "steps": STEPS, "device": "cpu",
        "target": targets(loss, int(layers[-1]))[0],
    }  # fmt: skip
    return ["explain", *(f"--{name}={value}" for name, value in given.items()), *more]


def steps_by_hand(hidden, output, loss, optimizer, layers, parameters):
    """Yield network, target and numbers of each step, the update's included."""
    network, update = Network(hidden, output, loss, parameters), Update(optimizer, LR)
    target = targets(loss, int(layers[-1]))[1]
    x = list(map(Fraction, X))
    for _ in range(STEPS):
        numbers = network.tell(x, target)
        differences = {
            name: network.difference(x, target, row, place)
            for name, row, place in network.elements()
        }
        numbers |= update.step(network, numbers)
        yield numbers, differences, network.loss_at(x, target)


def close(number, rel=1e-11):
    return pytest.approx(float(number), rel=rel, abs=1e-14)


@every_network
def test_every_number_of_the_json(capsys, hidden, output, loss):
    outputs = "2" if loss == "cross_entropy" else "1"
    cases = [(f"2,3,3,{outputs}", optimizer) for optimizer in OPTIMIZERS]
    cases += [(f"2,2,{outputs}", "momentum"), ("2,2,2", "adam"), ("2,1", "sgd")]
    for layers, optimizer in cases:
        if loss != "cross_entropy" or layers[-1] == "2":
            seed = ("--seed", "4") if layers.count(",") != 2 else ()
            case = (hidden, output, loss, optimizer, layers)
            code, out, err = call(capsys, *words_for(*case, "--format=json", *seed))
            assert (code, err) == (0, "")
            told = json.loads(out)
            assert len(told) == STEPS
            expected = steps_by_hand(*case, told[0]["parameters"])
            for step, (numbers, differences, loss_after) in zip(told, expected, strict=True):
                compare(step, numbers, differences, loss_after)


def compare(step, numbers, differences, loss_after):
    quantities = [q for section in step["steps"] for q in section["quantities"]]
    assert {q["symbol"] for q in quantities} == numbers.keys()
    for quantity in quantities:
        assert quantity["value"] == close(numbers[quantity["symbol"]]), quantity
    assert step["loss"] == close(numbers["Loss"])
    assert step["loss_after"] == close(loss_after)
    for key, names in (("gradients", "dLoss/d{}"), ("new_parameters", "{}_new")):
        assert flat(step[key]) == {
            name: close(numbers[names.format(name)]) for name in flat(step["parameters"])
        }
    (checks,) = (section["checks"] for section in step["steps"] if section["checks"])
    assert {check["parameter"] for check in checks} == differences.keys()
    for check in checks:
        name, gradient = check["parameter"], check["gradient"]
        assert gradient == close(numbers[f"dLoss/d{name}"])
        assert gradient == close(check["above"] * check["local"])
        difference = check["finite_difference"]
        assert difference == pytest.approx(differences[name], rel=1e-6, abs=2e-10)
        size = max(abs(gradient), abs(difference)) or 1.0
        assert check["relative_difference"] == close(abs(gradient - difference) / size)
    assert all("the unit is off" in note for note in step["notes"])


def flat(parameters):
    """Give nested lists the names of the explanation."""
    found = {}
    for key, rows in parameters.items():
        name = key.replace("W", "w")
        for i, row in enumerate(rows, start=1):
            if isinstance(row, list):
                found |= {f"{name}[{i},{j}]": value for j, value in enumerate(row, start=1)}
            else:
                found[f"{name}[{i}]"] = row
    return found


def test_a_device_prints_the_same(capsys):
    for hidden, loss, optimizer in (("tanh", "bce", "adam"), ("relu", "mse", "momentum")):
        words = words_for(hidden, "linear", loss, optimizer, "2,3,3,1", "--format=json")
        cpu = call(capsys, *words)
        assert call(capsys, *words, "--device=fake") == cpu


# --- what is shown ------------------------------------------------------------------------


def read_text(text):
    """Return the parts of every `symbol = ... = value`, which may take several lines."""
    found = []
    for line in re.sub(r"\n +(?== )", " ", text).splitlines():
        if re.match(r"    \S+ = ", line):
            symbol, *parts = line.strip().split(" = ")
            found.append((symbol, parts))
    return found


def evaluate(text):
    """Evaluate an expression in numbers as it is shown."""
    names = {
        "exp": math.exp, "ln": math.log, "log1p": math.log1p, "max": max, "sqrt": math.sqrt,
        "tanh": math.tanh,
    }  # fmt: skip
    return eval(text.replace("^", "**"), {"__builtins__": {}}, names)


@every_network
def test_every_number_of_the_text(capsys, hidden, output, loss):
    layers = "2,2,2" if loss == "cross_entropy" else "2,3,3,1"
    optimizer = OPTIMIZERS[(HIDDEN.index(hidden) + OUTPUTS.index(output)) % 3]
    words = words_for(hidden, output, loss, optimizer, layers, "--seed=4")
    parameters = json.loads(call(capsys, *words, "--format=json")[1])[0]["parameters"]
    texts = {lang: call(capsys, *words, f"--lang={lang}")[1] for lang in ("en", "zh")}
    assert read_text(texts["en"]) == read_text(texts["zh"])
    parts = re.split(r"^=== .* ===$", texts["en"], flags=re.M)[1:]
    expected = steps_by_hand(hidden, output, loss, optimizer, layers, parameters)
    for text, step in zip(parts, expected, strict=True):
        compare_text(text, *step)


def compare_text(text, numbers, differences, loss_after):
    shown = dict(read_text(text))
    assert shown.keys() == numbers.keys()
    for symbol, sides in shown.items():
        value = float(sides[-1])
        assert value == pytest.approx(float(numbers[symbol]), rel=6e-6, abs=1e-14), symbol
        if len(sides) == 3:  # formula, numbers in it, result
            assert evaluate(sides[1]) == pytest.approx(value, rel=1e-3, abs=2e-6), symbol
    for name, difference in differences.items():
        row = next(
            line for line in text.splitlines() if re.match(rf"    {re.escape(name)}  ", line)
        )
        above, local, gradient, measured, _ = map(float, row.split()[1:])
        assert gradient == pytest.approx(float(numbers[f"dLoss/d{name}"]), rel=6e-6, abs=1e-14)
        assert gradient == pytest.approx(above * local, rel=2e-5)
        assert measured == pytest.approx(difference, rel=1e-5, abs=2e-10)
    before, after = (f"{float(number):.6g}" for number in (numbers["Loss"], loss_after))
    assert f"Loss {before} -> {after} after the update." in text
