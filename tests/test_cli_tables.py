"""`xbackprop train TABLE`, `predict` and `evaluate`: what they write, and how they end."""

import contextlib
import importlib
import io
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import call, metrics_of, stop_after

pytest.importorskip("pandas")
pytest.importorskip("pyarrow")
pytest.importorskip("sklearn")

import pandas
from sklearn import metrics

import xbackprop as xb
from xbackprop.cli.main import main
from xbackprop.cli.scores import (
    calibration,
    calibration_error,
    classification_scores,
    regression_scores,
    scores_text,
)
from xbackprop.cli.trained import load_trained
from xbackprop.data.frames import read_frame
from xbackprop.data.preprocessing import preprocessing_from_config
from xbackprop.training import container
from xbackprop.training import header as header_module
from xbackprop.training.container import open_container, write

QUICK = ["--hidden", "8", "--epochs", "30", "--quiet"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XBACKPROP_DEVICE", "cpu")
    before = xb.default_device()
    xb.set_device(None)
    yield
    monkeypatch.undo()
    xb.set_device(before)


def people(rows=60):
    rng = np.random.default_rng(0)
    age, city = rng.integers(18, 80, rows).astype(float), rng.choice(["Oslo", "Rome", "Bern"], rows)
    income = age / 10 + (city == "Rome") * 5 + rng.normal(size=rows)
    kind = np.where(income > 8, "high", np.where(income > 5, "middle", "low"))
    frame = pandas.DataFrame({"age": age, "city": city, "income": income.round(3), "kind": kind})
    frame.loc[3, "age"] = np.nan
    frame.loc[4, "city"] = None
    return frame


@pytest.fixture(scope="module")
def a_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    people().drop(columns="income").to_csv(folder / "people.csv", index=False)
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        assert main(["train", "people.csv", "--target", "kind", "--device", "cpu", *QUICK]) == 0
    return folder


@pytest.fixture
def trained(a_run, tmp_path):
    shutil.copytree(a_run, tmp_path, dirs_exist_ok=True)
    return "runs/people"


def test_train_says_what_it_makes_of_the_table(capsys):
    people().to_parquet("people.parquet")
    code, out, _ = call(
        capsys,
        "train",
        "people.parquet",
        "--target",
        "income",
        *QUICK[:4],
        "--features",
        "age,city",
    )
    assert code == 0
    lines = out.splitlines()
    assert lines[1] == "columns   1 of numbers and 1 of texts (city: 3)"
    assert lines[2] == (
        "task      regression, since 'income' holds numbers with fractions; "
        "--task classification says otherwise"
    )
    config = json.loads(Path("runs/people/config.json").read_text())
    assert "--preprocess=columns" in config["command"]
    assert config["arguments"]["task"] == "regression"
    again = config["command"][1:]
    code, _, err = call(capsys, *again, "--out", "again")
    assert (code, err) == (0, "")
    assert metrics_of(Path("again")) == metrics_of(Path("runs/people"))


def test_a_stopped_run_goes_on(capsys):
    people().to_csv("people.csv", index=False)
    call(capsys, "train", "people.csv", "--target", "kind", *QUICK, "--out", "whole")
    call(
        capsys, "train", "people.csv", "--target", "kind", "--epochs", "3", *QUICK[:2], "--out", "a"
    )
    code, _, err = call(capsys, "train", "--resume", "a", "--epochs", "30", "--quiet")
    assert (code, err) == (0, "")
    assert metrics_of(Path("a")) == metrics_of(Path("whole"))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_middle_leaves_what_goes_on(capsys, monkeypatch, number, code):
    people().to_csv("people.csv", index=False)
    words = ["train", "people.csv", "--target", "income", "--batch-size", "16", *QUICK]
    call(capsys, *words, "--out", "whole")
    with monkeypatch.context() as patch:
        before = stop_after(patch, 7, number)  # three updates an epoch
        found, out, err = call(capsys, *words, "--out", "stopped")
    signal.signal(number, before)
    assert (found, out.count("\n"), err) == (code, 1, "")
    assert "run folder stopped" in out
    found, _, err = call(capsys, "train", "--resume", "stopped", "--quiet")
    assert (found, err) == (0, "")
    assert metrics_of(Path("stopped")) == metrics_of(Path("whole"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
@pytest.mark.parametrize("out", [None, "new/run", "mine"])
def test_a_run_that_cannot_say_that_it_begins_leaves_nothing(capsys, tmp_path, monkeypatch, out):
    people().to_csv("people.csv", index=False)
    Path("mine").mkdir()
    before = sorted(tmp_path.rglob("*"))
    words = ["train", "people.csv", "--target", "kind", *QUICK[:-1]]
    with open("/dev/full", "w", encoding="utf-8") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        code = main([*words, *(["--out", out] if out else [])])
    assert (code, capsys.readouterr().err.count("\n")) == (1, 1)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "feather", "arrow", "npz"])
def test_predict_writes_what_the_name_says(capsys, trained, suffix):
    code, out, err = call(capsys, "predict", trained, "people.csv", "--out", f"p.{suffix}")
    assert (code, out, err) == (0, f"60 predictions in p.{suffix}\n", "")
    if suffix == "npz":
        with np.load("p.npz") as arrays:
            found = {name.replace("_", ":"): arrays[name] for name in arrays.files}
    else:
        read = {
            "csv": pandas.read_csv,
            "tsv": lambda path: pandas.read_csv(path, sep="\t"),
            "parquet": pandas.read_parquet,
        }.get(suffix, pandas.read_feather)
        found = dict(read(f"p.{suffix}").items())
    labels = ["high", "low", "middle"]
    assert list(found) == ["prediction", *(f"probability:{label}" for label in labels)]
    probabilities = np.stack([found[f"probability:{label}"] for label in labels], axis=1)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert [labels[i] for i in probabilities.argmax(axis=1)] == list(found["prediction"])


def test_predictions_are_those_of_the_model_in_memory(capsys, trained):
    from xbackprop.data.columns import load_columns

    split = load_columns("people.csv", target="kind")
    model = xb.load(f"{trained}/model.safetensors").model.eval()
    logits = xb.to_host(model(xb.asarray(split.x_test)))
    expected = np.array(split.classes)[logits.argmax(axis=1)]
    frame = pandas.read_csv("people.csv")
    test = frame.iloc[_test_rows(split, frame)]
    test[["kind", "city", "age"]].to_csv("test.csv", index=False)
    code, out, _ = call(capsys, "predict", trained, "test.csv")
    assert code == 0
    assert [line.split(",")[0] for line in out.splitlines()[1:]] == expected.tolist()


def _test_rows(split, frame):
    from xbackprop.data.splits import split_indices

    codes = np.array([split.classes.index(kind) for kind in frame["kind"]])
    return split_indices(len(frame), 0.2, codes, 0)[1]


def test_order_and_other_columns_do_not_matter(capsys, trained):
    frame = people()
    frame["name"] = "x"
    frame[["name", "kind", "city", "age"]].to_csv("other.csv", index=False)
    _, expected, _ = call(capsys, "predict", trained, "people.csv")
    code, out, err = call(capsys, "predict", trained, "other.csv")
    assert (code, out) == (0, expected)
    assert err == "note: ignored, since the model has no such column: 'name'\n"


def test_regression_of_two_targets(capsys):
    frame = people()
    frame["double"] = 2 * frame["income"]
    frame.drop(columns="kind").to_csv("two.csv", index=False)
    code, _, err = call(capsys, "train", "two.csv", "--target", "income,double", *QUICK)
    assert (code, err) == (0, "")
    code, out, _ = call(capsys, "predict", "runs/two", "two.csv", "--out", "p.npz")
    assert code == 0
    with np.load("p.npz") as arrays:
        assert arrays.files == ["prediction_income", "prediction_double"]
        predicted = np.stack([arrays[name] for name in arrays.files], axis=1)
    _, out, _ = call(capsys, "evaluate", "runs/two", "two.csv", "--json")
    scores = json.loads(out)
    truth = frame[["income", "double"]].to_numpy()
    for place, row in enumerate(scores["targets"]):
        y, p = truth[:, place], predicted[:, place]
        assert row["target"] == ["income", "double"][place]
        np.testing.assert_allclose(row["rmse"], metrics.root_mean_squared_error(y, p), rtol=1e-6)
        np.testing.assert_allclose(row["mae"], metrics.mean_absolute_error(y, p), rtol=1e-6)
        np.testing.assert_allclose(row["r2"], metrics.r2_score(y, p), rtol=1e-6)
        assert row["r2"] > 0.2
    _, out, _ = call(capsys, "evaluate", "runs/two", "two.csv")
    assert out.splitlines()[2].split() == ["target", "RMSE", "MAE", "R2"]


def test_evaluate_gives_the_numbers_of_the_predictions(capsys, trained):
    call(capsys, "predict", trained, "people.csv", "--out", "p.csv")
    found, truth = pandas.read_csv("p.csv"), pandas.read_csv("people.csv")["kind"]
    labels = ["high", "low", "middle"]
    p = found[[f"probability:{label}" for label in labels]].to_numpy()
    code, out, _ = call(capsys, "evaluate", trained, "people.csv", "--json")
    scores = json.loads(out)
    assert code == 0
    assert scores["accuracy"] == (found["prediction"] == truth).mean()
    np.testing.assert_allclose(scores["log_loss"], metrics.log_loss(truth, p, labels=labels))
    auc = metrics.roc_auc_score(truth, p, multi_class="ovr", labels=labels)
    np.testing.assert_allclose(scores["auc"], auc)
    report = metrics.classification_report(truth, found["prediction"], output_dict=True)
    for row in scores["classes"]:
        theirs = report[row["class"]]
        assert row["rows"] == theirs["support"]
        np.testing.assert_allclose(row["f1"], theirs["f1-score"])
        np.testing.assert_allclose(row["precision"], theirs["precision"])
        np.testing.assert_allclose(row["recall"], theirs["recall"])
    _, out, _ = call(capsys, "evaluate", trained, "people.csv")
    assert out.startswith("60 rows, accuracy ")
    assert out.splitlines()[2].split() == ["class", "precision", "recall", "f1", "auc", "rows"]


def test_calibration_error_by_hand():
    table = calibration(np.array([True, False, True, True]), np.array([0.55, 0.6, 1.0, 0.95]))
    assert [(row["from"], row["to"], row["rows"]) for row in table] == [(0.5, 0.6, 2), (0.9, 1, 2)]
    np.testing.assert_allclose(calibration_error(table), (2 * 0.075 + 2 * 0.025) / 4)


def test_scores_as_text():
    y, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    p = np.array([0.875, 0.25, 0.25, 0.5])
    probabilities = np.stack([p, 1 - p], axis=1)
    text = scores_text(classification_scores(y, predicted, probabilities, ("no", "yes")))
    assert text == (
        "4 rows, accuracy 75.00 %, log-loss 0.6252, AUC 0.6250, calibration error 0.2812\n\n"
        "class  precision  recall      f1    auc  rows\n"
        "no             1     0.5  0.6667  0.625     2\n"
        "yes       0.6667       1     0.8  0.625     2\n\n"
        "probability   mean  right  rows\n"
        "0.4 to 0.5     0.5      1     1\n"
        "0.7 to 0.8    0.75    0.5     2\n"
        "0.8 to 0.9   0.875      1     1"
    )
    bare = scores_text(classification_scores(y, predicted, None, ("no", "yes")))
    assert bare.startswith("4 rows, accuracy 75.00 %\n\nclass ")
    assert "probability" not in bare
    table = regression_scores(
        np.array([[1.0, 5], [3, 5]]), np.array([[2.0, 5], [3, 6]]), ("a", "b")
    )
    assert scores_text(table) == (
        "2 rows\n\ntarget    RMSE  MAE   R2\na       0.7071  0.5  0.5\nb       0.7071  0.5    -"
    )


@pytest.mark.parametrize("loss", ["bce-with-logits", "bce", "mse"])
def test_probabilities_of_two_classes(capsys, loss):
    frame = people()
    frame["kind"] = (frame["income"] > 7).astype(int)
    frame.drop(columns="income").to_csv("t.csv", index=False)
    call(capsys, "train", "t.csv", "--target", "kind", "--loss", loss, *QUICK)
    code, out, err = call(capsys, "predict", "runs/t", "t.csv")
    assert code == 0
    header = out.splitlines()[0]
    if loss == "mse":
        assert (header, err) == (
            "prediction",
            "note: the loss mse gives classes, no probabilities\n",
        )
    else:
        assert (header, err) == ("prediction,probability:0,probability:1", "")
        for line in out.splitlines()[1:]:
            label, *p = line.split(",")
            np.testing.assert_allclose(sum(map(float, p)), 1)
            assert label == str(int(float(p[1]) > 0.5))
        outputs = np.array([[0.25], [0.5], [0.9]])
        positive = outputs if loss == "bce" else 1 / (1 + np.exp(-outputs))
        found = load_trained("runs/t").probabilities(outputs)
        np.testing.assert_allclose(found, np.concatenate([1 - positive, positive], axis=1))
    code, out, _ = call(capsys, "evaluate", "runs/t", "t.csv", "--json")
    assert (json.loads(out)["log_loss"] is None) == (loss == "mse")


def test_numbers_as_they_stand_are_read_by_name(capsys):
    frame = people().drop(columns=["city", "kind"]).dropna()
    frame["y"] = (frame["income"] > 7).astype(int)
    frame.to_csv("t.csv", index=False)
    call(capsys, "train", "--data", "t.csv", "--target", "y", "--standardize", *QUICK)
    frame[["y", "income", "age"]].to_csv("moved.csv", index=False)
    assert call(capsys, "predict", "runs/t", "moved.csv") == call(
        capsys, "predict", "runs/t", "t.csv"
    )
    frame[["y", "age"]].to_csv("less.csv", index=False)
    code, _, err = call(capsys, "predict", "runs/t", "less.csv")
    assert (code, err.strip().endswith("missing: 'income'.")) == (2, True)


def test_images_of_an_archive(capsys):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6, 6)).astype(np.float32), np.arange(40) % 2
    np.savez("a.npz", X=x, y=y)
    np.savez("x.npz", X=x)
    call(capsys, "train", "a.npz", "--model", "cnn", "--channels", "2", "--epochs", "1", "--quiet")
    code, out, err = call(capsys, "predict", "runs/a", "x.npz")
    assert (code, err, len(out.splitlines())) == (0, "", 41)
    code, out, _ = call(capsys, "evaluate", "runs/a", "a.npz", "--json")
    assert (code, json.loads(out)["rows"]) == (0, 40)
    code, _, err = call(capsys, "evaluate", "runs/a", "x.npz")
    assert code == 2
    assert "Expected the arrays X and y" in err


