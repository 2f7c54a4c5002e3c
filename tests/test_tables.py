"""CSV and NPZ files: what they become, and what is said about those that cannot be used."""

import io
import os
import pickle
import random
import time
import zipfile

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.data import DataError, load_dataset, load_table
from xbackprop.data.splits import split_indices

FLOWERS = "length,width,kind\n" + "".join(
    f"{i}.5,{10 - i},{'rose' if i % 2 else 'aster'}\n" for i in range(10)
)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a file into an empty current folder, so that messages name it without the folder."""
    monkeypatch.chdir(tmp_path)

    def write(content, name="table.csv"):
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(data)
        return name

    return write


def all_rows(split):
    """Return features and targets of both parts in the order of the first feature."""
    x = np.concatenate([split.x_train, split.x_test])
    y = np.concatenate([split.y_train, split.y_test])
    order = np.argsort(x[:, 0])
    return x[order], y[order]


def npz_bytes(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


# ------------------------------------------------------------------------------- CSV that is read


def test_csv_becomes_a_stratified_split(write):
    split = load_table(write(FLOWERS), target="kind")
    assert (split.name, split.classes) == ("table.csv", ("aster", "rose"))
    assert split.feature_names == ("length", "width")
    assert split.num_classes == 2
    assert (split.x_train.dtype, split.y_train.dtype) == (np.float32, np.int64)
    assert sorted(split.y_test.tolist()) == [0, 1]
    x, y = all_rows(split)
    np.testing.assert_array_equal(x, [[i + 0.5, 10 - i] for i in range(10)])
    np.testing.assert_array_equal(y, [i % 2 for i in range(10)])


def test_split_of_a_file_is_repeatable_and_can_be_changed(write):
    path = write(FLOWERS)
    first = load_table(path, target="kind")
    assert load_table(path, target="kind").x_test.tolist() == first.x_test.tolist()
    others = [load_table(path, target="kind", rng=seed).x_test.tolist() for seed in range(1, 6)]
    assert any(other != first.x_test.tolist() for other in others)
    split = load_table(path, target="kind", test_size=3, stratify=False)
    assert len(split.x_test) == 3


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfa,b\n1,2\n3,4\n5,2\n6,4\n",
        b"\r\na;b\r\n\r\n1;2\r\n3;4\r\n5;2\r\n6;4\r\n",
        b"a\tb\r1\t2\r3\t4\r5\t2\r6\t4",
        b'"a", "b"\n"1", 2\n 3 ,"4"\n\n5,2\n   \n6,4\n\n',
        b"\na,b\n1,2\n3,4\n5,2.0\n6,+4\n",
        b'"a","b"\n"1","2"\n3,4\n5,2\n6,4',
    ],
    ids=[
        "bom",
        "semicolon and blank first",
        "tab and CR",
        "spaces and blank lines",
        "blank first",
        "no last newline",
    ],
)
def test_forms_of_one_table(write, content):
    split = load_table(write(content), target="b", test_size=0.5)
    x, y = all_rows(split)
    np.testing.assert_array_equal(x, [[1], [3], [5], [6]])
    np.testing.assert_array_equal(y, [0, 1, 0, 1])
    assert (split.classes, split.feature_names) == ((2, 4), ("a",))


def test_quoted_cells_hold_delimiters_newlines_and_unicode(write):
    path = write('"size, cm","größe\nzwei",kind\n1,2,"a,b"\n3,4,"c""d"\n5,6,"a,b"\n7,8,"c""d"\n')
    split = load_table(path, target="kind", test_size=2)
    assert split.feature_names == ("size, cm", "größe\nzwei")
    assert split.classes == ("a,b", 'c"d')


@pytest.mark.parametrize(
    ("cells", "classes", "codes"),
    [
        (["b", "a", "B", "a", "b", "B"], ("B", "a", "b"), [2, 1, 0, 1, 2, 0]),
        (["10", "9", "-1", "9", "10", "-1"], (-1, 9, 10), [2, 1, 0, 1, 2, 0]),
        (["1.0", "1", "2e0", "02", "1", "2"], (1, 2), [0, 0, 1, 1, 0, 1]),
        (["1", "x", "1.5", "x", "1", "1.5"], ("1", "1.5", "x"), [0, 2, 1, 2, 0, 1]),
        (["1_0", "10", "10", "1_0", "10", "10"], ("10", "1_0"), [1, 0, 0, 1, 0, 0]),
        (
            ["9007199254740993", "9007199254740992"] * 3,
            (9007199254740992, 9007199254740993),
            [1, 0] * 3,
        ),
    ],
)
def test_labels_become_sorted_classes(write, cells, classes, codes):
    rows = "".join(f"{i},{cell}\n" for i, cell in enumerate(cells))
    split = load_table(write("n,label\n" + rows), target="label", test_size=0.5)
    assert split.classes == classes
    np.testing.assert_array_equal(all_rows(split)[1], codes)


def test_features_are_taken_by_name_and_in_order(write):
    path = write("id,a,b,c,y\nu,1,2,3,0\nv,4,5,6,1\nw,7,8,9,0\nx,10,11,12,1\n")
    split = load_table(path, target="y", features=["c", "a"], test_size=2)
    assert split.feature_names == ("c", "a")
    np.testing.assert_array_equal(all_rows(split)[0], [[3, 1], [6, 4], [9, 7], [12, 10]])


def test_regression_target_in_the_middle(write):
    split = load_table(write("a,y,b\n1,0.5,2\n3,-1.5,4\n5,1e3,6\n"), target="y", regression=True)
    assert split.classes is split.num_classes is None
    assert split.y_train.dtype == np.float32
    assert (split.y_train.shape, split.y_test.shape) == ((2, 1), (1, 1))
    x, y = all_rows(split)
    np.testing.assert_array_equal(x, [[1, 2], [3, 4], [5, 6]])
    np.testing.assert_array_equal(y, [[0.5], [-1.5], [1e3]])


def test_delimiter_is_found_by_the_table_not_by_one_line(write):
    path = write("note a,b;y\n1;0\n2;1\n3;0\n4;1\n")
    assert load_table(path, target="y", test_size=2).feature_names == ("note a,b",)
    path = write("note a,b;kind\n1;x,y\n2;z,y\n3;x,y\n4;z,y\n")  # fits both ways
    assert load_table(path, target="kind", test_size=2).classes == ("x,y", "z,y")
    path = write("a|y\n1|0\n2|1\n3|0\n4|1\n")
    assert load_table(path, target="y", test_size=2, delimiter="|").feature_names == ("a",)


# ---------------------------------------------------------------------------- CSV that is refused

AB = "a,b\n1,x\n2,y\n"


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        # columns
        ("age,kind\n1,x\n", {"target": "knd"}, "line 1: no target column 'knd'. The columns are "
         "'age', 'kind'. Did you mean 'kind'?"),
        ("age,kind\n1,x\n", {"target": "Kind"}, "Did you mean 'kind'?"),
        ("age,kind\n1,x\n", {"features": ["agee"], "target": "kind"}, "line 1: no feature column "
         "'agee'. The columns are 'age', 'kind'. Did you mean 'age'?"),
        (AB, {"target": None}, "line 1: which column is the target? Name one of 'a', 'b'."),
        (AB, {"features": []}, "list of features is empty"),
        (AB, {"features": ["b"]}, "column 'b' is the target and a feature as well"),
        (AB, {"features": ["a", "a"]}, "column 'a' is listed as a feature twice"),
        ("b\nx\ny\n", {}, "line 1: only one column, 'b', and no features"),
        (",b\n0,x\n1,y\n", {}, "line 1, column 1: this column has no name"),
        # header
        ("", {}, "line 1: no header and no rows"),
        ("\n\n", {}, "line 1: no header and no rows"),
        ("1,2\n3,4\n", {}, "line 1: expected a header with the names of the columns; got numbers"),
        ("5.1,3.5,setosa\n4.9,3.0,setosa\n", {"target": "kind"}, "This line looks like data"),
        ("a,b,a\n1,2,3\n", {}, "line 1, column 3: duplicate header 'a', also the name of column 1"),
        ("a,b\n", {}, "a header and no rows"),
        # cells
        ("a,b\n1,x\ntwo,y\n", {}, "line 3, column 'a': expected a number; got 'two'."),
        ("a,b\n1_000,x\n2,y\n", {}, "line 2, column 'a': expected a number; got '1_000'."),
        ("a;b\n1,5;x\n2;y\n", {}, "line 2, column 'a': expected a number; got '1,5'. Write"),
        ("a,b\n1,x\n,y\n", {}, "line 3, column 'a': empty cell."),
        ("a,b\n1,x\n  ,y\n", {}, "line 3, column 'a': empty cell."),
        ("a,c,b\n1,1,x\n1,NaN,y\n", {}, "line 3, column 'c': expected a finite number; got 'NaN'."),
        ("a,c,b\n1,-inf,x\n1,1,y\n", {}, "line 2, column 'c': expected a finite number"),
        ("a,c,b\n1e39,1,x\n", {}, "line 2, column 'a': '1e39' is too large for float32."),
        ("a,c,b\ninf,-inf,x\n", {}, "line 2, column 'a': expected a finite number; got 'inf'."),
        ('a,b\n"1\n",x\n\n"2\n\n","y\n"\nbad,x\n', {}, "line 9, column 'a': expected a number"),
        ("a,b\n1,\n2,y\n", {}, "line 2, column 'b': empty cell."),
        # records
        ("a,c,b\n1,2,x\n1,x\n", {}, "line 3, column 'b': expected 3 cells as in the header"),
        ("a,b\n1,x\n1,x,9\n", {}, "line 3, column 3: expected 2 cells as in the header; got 3."),
        ('a,b\n1,x\n2,"y\n3,x\n', {}, "line 3: not a valid CSV record (unexpected end of data)"),
        ('a,b\n1,"x"z\n', {}, "line 2: not a valid CSV record"),
        ("a,b\n1," + "x" * 200_000 + "\n", {}, "line 2: not a valid CSV record (field larger"),
        # bytes
        (b"a,b\n1,x\n2,\xe4\n", {}, "line 3, byte 3 of the line: 0xe4 is not UTF-8."),
        ("a,b\n1,x\n".encode("utf-16"), {}, "line 1: this is UTF-16."),
        (b"a,b\n1,x\x00\n\x00,y\n", {}, "line 3, column 'a': expected a number; got '\\x00'."),
        # targets
        ("a,b\n1,x\n2,x\n", {}, "line 2, column 'b': only one class, 'x', in all rows."),
        ("a,b\n1,1\n2,1.0\n", {}, "only one class, 1, in all rows."),
        ("a,b\n1,1\n2,2\n3,2.5\n", {}, "line 4, column 'b': expected a class (text or an integer); "
         "got '2.5'. Pass regression=True"),
        ("a,b\n1,1\n2,nan\n", {}, "line 3, column 'b': expected a class; got 'nan'."),
        ("a,b\n1,x\n2,NaN\n", {}, "line 3, column 'b': expected a class; got 'NaN'."),
        ("a,b\n1,1\n2,x\n", {"regression": True}, "line 3, column 'b': expected a number"),
        ("a,b\n1,1\n2,\n", {"regression": True}, "line 3, column 'b': empty cell."),
        ("a,b\n1,x\n2,x\n3,z\n4,y\n5,y\n", {}, "line 4, column 'b': class 'z' has this one"),
        # options
        (AB, {"delimiter": ",,"}, "delimiter expects one character"),
        ("a,b\n1,x\n2,x\n3,y\n4,y\n", {}, "3 training and 1 test samples. Change test_size."),
        (AB, {"test_size": 2, "stratify": False}, "leaves 0 for training"),
        (AB, {"regression": True, "stratify": True}, "stratify=True needs classes"),
    ],
)  # fmt: skip
def test_csv_is_refused(write, content, options, message):
    path = write(content)
    with pytest.raises(DataError) as caught:
        load_table(path, **{"target": "b", **options})
    text = str(caught.value)
    assert message in text
    assert "\n" not in text
    if "delimiter" not in options:
        assert text.startswith("table.csv")


def test_long_cells_and_wide_headers_stay_readable(write):
    name, cell = "n" * 5000, "z" * 5000
    for content in (f"{name},b\n{cell},x\n", f"a,b\n1,{cell}\n2,{cell}\n", f"{name},{name}\n"):
        with pytest.raises(DataError, match="…") as caught:
            load_table(write(content), target="b")
        assert len(str(caught.value)) < 250
    header = ",".join(f"column{i}" for i in range(500))
    with pytest.raises(DataError, match=r"500 in all") as caught:
        load_table(write(header + "\n"), target="b")
    assert len(str(caught.value)) < 500


def test_features_as_one_text_is_a_programming_error(write):
    with pytest.raises(TypeError, match="list of column names"):
        load_table(write(AB), target="b", features="a")


# ------------------------------------------------------------------------------------------ paths


def test_paths_that_are_refused(write, tmp_path):
    write(FLOWERS, "flowers.csv")
    write(b"", "flowers.xlsx")
    (tmp_path / "folder.csv").mkdir()
    cases = {
        "flower.csv": "flower.csv: no such file. Did you mean 'flowers.csv'?",
        "absent/table.csv": "no such file.",
        "folder.csv": "folder.csv: is a directory. Expected a .csv or .npz file.",
        "flowers.xlsx": "flowers.xlsx: extension '.xlsx'. Expected a .csv or .npz file.",
        "nul\0.csv": "no such file",
    }
    for path, message in cases.items():
        with pytest.raises(DataError) as caught:
            load_table(path, target="kind")
        assert message.replace("/", os.sep) in str(caught.value)
    with pytest.raises(TypeError, match="path of a file; got int"):
        load_table(3, target="kind")


def test_failing_disk_is_a_data_error(write, monkeypatch):
    path = write(FLOWERS)

    def fail(*args, **options):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("xbackprop.data.tables.read_csv", fail)
    with pytest.raises(DataError, match=r"table\.csv: cannot be read \(Input/output error\)"):
        load_table(path, target="kind")


def test_load_dataset_by_name_and_path(write, tmp_path):
    assert load_dataset("digits").x_train.shape == (1437, 64)
    path = write(FLOWERS, "flowers.CSV")
    for given in (path, tmp_path / path):
        assert load_dataset(given, target="kind", test_size=4).x_test.shape == (4, 2)
    for name, hint in (
        ("mnist", "mean .mnist-5k."),
        ("Digit", "mean .digits."),
        ("plates", "file."),
    ):
        with pytest.raises(DataError, match=rf"built-in ones \(digits, mnist-5k\).*{hint}"):
            load_dataset(name)
    with pytest.raises(DataError, match="no such file"):
        load_dataset("mnist.csv", target="y")
    with pytest.raises(DataError, match="leave out target, regression, rng"):
        load_dataset("digits", target="y", rng=0, regression=True)


# -------------------------------------------------------------------------------------------- NPZ

X = np.arange(12.0).reshape(6, 2)
Y = np.array([0, 1, 0, 1, 0, 1])


@pytest.mark.parametrize(
    ("y", "classes", "codes"),
    [
        (Y.astype(np.uint8) * 200, (0, 200), Y),
        (Y * 3.0 - 1, (-1, 2), Y),
        (Y == 0, (0, 1), 1 - Y),
        (np.array(["b", "a"] * 3), ("a", "b"), 1 - Y),
        (np.asarray(Y, ">i4"), (0, 1), Y),
    ],
)
def test_npz_with_x_and_y(write, y, classes, codes):
    path = write(npz_bytes(X=np.asfortranarray(X), y=y, extra=np.zeros(1)), "data.npz")
    split = load_table(path, test_size=0.5)
    assert split.classes == classes
    assert split.feature_names == ("x0", "x1")
    assert (split.x_train.dtype, split.y_train.dtype) == (np.float32, np.int64)
    rows, labels = all_rows(split)
    np.testing.assert_array_equal(rows, X)
    np.testing.assert_array_equal(labels, codes)


def test_npz_with_its_own_split(write):
    images = np.arange(24, dtype=np.uint8).reshape(6, 1, 2, 2)
    arrays = {"x_train": images, "Y_train": Y + 5, "x_test": images[:2], "y_test": [6, 6]}
    split = load_table(write(npz_bytes(**arrays), "data.NPZ"))
    np.testing.assert_array_equal(split.x_train, images)
    np.testing.assert_array_equal(split.y_train, Y)
    np.testing.assert_array_equal(split.y_test, [1, 1])
    assert (split.classes, split.feature_names) == ((5, 6), ())
    assert split.x_test.dtype == np.float32
    assert split.x_train.flags.writeable


@pytest.mark.parametrize(("y", "shape"), [(Y, (3, 1)), (X * 2, (3, 2))])
def test_npz_regression(write, y, shape):
    split = load_table(write(npz_bytes(X=X, y=y), "d.npz"), regression=True, test_size=3)
    assert split.classes is None
    assert (split.y_test.shape, split.y_test.dtype) == (shape, np.float32)
    np.testing.assert_array_equal(all_rows(split)[1], y.reshape(6, -1))


def test_npz_compressed_and_with_a_long_header(write):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, X=X, y=Y)
    assert load_table(write(buffer.getvalue(), "d.npz"), test_size=3).x_test.shape == (3, 2)
    member = io.BytesIO()
    np.lib.format.write_array(member, X, version=(2, 0))
    path = write(zip_bytes({"X.npy": member.getvalue(), "y.npy": npy_bytes(Y)}), "e.npz")
    assert load_table(path, test_size=3).x_test.shape == (3, 2)


def npy_bytes(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def zip_bytes(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def with_header(header, data=b""):
    """Return the bytes of an .npy file with a header of one's own."""
    text = header.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


