"""The stand-in GPU is as strict as CuPy or stricter; legal code runs with NumPy's numbers."""

import contextlib
import copy
import math
import operator
import pickle
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.backend.cupy_surface import load
from xbackprop.backend.fake import FakeArray, memory_of, xp

HERE = __file__
HOST = np.arange(6.0).reshape(2, 3)


def dev(values: Any, dtype: Any = None) -> FakeArray:
    return xp.asarray(np.array(values, dtype))


@pytest.fixture
def x() -> FakeArray:
    return dev(HOST)


@contextlib.contextmanager
def nothing_comes_down() -> Iterator[None]:
    with xb.transfer_log() as log:
        yield
    assert log.downloads == 0


# --- Host arrays, lists and NumPy functions.

OPERATORS = (
    "add sub mul truediv floordiv mod pow matmul and_ or_ xor lshift rshift iadd isub imul "
    "itruediv ifloordiv imod ipow iand ior ixor ilshift irshift eq ne lt le gt ge"
).split()


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_refuse_host_arrays_lists_and_other_objects(name: str) -> None:
    array = dev([[1, 2], [3, 4]])
    operation = getattr(operator, name)
    for other in (np.ones((2, 2), int), np.array(1), [[1, 2], [3, 4]], (1, 2), "a", None, {}):
        with pytest.raises(TypeError):
            operation(array, other)
        if not name.startswith("i") and not isinstance(other, (str, list, tuple)):
            with pytest.raises(TypeError):
                operation(other, array)
    with pytest.raises(ValueError, match="fake:0 and fake:1 met"):
        operation(array, xb.to_device(array, "fake:1"))


@pytest.mark.parametrize("name", [name for name in OPERATORS if not name.startswith("i")])
def test_operators_take_arrays_and_numbers_with_numpys_results(name: str) -> None:
    host, operation = np.array([[1, 2], [3, 4]]), getattr(operator, name)
    for other in (host + 1, 2, np.int64(2), np.uint8(2)):
        if name == "matmul" and not isinstance(other, np.ndarray):
            continue
        device = dev(other) if isinstance(other, np.ndarray) else other
        for a, b, c, d in ((host, other, dev(host), device), (other, host, device, dev(host))):
            expected, result = operation(a, b), operation(c, d)
            assert type(result) is FakeArray
            np.testing.assert_array_equal(xb.to_host(result), expected, strict=True)


def test_in_place_operators_write_into_the_same_memory(x: FakeArray) -> None:
    alias, used = x.T, memory_of(0).used
    same = x
    x += 1
    x *= x
    x[0] -= 1.0
    assert x is same
    np.testing.assert_array_equal(xb.to_host(alias), np.array([[0.0, 16], [3, 25], [8, 36]]))
    assert memory_of(0).used == used
    before = x
    x @= dev(np.eye(3))  # CuPy has no __imatmul__, so Python makes a new array
    assert x is not before


@pytest.mark.parametrize(
    "call",
    [
        np.sum, np.mean, np.asarray, np.array, np.exp, np.reshape, np.concatenate, np.copy,
        np.add.reduce, np.ascontiguousarray, np.from_dlpack, memoryview, np.linalg.norm,
        np.atleast_1d, np.frombuffer, lambda x: np.add(x, 1), lambda x: np.add(x, x, out=x),
        lambda x: np.add(np.ones(3), np.ones(3), out=x[0]), lambda x: np.copyto(np.ones((2, 3)), x),
        lambda x: np.ones((2, 3))[x > 1], lambda x: np.stack([x, x]), lambda x: np.add.at(x, 0, 1),
        lambda x: np.where(x > 0, x, 0), lambda x: np.asarray([x, x]), lambda x: HOST.dot(x),
        lambda x: HOST.copy().__setitem__(0, x[0]), lambda x: np.float64(2) == np.exp(x),
    ],
)  # fmt: skip
def test_numpy_gets_no_device_array(call: Callable[[Any], Any], x: FakeArray) -> None:
    with nothing_comes_down(), pytest.raises((TypeError, ValueError)):
        call(x)


def test_in_place_operators_of_host_arrays_refuse(x: FakeArray) -> None:
    host = np.ones((2, 3))
    with pytest.raises(TypeError):
        host += x
    with pytest.raises(TypeError, match="NumPy array"):
        host * x
    np.testing.assert_array_equal(xb.to_host(np.float64(2) * x), HOST * 2)


