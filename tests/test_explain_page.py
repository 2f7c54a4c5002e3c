"""The HTML page of an explanation: its numbers, its figure, and that it is complete in itself."""

import itertools
import json
import math
import re
import sys

import numpy as np
import pytest
from command_line import call
from page_reader import PageReader

import xbackprop as xb
from xbackprop.observe.explanation import Quantity
from xbackprop.observe.page.layout import FONT, Box, lay_out, short, text_width
from xbackprop.observe.page.mathematics import mathml
from xbackprop.observe.page.network import columns_of
from xbackprop.observe.page.svg import thickness
from xbackprop.observe.wording import heading

pytest.importorskip("latex2mathml", reason="latex2mathml is not installed: extra explain")

SHAPES = [(2, 2, 1), (3, 1), (2, 3, 3, 1), (4, 8, 8, 3), (8, 8, 8, 8, 1), (1, 12, 2)]


def told(layers, hidden=xb.nn.Sigmoid, loss=None, x=None, target=None, optimizer=True, bias=True):
    rng = np.random.default_rng(0)
    parts = []
    for width, following in itertools.pairwise(layers):
        parts += [hidden()] if parts else []
        parts.append(xb.nn.Linear(width, following, bias=bias, dtype=np.float64, rng=rng))
    model = xb.nn.Sequential(*parts)
    x = list(rng.normal(size=layers[0])) if x is None else x
    target = [1.0] * layers[-1] if target is None else target
    updates = xb.optim.SGD(model.parameters(), lr=0.5) if optimizer else None
    return xb.observe.explain(model, loss or xb.nn.HalfSquaredError(), x, target, updates)


def check_numbers(page, plain):
    """Compare a page with the JSON: every number at its place."""
    formulas = page.all("formula")
    expected = [(s["step"], q) for s in plain["steps"] for q in s["quantities"]]
    assert len(formulas) == len(expected)
    for element, (step, quantity) in zip(formulas, expected, strict=True):
        assert element.ancestors[-2].data("step") == step
        assert element.data("symbol") == quantity["symbol"]
        assert element.data("formula") == quantity["formula"]
        assert element.data("numbers") == quantity["numbers"]
        assert element.data("value") == str(quantity["value"])
        without_exponents = re.sub(r"e[-+]\d+", "", quantity["numbers"] or "")
        mantissas = re.findall(r"\d+(?:\.\d+)?", without_exponents)
        assert all(number in element.text for number in mantissas)
        result = page.all("result", within=element)[0].text
        assert read(result) == pytest.approx(float(quantity["value"]), rel=1e-5, nan_ok=True)
    cells = [one for one in page.tags("td") if one.data("key")]
    checks = [check for step in plain["steps"] for check in step["checks"]]
    wanted = [
        (check["parameter"], key, str(check[key]))
        for check in checks
        for key in ("above", "local", "gradient", "finite_difference", "relative_difference")
    ]
    found = [(c.ancestors[-1].data("parameter"), c.data("key"), c.data("value")) for c in cells]
    assert found == wanted
    for cell in cells:
        near = 0.06 if cell.data("key") == "relative_difference" else 1e-5
        assert read(cell.text) == pytest.approx(float(cell.data("value")), rel=near, nan_ok=True)
    (summary,) = page.all("summary")
    assert summary.data("loss") == str(plain["loss"])
    assert summary.data("loss-after") == (
        None if plain["loss_after"] is None else str(plain["loss_after"])
    )
    check_figure(page, plain)


def check_figure(page, plain):
    """Compare the figure's labels with parameters, gradients and quantities of the JSON."""
    labels = {one.data("symbol"): one for one in page.tags("text") if one.data("value")}
    values = {q["symbol"]: q["value"] for s in plain["steps"] for q in s["quantities"]}
    wanted = {name: values[name] for name in values if not re.match(r"d(?!Loss)|[ms](\[|$)", name)}
    for key, nested in plain["parameters"].items():
        for index in np.ndindex(np.shape(nested)):
            name = f"{key.lower()}[{','.join(str(place + 1) for place in index)}]"
            wanted[name] = np.array(nested)[index]
            wanted[f"dLoss/d{name}"] = np.array(plain["gradients"][key])[index]
            if plain["new_parameters"]:
                wanted[f"{name}_new"] = np.array(plain["new_parameters"][key])[index]
    for name, value in wanted.items():
        np.testing.assert_equal(float(labels[name].data("value")), float(value), err_msg=name)
        assert read(labels[name].text) == pytest.approx(float(value), rel=1e-3, nan_ok=True)
    others = {name for name in labels if name not in wanted}
    assert all(re.fullmatch(r"[xy](\[\d+\])?", name) for name in others)
    formulas = " ".join(q["formula"] or "" for s in plain["steps"] for q in s["quantities"])
    assert all(name in labels for name in re.findall(r"x\[\d+\]", formulas))


