"""Digits, splits, host arrays, labels and batches."""

import contextlib
import hashlib
import json
from importlib import resources

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.data.arrays import as_host_array

GENERATORS = [np.random.PCG64, np.random.PCG64DXSM, np.random.Philox, np.random.MT19937]
GENERATORS.append(np.random.SFC64)

# SHA-256 of the arrays' bytes, little-endian: the split must never move between releases.
DIGITS_HASHES = {
    "images": "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3",
    "labels": "8ba4f891220f5e4c9c819638d1602d74b83618f167043c6da52a2a247841ddf0",
    "test_indices": "ccfbbab2148588a1bc64ac1c5c0bd3448b15899d61896e1aeff9c274b078bbd0",
}


@pytest.fixture(autouse=True)
def on_cpu_if_not_said_otherwise(request):
    """Where there is a GPU, it is the default device; the values below are compared on the host."""
    with contextlib.ExitStack() as stack:
        if "xb_device" not in request.fixturenames:
            stack.enter_context(xb.use_device("cpu"))
        yield


@pytest.fixture
def digits_file():
    packaged = resources.files("xbackprop.data").joinpath("digits.npz")
    with packaged.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        yield dict(arrays)


def indices_of(loader):
    """Return the batches of one epoch over `np.arange`, as lists."""
    return [x.astype(int).tolist() for x in loader]


def order_of(loader):
    """Return the order of one epoch over `np.arange`."""
    return [index for batch in indices_of(loader) for index in batch]


# ---------------------------------------------------------------------------------------- digits


def test_digits_file_is_what_was_released(digits_file):
    for name, expected in DIGITS_HASHES.items():
        array = digits_file[name]
        little = array.astype(array.dtype.newbyteorder("<"))
        assert hashlib.sha256(little.tobytes()).hexdigest() == expected, name


def test_digits_equal_those_of_scikit_learn(digits_file):
    peer = pytest.importorskip("sklearn.datasets").load_digits()
    np.testing.assert_array_equal(digits_file["images"], peer.images)
    np.testing.assert_array_equal(digits_file["labels"], peer.target)


def test_digits_attribution_is_in_the_package():
    text = resources.files("xbackprop.data").joinpath("DIGITS.md").read_text(encoding="utf-8")
    for part in ("Alpaydin", "Kaynak", "10.24432/C50P49", "CC BY 4.0", "What was changed"):
        assert part in text


def test_digits_split_is_fixed_stratified_and_complete(digits_file):
    split = xb.data.load_digits()
    assert split.x_train.shape == (1437, 64)
    assert split.x_test.shape == (360, 64)
    assert split.x_train.dtype == split.x_test.dtype == np.float32
    assert split.y_train.dtype == split.y_test.dtype == np.int64
    assert split.classes == tuple(range(10))
    assert len(split.feature_names) == 64
    test = digits_file["test_indices"]
    images = digits_file["images"].reshape(-1, 64)
    np.testing.assert_array_equal(split.x_test * 16, images[test])
    np.testing.assert_array_equal(split.y_test, digits_file["labels"][test])
    np.testing.assert_array_equal(split.x_train * 16, np.delete(images, test, axis=0))
    np.testing.assert_array_equal(split.y_train, np.delete(digits_file["labels"], test))
    share = np.bincount(split.y_test) / np.bincount(digits_file["labels"])
    assert np.abs(share - 0.2).max() < 0.006  # the nearest whole sample of 174 to 183


def test_digits_as_images_in_another_dtype():
    rows, images = xb.data.load_digits(dtype="float64"), xb.data.load_digits(flatten=False)
    assert images.x_train.shape == (1437, 1, 8, 8)
    assert images.feature_names == ()
    assert rows.x_test.dtype == np.float64
    assert rows.x_test.max() == 1.0
    np.testing.assert_array_equal(images.x_test.reshape(360, 64), rows.x_test)
    for dtype in (np.int64, None):
        with pytest.raises(TypeError, match="floating-point dtype"):
            xb.data.load_digits(dtype=dtype)


