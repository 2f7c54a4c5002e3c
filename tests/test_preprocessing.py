"""Columns of all kinds become numbers, and the rebuilt preprocessing gives the fitted one's."""

import json

import numpy as np
import pytest

pytest.importorskip("pandas")
pytest.importorskip("pyarrow")
pytest.importorskip("sklearn")

import pandas
import pyarrow
import pyarrow.parquet
from pyarrow import feather

from xbackprop.cli.scaling import measure_scaling
from xbackprop.data import DataError
from xbackprop.data.columns import load_columns
from xbackprop.data.frames import read_frame
from xbackprop.data.preprocessing import fit_preprocessing, preprocessing_from_config

ROWS = [
    ("age", "city", "income", "country", "kind"),
    ("30", "Oslo", "10.5", "NA", "a"),
    ("", "Rome", "3", "", "b"),
    ("22", "Oslo", "NaN", "FR", "a"),
    ("41", "", "7", "FR", "b"),
    ("55", "Rome", "1e3", "NA", "a"),
    ("18", "Bern", "2", "DE", "b"),
]
ALL = np.arange(6)


def csv(tmp_path, rows=ROWS, name="table.csv", delimiter=","):
    path = tmp_path / name
    path.write_text("\n".join(map(delimiter.join, rows)) + "\n", encoding="utf-8")
    return path


def people(tmp_path):
    return fit_preprocessing(read_frame(csv(tmp_path)), ["age", "city", "income", "country"], ALL)


def test_numbers_are_filled_and_scaled_and_texts_become_columns(tmp_path):
    learned = people(tmp_path)
    assert learned.feature_names == (
        "age", "income", "city=Bern", "city=Oslo", "city=Rome",
        "country=DE", "country=FR", "country=NA",
    )  # fmt: skip
    x, notes = learned.apply(read_frame(csv(tmp_path)))
    assert (x.dtype, x.shape, notes) == (np.float32, (6, 8), [])
    age = np.array([30, 30, 22, 41, 55, 18.0])  # the median where none is
    np.testing.assert_allclose(x[:, 0], (age - age.mean()) / age.std(), rtol=1e-6)
    np.testing.assert_array_equal(x[3, 2:5], [0, 1, 0])  # the most frequent, the first of equals
    np.testing.assert_array_equal(x[0, 5:], [0, 0, 1])  # NA is a country among texts
    np.testing.assert_array_equal(x[1, 5:], [0, 1, 0])


def test_rebuilt_from_json_gives_the_same_bits(tmp_path):
    learned = people(tmp_path)
    rebuilt = preprocessing_from_config(json.loads(json.dumps(learned.config())))
    assert rebuilt.config() == learned.config()
    assert rebuilt.feature_names == learned.feature_names
    other = csv(tmp_path, [ROWS[0], ("", "Bern", "-1e-7", "", "a"), ("7", "?", "1e9", "FR", "b")])
    for path in (csv(tmp_path, name="same.csv"), other):
        ours, theirs = rebuilt.apply(read_frame(path)), learned.apply(read_frame(path))
        assert ours[0].tobytes() == theirs[0].tobytes()
        assert ours[1] == theirs[1]
    assert (
        rebuilt.transformer.get_feature_names_out().tolist()
        == learned.transformer.get_feature_names_out().tolist()
    )


