"""The page of an explanation in Chromium: stepped through, narrow, dark, printed, no scripts."""

import importlib.util
import re

import numpy as np
import pytest

import xbackprop as xb
from browser.chromium import missing, running
from browser.lessons import lesson

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("selenium") is None,
    reason="selenium is not installed here; nox -s browser installs it",
)

SHAPES = {
    "2-2-1": (2, 2, 1), "2-3-3-1": (2, 3, 3, 1), "4-8-8-3": (4, 8, 8, 3),
    "8-8-8-8-1": (8, 8, 8, 8, 1),
}  # fmt: skip
WINDOWS = {"wide": (1280, 900), "narrow": (390, 800), "low": (800, 360)}

# Pairs of labels that are shown and meet, by what the browser has laid out.
OVERLAPS = """
const boxes = [...document.querySelectorAll("svg text")]
  .filter((text) => text.checkVisibility({visibilityProperty: true}))
  .map((text) => ({name: text.textContent, box: text.getBoundingClientRect()}));
const found = [];
boxes.forEach((one, place) => boxes.slice(place + 1).forEach((other) => {
  const across = Math.min(one.box.right, other.box.right) - Math.max(one.box.left, other.box.left);
  const down = Math.min(one.box.bottom, other.box.bottom) - Math.max(one.box.top, other.box.top);
  if (across > 0.1 && down > 0.1) found.push([one.name, other.name]);
}));
return [boxes.length, found];
"""
# Texts that stick out of the card they begin in.
STICKING_OUT = """
const cards = [...document.querySelectorAll("svg .card")].map((c) => c.getBoundingClientRect());
return [...document.querySelectorAll("svg text")].filter((text) => {
  const box = text.getBoundingClientRect();
  const y = (box.top + box.bottom) / 2;
  return cards.some((card) => card.top < y && y < card.bottom &&
    box.left < card.right && card.left < box.right &&
    !(card.left <= box.left && box.right <= card.right));
}).map((text) => text.textContent);
"""


@pytest.fixture(scope="module")
def browser():
    if absent := missing():
        pytest.skip(absent)
    with running() as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    found = {}
    for name, layers in SHAPES.items():
        for lang in ("en", "zh"):
            found[name, lang] = folder / f"{name}.{lang}.html"
            found[name, lang].write_text(lesson(*layers).to_html(lang), encoding="ascii")
    return found


@pytest.fixture(autouse=True)
def nothing_on_the_console(browser):
    browser.complaints()
    yield
    assert browser.complaints() == []


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_arrow_keys_and_slider_walk_through_all_frames(browser, pages, lang):
    browser.open(pages["2-2-1", lang])
    count = browser.run("return document.querySelectorAll('.frame').length")
    seen = []
    for number in range(count):
        status = browser.status()
        assert status.startswith(f"{number + 1} / {count} ")
        assert browser.visible(".frame") == 1
        assert browser.run("return document.getElementById('slider').value") == str(number)
        lit = browser.run("return [...document.querySelectorAll('svg .lit')].length")
        seen.append((status, lit, browser.visible("svg text")))
        browser.press("\ue014")  # right
    assert browser.status() == seen[-1][0]  # there is no further one
    assert len({status for status, _, _ in seen}) == count
    assert all(lit for _, lit, _ in seen[1:-1])
    shown = [texts for _, _, texts in seen]
    assert shown == sorted(shown)
    assert shown[0] < shown[-1] == browser.run("return document.querySelectorAll('text').length")
    browser.press("\ue012")  # left
    assert browser.status() == seen[-2][0]
    slider = browser.driver.find_element("id", "slider")
    slider.send_keys("\ue011")  # home
    assert browser.status() == seen[0][0]
    slider.send_keys("\ue010")  # end
    assert browser.status() == seen[-1][0]


def test_slider_buttons_and_show_all(browser, pages):
    browser.open(pages["2-2-1", "en"])
    browser.driver.find_element("id", "slider").send_keys("\ue014", "\ue014")
    assert browser.status().startswith("3 / ")  # once per key, not twice
    value = browser.driver.find_element("id", "slider").get_attribute("aria-valuetext")
    assert value == browser.status()
    browser.click("next")
    assert browser.status().startswith("4 / ")
    browser.click("previous")
    browser.click("previous")
    assert browser.status().startswith("2 / ")
    browser.click("all")
    count = browser.run("return document.querySelectorAll('.frame').length")
    assert browser.visible(".frame") == count
    browser.click("all")
    assert browser.visible(".frame") == 1
    browser.driver.find_element("css selector", ".figure").click()
    browser.press("\ue004", "\ue014")  # tab; the arrows work wherever the focus is
    assert browser.status().startswith("3 / ")