def test_on_the_stand_in(capsys, trained):
    ours = call(capsys, "predict", trained, "people.csv")
    assert call(capsys, "predict", trained, "people.csv", "--device", "fake") == ours


def test_export_gives_the_network_of_the_predictions(capsys, trained):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    code, out, err = call(capsys, "export", trained)
    assert (code, err) == (0, "")
    assert out == "runs/people/model.onnx: input of shape (batch, 4)\n"
    session = runtime.InferenceSession("runs/people/model.onnx", providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["xbackprop"])
    prepared = preprocessing_from_config(about["table"]["preprocessing"])
    x, _ = prepared.apply(read_frame("people.csv"))
    (logits,) = session.run(None, {"input": x})
    labels = [about["table"]["classes"][place] for place in logits.argmax(axis=1)]
    _, printed, _ = call(capsys, "predict", trained, "people.csv")
    assert [line.split(",")[0] for line in printed.splitlines()[1:]] == labels


# --- what is refused ----------------------------------------------------------------------


def one_line(result, *parts):
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err, err


def test_nothing_is_half_written(capsys, trained, tmp_path, monkeypatch):
    (tmp_path / "p.csv").write_text("mine")
    (tmp_path / "bad.csv").write_text("age,city\n1,Oslo\n2\n")
    one_line(
        call(capsys, "predict", trained, "bad.csv", "--out", "p.csv"),
        "bad.csv, line 3, column 'city': expected 2 cells as in the header; got 1",
    )
    before = sorted(path.name for path in tmp_path.iterdir())

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    code, out, err = call(capsys, "predict", trained, "people.csv", "--out", "p.csv")
    assert (code, out) == (1, "")
    assert "cannot write p.csv: No space left on device" in err
    assert (tmp_path / "p.csv").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_table_that_does_not_fit(capsys, trained):
    people().drop(columns="city").to_csv("less.csv", index=False)
    one_line(call(capsys, "predict", trained, "less.csv"), "less.csv", "'city' is missing")
    frame = people()
    frame[["age", "city"]].to_csv("no.csv", index=False)
    one_line(call(capsys, "evaluate", trained, "no.csv"), "no.csv", "target column 'kind'")
    frame.loc[7, "kind"] = "rich"
    frame.to_csv("new.csv", index=False)
    one_line(
        call(capsys, "evaluate", trained, "new.csv"),
        "new.csv, line 9, column 'kind': class 'rich' is none of the model's",
    )