def test_all_formats_hold_the_same_table(tmp_path):
    frame = pandas.DataFrame(
        {
            "age": [30, 40, 50],
            "score": [0.5, None, 2.0],
            "city": ["Oslo", None, "Rome"],
            "ok": [True, False, True],
        }
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_csv(tmp_path / "t.tsv", index=False, sep="\t")
    frame.to_parquet(tmp_path / "t.parquet", index=False)
    table = pyarrow.Table.from_pandas(frame, preserve_index=False)
    table = table.set_column(2, "city", table["city"].dictionary_encode())
    feather.write_feather(table, tmp_path / "t.feather")
    with pyarrow.ipc.new_stream(tmp_path / "t.arrow", table.schema) as writer:
        writer.write_table(table)
    for name in ("t.csv", "t.tsv", "t.parquet", "t.feather", "t.arrow"):
        read = read_frame(tmp_path / name)
        assert (read.rows, read.names) == (3, ("age", "score", "city", "ok")), name
        np.testing.assert_array_equal(read.numbers("age"), [30, 40, 50])
        np.testing.assert_array_equal(read.numbers("score"), [0.5, np.nan, 2])
        assert read.texts("city") == ["Oslo", "", "Rome"]
        assert [text.lower() for text in read.texts("ok")] == ["true", "false", "true"]
        assert [read.is_number(n) for n in read.names] == [True, True, False, False]


def test_columns_are_found_by_name_and_others_left_alone(tmp_path):
    learned = people(tmp_path)
    order = (4, 3, 2, 1, 0)
    moved = [tuple(row[i] for i in order) for row in ROWS]
    x, _ = learned.apply(read_frame(csv(tmp_path, moved, "moved.csv")))
    np.testing.assert_array_equal(x, learned.apply(read_frame(csv(tmp_path)))[0])


def test_what_is_missing_or_of_another_kind_is_named(tmp_path):
    learned = people(tmp_path)
    less = [row[:1] + row[3:] for row in ROWS]
    with pytest.raises(DataError, match=r"'income', 'city' are missing.*'age', 'country', 'kind'"):
        learned.apply(read_frame(csv(tmp_path, less)))
    with pytest.raises(DataError, match=r"line 3, column 'age': expected a number; got 'old'"):
        learned.apply(read_frame(csv(tmp_path, [*ROWS[:2], ("old", "", "", "", "")])))
    with pytest.raises(DataError, match=r"line 3, column 'age': expected a finite number"):
        learned.apply(read_frame(csv(tmp_path, [*ROWS[:2], ("-inf", "", "", "", "")])))


def test_numbers_that_scaling_makes_infinite_are_named(tmp_path):
    learned = people(tmp_path)
    far = csv(
        tmp_path, [*ROWS[:2], ("1", "Oslo", "2", "", ""), ("-1e60", "Rome", "1", "", "")], "f.csv"
    )
    with pytest.raises(
        DataError, match=r"line 4, column 'age': -1e\+60 is too large beside .* mean"
    ) as caught:
        learned.apply(read_frame(far))
    assert "\n" not in str(caught.value)
    big = csv(tmp_path, [("x", "y"), *((f"{i}e139", "ab"[i % 2]) for i in range(10))], "b.csv")
    x = load_columns(big, target="y").x_train
    np.testing.assert_allclose((x[:, 0].mean(), x[:, 0].std()), (0, 1), atol=1e-6)


@pytest.mark.parametrize(
    ("odd", "where", "hint"),
    [
        ("old", "line 5 holds 'old'", ""),
        ("1,5", "line 5 holds '1,5'", " Numbers have a point, as 1234.5."),
    ],
)
def test_numbers_that_are_read_as_texts_are_noted(tmp_path, odd, where, hint):
    rows = [("x", "t", "y"), *((str(i), "a5"[i % 2], "ab"[i % 2]) for i in range(10))]
    rows[4] = (odd, "NA", "b")
    split = load_columns(csv(tmp_path, rows, delimiter=";"), target="y")
    assert split.notes[0] == (
        f"column 'x': most of it looks like numbers, but it is read as texts, since {where}.{hint}"
    )
    assert not any("'t'" in note for note in split.notes)


def test_unknown_texts_are_zeros_with_a_note_or_refused(tmp_path):
    learned = people(tmp_path)
    rows = [ROWS[0], ("1", "Bonn", "2", "FR", "a"), ("1", "Kiev", "2", "FR", "a")]
    path = csv(tmp_path, rows, "unknown.csv")
    x, notes = learned.apply(read_frame(path))
    assert notes == [
        "column 'city': 'Bonn', 'Kiev' were not in the training data; 2 rows with zeros there"
    ]
    assert not x[:, 2:5].any()
    strict = fit_preprocessing(
        read_frame(csv(tmp_path, name="t.csv")), ["city"], ALL, unknown="error"
    )
    with pytest.raises(DataError, match=r"line 2, column 'city': 'Bonn' was not in the training"):
        strict.apply(read_frame(path))


def test_only_the_training_part_is_learned_from(tmp_path):
    rows = [("a", "t", "y"), *((str(i), "z" if i == 3 else "x", str(i % 2)) for i in range(10))]
    split = load_columns(csv(tmp_path, rows), target="y")
    assert len(split.x_train) == 8
    np.testing.assert_allclose(split.x_train[:, 0].mean(), 0, atol=1e-6)
    learned = fit_preprocessing(read_frame(csv(tmp_path, rows)), ["a", "t"], np.array([0, 1]))
    assert learned.feature_names == ("a", "t=x")
    assert learned.config()["columns"][0] == {"name": "a", "fill": 0.5, "mean": 0.5, "scale": 0.5}


@pytest.mark.parametrize(
    ("cells", "target", "classes", "reason"),
    [
        ("abcab" * 4, "y", ("a", "b", "c"), "'y' holds texts"),
        ("01010" * 4, "y", (0, 1), "'y' holds 2 different whole numbers"),
        (map(str, range(100, 130)), "y", None, "30 different whole numbers, more than 20"),
        (["1.5", "2", "3", "4"] * 5, "y", None, "'y' holds numbers with fractions"),
        (["1", "2", "3", "4"] * 5, "y,x", None, "2 targets"),
    ],
    ids=["texts", "few", "many", "fractions", "two"],
)
def test_task_is_found_by_the_target(tmp_path, cells, target, classes, reason):
    rows = [("x", "z", "y"), *((str(i), "1", cell) for i, cell in enumerate(cells))]
    split = load_columns(csv(tmp_path, rows), target=target)
    assert split.classes == classes
    assert reason in split.reason
    assert split.y_train.ndim == (1 if classes else 2)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("x,y\n1,a\n2\n", {}, "line 3, column 'y': expected 2 cells as in the header; got 1"),
        ("x,y\n1,a\n\n2,b,c\n", {}, "line 4, column 3: expected 2 cells as in the header; got 3"),
        ('x,y\n1,a\n"2,b\n', {}, "line 3: not a valid CSV record"),
        (b"x,y\n1,a\n\xe9,b\n", {}, "line 3, byte 1 of the line: 0xe9 is not UTF-8"),
        ("x,y\n1,a\n2,b\n", {"target": "z"}, "no target column 'z'. The columns are 'x', 'y'"),
        ("x,y\n1,a\n2,b\n", {"target": None}, "which column is the target? Name one of 'x', 'y'"),
        ("x,y\n1,a\n2,a\n3,b\n", {}, "line 4, column 'y': class 'b' has this one row only"),
        ("x,y\n1,a\n2,\n3,b\n", {}, "line 3, column 'y': expected a class; the cell is empty"),
        ("x,y\n1,1.5\n2,\n3,2\n", {}, "line 3, column 'y': expected a number; the cell is empty"),
        ("x,y\n1,1.5\n2,1e50\n3,2\n", {}, "line 3, column 'y': 1e+50 is too large for float32"),
        ("x,y\n1,1.5\n-1e200,3\n3,2\n", {}, "line 3, column 'x': -1e+200 is too large to"),
        ("x|y\n1|a\n", {}, "'x|y'. Expected columns separated by a comma, a semicolon or a tab"),
        ("x,y\n,1.5\n,2.5\n,2\n", {}, "column 'x': no value in the whole training part"),
        ("x,x\n1,2\n", {}, "line 1, column 2: duplicate header 'x'"),
        ("x,,y\n1,2,3\n", {}, "line 1, column 2: this column has no name"),
        ("x,y\n", {}, "a header and no rows"),
        ("y\n1.5\n2.5\n", {}, "no columns beside the target"),
        ("x,y\n1,2\n3,4\n", {"target": "y,y"}, "a target column is named twice in 'y,y'"),
        ("x,y\n1,2\n3,4\n", {"features": ["y"]}, "column 'y' is the target and a feature as well"),
        ("x,y\n1,a\n2,b\n", {"task": "regression"}, "line 2, column 'y': expected a number"),
        ("x,y\n1,1.5\n2,2\n", {"task": "classification"}, "line 2, column 'y': expected a class"),
    ],
)  # fmt: skip
def test_bad_tables_are_refused_with_their_place(tmp_path, text, options, message):
    path = tmp_path / "t.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError) as caught:
        load_columns(path, **{"target": "y", **options})
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_column_of_names_is_refused(tmp_path):
    rows = [("x", "y"), *((f"n{i}", str(i / 2)) for i in range(1300))]
    with pytest.raises(DataError, match=r"column 'x': 1040 different texts"):
        load_columns(csv(tmp_path, rows), target="y")


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".arrow"])
def test_cut_files_are_refused(tmp_path, suffix):
    frame = pandas.DataFrame({"x": np.arange(1000) * 0.5, "y": ["a", "b"] * 500})
    path = tmp_path / f"t{suffix}"
    frame.to_parquet(path) if suffix == ".parquet" else feather.write_feather(frame, path)
    whole = path.read_bytes()
    for size in (0, 4, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"damaged or cut short"):
            read_frame(path)


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".arrow"])
def test_damaged_texts_are_refused(tmp_path, suffix):
    """Arrow reads any bytes; only its full validation finds that these are no texts."""
    table = pyarrow.table({"x": ["needle", "b", "needle"]})
    path = tmp_path / f"t{suffix}"
    if suffix == ".parquet":
        pyarrow.parquet.write_table(table, path, compression="none", write_page_checksum=False)
    else:
        feather.write_feather(table, path, compression="uncompressed")
    path.write_bytes(path.read_bytes().replace(b"needle", b"ne\xffdle"))
    with pytest.raises(DataError, match=r"damaged or cut short"):
        read_frame(path)