class Bomb:
    """Leaves a trace when it is unpickled."""

    was_run = False

    def __reduce__(self):
        return (setattr, (Bomb, "was_run", True))


OBJECTS = np.array([[Bomb()] * 2] * 6)
PARTS = {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y}


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        # archives
        (b"", {}, "d.npz: the file is empty"),
        (b"PK\x03\x04 and no more", {}, "d.npz: not an .npz archive, or cut short."),
        (npz_bytes(X=X, y=Y)[:-60], {}, "d.npz: not an .npz archive, or cut short."),
        (npy_bytes(X), {}, "d.npz: this is a single .npy array."),
        (pickle.dumps({"X": OBJECTS}), {}, "d.npz: not an .npz archive"),
        (npz_bytes(X=X), {}, "Expected the arrays X and y, or x_train, y_train, x_test and y_test; "
         "the file holds 'X'."),
        (npz_bytes(), {}, "the file holds none."),
        (zip_bytes({"X": b"1", "y": b"2"}), {}, "the file holds 'X', 'y'."),
        (npz_bytes(X=X, x=X, y=Y), {}, "array 'x' is in the file twice"),
        (npz_bytes(X=X, y=Y, y_test=Y), {}, "holds both forms"),
        # arrays
        (npz_bytes(X=OBJECTS, y=Y), {}, "array 'X': holds Python objects"),
        (npz_bytes(X=X, y=OBJECTS[:, 0]), {}, "array 'y': holds Python objects"),
        (npz_bytes(X=X, y=X.astype([("a", "f8")])), {}, "array 'y': expected numbers"),
        (npz_bytes(X=X + 1j, y=Y), {}, "array 'X': expected numbers (or text as labels)"),
        (npz_bytes(X=X.astype(str), y=Y), {}, "array 'X': expected numbers; got text (<U"),
        (zip_bytes({"X.npy": npy_bytes(X)[:-8], "y.npy": npy_bytes(Y)}), {},
         "array 'X': damaged or cut short (its header claims 96 bytes, the file has 88)."),
        (zip_bytes({"X.npy": b"junk", "y.npy": npy_bytes(Y)}), {}, "array 'X': damaged"),
        (zip_bytes({"X.npy": b"\x93NUMPY\x03\x00" + npy_bytes(X)[8:], "y.npy": b""}), {},
         "damaged or cut short (format version 3.0)"),
        (zip_bytes({"X.npy": with_header("{'descr': '<f8', 'fortran_order': False, "
                                         "'shape': (1000000000000, 2)}"), "y.npy": b""}), {},
         "claims 16000000000000 bytes, the file has 0"),
        (zip_bytes({"X.npy": with_header("{'descr': '<f8', 'fortran_order': False, "
                                         "'shape': (-1, -2)}", bytes(16)), "y.npy": b""}), {},
         "damaged"),
        (zip_bytes({"X.npy": with_header("__import__('os').abort()"), "y.npy": b""}), {},
         "damaged"),
        # shapes and values
        (npz_bytes(X=Y, y=Y), {}, "array 'X': expected shape (samples, features) or more axes; "
         "got (6,)."),
        (npz_bytes(X=X, y=X), {}, "array 'y': expected shape (samples,); got (6, 2)."),
        (npz_bytes(X=X, y=X[None]), {"regression": True}, "(samples, outputs); got (1, 6, 2)."),
        (npz_bytes(X=X, y=Y[:5]), {}, "expected X and y of equal length; got 6 and 5."),
        (npz_bytes(X=X[:0], y=Y[:0]), {}, "array 'X': no rows; its shape is (0, 2)."),
        (npz_bytes(X=np.where(X == 7, np.inf, X), y=Y), {}, "finite numbers; got X[3, 1] = inf"),
        (npz_bytes(X=X * 1e38, y=Y), {}, "too large for float32"),
        (npz_bytes(X=X, y=Y * np.nan), {"regression": True}, "got y[0, 0] = nan"),
        (npz_bytes(X=X, y=Y + 0.5), {}, "got y[0] = 0.5. Pass regression=True"),
        (npz_bytes(X=X, y=Y * np.nan), {}, "got y[0] = nan"),
        (npz_bytes(X=X, y=np.array(["a", "", "b"] * 2)), {}, "empty label at index 1"),
        (npz_bytes(X=X, y=Y * 0), {}, "array 'y': only one class, 0."),
        (npz_bytes(X=X, y=[0, 0, 1, 1, 2, 1]), {}, "y[4]: class 2 has this one row only"),
        # a split of the file's own
        (npz_bytes(**{**PARTS, "y_test": Y + 1}), {}, "array 'y_test': class 2 at index 1 is not "
         "in y_train, whose classes are 0, 1."),
        (npz_bytes(**{**PARTS, "x_test": X[:, :1]}), {}, "of one shape; got (6, 2) and (6, 1)"),
        (npz_bytes(**{**PARTS, "x_test": X[:3]}), {}, "y_test of equal length; got 3 and 6"),
        (npz_bytes(**{**PARTS, "y_test": X}), {"regression": True}, "y_test of equal width"),
        # options
        (npz_bytes(X=X, y=Y), {"target": "y", "delimiter": ","}, "target, delimiter cannot apply"),
        (npz_bytes(**PARTS), {"test_size": 0.5, "rng": 1}, "test_size, rng cannot apply"),
    ],
)  # fmt: skip
def test_npz_is_refused(write, content, options, message):
    with pytest.raises(DataError) as caught:
        load_table(write(content, "d.npz"), **options)
    text = str(caught.value)
    assert text.startswith("d.npz")
    assert message in text
    assert "\n" not in text
    assert not Bomb.was_run


