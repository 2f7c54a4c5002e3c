"""`xbackprop report`: one page of any run, which loads nothing, and says what it does not know."""

import base64
import json
import re
import shutil
import struct
import sys
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
from command_line import call

import xbackprop as xb
from xbackprop.cli.report.axes import make_axis
from xbackprop.cli.report.density import all_counts, png
from xbackprop.cli.report.lines import thin
from xbackprop.cli.run_folder import read_rows

RUN = ["train", "--hidden", "8", "--epochs", "3", "--batch-size", "64", "--quiet"]
VOID = {"meta", "link", "img", "br"}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XBACKPROP_DEVICE", "cpu")
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # the page is made without it
    before = xb.default_device()
    xb.set_device(None)
    yield
    monkeypatch.undo()
    xb.set_device(before)


class Page(HTMLParser):
    """The elements of a page, which must be closed in their order, and its text."""

    def __init__(self, path):
        super().__init__()
        self.open, self.elements, self.words = [], [], []
        content = path.read_bytes()
        content.decode("ascii")
        self.feed(content.decode())
        assert not self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    def named(self, tag, kind=None):
        return [a for t, a in self.elements if t == tag and kind in (None, a.get("class"))]


def report(capsys, folder, *options):
    code, out, err = call(capsys, "report", str(folder), *options)
    assert (code, err) == (0, "")
    path = folder / "report.html"
    assert out.splitlines()[-1] == str(path)
    return Page(path), out