def test_numbers_that_float32_cannot_tell_apart_are_scaled_first(tmp_path):
    steps = np.arange(40)
    frame = pandas.DataFrame({"x": 1e9 + 0.01 * steps, "y": 1e9 + 0.01 * steps})
    frame.to_parquet(tmp_path / "t.parquet")
    split = load_columns(tmp_path / "t.parquet", target="y")
    assert len(np.unique(split.x_train)) == len(split.x_train)
    scaled = measure_scaling(split.y_train).apply(split.y_train)
    np.testing.assert_allclose(scaled, split.x_train, atol=1e-5)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize(("count", "is_refused"), [(40, True), (2000, True), (1, False)])
def test_quantities_that_float64_cannot_tell_apart_are_refused(tmp_path, suffix, count, is_refused):
    steps = np.arange(2000)
    frame = pandas.DataFrame({"x": steps, "y": 2**60 + steps % count})
    path = tmp_path / f"t{suffix}"
    frame.to_parquet(path) if suffix == ".parquet" else frame.to_csv(path, index=False)
    if not is_refused:
        load_columns(path, target="y", task="regression")
        return
    with pytest.raises(DataError, match=r"column 'y': the numbers, near 1.1529.*float64"):
        load_columns(path, target="y", task="regression")


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".arrow"])
def test_tables_without_rows_or_with_names_twice_are_refused(tmp_path, suffix):
    path = tmp_path / f"t{suffix}"
    write = pyarrow.parquet.write_table if suffix == ".parquet" else feather.write_feather
    for names, numbers, message in (
        ["xy", [], f"{path}: no rows."],
        ["xx", [1.0], f"{path}: two columns have the name 'x'. Rename one."],
    ):
        write(pyarrow.table([pyarrow.array(numbers, pyarrow.float64())] * 2, list(names)), path)
        with pytest.raises(DataError) as caught:
            read_frame(path)
        assert str(caught.value) == message