def test_npz_out_of_proportion_is_refused(write):
    """Zeros deflate a thousandfold: what counts is the file's size, not what it unpacks to."""
    x = np.zeros((6, 1_300_000), np.float32)
    x[:, 0] = np.arange(6)
    packed = io.BytesIO()
    np.savez_compressed(packed, X=x, y=Y)
    assert len(packed.getvalue()) < 100_000
    with pytest.raises(DataError, match=r"d\.npz, array 'X': .*out of proportion.*uncompressed"):
        load_table(write(packed.getvalue(), "d.npz"))
    assert load_table(write(npz_bytes(X=x, y=Y), "e.npz")).x_train.shape == (4, 1_300_000)
    parts = {"x_train": x[:, :600_000], "y_train": Y, "x_test": x[:, :600_000], "y_test": Y}
    packed = io.BytesIO()
    np.savez_compressed(packed, **parts)  # each would do alone
    with pytest.raises(DataError, match=r"array 'x_test': .*out of proportion"):
        load_table(write(packed.getvalue(), "f.npz"))


def test_names_like_the_target_are_compared_in_bounded_time(write):
    """Names of the same letters pass every cheap test of difflib, and each takes its dear one."""
    rng, target = random.Random(0), "a_column_with_a_rather_long_name" * 3
    names = ["".join(rng.sample(target, len(target))) for _ in range(19_000)]
    start = time.process_time()
    with pytest.raises(DataError, match="no target column"):
        load_table(write(",".join(dict.fromkeys(names)) + "\n"), target=target)
    assert time.process_time() - start < 2


