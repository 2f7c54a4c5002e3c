"""`xb.testing.check_network` and `xbackprop gradcheck`: a wrong backward is found where it is."""

import json

import layer_cases
import numpy as np
import pytest
from command_line import call
from layer_cases import Case

import xbackprop as xb
from xbackprop import nn
from xbackprop.module import Module
from xbackprop.nn.normalization.normalize import normalize_backward
from xbackprop.testing import check_network
from xbackprop.testing.composites import Between
from xbackprop.testing.structures import is_float, transform

FAMILIES = {
    "LINEAR": "Linear",
    "CONVOLUTIONS": "Conv2d",
    "ACTIVATIONS": "GELU",
    "ATTENTION": None,
    "SHAPES": "Flatten",
    "NORMALIZATION": "LayerNorm",
    "PADDING": None,
    "POOLING": None,
    "DROPOUT": None,
    "EMBEDDING": "Embedding",
    "RECURRENT": None,
    "DISTANCES": None,
    "CONTAINERS": None,
    "POSITIONS": None,
    "MODELS": None,
    "TRANSFORMERS": None,
    "LOSSES": "MSELoss",
}


def row_of(family: str) -> Case:
    """The row of that name, or else the first one whose layer takes part in a network."""
    rows = getattr(layer_cases, family)
    named = [case for case in rows if case.name == FAMILIES[family]]
    return (named or rows)[0]


def as_float64(value):
    return transform(value, lambda leaf: leaf.astype(np.float64) if is_float(leaf) else leaf)


def network_of(case: Case) -> tuple[Module, list]:
    with xb.use_device("cpu"):
        layer = case.make().to(dtype=np.float64)
        inputs = case.inputs(np.random.default_rng(1))
        inputs = list(as_float64(inputs if isinstance(inputs, tuple) else (inputs,)))
        return Between(layer, inputs, np.random.default_rng(2)), inputs


def plant(monkeypatch, layer: Module) -> None:
    """Make the backward of this layer wrong, and of no other one of its class."""
    original = type(layer).backward

    def backward(self, grad_output, saved, **options):
        result = original(self, grad_output, saved, **options)
        if "planted" not in vars(self):
            return result
        return wrong(result, self)

    def wrong(result, module):
        changed = []

        def change(leaf):
            if changed or not is_float(leaf):
                return leaf
            changed.append(None)
            leaf = leaf.copy()
            leaf.reshape(-1)[-1] += 0.01 * (1 + abs(leaf).max())
            return leaf

        result = transform(result, change)
        if not changed:  # an integer input: its parameter then
            parameter = next(module.parameters())
            parameter.accumulate(0.01 * parameter.grad)
        return result

    layer.planted = True  # goes along into copies
    monkeypatch.setattr(type(layer), "backward", backward)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_wrong_backward_is_found_at_its_layer_and_nowhere_else(family, monkeypatch):
    network, inputs = network_of(row_of(family))
    assert [layer.problem for layer in check_network(network, *inputs) if layer.problem] == []
    plant(monkeypatch, network.layer)
    layers = check_network(network, *inputs)
    assert [layer.path for layer in layers if layer.problem] == ["layer"]
    (found,) = (layer for layer in layers if layer.problem)
    assert found.kind == type(network.layer).__name__
    assert layers[-1].wrong_inside == "layer"


def test_every_family_is_there():
    lists = {name for name in vars(layer_cases) if name.isupper() and name != "CASES"}
    assert lists == set(FAMILIES)


def three_layers(middle: Module) -> Module:
    return nn.Sequential(nn.Linear(4, 4, rng=0), middle, nn.Linear(4, 2, rng=1))


X = np.random.default_rng(0).normal(size=(5, 4))


def wrong_paths(model: Module, *inputs) -> list[str]:
    return [layer.path for layer in check_network(model, *inputs) if layer.problem]