def test_columns_of_other_kinds_matter_when_they_are_asked_for(tmp_path):
    frame = pandas.DataFrame(
        {
            "x": [1.0, 2.0, 3.0, 4.0],
            "when": pandas.to_datetime(["2020-01-01"] * 4),
            "y": list("abab"),
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"column 'when': expected numbers or texts; got timestamp"):
        load_columns(tmp_path / "t.parquet", target="y", test_size=2)
    split = load_columns(tmp_path / "t.parquet", target="y", features=["x"], test_size=2)
    assert split.feature_names == ("x",)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("columns"),
        lambda c: c.update(unknown="guess"),
        lambda c: c["columns"].clear(),
        lambda c: c["columns"].reverse(),
        lambda c: c["columns"].append(c["columns"][-1]),
        lambda c: c["columns"][0].update(scale=0),
        lambda c: c["columns"][0].update(mean=float("nan")),
        lambda c: c["columns"][0].update(fill="x"),
        lambda c: c["columns"][0].pop("name"),
        lambda c: c["columns"][-1].update(fill="x"),
        lambda c: c["columns"][-1].update(categories=["b", "a"]),
        lambda c: c["columns"][-1].update(categories=[1]),
        lambda c: c.update(columns=3),
    ],
)
def test_a_config_that_was_tampered_with_is_refused(tmp_path, change):
    config = people(tmp_path).config()
    change(config)
    with pytest.raises(DataError, match="preprocessing cannot be read"):
        preprocessing_from_config(config)