def test_what_no_network_could_take_is_named(capsys, trained, tmp_path):
    (tmp_path / "far.csv").write_text("age,city,kind\n30,Oslo,low\n1e300,Oslo,low\n")
    for command in ("predict", "evaluate"):
        one_line(
            call(capsys, command, trained, "far.csv"), "far.csv, line 3, column 'age': 1e+300 is"
        )
    one_line(
        call(capsys, "train", "far.csv", "--target", "kind", "--task", "classification"), "far.csv"
    )
    frame = people()
    frame["age"] *= 1e300
    frame.to_csv("far.csv", index=False)
    one_line(call(capsys, "train", "far.csv", "--target", "kind"), "far.csv, line", "column 'age'")
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["people"]
    frame = people()
    frame.loc[2, "kind"] = ""
    frame.to_csv("gap.csv", index=False)
    one_line(
        call(capsys, "evaluate", trained, "gap.csv"),
        "gap.csv, line 4, column 'kind': expected a class; the cell is empty",
    )
    frame["age"] = pandas.to_datetime("2020-01-01")
    frame.to_parquet("when.parquet")
    result = call(capsys, "predict", trained, "when.parquet")
    one_line(result, "when.parquet, column 'age': expected numbers or texts")
    assert "--features" not in result[2]  # which predict has not