def test_a_normalization_that_forgets_its_weight_is_found_though_the_weight_is_one(monkeypatch):
    original = normalize_backward.reference

    def forgetful(grad_output, x_hat, rstd, weight, *others, **options):
        return original(grad_output, x_hat, rstd, np.ones_like(weight), *others, **options)

    model = three_layers(nn.BatchNorm1d(4))
    assert wrong_paths(model, X) == []
    monkeypatch.setattr(normalize_backward, "reference", forgetful)
    assert wrong_paths(model, X) == ["1"]
    assert model.eval() is model
    assert (model[1].weight.data == 1).all(), "the model itself stays as it is"


class Gram(Module):
    """`x @ x.T` of square inputs, with a backward that is right for symmetric ones only."""

    def forward(self, x):
        return x @ x.T, x

    def backward(self, grad_output, saved, *, input_grad=True):
        return grad_output @ saved + grad_output @ saved.T


def test_what_is_right_for_symmetric_inputs_only_is_found():
    assert wrong_paths(Gram(), np.eye(3)) == [""]


class MeanGradient(Module):
    """Right where every element of grad_output is the same, as at the end of a network."""

    def forward(self, x):
        return 2.0 * x, x.shape

    def backward(self, grad_output, saved, *, input_grad=True):
        return 2.0 * np.ones(saved) * grad_output.mean()


def test_what_is_right_at_the_end_only_is_found():
    assert wrong_paths(three_layers(MeanGradient()), X) == ["1"]


class Residual(Module):
    """Forgets the branch around the layer."""

    def __init__(self):
        self.layer = nn.Linear(4, 4, rng=0)

    def forward(self, x):
        output, saved = self.layer.forward(x)
        return x + output, saved

    def backward(self, grad_output, saved, *, input_grad=True):
        return self.layer.backward(grad_output, saved)


def test_gradients_put_together_wrongly_are_found_at_what_holds_the_layers():
    layers = check_network(three_layers(Residual()), X)
    assert [layer.path for layer in layers if layer.problem] == ["1"]
    assert [layer.path for layer in layers] == ["0", "1.layer", "1", "2", ""]


class LastElement(Module):
    """A large array of which one element's gradient is wrong."""

    def __init__(self, place):
        self.place = place
        self.weight = xb.Parameter(np.ones((20, 30)))

    def forward(self, x):
        return x * self.weight.value, x

    def backward(self, grad_output, saved, *, input_grad=True):
        grad = grad_output * saved
        grad[self.place] *= 1.5
        grad[19, 29] *= 1.5
        self.weight.accumulate(grad)
        return grad_output * self.weight.value


@pytest.mark.parametrize("place", [(0, 0), (3, 17), (19, 28)])
def test_the_first_failing_element_of_a_large_array_is_named(place):
    (layer,) = check_network(LastElement(place), np.random.default_rng(0).normal(size=(20, 30)))
    assert layer.problem.startswith(f"parameter 'weight' at [{place[0]}, {place[1]}]: expected")
    received, expected = (
        float(layer.problem.split(word)[1].split()[0]) for word in ("received ", "expected ")
    )
    assert received / expected == pytest.approx(1.5, rel=1e-4)


def test_kinks_are_left_out_and_counted():
    class Corner(Module):
        def __init__(self):
            self.weight = xb.Parameter(np.zeros(2))

        def forward(self, x):
            off = self.weight.value - self.start
            return np.abs(off) + 0 * x, np.where(off >= 0, 1.0, -1.0) + 0 * x

        def backward(self, grad_output, saved, *, input_grad=True):
            self.weight.accumulate((grad_output * saved).sum(axis=0))
            return np.zeros_like(grad_output)

        @property
        def start(self):
            if "begun" not in vars(self):
                self.begun = self.weight.data.copy()
            return self.begun

    (layer,) = check_network(Corner(), np.ones((3, 2)))
    assert (layer.problem, layer.kinks) == (None, 2)


def test_normalizations_over_two_values_are_no_mistake():
    model = nn.ResNet(num_classes=2, in_channels=1, width=8, small_images=True, rng=1)
    x = np.random.default_rng(1).normal(size=(2, 1, 8, 8))
    assert wrong_paths(model, x) == []