def read(text):
    """Return the number that a text shows, in MathML or in the figure."""
    text = text.replace("=", "").replace("−", "-").strip().replace("∞", "inf")
    text = re.sub(r"\s+", "", text)
    return float(re.sub(r"×10(-?\d+)", r"e\1", text))


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("layers", SHAPES[:4], ids="-".join(["{}"]).format)
def test_every_number_of_the_json_stands_at_its_place(layers, lang):
    explanation = told(layers)
    check_numbers(PageReader(explanation.to_html(lang)), explanation.as_dict())


@pytest.mark.parametrize(
    "case",
    [
        dict(layers=(2, 2, 1), hidden=xb.nn.ReLU, loss=xb.nn.BCEWithLogitsLoss()),
        dict(layers=(2, 3, 3), hidden=xb.nn.Tanh, loss=xb.nn.CrossEntropyLoss(), target=2),
        dict(layers=(2, 2, 1), loss=xb.nn.MSELoss(), optimizer=False),
        dict(layers=(2, 2, 2), bias=False),
        dict(layers=(12, 1)),
    ],
    ids=["relu-bce", "tanh-cross_entropy", "no_optimizer", "no_bias", "one_layer"],
)
def test_numbers_of_other_networks(case):
    explanation = told(**case)
    check_numbers(PageReader(explanation.to_html("zh")), explanation.as_dict())


def test_weights_stand_there_when_no_formula_holds():
    explanation = told((2, 2, 1))
    for section in explanation.steps:
        section.quantities[:] = [Quantity(one.symbol) for one in section.quantities]
    page = PageReader(explanation.to_html())
    check_figure(page, explanation.as_dict())


@pytest.mark.parametrize("hidden", [xb.nn.Sigmoid, xb.nn.ReLU, xb.nn.Tanh])
@pytest.mark.parametrize("size", [0.0, 1e-45, 1e30, -1e30, 1e200])
def test_extreme_numbers(size, hidden):
    explanation = told((2, 2, 1), hidden, x=[size, 0.1])
    page = PageReader(explanation.to_html())
    check_numbers(page, explanation.as_dict())
    notes = [one.text for one in page.tags("li")]
    assert all(note.text("en") in notes for note in explanation.notes)


def test_several_steps_are_one_walk(capsys, monkeypatch):
    monkeypatch.setenv("XBACKPROP_DEVICE", "cpu")
    words = ["explain", "--steps", "2", "--lang", "zh", "--optimizer", "adam"]
    code, out, err = call(capsys, *words, "--format", "html")
    assert (code, err) == (0, "")
    page = PageReader(out)
    steps = json.loads(call(capsys, *words, "--format", "json")[1])
    articles = page.all("training-step")
    for article, plain in zip(articles, steps, strict=True):
        part = PageReader("")
        part.elements = article.inside
        check_numbers(part, plain)
    since = [{int(one.data("since")) for one in a.inside if one.data("since")} for a in articles]
    half = len(page.all("frame")) // 2
    assert max(since[0]) < half < min(since[1] - {0}) <= max(since[1]) < 2 * half
    ids = [one.attributes["id"] for one in page.elements if "id" in one.attributes]
    assert len(set(ids)) == len(ids)
    frames = page.all("frame")
    assert [one.attributes["id"] for one in frames] == [f"frame-{n}" for n in range(len(frames))]
    assert frames[-1].data("title").startswith("第 2 个训练步")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_page_is_complete_in_itself(lang):
    html = told((2, 2, 1)).to_html(lang)
    assert html.isascii()  # whatever a shell writes it as
    page = PageReader(html)
    (root,) = page.tags("html")
    assert root.attributes["lang"] == {"en": "en", "zh": "zh-Hans"}[lang]
    for element in page.elements:
        for name in ("src", "href", "srcset", "xlink:href", "action"):
            assert element.attributes.get(name, "data:,") == "data:,"
    assert not re.search(r"https?://|@import|url\(|@font-face|\bimport\b", html)
    assert "default-src 'none'" in html
    headings = [one.text for one in page.elements if one.tag in ("h1", "h2", "h3")]
    for key in ("forward", "loss", "backward", "loss_derivative", "local_derivatives",
                "chain_rule", "update", "weight_update", "summary"):  # fmt: skip
        assert headings.count(heading(key, lang)) == 1
    assert html.count("<math") == html.count("</math>") > 100


def test_both_languages_have_the_same_frames():
    explanation = told((2, 3, 3, 1))
    english, chinese = (PageReader(explanation.to_html(lang)).all("frame") for lang in ("en", "zh"))
    for one, other in zip(english, chinese, strict=True):
        assert one.data("step") == other.data("step")
        assert one.data("lights") == other.data("lights")