# ---------------------------------------------------------------------------------------- splits


def test_split_parts_are_disjoint_and_complete():
    X, y = np.arange(50), np.arange(50) + 100
    x_train, x_test, y_train, y_test = xb.data.train_test_split(X, y, test_size=0.1, rng=3)
    assert (len(x_train), len(x_test)) == (45, 5)
    assert sorted([*x_train, *x_test]) == list(range(50))
    np.testing.assert_array_equal(y_train, x_train + 100)
    np.testing.assert_array_equal(y_test, x_test + 100)
    again = xb.data.train_test_split(X, y, test_size=0.1, rng=np.random.default_rng(3))
    np.testing.assert_array_equal(again[1], x_test)
    other = xb.data.train_test_split(X, y, test_size=0.1, rng=4)
    assert other[1].tolist() != x_test.tolist()


@pytest.mark.parametrize(
    ("length", "test_size", "expected"),
    [(1797, 0.2, 360), (30, 0.1, 3), (10, 0.25, 3), (10, 4, 4), (2, 0.01, 1), (100, 0.07, 7)],
)
def test_test_size(length, test_size, expected):
    parts = xb.data.train_test_split(
        np.arange(length), np.arange(length), test_size=test_size, rng=0
    )
    assert len(parts[1]) == expected


@pytest.mark.parametrize("test_size", [0.05, 0.2, 0.5, 0.9, 3, 97])
@pytest.mark.parametrize("counts", [(90, 8, 2), (34, 33, 33), (50, 25, 25)])
def test_stratified_split_keeps_proportions(counts, test_size):
    y = np.repeat([3, 5, 9], counts)
    parts = xb.data.train_test_split(np.arange(100), y, test_size=test_size, stratify=True, rng=0)
    num_test = len(parts[1])
    assert num_test == (test_size if isinstance(test_size, int) else round(test_size * 100))
    for label, count in zip([3, 5, 9], counts, strict=True):
        in_test = int((parts[3] == label).sum())
        assert 1 <= in_test < count
        quota = count * num_test / 100
        if 1 <= quota <= count - 1 and min(counts) > 20:
            assert abs(in_test - quota) < 1
    assert sorted([*parts[0], *parts[1]]) == list(range(100))


def test_split_of_several_inputs():
    X = (np.arange(6), np.arange(12).reshape(6, 2))
    x_train, x_test, _, y_test = xb.data.train_test_split(X, np.arange(6), test_size=2, rng=0)
    assert isinstance(x_train, tuple)
    np.testing.assert_array_equal(x_test[0], y_test)
    np.testing.assert_array_equal(x_test[1][:, 0], 2 * y_test)


@pytest.mark.parametrize(
    ("y", "options", "error", "message"),
    [
        ([0, 1, 1, 1], {"stratify": True}, ValueError, "class 0 has one"),
        ([0, 0, 1, 1], {"stratify": True, "test_size": 1}, ValueError, "3 training and 1 test"),
        ([0.0, 0, 1, 1], {"stratify": True, "test_size": 2}, ValueError, "dtype float64"),
        ([0, 0, 1, 1], {"test_size": 4}, ValueError, "leaves 0 for training"),
        ([0, 0, 1, 1], {"test_size": 0}, ValueError, "0 for testing"),
        ([0, 0, 1, 1], {"test_size": 1.5}, ValueError, r"between 0 and 1.*got 1\.5"),
        ([0, 0, 1, 1], {"test_size": float("nan")}, ValueError, "got nan"),
        ([0, 0, 1, 1], {"test_size": "a"}, TypeError, "got str"),
        ([0, 0, 1], {}, ValueError, "4 rows in X and 3 in y"),
        ([0, 0, 1, 1], {"rng": None}, TypeError, "rng expects a seed"),
        ([0, 0, 1, 1], {"rng": True}, TypeError, "rng expects a seed"),
        ([0, 0, 1, 1], {"rng": -1}, ValueError, "non-negative seed; got -1"),
        ([0, 0, 1, 1], {"rng": np.random.RandomState(0)}, TypeError, "got RandomState"),
    ],
)
def test_split_refuses(y, options, error, message):
    with pytest.raises(error, match=message):
        xb.data.train_test_split([[1], [2], [3], [4]], y, **{"rng": 0, **options})