def test_what_is_lit_is_what_the_frame_uses(browser, pages):
    browser.open(pages["2-2-1", "en"])
    while "dLoss/dw2" not in browser.status():
        browser.press("\ue014")
    lit = browser.run(
        "return [...document.querySelectorAll('svg .lit')].map((e) => e.dataset.symbol)"
    )
    assert {name for name in lit if name} == {
        "dLoss/dw2[1,1]", "dLoss/dw2[1,2]", "dLoss/db2[1]", "dLoss/dy_hat", "a1[1]", "a1[2]",
    }  # fmt: skip
    later = browser.run(
        "return [...document.querySelectorAll('svg .later')].map((e) => e.dataset.symbol)"
    )
    assert "dLoss/dw1[1,1]" in later
    assert "w2[1,1]_new" in later
    assert "dLoss/dw2[1,1]" not in later


@pytest.mark.parametrize("window", list(WINDOWS))
@pytest.mark.parametrize("shape", list(SHAPES))
def test_labels_do_not_overlap_and_the_page_fits(browser, pages, shape, window):
    browser.open(pages[shape, "en"], *WINDOWS[window])
    browser.click("all")
    browser.run("document.querySelectorAll('svg text').forEach((e) => e.classList.add('lit'))")
    for _ in ("lit, thus bold", "plain"):
        count, overlaps = browser.run(OVERLAPS)
        assert count > 20
        assert overlaps == []
        assert browser.run(STICKING_OUT) == []
        browser.click("all")
        browser.driver.find_element("id", "slider").send_keys("\ue010")  # everything is known
    width = browser.run("return document.scrollingElement.scrollWidth - window.innerWidth")
    assert width <= 0


def test_what_is_lit_is_moved_into_sight(browser, pages):
    browser.open(pages["8-8-8-8-1", "en"], 390, 800)
    while "z3" not in browser.status():
        browser.press("\ue014")
    assert browser.run(
        "const figure = document.querySelector('.figure').getBoundingClientRect();"
        "return [...document.querySelectorAll('svg .lit')].some((mark) => {"
        "  const box = mark.getBoundingClientRect();"
        "  return figure.left < box.left && box.right < figure.right && figure.top < box.top; })"
    )


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_without_scripts_everything_is_there(browser, pages, lang):
    browser.open(pages["2-3-3-1", lang], scripts=False)
    frames = browser.driver.find_elements("css selector", ".frame")
    assert len(frames) > 20
    assert all(frame.is_displayed() for frame in frames)
    assert not browser.driver.find_element("css selector", ".controls").is_displayed()
    assert all(text.is_displayed() for text in browser.driver.find_elements("css selector", "text"))


def test_print_shows_everything(browser, pages):
    browser.open(pages["2-3-3-1", "en"], media="print", scheme="dark")
    count = browser.run("return document.querySelectorAll('.frame').length")
    assert browser.visible(".frame") == count
    assert browser.visible(".controls") == 0
    assert browser.visible("svg text") == browser.run(
        "return document.querySelectorAll('text').length"
    )
    assert color(browser, "body", "background-color") == (255, 255, 255)
    pdf = browser.pdf()
    assert pdf.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) > 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colors_are_legible_on_both_grounds(browser, pages, scheme):
    browser.open(pages["2-2-1", "en"], scheme=scheme)
    grounds = [color(browser, "body", "background-color"), color(browser, ".card", "fill")]
    assert (luminance(grounds[0]) > 0.5) == (scheme == "light")
    for kind in ("name", "value", "gradient", "new"):
        for ground in grounds:
            assert contrast(color(browser, f"text.{kind}", "fill"), ground) >= 4.5, kind


def color(browser, selector, name):
    text = browser.run(
        "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]",
        selector, name,
    )  # fmt: skip
    return tuple(map(int, re.findall(r"\d+", text)[:3]))


def luminance(rgb):
    parts = np.array(rgb) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("size", [0.0, 1e-45, 1e30])
def test_extreme_numbers_fit(browser, tmp_path, size):
    model = xb.nn.Sequential(
        xb.nn.Linear(2, 3, dtype=np.float64, rng=0, device="cpu"), xb.nn.ReLU(),
        xb.nn.Linear(3, 2, dtype=np.float64, rng=0, device="cpu"),
    )  # fmt: skip
    told = xb.observe.explain(model, xb.nn.MSELoss(), [-size, size], [1.0, 0.0])
    path = tmp_path / "page.html"
    path.write_text(told.to_html())
    browser.open(path)
    browser.click("all")
    assert browser.run(OVERLAPS)[1] == []
    assert browser.run(STICKING_OUT) == []


def test_in_the_frame_of_a_notebook(browser, tmp_path):
    path = tmp_path / "notebook.html"
    path.write_text(f"<!DOCTYPE html><link rel=icon href=data:,>{lesson(2, 2, 1)._repr_html_()}")
    browser.open(path)
    browser.driver.switch_to.frame(0)
    browser.click("next")
    assert browser.status().startswith("2 / ")
    assert browser.visible(".frame") == 1
    browser.driver.switch_to.default_content()