def test_pickling_hashing_and_dlpack_are_refused(x: FakeArray) -> None:
    for call in (pickle.dumps, copy._reconstruct, hash, x.dumps, x.__dlpack__):  # type: ignore[attr-defined]
        with pytest.raises(TypeError):
            call(x)
    with pytest.raises(TypeError, match="to_host"):
        pickle.dumps({"weight": x})


def test_copies_are_new_memory_on_the_same_device(x: FakeArray) -> None:
    elsewhere = xb.to_device(x, "fake:1")
    for original in (x, elsewhere):
        duplicate = copy.deepcopy({"a": original})["a"]
        assert duplicate.device == original.device
        with xb.use_device(original.device):
            duplicate += 1
            assert float(copy.copy(original).sum()) == HOST.sum() == float(original.sum())


def test_arrays_are_made_by_the_namespace_only() -> None:
    for call in (FakeArray, xp.ndarray):
        with pytest.raises(TypeError, match=r"xp\.zeros"):
            call((2, 3))


def test_isinstance_len_device_and_attributes(x: FakeArray) -> None:
    assert isinstance(x, xp.ndarray)
    assert not isinstance(HOST, xp.ndarray)
    assert isinstance(xp.exp, xp.ufunc)
    assert len(x) == 2
    assert x.device == xb.Device("fake", 0)
    assert (x.shape, x.ndim, x.size, x.nbytes, x.itemsize) == ((2, 3), 2, 6, 48, 8)
    assert x.T.strides == (8, 24)
    with pytest.raises(TypeError, match="without dimensions"):
        len(x[0, 0])
    x.shape = (3, 2)
    assert x.shape == (3, 2)
    with pytest.raises(AttributeError, match="without a copy"):
        x.T.shape = (6,)
    with pytest.raises(AttributeError):
        x.dtype = np.float32


def test_flags_are_cupys(x: FakeArray) -> None:
    assert (x.flags.c_contiguous, x.T.flags.c_contiguous, x.T.flags.f_contiguous) == (1, 0, 1)
    assert x.flags["C_CONTIGUOUS"]
    assert "OWNDATA" in repr(x.flags)
    for name in ("writeable", "aligned"):
        with pytest.raises(AttributeError):
            getattr(x.flags, name)
    with pytest.raises(KeyError):
        x.flags["WRITEABLE"]


@pytest.mark.parametrize("name", sorted(set(dir(np.ndarray)) - set(dir(FakeArray))))
def test_what_numpys_arrays_have_more_is_missing(name: str, x: FakeArray) -> None:
    known = load().methods.keys() | load().attributes
    with pytest.raises(AttributeError, match="does not model" if name in known else "no attribute"):
        getattr(x, name)


@pytest.mark.parametrize("name", sorted(n for n in dir(FakeArray) if not n.startswith("_")))
def test_public_attributes_are_cupys(name: str) -> None:
    assert name in load().methods.keys() | load().attributes


def test_special_methods_are_cupys() -> None:
    ours = {name for name in vars(FakeArray) if name.startswith("__")}
    refusals = {"__array__", "__index__", "__reduce_ex__", "__dlpack__", "__dlpack_device__",
                "__array_function__"}  # fmt: skip
    counted = {"__contains__"}  # CuPy iterates instead, which reads back every element
    python = {"__slots__", "__module__", "__doc__", "__init__", "__hash__", "__annotations__",
              "__weakref__", "__getattr__", "__static_attributes__", "__firstlineno__",
              "__array_ufunc__"}  # fmt: skip
    assert ours - python - refusals - counted <= load().special_methods


def test_names_of_the_namespace() -> None:
    names = dir(xp)
    for name in ("exp", "sum", "zeros", "linalg", "fft", "float32", "pi", "ndarray", "r_"):
        assert name in names
    for name in ("random", "cuda", "alltrue", "RawKernel", "trapz", "block", "Inf", "nothing"):
        assert name not in names
        assert not hasattr(xp, name)
    assert "svd" in dir(xp.linalg)
    for name in names:
        getattr(xp, name)
    with pytest.raises(AttributeError, match="NumPy has it, CuPy does not"):
        xp.block([1])
    with pytest.raises(AttributeError, match="NumPy has it, CuPy does not"):
        xp.linalg.multi_dot([])
    with pytest.raises(NotImplementedError, match="Generator"):
        getattr(xp, "random")  # noqa: B009  (a name alone is "useless" to ruff)
    with pytest.raises(NotImplementedError, match="use trapezoid"):
        xp.trapz(HOST)
    assert xp.linalg.LinAlgError is np.linalg.LinAlgError
    assert xp.newaxis is None