# ----------------------------------------------------------------------------------- host arrays


class OnlyDLPack:
    """What a library without `__array__` hands over."""

    def __init__(self, array, device_type=1):
        self.array, self.device_type = array, device_type

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.device_type, 0


class OnlyArrayProtocol:
    def __array__(self, dtype=None, copy=None):
        return np.array([1, 2], dtype=dtype)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[1, 2], [3, 4]], np.array([[1, 2], [3, 4]])),
        ([1.5, 2.5], np.array([1.5, 2.5])),
        ([True, False], np.array([True, False])),
        (OnlyDLPack(np.float32([1, 2])), np.float32([1, 2])),
        (OnlyArrayProtocol(), np.array([1, 2])),
        (np.ma.array([1, 2]), np.array([1, 2])),
        (np.float16([1]), np.float16([1])),
    ],
    ids=["nested", "float", "bool", "dlpack", "__array__", "unmasked", "half"],
)
def test_what_becomes_a_host_array(values, expected):
    array = as_host_array(values)
    assert type(array) is np.ndarray
    assert array.dtype == expected.dtype
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ([[1, 2], [3]], ValueError, "X expects rows of equal length; got a ragged list"),
        (["a", "b"], TypeError, "got list of dtype <U1"),
        (np.array([1, None]), TypeError, "dtype object"),
        ([1 + 2j], TypeError, "real and the imaginary part"),
        (np.array(["2020-01-01"], "M8[D]"), TypeError, "datetime64"),
        (np.zeros(2, [("a", "f4")]), TypeError, "expects real numbers"),
        ((i for i in range(3)), TypeError, "got generator"),
        (None, TypeError, "got NoneType"),
        (3.0, ValueError, "got a single number"),
        ([], ValueError, r"X is empty: its shape is \(0,\)"),
        (np.zeros((3, 0)), ValueError, r"X is empty: its shape is \(3, 0\)"),
        (np.ma.array([1, 2], mask=[0, 1]), ValueError, "masked entries"),
        (OnlyDLPack(np.ones(1), device_type=2), TypeError, "another device"),
    ],
)
def test_what_does_not(values, error, message):
    with pytest.raises(error, match=message):
        as_host_array(values)


def test_device_array_is_refused_and_names_the_call():
    on_device = xb.asarray([1.0, 2.0], device="fake")
    for call in (as_host_array, xb.data.batches):
        with pytest.raises(TypeError, match=r"xb\.to_host"):
            call(on_device)
    with pytest.raises(TypeError, match=r"^y expects a host array.*xb\.to_host"):
        xb.data.batches([1.0, 2.0], on_device)


@pytest.mark.torch_parity
def test_torch_tensors():
    torch = pytest.importorskip("torch")
    array = as_host_array(torch.arange(3))
    assert array.dtype == np.int64
    x, y = next(iter(xb.data.batches(torch.ones(3, 2), torch.arange(3), 2, device="cpu")))
    assert (x.dtype, y.dtype) == (np.float32, np.int64)
    with pytest.raises(TypeError, match=r"requires a gradient.*\.detach\(\)"):
        as_host_array(torch.ones(3, requires_grad=True))
    assert as_host_array(torch.ones(3, requires_grad=True).detach()).shape == (3,)
    with pytest.raises(TypeError, match=r"\.float\(\)"):
        as_host_array(torch.ones(3, dtype=torch.bfloat16))
    with pytest.raises(TypeError, match="host array"):
        as_host_array(torch.ones(3, device="meta"))


# --------------------------------------------------------------------------------------- batches