def assert_loads_nothing(page):
    assert not page.named("script")
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "data"):
            if name in attributes and tag not in ("a",):
                assert attributes[name].startswith("data:"), attributes
        assert not any(name.startswith("on") for name in attributes)
    (policy,) = (a["content"] for a in page.named("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


def test_a_run_of_an_mlp_with_all_that_can_be_recorded(capsys, tmp_path):
    call(capsys, *RUN, "--record-statistics=10", "--out", "run")
    page, out = report(capsys, tmp_path / "run")
    assert "note:" not in out
    assert_loads_nothing(page)
    metrics = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert f"{100 * metrics[-1]['test_accuracy']:.2f} %" in page.text
    for text in (
        "Finished: 3 epochs, 69 updates.", "cross-entropy (nats)", "0 Linear", "1 ReLU", "2 Linear",
        "Confusion matrix", "Nothing crossed", "--hidden=8", "seed",
    ):  # fmt: skip
        assert text in page.text
    assert len(page.named("image", "density")) == 2 + 1 + 2  # gradients and outputs; ReLU: outputs
    assert len(page.named("img")) == 20
    assert page.text.count("taken for") + page.text.count("unsure") >= 20
    cells = [a for a in page.named("td") if a.get("class") in ("right", "wrong")]
    assert len(cells) >= 10
    drawn = page.named("path", "line value")
    assert drawn
    assert all(re.fullmatch(r"M[-\d. L]+", a["d"]) for a in drawn)


def test_equal_runs_have_equal_pages_but_for_the_time(capsys, tmp_path):
    texts = []
    for name in ("one", "other"):
        call(capsys, *RUN, "--record-statistics=10", "--out", name)
        (tmp_path / name / "timing.jsonl").unlink()
        report(capsys, tmp_path / name)
        texts.append((tmp_path / name / "report.html").read_bytes())
    assert texts[0] == texts[1]


def test_without_statistics_it_says_how_to_record_them(capsys, tmp_path):
    call(capsys, *RUN, "--out", "run")
    page, out = report(capsys, tmp_path / "run")
    assert "note: nothing of the layers is told: train with --record-statistics" in out
    assert "were not recorded. xbackprop train --record-statistics records them" in page.text
    assert not page.named("image", "density")


def test_a_run_of_a_cnn_on_a_device(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("XBACKPROP_DEVICE", "fake")
    xb.set_device(None)
    call(capsys, "train", "--model", "cnn", "--channels", "4,4", "--epochs", "1", "--quiet",
         "--batch-size", "128", "--record-statistics=6", "--out", "run")  # fmt: skip
    page, _ = report(capsys, tmp_path / "run")
    assert "moved per epoch (MB)" in page.text
    (row,) = read_rows(tmp_path / "run" / "transfers.jsonl")
    assert (
        f"Epoch 1 uploaded {row['uploads']} arrays and downloaded {row['downloads']}" in page.text
    )
    assert "fake:0" in page.text
    assert "BatchNorm2d" in page.text


def test_a_regression_has_no_confusion_matrix(capsys, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 2))
    lines = [f"{a},{b},{2 * a - b}" for a, b in x]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,price", *lines]) + "\n")
    call(capsys, *RUN, "--data", "t.csv", "--target", "price", "--regression", "--out", "run")
    page, _ = report(capsys, tmp_path / "run")
    assert "Confusion" not in page.text
    assert "accuracy" not in page.text
    assert "price: what is true, and what the model says" in page.text
    assert len(page.named("circle", "dot value")) > 15
    (tmp_path / "t.csv").write_text("\n".join(["a,b,price", *lines[:-1]]) + "\n")
    page, out = report(capsys, tmp_path / "run")
    assert "note: no mistakes are told:" in out
    assert "has changed: " in out
    assert "No answers are shown: " in page.text
    (tmp_path / "t.csv").unlink()
    page, out = report(capsys, tmp_path / "run")
    assert "t.csv" in out


def test_a_run_of_a_table_with_prepared_columns(capsys, tmp_path):
    pytest.importorskip("pandas")
    lines = [f"{n % 7},{'abc'[n % 3]},{'xy'[n % 2]}" for n in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,kind", *lines]) + "\n")
    words = ("train", "t.csv", "--target", "kind", "--epochs", "2", "--out", "run")
    assert call(capsys, *words)[0] == 0
    page, _ = report(capsys, tmp_path / "run")
    assert "Confusion matrix" in page.text


def test_a_run_of_a_gpt(capsys, tmp_path):
    (tmp_path / "t.txt").write_text("to be or not to be, that is the question. " * 60)
    call(capsys, "train", "--model", "gpt", "--data", "t.txt", "--layers", "1", "--heads", "2",
         "--width", "8", "--context", "16", "--epochs", "1", "--quiet", "--record-statistics=5",
         "--out", "run")  # fmt: skip
    page, _ = report(capsys, tmp_path / "run")
    assert "h.0.attn.c_attn Linear" in page.text
    assert "Confusion" not in page.text


def test_a_run_that_was_broken_off(capsys, tmp_path):
    call(capsys, *RUN, "--record-statistics=10", "--out", "run")
    folder = tmp_path / "run"
    (folder / "model.safetensors").unlink()
    page, _ = report(capsys, folder)
    assert "Broken off or still going on; judged by its checkpoint after update 69" in page.text
    assert "Confusion" in page.text
    newest = max((folder / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-8])
    with open(folder / "statistics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 70, "lay')
    page, _ = report(capsys, folder)
    assert "judged by its checkpoint after update 46" in page.text
    shutil.rmtree(folder / "checkpoints")
    (folder / "metrics.jsonl").unlink()
    page, out = report(capsys, folder)
    assert "no checkpoint has been written yet" in page.text
    assert "No epoch has been finished" in page.text
    assert "there is no model yet" in out


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_that_is_no_run(capsys, tmp_path, name):
    (tmp_path / "empty").mkdir()
    code, out, err = call(capsys, "report", name)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert name in err
    assert not list((tmp_path / "empty").iterdir())


def test_where_the_page_goes(capsys, tmp_path):
    call(capsys, *RUN, "--out", "run")
    code, out, _ = call(capsys, "report", "run", "--out", "page.html")
    assert (code, out.splitlines()[-1]) == (0, "page.html")
    assert not (tmp_path / "run" / "report.html").exists()
    code, _, err = call(capsys, "report", "run", "--out", "run")
    assert (code, err.count("\n")) == (2, 1)
    code, _, err = call(capsys, "report", "run", "--out", "nowhere/page.html")
    assert (code, err.count("\n")) == (2, 1)
    assert "no such folder: nowhere" in err


def test_names_are_escaped(capsys, tmp_path):
    call(capsys, *RUN, "--out", "run")
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    config["data"]["name"] = "<script>alert(1)</script>"
    config["platform"] = "<img src=x>"
    config["command"] = ["<b>"]
    path.write_text(json.dumps(config))
    page, _ = report(capsys, tmp_path / "run")
    assert_loads_nothing(page)
    assert "Run on <script>alert(1)</script>" in page.text


def test_a_run_of_ten_thousand_epochs_and_many_layers_is_a_small_page(capsys, tmp_path):
    call(capsys, *RUN, "--record-statistics=10", "--out", "run")
    folder = tmp_path / "run"
    metrics, timing, told = (
        read_rows(folder / f"{name}.jsonl")[-1] for name in ("metrics", "timing", "statistics")
    )
    layers = {f"h.{place}": told["layers"]["0"] for place in range(45)}
    write(
        folder / "metrics.jsonl", [{**metrics, "epoch": n, "step": 10 * n} for n in range(1, 10001)]
    )
    write(folder / "timing.jsonl", [{**timing, "epoch": n} for n in range(1, 10001)])
    write(
        folder / "statistics.jsonl",
        [{**told, "step": n, "layers": layers} for n in range(50, 10001, 50)],
    )
    page, _ = report(capsys, folder)
    assert (folder / "report.html").stat().st_size < 3_000_000
    assert "200 of 10,000 rows; all of them are in metrics.jsonl" in page.text


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_numbers_that_are_not_finite_are_gaps(capsys, tmp_path):
    call(capsys, *RUN, "--record-statistics=10", "--out", "run")
    folder = tmp_path / "run"
    for name in ("metrics", "statistics"):
        rows = read_rows(folder / f"{name}.jsonl")
        for key in ("train_loss", "test_loss", "test_accuracy", "grad_norm"):
            if key in rows[0]:
                rows[0][key] = rows[-1][key] = None
        for layer in rows[-1].get("layers", {}).values():
            for told in layer.values():
                if isinstance(told, dict):
                    told.update(mean=None, std=None, min=None, max=None)
        write(folder / f"{name}.jsonl", rows)
    page, _ = report(capsys, folder)
    # Of three losses the middle one is left; lines are the accuracies and the time.
    assert len(page.named("path", "line value")) == 2
    assert not re.search(r"(?<!-)\bnan\b", (folder / "report.html").read_text())
    assert "None" not in page.text


def test_thinning_keeps_the_extremes_and_both_ends():
    heights = np.sin(np.arange(10_000) / 50.0).tolist()
    heights[1234], heights[8765], heights[5000] = 9.0, -9.0, None
    points = list(enumerate(heights))
    kept = thin(points)
    assert len(kept) <= 401
    assert {(1234, 9.0), (8765, -9.0)} <= set(kept)
    assert kept[-1] == points[-1]
    assert [x for x, _ in kept] == sorted({x for x, _ in kept})
    assert thin(points[:10]) == points[:10]


@pytest.mark.parametrize(
    "values",
    [[], [0.0], [5.0, 5.0], [1e-9, 1e9], [-3.0, 3.0], [0.0, 0.0], [1e300, -1e300], [0.3, 0.5]],
)
@pytest.mark.parametrize("log", [None, True, False])
def test_axes_hold_their_numbers(values, log):
    axis = make_axis(values, 100.0, 0.0, log=log)
    for value in values:
        if value > 0 or not axis.is_log:
            assert -1e-6 <= axis.place(value) <= 100 + 1e-6
    ticks = axis.ticks(5)
    assert len(ticks) <= 8
    assert all(-1e-6 <= place <= 100 + 1e-6 for place, _ in ticks)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_are_png(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, channels)).astype(np.uint8)
    content = base64.b64decode(png(pixels).partition(",")[2])
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, place = {}, 8
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        body = content[place + 4 : place + 8 + length]
        assert struct.unpack(">I", content[place + 8 + length :][:4]) == (zlib.crc32(body),)
        chunks[body[:4]] = body[4:]
        place += 12 + length
    assert struct.unpack(">II", chunks[b"IHDR"][:8]) == (5, 3)
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(3, -1)
    assert (lines[:, 0] == 0).all()
    assert (lines[:, 1:].reshape(pixels.shape) == pixels).all()


def test_histograms_are_laid_side_by_side():
    from xbackprop.cli.report.density import _cropped

    told = {"first": 46, "counts": [1, 2, 3, 40, 5, 6, 7]}
    counts = all_counts(told)[np.newaxis]
    shown = _cropped(counts, 3)
    assert shown.shape == (1, 33)
    assert shown[0, 13:20].tolist() == told["counts"]
    shown = _cropped(counts, 18)  # of larger numbers: the small ones are one bin with zero
    assert shown[0, 13:20].tolist() == [0, 0, 1, 2 + 3 + 40 + 5 + 6, 7, 0, 0]


def test_large_numbers_are_on_top_and_later_updates_to_the_right():
    from xbackprop.cli.report.density import density_chart

    told = [{"first": 80, "counts": [5]}, {"first": 20, "counts": [5]}]  # above zero, then below
    chart = density_chart(list(zip((1, 100), told, strict=True)), "outputs", "x")
    (data,) = re.findall(r'href="data:image/png;base64,([^"]*)"', chart)
    alpha = pixels_of(base64.b64decode(data))[..., 3]
    assert alpha.shape == (33, 2)
    rows, columns = np.nonzero(alpha)
    assert columns.tolist() == [0, 1]
    assert rows[0] < 16 < rows[1]


def pixels_of(content):
    """Return the pixels of a PNG that the page made: one chunk of data, no filters."""
    width, height = struct.unpack(">II", content[16:24])
    (length,) = struct.unpack(">I", content[33:37])
    lines = np.frombuffer(zlib.decompress(content[41 : 41 + length]), np.uint8)
    return lines.reshape(height, -1)[:, 1:].reshape(height, width, -1)


def test_mistakes_stand_at_their_places():
    from xbackprop.cli.report.answers import Answers, Judged
    from xbackprop.cli.report.mistakes import mistakes

    answers = Answers(
        truth=np.array([0, 0, 0, 1, 1, 2]),
        predicted=np.array([0, 2, 2, 1, 0, 2]),
        losses=np.array([0.1, 3.0, 2.0, 0.2, 5.0, 0.3]),
        classes=("ant", "bee", "<cat>"),
        targets=(),
        images=np.arange(24.0).reshape(6, 1, 2, 2),
    )
    body = "\n".join(mistakes(Judged({"file": "m", "steps": 7}, "", answers)))
    lines = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', body)
    cells = {name: re.findall(r"<td[^>]*>(.*?)</td>", line) for name, line in lines[:3]}
    assert cells == {"ant": ["1", "", "2"], "bee": ["1", "1", ""], "&lt;cat&gt;": ["", "", "1"]}
    pairs = [(name, *re.findall(r"<td>(.*?)</td>", line)) for name, line in lines[3:]]
    assert pairs == [("ant", "&lt;cat&gt;", "2", "3"), ("bee", "ant", "1", "2")]
    shown = re.findall(r'alt="test sample (\d): (.*?)"', body)
    assert [int(number) for number, _ in shown] == [4, 1, 2, 5, 3, 0]
    assert shown[0][1] == "bee, taken for ant"
    assert shown[-1][1] == "ant, unsure"
    first = base64.b64decode(re.search(r'src="data:image/png;base64,([^"]*)"', body)[1])
    assert pixels_of(first)[..., 0].tolist() == [[0, 85], [170, 255]]