# --- Reading back.

READS: dict[str, tuple[Callable[[Any], Any], Any, int]] = {
    "float": (lambda x: float(x[1, 2]), 5.0, 8),
    "int": (lambda x: int(x[1, 2]), 5, 8),
    "complex": (lambda x: complex(x[1, 2]), 5 + 0j, 8),
    "bool": (lambda x: bool(x[1, 2]), True, 8),
    "bool of one element": (lambda x: bool(x[1:, 2:]), True, 8),
    "not": (lambda x: not x[0, 0], True, 8),
    "if": (lambda x: 1 if x[0, 0] < 1 else 2, 1, 1),
    "item": (lambda x: x[1, 2].item(), 5.0, 8),
    "tolist": (lambda x: x.tolist(), HOST.tolist(), 48),
    "tobytes": (lambda x: x.tobytes(), HOST.tobytes(), 48),
    "bytes": (lambda x: bytes(x[0]), HOST[0].tobytes(), 24),
    "get": (lambda x: x.get().sum(), 15.0, 48),
    "asnumpy": (lambda x: xp.asnumpy(x).sum(), 15.0, 48),
    "to_host": (lambda x: xb.to_host(x).sum(), 15.0, 48),
    "in": (lambda x: 5.0 in x, True, 6),
    "not in": (lambda x: 7.0 in x, False, 6),
    "str": (str, str(HOST), 48),
    "repr": (repr, repr(HOST), 48),
    "format": (lambda x: f"{x[1, 2]:.1f}", "5.0", 8),
    "print": (lambda x: str(x[0]), str(HOST[0]), 24),
    "array2string": (lambda x: xp.array2string(x), np.array2string(HOST), 48),
    "math.sqrt": (lambda x: math.sqrt(x[1, 1]), 2.0, 8),
    "sum": (lambda x: float(sum([x[0, 1], x[0, 2]])), 3.0, 8),
}  # fmt: skip


@pytest.mark.parametrize("name", READS)
def test_reading_back_waits_and_downloads(name: str, x: FakeArray) -> None:
    read, expected, size_bytes = READS[name]
    with xb.transfer_log() as log:
        assert read(x) == expected
    assert (log.synchronizations, log.downloads, log.bytes_downloaded) == (1, 1, size_bytes)
    assert log.uploads == 0
    assert {event.filename for event in log.events} == {HERE}


def test_iteration_waits(x: FakeArray) -> None:
    with xb.transfer_log() as log:
        first, second = x
        rows = [row.sum() for row in x]
    assert (log.synchronizations, log.downloads) == (2, 0)
    assert [type(row) for row in (first, second, *rows)] == [FakeArray] * 4
    with pytest.raises(TypeError, match="0-d"):
        iter(x[0, 0])


@pytest.mark.parametrize(
    "call",
    [range, operator.index, round, math.factorial, lambda n: [1, 2, 3][n], lambda n: "ab" * n,
     lambda n: xp.zeros(n), lambda n: xp.zeros((n, 2)), lambda n: xp.eye(n),
     lambda n: xp.arange(n), lambda n: dev(HOST).reshape(n, 3), lambda n: dev(HOST).sum(axis=n),
     lambda n: dev(HOST)[:n], lambda n: xp.tile(dev(HOST), n), lambda n: xp.pad(dev(HOST), n),
     lambda n: np.ones(3)[n], lambda n: xp.split(dev(HOST), n), lambda n: hex(n),
     lambda n: xp.isclose(dev(HOST), 1.0, rtol=n)],
)  # fmt: skip
def test_an_array_is_no_python_integer(call: Callable[[Any], Any]) -> None:
    with nothing_comes_down(), pytest.raises((TypeError, IndexError)):
        call(dev(2))


@pytest.mark.parametrize("convert", [float, int, complex])
def test_one_element_with_dimensions_is_no_number(convert: Any) -> None:
    with pytest.raises(TypeError, match="item"):
        convert(dev([1.0]))


@pytest.mark.parametrize("shape", [(0,), (2,), (2, 3)])
def test_truth_of_several_elements_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="ambiguous"):
        bool(xp.zeros(shape))


def test_comparing_with_none_is_refused(x: FakeArray) -> None:
    for call in (lambda: x == None, lambda: x != None, lambda: None in x):  # noqa: E711
        with pytest.raises(TypeError, match="is None"):
            call()