def test_batches_arrive_on_the_device_in_order(xb_device):
    X, y = np.arange(10.0).reshape(5, 2), [4, 3, 2, 1, 0]
    loader = xb.data.batches(X, y, 2)
    assert len(loader) == 3
    sizes = []
    for epoch in range(2):
        start = 0
        for x, labels in loader:
            assert xb.device_of(x) == xb.device_of(labels) == xb_device
            assert (x.dtype, labels.dtype) == (np.float32, np.int64)
            np.testing.assert_array_equal(xb.to_host(x), X[start : start + len(x)])
            np.testing.assert_array_equal(xb.to_host(labels), y[start : start + len(x)])
            sizes.append(len(x))
            start += len(x)
        assert loader.epoch == epoch + 1
    assert sizes == [2, 2, 1, 2, 2, 1]


def test_a_batch_is_two_uploads_of_its_own_bytes():
    X, y = np.zeros((6, 3), np.float64), np.zeros(6, np.uint8)
    with xb.use_device("fake"), xb.transfer_log() as log:
        loader = xb.data.batches(X, y, 4, rng=0)
        assert log.uploads == 0
        for _ in loader:
            pass
    sizes = [event.size_bytes for event in log.events]
    assert sizes == [4 * 3 * 4, 4 * 8, 2 * 3 * 4, 2 * 8]  # float32 and int64: cast on the host
    assert (log.uploads, log.downloads, log.synchronizations, log.launches) == (4, 0, 0, 0)


def test_explicit_device_stands_above_the_default():
    with xb.use_device("cpu"):
        (x,) = xb.data.batches([1.0], device="fake:1")
    assert str(xb.device_of(x)) == "fake:1"


def test_shuffled_order_is_drawn_from_the_generator():
    data = np.arange(7.0)
    expected = np.random.default_rng(5)
    loader = xb.data.batches(data, batch_size=3, rng=5)
    orders = [order_of(loader) for _ in range(3)]
    assert orders == [expected.permutation(7).tolist() for _ in range(3)]
    generator = np.random.default_rng(5)
    assert order_of(xb.data.batches(data, batch_size=3, rng=generator)) == orders[0]
    assert generator.permutation(7).tolist() == orders[1]  # it is used, not copied


def test_inputs_and_targets_stay_together():
    X = np.arange(20.0).reshape(20, 1)
    loader = xb.data.batches((X, np.arange(20)), X[:, 0] * 2, 6, rng=1, shuffle=True)
    seen = []
    for (values, ids), y in loader:
        np.testing.assert_array_equal(values[:, 0], ids)
        np.testing.assert_array_equal(y, 2 * ids)
        seen.extend(ids.tolist())
    assert sorted(seen) == list(range(20))


def test_without_targets_and_with_one_input_in_a_tuple():
    (x,) = xb.data.batches([1.0, 2.0])
    assert isinstance(x, np.ndarray)
    (x,) = xb.data.batches(([1.0, 2.0],))
    assert isinstance(x, tuple)


def test_drop_last():
    loader = xb.data.batches(np.arange(7.0), batch_size=3, drop_last=True)
    assert len(loader) == 2
    for _ in range(2):
        assert indices_of(loader) == [[0, 1, 2], [3, 4, 5]]
    assert len(xb.data.batches(np.arange(6.0), batch_size=3)) == 2


@pytest.mark.parametrize("dtype", [np.float16, "float32", np.dtype("float64")])
def test_floats_are_cast_and_integer_inputs_kept(dtype):
    big_endian = np.arange(4, dtype=">f8")
    pixels = np.arange(4, dtype=np.uint8)
    (batch,) = xb.data.batches((big_endian, pixels, pixels > 1), big_endian, dtype=dtype)
    (floats, integers, booleans), y = batch
    assert floats.dtype == y.dtype == np.dtype(dtype)
    assert floats.dtype.isnative
    assert (integers.dtype, booleans.dtype) == (np.uint8, np.bool_)
    np.testing.assert_array_equal(floats, [0, 1, 2, 3])


