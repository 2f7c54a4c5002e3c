"""Every function of CuPy that the stand-in GPU admits: NumPy's numbers, and CuPy's refusals."""

import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from fake_cases import (
    CASES,
    NO_METHOD,
    NOT_MODELLED,
    PLAIN_RESULTS,
    SELF_MADE,
    SURFACE,
    Case,
    degenerate_cases,
    on_device,
)

import xbackprop as xb
from xbackprop.backend.fake import FakeArray, xp

NAMES = sorted({case.name for case in CASES})
OF_NAME = {name: [case for case in CASES if case.name == name] for name in NAMES}

each_name = pytest.mark.parametrize("name", NAMES)


def on_host(value: Any) -> Any:
    """Look into a result without booking downloads."""
    if isinstance(value, FakeArray):
        return value._array
    if isinstance(value, (list, tuple)):
        return [on_host(part) for part in value]
    return value


def host_arrays_in(value: Any) -> Iterator[Any]:
    if isinstance(value, (np.ndarray, np.generic)):
        yield value
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from host_arrays_in(part)


def assert_same(result: Any, expected: Any, *, complex_result: bool = False) -> None:
    """Compare shapes, dtypes and every bit of the numbers."""
    if isinstance(expected, (list, tuple)):
        assert len(result) == len(expected)
        for one, other in zip(result, expected, strict=True):
            assert_same(one, other, complex_result=complex_result)
        return
    expected = np.asarray(expected)
    if complex_result:  # cuSOLVER returns complex eigenvalues also where all are real
        expected = expected.astype(np.result_type(expected, np.complex64))
    np.testing.assert_array_equal(np.asarray(result), expected, strict=True)


def is_beyond_cupy(case: Case) -> bool:
    if case.name == "linalg.solve":
        a, b = case.args
        return b.ndim > 1 and a.shape[:-1] != b.shape[:-1]
    return case.name == "trim_zeros" and case.args[0].ndim > 1


@each_name
def test_results_are_numpys_and_stay_on_the_device(name: str) -> None:
    for case in OF_NAME[name]:
        if is_beyond_cupy(case):
            with pytest.raises(NotImplementedError):
                case.run()
            continue
        result, expected, fake_args, host_args = case.run()
        if name not in PLAIN_RESULTS:
            assert list(host_arrays_in(result)) == [], case
        assert_same(on_host(result), expected, complex_result=name in ("linalg.eig",
                    "linalg.eigvals"))  # fmt: skip
        changed, wanted = on_host(list(fake_args)), list(host_args)
        for one, other in zip(changed, wanted, strict=True):
            if isinstance(other, (np.ndarray, list)):
                assert_same(one, other)


@each_name
def test_unknown_keywords_are_refused(name: str) -> None:
    case = OF_NAME[name][0]
    for keyword in ("unknown_keyword", "where", "initial", "like"):
        if is_variadic(name):
            continue
        with pytest.raises((TypeError, ValueError)):
            case.call(xp)(*on_device(case.args), **{**on_device(case.kwargs), keyword: True})