def test_reductions_and_elements_stay_on_the_device(x: FakeArray) -> None:
    with xb.transfer_log() as log:
        results = [x.sum(), xp.mean(x), x[0, 0], x.max(), xp.argmax(x), x[0][1], xp.linalg.norm(x),
                   xp.dot(x[0], x[0]), xp.count_nonzero(x), xp.allclose(x, x), x.all(), x.flat[2],
                   xp.array_equal(x, x), -x[0, 0], x[0, 0] + 1, xp.exp(x[0, 0]), x[0, 0] ** 2,
                   xp.trace(x), xp.float32(2) * x[0, 0], xp.median(x), xp.square(2.0)]  # fmt: skip
    assert [type(result) for result in results] == [FakeArray] * len(results)
    assert [result.shape for result in results] == [()] * len(results)
    assert log.downloads == log.synchronizations == log.uploads == 0


# --- Waiting for a size or a condition.

WAITS: dict[str, Callable[[Any], Any]] = {
    "nonzero": lambda x: xp.nonzero(x), "method nonzero": lambda x: x.nonzero(),
    "flatnonzero": lambda x: xp.flatnonzero(x), "argwhere": lambda x: xp.argwhere(x),
    "where": lambda x: xp.where(x > 1), "mask": lambda x: x[x > 1],
    "mask and slice": lambda x: x[x[:, 0] > 1, 1:],
    "assignment of a number": lambda x: x.__setitem__(x > 1, 0.0),
    "assignment of an array": lambda x: x.__setitem__(x > 4, dev([9.0])),
    "unique": lambda x: xp.unique(x), "union1d": lambda x: xp.union1d(x, x),
    "intersect1d": lambda x: xp.intersect1d(x, x), "setdiff1d": lambda x: xp.setdiff1d(x, x),
    "compress": lambda x: xp.compress(x[:, 0] > 1, x, axis=0),
    "extract": lambda x: xp.extract(x > 1, x), "place": lambda x: xp.place(x, x > 1, x[0]),
    "bincount": lambda x: xp.bincount(dev([1, 2])), "delete": lambda x: xp.delete(x, 1, 1),
    "repeat": lambda x: xp.repeat(x, dev([1, 2]), 0), "histogram": lambda x: xp.histogram(x),
    "average": lambda x: xp.average(x, weights=x), "nanmax": lambda x: xp.nanmax(x),
    "quantile": lambda x: xp.quantile(x, dev(0.5)), "lstsq": lambda x: xp.linalg.lstsq(x, x),
    "linspace": lambda x: xp.linspace(x[0], 2.0, 3), "fill": lambda x: x.fill(x[0, 0].copy()),
    "put": lambda x: x.put(dev([1]), 2.0, mode="raise"), "cond": lambda x: xp.linalg.cond(x),
    "unravel_index": lambda x: xp.unravel_index(dev([1]), (2, 3)),
    "array_equal": lambda x: xp.array_equal(x, x, equal_nan=True),
    "shares_memory": lambda x: xp.shares_memory(x, x[0]), "ix_": lambda x: xp.ix_(x[0] > 1),
    "tril_indices": lambda x: xp.tril_indices(3), "at a mask": lambda x: xp.add.at(x, x > 1, 1.0),
    "choose": lambda x: xp.choose(dev([0, 1, 1]), x), "iscomplexobj": None,
}  # fmt: skip
RUNS: dict[str, Callable[[Any], Any]] = {
    "indices": lambda x: x[dev([0, 1])], "assignment": lambda x: x.__setitem__(dev([1]), 2.0),
    "where": lambda x: xp.where(x > 1, x, 0), "digitize": lambda x: xp.digitize(x, x[0]),
    "searchsorted": lambda x: xp.searchsorted(x[0], x), "isin": lambda x: xp.isin(x, x),
    "sort": lambda x: xp.sort(x), "argsort": lambda x: x.argsort(), "median": xp.median,
    "repeat": lambda x: xp.repeat(x, 2), "histogram": lambda x: xp.histogram(x, range=(0, 1)),
    "average": lambda x: xp.average(x), "quantile": lambda x: xp.quantile(x, 0.5),
    "linspace": lambda x: xp.linspace(0, 1), "take": lambda x: xp.take(x, dev([0])),
    "svd": lambda x: xp.linalg.svd(x), "pad": lambda x: xp.pad(x, 1), "fill": lambda x: x.fill(2),
    "allclose": lambda x: xp.allclose(x, x), "isfortran": lambda x: xp.isfortran(x),
    "array_equal": lambda x: xp.array_equal(x, x), "may_share": lambda x: xp.may_share_memory(x, x),
    "choose": lambda x: xp.choose(dev([0, 1, 1]), x, mode="clip"), "put": lambda x: x.put(
        dev([1]), 2.0), "at": lambda x: xp.add.at(x, dev([0, 0]), 1.0), "cov": lambda x: xp.cov(x),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name, call in WAITS.items() if call])