def test_what_is_read_is_not_written_over(capsys, trained, tmp_path):
    before = (tmp_path / "people.csv").read_bytes()
    one_line(
        call(capsys, "predict", trained, "people.csv", "--out", "runs/../people.csv"),
        "--out runs/../people.csv: is the table that is read",
    )
    assert (tmp_path / "people.csv").read_bytes() == before
    model = (tmp_path / trained / "model.safetensors").read_bytes()
    one_line(
        call(capsys, "export", trained, "--out", f"{trained}/model.safetensors"), "a .onnx file"
    )
    assert (tmp_path / trained / "model.safetensors").read_bytes() == model


@pytest.mark.parametrize("words", [("predict", "people.csv", "csv"), ("export", "py")])
def test_a_place_that_is_none_is_named(capsys, trained, tmp_path, words):
    command, *data, suffix = words
    data += ["--format", "numpy"] * (command == "export")
    (tmp_path / f"taken.{suffix}").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for out, problem in (
        (f"no/p.{suffix}", f"--out no/p.{suffix}: no such folder: no. Create it first"),
        (f"people.csv/p.{suffix}", f"--out people.csv/p.{suffix}: no such folder: people.csv"),
        (f"taken.{suffix}", f"--out: taken.{suffix} is a folder. Expected a file"),
    ):
        one_line(call(capsys, command, trained, *data, "--out", out), problem)
    assert sorted(tmp_path.rglob("*")) == before