def test_frames_walk_through_the_four_steps_and_light_what_they_use():
    page = PageReader(told((2, 2, 1)).to_html())
    frames = page.all("frame")
    steps = [key for key, _ in itertools.groupby(one.data("step") for one in frames)]
    assert steps == ["network", "forward", "loss", "loss_derivative", "local_derivatives",
                     "chain_rule", "check", "weight_update", "summary"]  # fmt: skip
    titles = [one.data("title") for one in frames]
    assert "Backward pass · Chain rule · dLoss/dw2, dLoss/db2" in titles
    marks = {one.data("symbol") for one in page.elements if one.data("since")}
    for frame in frames:
        assert set(json.loads(frame.data("lights"))) - {"eta"} <= marks, frame.data("title")
    (z1,) = [one for one in frames if one.data("title") == "Forward pass · z1"]
    assert set(json.loads(z1.data("lights"))) == {
        "z1[1]", "z1[2]", "x[1]", "x[2]", "w1[1,1]", "w1[1,2]", "w1[2,1]", "w1[2,2]", "b1[1]",
        "b1[2]",
    }  # fmt: skip
    marked = [one for one in page.elements if one.data("since")]
    since = {one.data("symbol"): int(one.data("since")) for one in marked}
    order = [
        "x[1]", "z1[1]", "a1[1]", "y_hat", "Loss", "dLoss/dy_hat", "dLoss/dw2[1,1]",
        "dLoss/da1[1]", "dLoss/dz1[1]", "dLoss/dw1[1,1]", "w1[1,1]_new", "w2[1,1]_new",
    ]  # fmt: skip
    assert [since[name] for name in order] == sorted({since[name] for name in order})


@pytest.mark.parametrize("layers", SHAPES, ids=str)
@pytest.mark.parametrize("size", [1.0, 1e-45, -1.23456e30])
def test_labels_do_not_overlap(layers, size):
    explanation = told(layers, xb.nn.ReLU, x=[size] * layers[0])
    layout = lay_out(columns_of(explanation))
    page = Box(0, 0, layout.width, layout.height)
    boxes = [label.box for label in layout.labels]
    assert len(boxes) > 10
    for one, other in itertools.combinations(boxes, 2):
        assert not one.meets(other)
    for label in layout.labels:
        box = label.box
        assert page.left <= box.left
        assert box.right <= page.right
        assert page.top <= box.top
        assert box.bottom <= page.bottom
        assert text_width(label.text) + text_width(label.index, 9) <= box.width + 1e-9
        assert box.height >= 1.25 * FONT
    for card, other in itertools.combinations(layout.cards, 2):
        assert not card.meets(other)
    for card, box in itertools.product(layout.cards, boxes):  # a label is in a card, or off it
        inside = card.left <= box.left and box.right <= card.right
        assert (inside and card.top <= box.top and box.bottom <= card.bottom) or not card.meets(box)
    for line in layout.lines:  # lines run between columns
        left, right = line.start[0], line.end[0]
        assert left < right
        assert not any(box.left < right and left < box.right for box in boxes)
    assert len(layout.lines) == sum(map(math.prod, itertools.pairwise((*layers, 1))))


def test_widths_are_those_of_a_wide_font():
    assert text_width("0123456789") >= 10 * 0.695 * FONT  # DejaVu Sans Bold
    assert text_width("−.") >= (0.838 + 0.379) * FONT
    assert text_width("Loss") >= (0.637 + 0.687 + 0.595 + 0.595) * FONT


def test_overlap_is_seen():
    assert Box(0, 0, 10, 10).meets(Box(9, 9, 1, 5))
    assert not Box(0, 0, 10, 10).meets(Box(10, 0, 1, 5))


def test_lines_are_as_thick_as_their_numbers_are_large():
    sizes = [thickness(number, 2.0) for number in (0.0, 0.5, -1.0, 2.0, math.inf)]
    assert sizes[:4] == pytest.approx([0.7, 1.775, 2.85, 5.0])
    assert sizes[4] == 5.0
    assert thickness(math.nan, 2.0) == thickness(1.0, 0.0) == 0.7


@pytest.mark.parametrize(
    ("number", "text"),
    [(-0.0, "0"), (0.5932699, "0.5933"), (-1.5e-45, "−1.5e−45"), (1e30, "1e30"),
     (-math.inf, "−∞"), (math.nan, "NaN"), (123456.0, "1.235e5")],
)  # fmt: skip
def test_numbers_of_the_figure(number, text):
    assert short(number) == text


def test_a_sign_is_no_difference():
    assert '<mo form="prefix">&#x02212;</mo>' in mathml(r"2 \cdot \left(-3\right)")
    assert '<mo form="prefix">&#x02212;</mo>' in mathml("{} = -3")
    assert "prefix" not in mathml("a - 3")
    assert "</mrow><mo>&#x02212;</mo>" in mathml(r"\left(a\right) - 3")


def test_notebooks_show_the_page_in_a_frame():
    explanation = told((2, 2, 1))
    (frame,) = PageReader(explanation._repr_html_()).tags("iframe")
    assert frame.attributes["srcdoc"] == explanation.to_html()
    assert frame.attributes["sandbox"] == "allow-scripts"


def test_without_latex2mathml_one_line_names_the_extra(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "latex2mathml.converter", None)
    mathml.cache_clear()
    explanation = told((2, 2, 1))
    with pytest.raises(ImportError, match=r"xbackprop\[explain\]"):
        explanation.to_html()
    shown = explanation._repr_html_()
    assert "xbackprop[explain]" in shown
    assert "y_hat = a1[1] * w2[1,1]" in shown
    code, out, err = call(capsys, "explain", "--format", "html", "--device", "cpu")
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert "xbackprop[explain]" in err
