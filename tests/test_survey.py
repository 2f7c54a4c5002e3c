"""What a survey says of networks of any layers, against arithmetic by hand and plain backward."""

import copy
import itertools
import json
import math
import re
import threading

import numpy as np
import pytest

import xbackprop as xb
from xbackprop import nn
from xbackprop.observe.wording import SURVEY_HEADINGS


def mlp():
    first, last = (nn.Linear(2, width, dtype=np.float64, rng=width) for width in (2, 1))
    return nn.Sequential(first, nn.Tanh(), last)


def cnn():
    layers = [nn.Conv2d(2, 3, 3, rng=0), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 4, rng=1))


NETWORKS = {
    "mlp": (mlp, nn.MSELoss, lambda rng: (rng.normal(size=(1, 2)), np.ones((1, 1)))),
    "cnn": (cnn, nn.CrossEntropyLoss, lambda rng: (rng.normal(size=(1, 2, 6, 6)), [2])),
    "resnet": (
        lambda: nn.ResNet((1, 1, 1, 1), 3, in_channels=1, width=2, small_images=True, rng=0),
        nn.CrossEntropyLoss,
        lambda rng: (rng.normal(size=(1, 1, 8, 8)), [1]),
    ),
    "gpt": (
        lambda: nn.GPT(11, 6, 2, 2, 8, 0.1, rng=0),
        nn.TokenCrossEntropyLoss,
        lambda rng: (rng.integers(0, 11, (1, 6)), rng.integers(0, 11, (1, 6))),
    ),
}
every_network = pytest.mark.parametrize("name", list(NETWORKS))


def survey_of(name):
    make, loss, draw = NETWORKS[name]
    model = make()
    return model, loss(), *draw(np.random.default_rng(5))


def test_an_mlp_by_hand(xb_device):
    model, loss, x, y = survey_of("mlp")
    told = xb.observe.survey(model, loss, x, y)
    state = model.state_dict()
    w1, b1, w2, b2 = (state[key].tolist() for key in ("0.weight", "0.bias", "2.weight", "2.bias"))
    x = x[0].tolist()
    z = [sum(map(math.prod, zip(w, x, strict=True))) + b for w, b in zip(w1, b1, strict=True)]
    a = [math.tanh(number) for number in z]
    out = w2[0][0] * a[0] + w2[0][1] * a[1] + b2[0]
    g_out = 2 * (out - 1)
    g_a = [g_out * w for w in w2[0]]
    g_z = [g * (1 - value * value) for g, value in zip(g_a, a, strict=True)]
    assert told.loss == pytest.approx((out - 1) ** 2, rel=1e-12)
    for layer, values, grads in zip(told.layers, (z, a, [out]), (g_z, g_a, [g_out]), strict=True):
        assert layer.output_norm == pytest.approx(math.hypot(*values), rel=1e-12)
        assert layer.gradient_norm == pytest.approx(math.hypot(*grads), rel=1e-12)
        expected = [v * g for v, g in zip(values, grads, strict=True)]
        assert [f.product for f in layer.largest] == pytest.approx(
            sorted(expected, key=abs, reverse=True), rel=1e-12
        )
        for factor in layer.largest:
            assert factor.value == pytest.approx(values[factor.index[1]], rel=1e-12)
            assert factor.derivative == pytest.approx(grads[factor.index[1]], rel=1e-12)
    unit = told.layers[0].largest[0].index[1]
    terms = sorted(((w * v, place) for place, (w, v) in enumerate(zip(w1[unit], x, strict=True))),
                   key=lambda pair: -abs(pair[0]))  # fmt: skip
    assert [(f.index[1], f.product) for f in told.layers[0].terms] == [
        (place, pytest.approx(product, rel=1e-12)) for product, place in terms
    ]
    assert told.layers[0].terms_total == pytest.approx(z[unit] - b1[unit], rel=1e-12)
    norms = {row.name: row for row in told.parameters}
    gradients = {
        "0.weight": [g * v for g in g_z for v in x], "0.bias": g_z,
        "2.weight": [g_out * v for v in a], "2.bias": [g_out],
    }  # fmt: skip
    for name, gradient in gradients.items():
        assert norms[name].norm == pytest.approx(math.hypot(*state[name].ravel()), rel=1e-12)
        assert norms[name].gradient_norm == pytest.approx(math.hypot(*gradient), rel=1e-12)
    everything = itertools.chain(*gradients.values())
    assert told.gradient_norm == pytest.approx(math.hypot(*everything), rel=1e-12)