def test_labels_of_any_letters(capsys):
    frame = people().drop(columns="income")
    frame["kind"] = np.where(
        frame["kind"] == "low", "a/b", np.where(frame["age"] > 40, "a:b", 'c,"\nd')
    )
    frame.to_csv("t.csv", index=False)
    call(capsys, "train", "t.csv", "--target", "kind", *QUICK)
    code, _, err = call(capsys, "predict", "runs/t", "t.csv", "--out", "p.csv")
    assert (code, err) == (0, "")
    assert set(pandas.read_csv("p.csv")["prediction"]) <= set(frame["kind"])
    one_line(
        call(capsys, "predict", "runs/t", "t.csv", "--out", "p.npz"),
        "'probability:a/b' and 'probability:a:b' would both be the array 'probability_a_b'",
    )
    assert not Path("p.npz").exists()
    _, out, _ = call(capsys, "evaluate", "runs/t", "t.csv")
    assert [line.split("  ")[0] for line in out.splitlines()[3:6]] == ["a/b", "a:b", 'c," d']
    frame[:1].to_csv("one.csv", index=False)
    assert call(capsys, "evaluate", "runs/t", "one.csv")[1].startswith("1 row, accuracy")
    assert call(capsys, "predict", "runs/t", "one.csv", "--out", "p.csv")[1].startswith(
        "1 prediction "
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_full_disk_behind_standard_output(capsys, trained, monkeypatch, command):
    with open("/dev/full", "w", encoding="utf-8") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        code = main([command, trained, "people.csv"])
    err = capsys.readouterr().err
    assert (code, err) == (
        1,
        f"xbackprop {command}: error: standard output: No space left on device\n",
    )


def test_bad_tables(capsys, tmp_path):
    people().to_parquet("t.parquet")
    (tmp_path / "t.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-50])
    one_line(call(capsys, "train", "t.parquet", "--target", "kind"), "t.parquet: no Parquet file")
    (tmp_path / "t.csv").write_text("x,y\n1,a\n2,a\n3,a\n4,b\n")
    one_line(
        call(capsys, "train", "t.csv", "--target", "y"), "t.csv, line 5, column 'y': class 'b'"
    )
    one_line(call(capsys, "train", "t.csv", "--target", "z"), "t.csv", "no target column 'z'")
    one_line(call(capsys, "train", "t.csv"), "Pass --target with one of 'x', 'y'")
    (tmp_path / "t.xlsx").write_bytes(b"PK")
    one_line(call(capsys, "train", "t.xlsx", "--target", "y"), ".csv, .tsv, .parquet, .feather")
    (tmp_path / "t.csv").write_bytes("x,y\né,a\n".encode("latin-1"))
    one_line(call(capsys, "train", "t.csv", "--target", "y"), "t.csv, line 2, byte 1")
    assert not (tmp_path / "runs").exists()


def test_models_that_cannot_be_used(capsys, trained, tmp_path, monkeypatch):
    raw = (tmp_path / trained / "model.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(raw[:200])
    one_line(
        call(capsys, "predict", "cut.safetensors", "people.csv"), "cut.safetensors", "cut short"
    )
    with open_container(tmp_path / trained / "model.safetensors") as file:
        tensors = {key: file.read(key) for key in file.table}
        header = dict(file.header)
    with monkeypatch.context() as patch:
        for module in (container, header_module):
            patch.setattr(module, "FORMAT_VERSION", 9)
        write("newer.safetensors", tensors, {**header, "format_version": 9})
    one_line(
        call(capsys, "predict", "newer.safetensors", "people.csv"), "newer.safetensors", "version 9"
    )
    one_line(call(capsys, "predict", "none.safetensors", "people.csv"), "none.safetensors: no such")
    xb.save("bare.safetensors", xb.nn.Linear(2, 1))
    one_line(call(capsys, "predict", "bare.safetensors", "people.csv"), "no model of a table")
    header["counters"]["table"] = {"classes": None}
    write("odd.safetensors", tensors, header)
    one_line(call(capsys, "predict", "odd.safetensors", "people.csv"), "description cannot be read")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "t.csv", "--data", "u.csv"], "named already"),
        (["train", "t.parquet", "--preprocess", "none"], "reads .csv and .npz only"),
        (["train", "digits", "--preprocess", "columns"], "expected a table"),
        (["train", "t.csv", "--standardize"], "are standardized"),
        (["train", "--data", "t.csv", "--unknown", "error"], "Add --preprocess columns"),
        (["train", "t.csv", "--regression", "--task", "classification"], "the opposite"),
        (["train", "t.csv", "--task", "ranking"], "classification, regression"),
        (["predict", "m"], "required: DATA"),
        (["predict", "m", "t.csv", "--out", "p.xlsx"], "expected a .csv, .tsv, .parquet"),
        (["evaluate", "m", "t.csv", "--out", "p.csv"], "unknown option '--out'"),
    ],
)
def test_requests_without_sense(capsys, words, message):
    one_line(call(capsys, *words), message)