def is_variadic(name: str) -> bool:
    signature = SURFACE.functions.get(name)
    return signature is not None and signature.varkw and name != "pad"


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Find where the arrays are in the arguments of a call."""
    if isinstance(value, np.ndarray):
        yield path
    if isinstance(value, (list, tuple, dict)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(part, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], change: Callable[[np.ndarray], Any]) -> Any:
    """Put arguments on the device but for one, which is changed instead."""
    if not path:
        return change(value)
    parts = dict(value) if isinstance(value, dict) else dict(enumerate(value))
    done = {
        key: replaced(part, path[1:], change) if key == path[0] else on_device(part)
        for key, part in parts.items()
    }
    return done if isinstance(value, dict) else type(value)(done.values())


# Host values are what these are for: they upload.
TAKES_HOST_VALUES = frozenset(
    "array asarray asanyarray asarray_chkfinite iscomplexobj isrealobj min_scalar_type ndim shape "
    "size".split()
)
# A list there is a plan of the host, small and uploaded with a record, or sections of a split.
TAKES_A_LIST = {("repeat", 1), ("quantile", 1), ("roll", 1), ("ndarray.repeat", 1),
                ("histogram", "bins"), ("select", 1)}  # fmt: skip


@each_name
def test_host_arrays_and_lists_are_refused_in_every_place(name: str) -> None:
    if name in TAKES_HOST_VALUES:
        return
    checked = 0
    cases = [case for case in OF_NAME[name] if not is_beyond_cupy(case)]
    for case in cases[:4] + cases[-4:]:
        call = (list(case.args), case.kwargs)
        for path in places(call):
            if path[:2] == (0, 0) and name.startswith("ndarray."):
                continue  # the array whose method it is
            for change in (np.copy, np.ndarray.tolist):
                args, kwargs = replaced(call, path, change)
                if change is np.ndarray.tolist and not takes_no_list(name, path, args, kwargs):
                    continue
                with pytest.raises((TypeError, ValueError)):
                    case.call(xp)(*args, **kwargs)
                checked += 1
    has_arrays = any(True for case in OF_NAME[name] for _ in places((case.args, case.kwargs)))
    assert checked or not has_arrays or name.startswith("ndarray.")


def takes_no_list(name: str, path: tuple[Any, ...], args: Any, kwargs: Any) -> bool:
    """A number is no list, and some parameters take one."""
    value = (args, kwargs)
    for key in path:
        value = value[key]
    return isinstance(value, list) and (name, path[1]) not in TAKES_A_LIST


@each_name
def test_arrays_of_two_devices_do_not_mix(name: str) -> None:
    for case in OF_NAME[name][:3]:
        call = (list(case.args), case.kwargs)
        found = list(places(call))
        if len(found) < 2 or name in PLAIN_RESULTS or is_beyond_cupy(case):
            continue
        args, kwargs = replaced(call, found[-1], lambda array: xb.to_device(array, "fake:1"))
        with pytest.raises((ValueError, TypeError), match=r"fake:|list of device arrays"):
            case.call(xp)(*args, **kwargs)


@each_name
def test_computing_on_a_device_that_is_not_current_is_refused(name: str) -> None:
    for case in OF_NAME[name][:2]:
        call = (list(case.args), case.kwargs)
        if not any(places(call)) or name in PLAIN_RESULTS or is_beyond_cupy(case):
            continue
        args, kwargs = on_device(call)
        with xb.use_device("fake:1"):
            try:
                result = case.call(xp)(*args, **kwargs)
            except RuntimeError:
                with pytest.raises(RuntimeError, match="while fake:1 is current"):
                    case.call(xp)(*args, **kwargs)
                continue
        arrays = [part for part in flattened(result) if isinstance(part, FakeArray)]
        inputs = [part for part in flattened((args, kwargs)) if isinstance(part, FakeArray)]
        owned = {id(part._allocation) for part in inputs}
        assert arrays, case
        assert all(id(part._allocation) in owned for part in arrays), case


def flattened(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from flattened(part)
    else:
        yield value


@each_name
def test_every_call_is_one_launch_and_every_view_none(name: str) -> None:
    for case in OF_NAME[name]:
        if name in PLAIN_RESULTS | TAKES_HOST_VALUES or is_beyond_cupy(case):
            continue
        args, kwargs = on_device(case.args), on_device(case.kwargs)
        inputs = {
            id(part._allocation) for part in flattened((args, kwargs))
            if isinstance(part, FakeArray)
        }  # fmt: skip
        with xb.transfer_log() as log:
            result = case.call(xp)(*args, **kwargs)
        outputs = [part for part in flattened(result) if isinstance(part, FakeArray)]
        is_view = bool(outputs) and all(id(part._allocation) in inputs for part in outputs)
        is_free = (is_view and name not in IN_PLACE) or name in READERS
        expected = LAUNCHES.get(name, 0 if is_free else 1)
        assert log.launches == expected, (case, log.events)
        assert log.downloads == 0


READERS = frozenset("fromfunction fromiter frombuffer fromstring".split())
IN_PLACE = frozenset("nan_to_num ndarray.byteswap".split())
# NumPy returns a view where CuPy runs kernels; the mask is made by another call.
LAUNCHES = {"around": 1, "diag": 1, "mask_indices": 2, "round": 1, "ndarray.round": 1,
            "trim_zeros": 1}  # fmt: skip


def test_no_call_warns() -> None:
    calls = 0
    for case in degenerate_cases():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                case.call(xp)(*on_device(case.args), **on_device(case.kwargs))
                calls += 1
            except Warning as warning:
                pytest.fail(f"{case} warns: {warning}")
            except Exception:  # noqa: BLE001  (degenerate arrays are refused in many words)
                continue
    assert calls > 2000


def test_every_name_of_cupy_is_called_or_named_as_missing() -> None:
    called = {name.removeprefix("ndarray.") for name in NAMES}
    for name in SURFACE.functions.keys() | SURFACE.ufuncs.keys():
        assert (name in called) + (name in NOT_MODELLED) + (name in SELF_MADE) >= 1, name
    for module in ("linalg", "fft"):
        assert {f"{module}.{name}" for name in getattr(SURFACE, module)} <= set(NAMES)
    assert {f"ndarray.{name}" for name in SURFACE.methods.keys() - NO_METHOD} <= set(NAMES)


def test_what_is_not_modelled_says_so() -> None:
    for name in sorted(NOT_MODELLED):
        assert not hasattr(xp, name)
        with pytest.raises(NotImplementedError, match=r"use |does not model"):
            getattr(xp, name)
    missing = {name for name in SURFACE.functions if not hasattr(xp, name)}
    assert missing == NOT_MODELLED


HAND_WRITTEN = (
    "array asarray asanyarray asarray_chkfinite asnumpy can_cast copyto empty empty_like "
    "mask_indices min_scalar_type put put_along_axis".split()
)


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_hand_written_functions_have_cupys_parameters(name: str) -> None:
    written = inspect.signature(getattr(xp, name)).parameters
    assert set(written) == {*SURFACE.functions[name].args, *SURFACE.functions[name].kwonly}