@every_network
def test_gradients_are_those_of_a_plain_backward_in_evaluation(name, xb_device):
    model, loss, x, y = survey_of(name)
    before = {**model.state_dict(), **model.extra_state()}
    told = xb.observe.survey(model, loss, x, y)
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    after = {**model.state_dict(), **model.extra_state()}
    for key, values in before.items():
        np.testing.assert_array_equal(values, after[key])
    twin = copy.deepcopy(model).eval()
    x = xb.asarray(x, dtype=np.asarray(x).dtype if name in ("gpt", "mlp") else np.float32)
    xb.value_and_grad(twin, loss)(x, xb.asarray(y, dtype=np.asarray(y).dtype))
    expected = {key: np.linalg.norm(xb.to_host(p.grad)) for key, p in twin.named_parameters()}
    assert {row.name: row.gradient_norm for row in told.parameters} == pytest.approx(
        expected, rel=1e-5, abs=1e-9
    )
    assert told.gradient_norm == pytest.approx(math.hypot(*expected.values()), rel=1e-5)
    np.testing.assert_array_equal(told.output, xb.to_host(twin(x)))


@every_network
def test_terms_of_linear_maps_add_up_to_the_element_without_its_bias(name, xb_device):
    model, loss, x, y = survey_of(name)
    told = xb.observe.survey(model, loss, x, y)
    state = model.state_dict()
    checked = 0
    for layer in told.layers:
        if layer.op not in ("linear", "convolution") or not layer.terms:
            continue
        first = layer.largest[0]
        bias = state.get(f"{layer.layer}.bias")
        channel = first.index[1] if layer.op == "convolution" else first.index[-1]
        offset = 0.0 if bias is None else bias[channel]
        assert layer.terms_total == pytest.approx(first.value - offset, rel=1e-4, abs=1e-6)
        sizes = [abs(term.product) for term in layer.terms]
        assert sizes == sorted(sizes, reverse=True)
        checked += 1
    assert checked >= 2
    assert all(layer.gradient_norm is not None for layer in told.layers)


def test_attention_and_normalization_have_terms_of_the_right_inputs():
    model, loss, x, y = survey_of("gpt")
    layers = xb.observe.survey(model, loss, x, y).layers
    names = {layer.type: {term.name for term in layer.terms} for layer in layers}
    assert names["LayerNorm"] == {"x"}
    assert names["ScaledDotProductAttention"] <= {"q", "k", "v"}
    assert layers[1].layer == "h.0.ln_1"
    assert (layers[-1].layer, layers[-1].type, layers[-1].op) == ("", "GPT", "linear")


def test_a_layer_that_is_used_twice_has_two_rows_each_with_its_gradient():
    layer = nn.Linear(2, 2, dtype=np.float64, rng=0)
    told = xb.observe.survey(
        nn.Sequential(layer, nn.Tanh(), layer), nn.MSELoss(), [[1.0, 2.0]], [[0.0, 0.0]]
    )
    first, tanh, second = told.layers
    assert (first.layer, second.layer) == ("0", "0")
    weight = xb.to_host(layer.weight.data)
    outer = told.output[0]  # MSE over two outputs: the derivative by the output is the output
    assert second.gradient_norm == pytest.approx(np.linalg.norm(outer))
    assert tanh.gradient_norm == pytest.approx(np.linalg.norm(outer @ weight))