def test_bfloat16():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    ((x, y),) = xb.data.batches(np.ones(2, np.float32), np.ones(2, bfloat16), dtype=bfloat16)
    assert x.dtype == y.dtype == bfloat16
    with pytest.raises(ValueError, match=r"X\[1\] = nan"):
        xb.data.batches(np.array([1, np.nan], bfloat16))


@pytest.mark.parametrize("rng", [None, 0])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_batch_is_no_window_onto_the_data(order, rng):
    X = np.arange(6, dtype=np.float32).reshape(3, 2).copy(order=order)
    X.flags.writeable = False
    (x,) = xb.data.batches(X, rng=rng)
    assert x.flags.writeable
    assert x.flags.c_contiguous
    assert not np.shares_memory(x, X)


@pytest.mark.parametrize(
    ("X", "y", "options", "error", "message"),
    [
        ([1.0, 2.0], [1.0], {}, ValueError, "2 rows in X and 1 in y"),
        (([1.0, 2.0], [1.0]), None, {}, ValueError, r"2 rows in X\[0\] and 1 in X\[1\]"),
        ([1.0], None, {"batch_size": 0}, ValueError, "batch_size must be at least 1; got 0"),
        (
            [1.0],
            None,
            {"batch_size": 2.0},
            TypeError,
            r"batch_size expects a whole number; got 2\.0",
        ),
        ([1.0], None, {"batch_size": True}, TypeError, "got True"),
        ([1.0], None, {"dtype": int}, TypeError, "floating-point dtype"),
        ([1.0], None, {"dtype": None}, TypeError, "floating-point dtype"),
        ([1.0], None, {"shuffle": True}, ValueError, "needs rng="),
        ([1.0], None, {"shuffle": False, "rng": 0}, ValueError, "rng= would go unused"),
        ([1.0], None, {"batch_size": 2, "drop_last": True}, ValueError, "leaves no batch"),
        ([1.0], None, {"device": "gpu"}, ValueError, "expected one of auto, cpu, cuda"),
        ([1.0], None, {"rng": "0"}, TypeError, "rng expects a seed"),
        ([], None, {}, ValueError, "X is empty"),
        ((), None, {}, ValueError, "empty tuple"),
        ((1.0, 2.0), None, {}, TypeError, "Write a list"),
        ([1.0], ["a"], {}, TypeError, "^y expects"),
        ([[1.0, 2.0], [3.0, np.nan]], None, {}, ValueError, r"X\[1, 1\] = nan"),
        ([1.0], [np.inf], {}, ValueError, r"y\[0\] = inf"),
        ([1e39], None, {}, ValueError, r"X\[0\] is 1e\+39, too large for float32"),
        ([7e4], None, {"dtype": np.float16}, ValueError, "too large for float16"),
        ([1.0], np.array([2**63], np.uint64), {}, ValueError, "too large for int64"),
    ],
)
def test_batches_refuse(X, y, options, error, message):
    with pytest.raises(error, match=message):
        xb.data.batches(X, y, **options)


def test_nonfinite_numbers_far_into_the_data_are_found():
    X = np.zeros((1500, 1000), np.float32)  # more than one block of the scan
    X[1400, 7] = -np.inf
    with pytest.raises(ValueError, match=r"X\[1400, 7\] = -inf"):
        xb.data.batches(X)
    assert len(xb.data.batches(X, check_finite=False)) == 24


# ---------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize("bit_generator", GENERATORS)
@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_resume_within_an_epoch_is_exact(bit_generator, done):
    data = np.arange(8.0)
    generator = np.random.Generator(bit_generator(7))
    loader = xb.data.batches(data, batch_size=3, rng=generator)
    indices_of(loader)  # epoch 0
    running = iter(loader)
    for _ in range(done):
        next(running)
        generator.random(3)  # somebody else draws from the same generator
        generator.integers(9, dtype=np.uint32)  # leaves half a draw in some generators' buffers
    saved = json.loads(json.dumps(loader.state_dict()))
    expected = [x.astype(int).tolist() for x in running]
    expected += indices_of(loader)
    expected_draw = generator.random()

    fresh = np.random.Generator(bit_generator(99))
    resumed = xb.data.batches(data, batch_size=3, rng=fresh)
    indices_of(resumed)
    resumed.load_state_dict(saved)
    assert (resumed.epoch, resumed.position) == (1, min(3 * done, 8))
    rest = indices_of(resumed)
    assert len(rest) == 3 - done
    assert resumed.epoch == 2
    assert rest + indices_of(resumed) == expected
    assert fresh.random() == expected_draw