def test_a_gradient_that_is_missing_or_mis_shaped_is_a_problem():
    class Missing(Module):
        def forward(self, x):
            return 2.0 * x, ()

        def backward(self, grad_output, saved, *, input_grad=True):
            return None

    class MisShaped(Missing):
        def backward(self, grad_output, saved, *, input_grad=True):
            return grad_output.sum(axis=0)

    for layer, words in ((Missing(), "no gradient"), (MisShaped(), "shape (4,)")):
        found = check_network(three_layers(layer), X)
        assert [each.path for each in found if each.problem] == ["1"]
        assert words in found[1].problem


@pytest.mark.parametrize("device", ["cpu", "fake"])
def test_layers_used_twice_and_on_devices(device):
    layers = check_network(layer_cases.used_twice(), np.ones((2, 3), np.float32), device=device)
    assert [layer.problem for layer in layers] == [None] * len(layers)
    assert max(layer.calls for layer in layers) == 2


# --- the command --------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_the_command_prints_a_line_for_each_layer(capsys, name):
    code, out, err = call(capsys, "gradcheck", name)
    assert (code, err) == (0, "")
    *lines, blank, last = out.splitlines()
    assert all(line.startswith("ok ") for line in lines)
    assert blank == ""
    assert last.endswith("all right")
    assert call(capsys, "gradcheck", name, "--eval", "--device", "fake")[0] == 0


WRONG = """
import numpy as np
import xbackprop as xb
from xbackprop import nn

class Wrong(xb.Module):
    def forward(self, x):
        return x * x, x
    def backward(self, grad_output, saved, *, input_grad=True):
        return 2.1 * saved * grad_output

def build():
    return nn.Sequential(nn.Linear(3, 4), Wrong(), nn.Linear(4, 2))

def with_inputs():
    return build(), np.ones((2, 3), np.float32)

def number():
    return 1

def broken():
    raise KeyError("no such thing")
"""


@pytest.mark.parametrize("function", ["build", "with_inputs"])
def test_the_command_ends_with_1_and_names_the_layer(capsys, tmp_path, function):
    (tmp_path / "model.py").write_text(WRONG)
    code, out, err = call(capsys, "gradcheck", f"model.py:{function}")
    assert (code, err) == (1, "")
    (line,) = (line for line in out.splitlines() if line.startswith("WRONG"))
    assert line.split()[1:3] == ["1", "Wrong"]
    assert "input 'x' at [0, 0]: expected" in line
    assert "not judged: 1 inside it is wrong" in out
    assert out.endswith("1 of 4 layers have a wrong gradient: 1\n")
    code, out, err = call(capsys, "gradcheck", f"model.py:{function}", "--json")
    found = json.loads(out)
    assert (code, found["wrong"], len(found["layers"])) == (1, ["1"], 4)


def test_runs_and_model_files(capsys, tmp_path):
    assert (
        call(capsys, "train", "--epochs", "1", "--hidden", "8", "--quiet", "--out", "run")[0] == 0
    )
    for word in ("run", "run/model.safetensors"):
        code, out, err = call(capsys, "gradcheck", word)
        assert (code, err, len(out.splitlines())) == (0, "", 6)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "required: MODEL"),
        (("mpl",), 2, "expected a run folder, a model file, one of mlp, cnn, resnet and gpt"),
        (("model.py:nothing",), 2, "no function 'nothing'"),
        (("model.py:number",), 2, "expected a Module, or a tuple of a Module and its inputs; got"),
        (("model.py:broken",), 1, "KeyError: 'no such thing'"),
        (("other.py:build",), 2, "other.py: no such file"),
        (("model.py",), 2, "not a readable checkpoint"),
        (("empty",), 2, "holds no run"),
        (("mlp", "--shape", "5"), 2, "found no input that it takes"),
        (("mlp", "--device", "gpu"), 2, "Did you mean cuda?"),
        (("mlp", "--batch", "0"), 2, "--batch: expected a whole number of at least 1"),
    ],
)
def test_mistakes_are_one_line(capsys, tmp_path, words, code, message):
    (tmp_path / "model.py").write_text(WRONG)
    (tmp_path / "empty").mkdir()
    received, out, err = call(capsys, "gradcheck", *words)
    assert (received, out) == (code, "")
    assert message in err
    assert len(err.splitlines()) == 1