@every_network
def test_both_languages_and_all_forms_have_the_same_numbers(name):
    told = xb.observe.survey(*survey_of(name))
    plain = json.loads(told.to_json())
    assert plain["loss"] == told.loss
    shown = [f"{layer['output_norm']:.6g}" for layer in plain["layers"]]
    number = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
    for write in (told.to_text, told.to_markdown, told.to_latex):
        english, chinese = write("en"), write("zh")
        assert number.findall(english) == number.findall(chinese)
        for place, text in enumerate((english, chinese)):
            found = [text.index(both[place]) for both in SURVEY_HEADINGS.values()]
            assert found == sorted(found)
    assert all(norm in told.to_text() for norm in shown)
    with pytest.raises(ValueError, match="en, zh"):
        told.to_text("fr")


def test_numbers_in_the_text_can_be_read_back():
    told = xb.observe.survey(*survey_of("cnn"))
    lines = re.findall(r" = (\S+) \* (\S+) = (\S+)$", told.to_text(), re.M)
    assert len(lines) == sum(len(layer.largest) + len(layer.terms) for layer in told.layers)
    for first, second, product in lines:
        value = float(first) * float(second.strip("()"))
        assert float(product) == pytest.approx(value, rel=2e-5)


def test_tables_have_shapes_and_norms():
    told = xb.observe.survey(*survey_of("cnn"))
    shapes = [((1, 2, 6, 6), (1, 3, 4, 4)), *[((1, 3, 4, 4), (1, 3, 4, 4))] * 2]
    shapes += [((1, 3, 4, 4), (1, 3, 2, 2)), ((1, 12), (1, 4))]
    assert [(layer.input_shape, layer.output_shape) for layer in told.layers] == shapes
    rows = [re.split(r"   +", line.strip()) for line in told.to_text().splitlines()]
    number = "{:.6g}".format
    for layer in told.layers:
        sides = [" x ".join(map(str, shape)) for shape in (layer.input_shape, layer.output_shape)]
        norms = [number(layer.output_norm), number(layer.gradient_norm)]
        assert [layer.layer, layer.type, *sides, *norms] in rows
    for row in told.parameters:
        norms = [number(row.norm), number(row.gradient_norm)]
        assert [row.name, " x ".join(map(str, row.shape)), *norms] in rows


@pytest.mark.parametrize("size", [0.0, 1e-45, 1e30, math.inf, math.nan])
def test_extreme_inputs_are_shown(size):
    model, loss, _, y = survey_of("mlp")
    told = xb.observe.survey(model, loss, [[size, 1.0]], y)
    json.loads(told.to_json())
    for lang in ("en", "zh"):
        assert told.to_text(lang)
        assert told.to_markdown(lang)
        assert told.to_latex(lang)


def test_frozen_parameters_have_no_gradient():
    model, loss, x, y = survey_of("mlp")
    model[0].weight.requires_grad = False
    told = xb.observe.survey(model, loss, x, y)
    assert told.parameters[0].gradient_norm is None
    assert "0.weight    2 x 2" in told.to_text()


def test_what_is_no_single_sample_is_refused():
    model, loss, x, y = survey_of("mlp")
    with pytest.raises(ValueError, match="one sample"):
        xb.observe.survey(model, loss, np.concatenate([x, x]), y)
    with pytest.raises(NotImplementedError, match="has none"):
        xb.observe.survey(nn.ReLU(), loss, x, y)


@pytest.mark.parametrize("kind", ["explain", "survey"])
def test_threads_see_only_their_own_ops(kind, xb_device):
    model, loss, x, y = survey_of("mlp")
    function = getattr(xb.observe, kind)
    expected = function(model, loss, x, y).to_json()
    found = {}

    def work(number):
        with xb.use_device(xb_device):
            if number % 2:  # unwatched work beside it
                for _ in range(30):
                    model(xb.asarray(x, dtype=np.float64))
            else:
                found[number] = [function(model, loss, x, y).to_json() for _ in range(3)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: [expected] * 3, 2: [expected] * 3}