def test_split_of_many_classes_takes_no_pass_for_each():
    labels = np.arange(300_000) % 60_000
    start = time.process_time()
    _, test = split_indices(len(labels), 0.2, labels, 0)
    assert time.process_time() - start < 2
    assert sorted(labels[test].tolist()) == list(range(60_000))


def test_npz_of_another_compression_is_refused(write):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        for name, array in (("X", X), ("y", Y)):
            archive.writestr(f"{name}.npy", npy_bytes(array))
    with pytest.raises(DataError, match="compressed in another way"):
        load_table(write(buffer.getvalue(), "d.npz"))


def test_csv_record_that_never_ends_is_refused(write):
    with pytest.raises(DataError, match=r"a record of more than 2000000 letters"):
        load_table(write("a,y\n1,0\n" + "1," * 1_100_000), target="y")
    many = ["1,0\n2,1\n"] * 300_000  # together longer, but each record is short
    assert len(load_table(write("a,y\n" + "".join(many)), target="y").x_train) == 480_000


# ------------------------------------------------------------------------------------- any bytes

CSV_PIECES = [b",", b";", b"\t", b'"', b"\n", b"\r\n", b"\r", b"a", b"b", b"kind", b"1", b"-2.5"]
CSV_PIECES += [b"1e400", b"nan", b"inf", b"", b" ", b"\x00", b"\xff", b"\xef\xbb\xbf", b"1_0"]
CSV_PIECES += ["ß".encode(), "٣".encode(), b"0x1", b'""', b"9" * 400, b"9" * 5000]