def test_resume_between_epochs_and_in_order():
    loader = xb.data.batches(np.arange(5.0), batch_size=2, rng=0)
    indices_of(loader)
    saved = loader.state_dict()
    second = indices_of(loader)
    other = xb.data.batches(np.arange(5.0), batch_size=2, rng=1)
    other.load_state_dict(saved)
    assert (other.epoch, other.position) == (1, 0)
    assert indices_of(other) == second

    ordered = xb.data.batches(np.arange(5.0), batch_size=2)
    next(iter(ordered))
    other = xb.data.batches(np.arange(5.0), batch_size=2)
    other.load_state_dict(json.loads(json.dumps(ordered.state_dict())))
    assert indices_of(other) == [[2, 3], [4]]
    assert indices_of(other) == [[0, 1], [2, 3], [4]]


def test_state_saved_again_right_after_loading_is_the_same():
    loader = xb.data.batches(np.arange(5.0), batch_size=2, rng=0)
    next(iter(loader))
    saved = loader.state_dict()
    other = xb.data.batches(np.arange(5.0), batch_size=2, rng=1)
    other.load_state_dict(saved)
    assert other.state_dict() == saved
    for _ in other:
        pass
    assert saved == loader.state_dict()  # what was handed out and in is not written to


def test_loop_left_early_is_over():
    draws = np.random.default_rng(0)
    orders = [draws.permutation(6).tolist() for _ in range(2)]
    loader = xb.data.batches(np.arange(6.0), batch_size=2, rng=0)
    abandoned = iter(loader)
    assert next(abandoned).tolist() == orders[0][:2]
    running = iter(loader)
    assert loader.epoch == 1
    assert next(running).tolist() == orders[1][:2]
    assert next(abandoned).tolist() == orders[0][2:4]  # keeps its own order, and does not count
    list(abandoned)
    assert (loader.epoch, loader.position) == (1, 2)
    list(running)
    assert (loader.epoch, loader.position) == (2, 0)


def change(**changes):
    def apply(state):
        return {**state, **changes}

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change(num_samples=6), "num_samples=6; these have num_samples=5"),
        (change(batch_size=3), "batch_size=3"),
        (change(drop_last=True), "drop_last=True"),
        (change(position=1), "position 1"),
        (change(position=7), "position 7"),
        (change(position=-2), "position -2"),
        (change(epoch="1"), "epoch '1'"),
        (change(has_started=1), "has_started 1"),
        (change(has_started=False), "has_started False"),
        (change(generator=None), "batches in order; these are shuffled"),
        (change(generator={"bit_generator": "Philox"}), "PCG64 generator; got Philox"),
        (change(generator={"bit_generator": "PCG64"}), "damaged"),
        (change(generator_at_epoch_start=None), "got NoneType"),
        (lambda state: {k: v for k, v in state.items() if k != "epoch"}, "lacks epoch"),
    ],
)
def test_state_that_does_not_fit_changes_nothing(damage, message):
    loader = xb.data.batches(np.arange(5.0), batch_size=2, rng=0)
    running = iter(loader)
    next(running)
    before = loader.state_dict()
    with pytest.raises(ValueError, match=message):
        loader.load_state_dict(damage(before))
    assert loader.state_dict() == before
    next(running)
    assert loader.position == 4


def test_ordered_batches_refuse_the_state_of_shuffled_ones():
    state = xb.data.batches([1.0], rng=0).state_dict()
    with pytest.raises(ValueError, match="batches shuffled; these are in order"):
        xb.data.batches([1.0]).load_state_dict(state)