def test_what_cupy_must_know_is_a_synchronization(name: str, x: FakeArray) -> None:
    with xb.transfer_log() as log:
        WAITS[name](x)
    assert (log.synchronizations, log.downloads, log.uploads) == (1, 0, log.uploads)


@pytest.mark.parametrize("name", RUNS)
def test_the_rest_does_not_wait(name: str, x: FakeArray) -> None:
    with xb.transfer_log() as log:
        RUNS[name](x)
    assert log.synchronizations == log.downloads == 0


# --- Functions.


def test_keywords_are_cupys(x: FakeArray) -> None:
    for call in (lambda: xp.sum(x, where=x > 1), lambda: xp.exp(x, where=x > 1), lambda: x.sum(
        where=True), lambda: xp.add(x, x, order="C"), lambda: xp.max(x, initial=0), lambda: xp.mean(
        x, where=x > 1), lambda: x.astype("f4", casting="safe"), lambda: x.sort(kind="quicksort"),
        lambda: xp.copyto(x, 1.0, where=x > 1), lambda: xp.zeros(3, like=x), lambda: x.item(0),
        lambda: xp.take(x, 1, mode="clip"), lambda: xp.array(x, like=x), lambda: x.view(type=int),
        lambda: xp.quantile(x, 0.5, method="hazen"),
        lambda: xp.argmax(x, dtype=np.int32)):  # fmt: skip
        with pytest.raises((TypeError, ValueError, NotImplementedError)):
            call()


def test_errors_name_the_function_the_argument_and_what_to_do(x: FakeArray) -> None:
    with pytest.raises(TypeError, match=r"dot\(b=\): expected a device array .*asarray"):
        xp.dot(x, HOST)
    with pytest.raises(TypeError, match=r"concatenate\(tup=\).*NumPy array of shape \(2, 3\)"):
        xp.concatenate([x, HOST])
    with pytest.raises(TypeError, match=r"add: .* a list"):
        x + HOST.tolist()
    with pytest.raises(TypeError, match="it takes a, axis, dtype, out, keepdims"):
        xp.sum(x, where=True)
    with pytest.raises(RuntimeError, match="use_device"), xb.use_device("fake:1"):
        x + 1
    with pytest.raises(TypeError, match="get_array_module"):
        np.sum(x)
    with pytest.raises(TypeError, match="to_host"):
        np.asarray(x)


def test_out_is_returned_and_allocates_nothing(x: FakeArray) -> None:
    out, used = xp.zeros((2, 3)), memory_of(0).used
    assert xp.exp(x, out) is out
    assert xp.multiply(x, 2, out=out) is out
    assert xp.sum(x, axis=0, out=out[0]).shape == (3,)
    row = out[0]
    assert x.sum(0, None, row) is row
    assert xp.clip(x, 0, 1, out=out) is out
    fraction, whole = xp.modf(x, out=(out, xp.zeros((2, 3))))
    assert fraction is out
    del fraction, whole
    assert memory_of(0).used == used
    for wrong in (np.zeros((2, 3)), [0.0], 1.0):
        with pytest.raises(TypeError):
            xp.exp(x, out=wrong)
        with pytest.raises(TypeError):
            xp.sum(x, axis=0, out=wrong)
    with pytest.raises(ValueError, match="broadcast"):
        xp.exp(x, out=xp.zeros(3))
    with pytest.raises(ValueError, match="fake:1"):
        xp.exp(x, out=xb.to_device(x, "fake:1"))


def test_numbers_only_make_a_device_array() -> None:
    with xb.use_device("fake:1"):
        assert (xp.exp(2.0) + xp.add(1, 2)).device == xb.Device("fake", 1)