def mutate(data, rng):
    """Flip a bit, or cut, repeat or insert a few bytes, up to three times."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 3])):
        at = rng.randrange(len(changed))
        action = rng.randrange(6)
        if action < 3:
            changed[at] ^= 1 << rng.randrange(8)
        elif action == 3:
            del changed[at : at + rng.randint(1, 10)]
        elif action == 4:
            changed[at:at] = changed[at : at + rng.randint(1, 10)]
        else:
            changed[at:at] = rng.randbytes(rng.randint(1, 4))
    return bytes(changed)


def load_or_refuse(path, **options):
    """Return the split, None when it was refused in one line; anything else goes through."""
    try:
        split = load_table(path, **options)
    except DataError as error:
        message = str(error)
    else:
        assert np.isfinite(split.x_train).all()
        assert len(split.x_train) == len(split.y_train) > 0
        return split
    assert path in message
    assert "\n" not in message
    return None


def test_no_bytes_make_a_csv_fail_otherwise(write):
    rng = random.Random(0)
    outcomes = []
    for _ in range(2000):
        if rng.random() < 0.5:
            pieces = [rng.choice(CSV_PIECES) for _ in range(rng.randint(0, 30))]
            data = rng.choice([b"", b"kind,width\n1,2\n"]) + b"".join(pieces)
        else:
            data = mutate(FLOWERS.encode(), rng)
        options = rng.choice([{"target": "kind"}, {"target": "width", "features": ["length"]}])
        regression = options["target"] == "width"
        outcomes.append(load_or_refuse(write(data), regression=regression, **options))
    accepted = sum(outcome is not None for outcome in outcomes)
    assert 50 < accepted < 1950  # both ways were taken


def test_no_bytes_make_an_npz_fail_otherwise(write):
    rng = random.Random(0)
    compressed = io.BytesIO()
    np.savez_compressed(compressed, X=X, y=Y)
    whole = [npz_bytes(X=X, y=Y), compressed.getvalue()]
    arrays = {"X.npy": npy_bytes(X), "y.npy": npy_bytes(Y)}
    outcomes = []
    for _ in range(2000):
        if rng.random() < 0.5:
            data = mutate(rng.choice(whole), rng)
        else:  # a sound archive around damaged arrays
            name = rng.choice(list(arrays))
            cut = rng.choice([130, len(arrays[name])])  # often in the header
            damaged = mutate(arrays[name][:cut], rng) + arrays[name][cut:]
            data = zip_bytes({**arrays, name: damaged})
        outcomes.append(load_or_refuse(write(data, "d.npz"), regression=rng.random() < 0.3))
    accepted = sum(outcome is not None for outcome in outcomes)
    assert 50 < accepted < 1950


def test_a_loaded_table_trains_from_batches(write):
    split = load_table(write(FLOWERS), target="kind")
    training = (split.x_train, split.y_train)
    sizes = [len(y) for _, y in xb.data.batches(*training, 3, rng=0, device="cpu")]
    assert sizes == [3, 3, 2]