def test_export_for_numpy_alone(capsys, trained, monkeypatch):
    code, out, err = call(capsys, "export", trained, "--format", "numpy", "--out", "people_net.py")
    assert (code, out, err) == (0, "people_net.py: input of shape (batch, 4)\n", "")
    monkeypatch.syspath_prepend(".")
    network = importlib.import_module("people_net")
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    model = xb.load(f"{trained}/model.safetensors").model.eval()
    np.testing.assert_allclose(network.forward(x)[0], model(xb.asarray(x)), rtol=1e-6)
    for kind, suffix in (("numpy", ".py"), ("onnx", ".onnx")):
        one_line(
            call(capsys, "export", trained, "--format", kind, "--out", "net.txt"),
            f"--out: expected a {suffix} file; got net.txt",
        )


def test_what_cannot_be_exported(capsys, trained, monkeypatch, tmp_path):
    xb.save("bare.safetensors", xb.nn.Linear(2, 1))
    one_line(call(capsys, "export", "bare.safetensors"), "does not say which inputs it takes")
    one_line(call(capsys, "export", "none.safetensors"), "none.safetensors: no such file")
    one_line(call(capsys, "export", trained, "--format", "pdf"), "expected one of onnx, numpy")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    monkeypatch.setitem(sys.modules, "onnx", None)
    one_line(call(capsys, "export", trained), 'pip install "xbackprop[onnx]"')
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("package", ["pandas", "sklearn", "pyarrow"])
def test_a_missing_extra_is_named(capsys, monkeypatch, package):
    people().to_csv("t.csv", index=False)
    people().to_parquet("t.parquet")
    monkeypatch.setitem(sys.modules, package, None)
    name = "t.parquet" if package == "pyarrow" else "t.csv"
    one_line(
        call(capsys, "train", name, "--target", "kind", *QUICK),
        f"needs {package}, which is not installed",
        'pip install "xbackprop[data]"',
    )