def test_functions_refuse_numbers_where_cupy_wants_arrays(x: FakeArray) -> None:
    for call in (lambda: xp.sum(3.0), lambda: xp.where(True, x, x), lambda: xp.dot(x, 2.0),
                 lambda: xp.ravel(1.0), lambda: xp.transpose(3), lambda: xp.stack([x[0], 1.0]),
                 lambda: xp.linalg.norm(2.0), lambda: xp.tile(1.0, 2), lambda: xp.sort(1),
                 lambda: xp.ascontiguousarray(HOST), lambda: xp.matmul(x, 2.0)):  # fmt: skip
        with pytest.raises((TypeError, ValueError)):
            call()


def test_what_numpy_does_and_cupy_has_not_implemented() -> None:
    x, square = dev(HOST), dev(np.eye(3))
    calls: list[Callable[[], Any]] = [
        lambda: x.T.sort(),
        lambda: x.T.partition(1),
        lambda: xp.trim_zeros(x),
        lambda: xp.histogram(x * 1j),
        lambda: xp.pad(x, 1, mode=lambda *rest: None),
        lambda: xp.pad(x, 1, mode="median"),
        lambda: xp.pad(x, {0: 1}),
        lambda: xp.lexsort(xp.zeros((1, 1, 1))),
        lambda: xp.interp(x[0, ::2], x[0], x[0]),
        lambda: xp.meshgrid(x, x),
        lambda: xp.putmask(x, xp.ones(6, bool), 1.0),
        lambda: xp.linalg.solve(square, xp.ones((2, 3, 4))),
        lambda: xp.take(x, 0, out=xp.zeros((), np.float32)),
        lambda: xp.nonzero(x[0, 0]),
        lambda: xp.where(x[0, 0]),
        lambda: xp.corrcoef(x, ddof=1),
        lambda: xp.argmax(x, dtype=np.int32),
        lambda: xp.fromfunction(lambda i: 1, (2,)),
        lambda: x.view(type=np.ndarray),
    ]
    for call in calls:
        with pytest.raises(NotImplementedError):
            call()
    with pytest.raises(TypeError):
        xp.piecewise(x, [x > 0], [abs])
    assert xp.linalg.solve(square, x.T).shape == (3, 2)


def test_results_have_cupys_form() -> None:
    x = dev(np.diag([2.0, 1.0]))
    assert type(xp.linalg.eigh(x)) is tuple
    assert type(xp.linalg.svd(x)) is tuple
    assert xp.linalg.eigvals(x).dtype == np.complex128
    assert xp.unique_counts(x).counts.shape == (3,)
    step = xp.linspace(0, 1, 3, retstep=True)[1]
    assert type(step) is float
    assert type(xp.r_[x[0], 5.0]) is FakeArray
    np.testing.assert_array_equal(xb.to_host(xp.c_[x[0], x[1]]), [[2, 0], [0, 1]])
    np.testing.assert_array_equal(xb.to_host(xp.mgrid[0:2, 0:2]), np.mgrid[0:2, 0:2])
    with pytest.raises(TypeError):
        xp.r_[x[0], HOST[0]]
    with pytest.raises(TypeError):
        xp.r_[0:3]


@pytest.mark.filterwarnings("error")
def test_floating_point_flags_and_empty_means_are_silent() -> None:
    zero, empty = dev([0.0]), xp.zeros((0, 3))
    with np.errstate(all="raise"):
        results = [1 / zero, zero / zero, xp.log(-1 + zero), zero + 1e308 * dev(10.0),
                   dev([1e300]).astype("f4"), dev([1]) // 0, empty.mean(), xp.mean(empty, axis=0),
                   empty.var(), xp.std(zero, ddof=1), xp.nanmean(dev([np.nan])), xp.median(empty),
                   dev([1j]).astype(float), xp.nanmax(dev([np.nan])), xp.average(empty),
                   xp.full(2, 1j, dtype=float), xp.exp(dev([1e4])),
                   dev([np.nan]).astype(int)]  # fmt: skip
        zero[:] = dev([1j])
    assert all(type(result) is FakeArray for result in results)
    assert np.isnan(float(results[6]))
    assert xb.to_host(results[7]).shape == (3,)


def test_silencing_does_not_lose_the_warnings_of_others() -> None:
    stop = threading.Event()

    def compute() -> None:
        while not stop.is_set():
            xp.zeros(0).mean()

    threads = [threading.Thread(target=compute) for _ in range(4)]
    filters = list(warnings.filters)
    for thread in threads:
        thread.start()
    stop.wait(0.2)
    stop.set()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == filters
