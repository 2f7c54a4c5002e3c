"""The table of what CuPy admits: true to an installed CuPy, and true to known facts without one."""

import importlib.resources
import json
import subprocess
import sys
import time
import types
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from xbackprop.backend.cupy_surface import Signature, describe, dump, load

TEXT = (
    importlib.resources.files("xbackprop.backend").joinpath("cupy_surface.json").read_text("utf-8")
)
TABLE = json.loads(TEXT)
# The sections that divide up the names of the top-level module.
TOP_LEVEL = (
    "functions",
    "ufuncs",
    "constants",
    "dtypes",
    "abstract_dtypes",
    "classes",
    "index_helpers",
    "modules",
    "from_numpy",
    "always_raises",
)


@pytest.fixture(scope="module")
def cupy() -> types.ModuleType:
    with warnings.catch_warnings():
        # On Windows without a CUDA toolkit; introspection does not need one.
        warnings.filterwarnings("ignore", "CUDA path could not be detected", UserWarning)
        return pytest.importorskip(
            "cupy",
            reason="needs CuPy to compare the table with; its wheel imports without a GPU",
            exc_type=ImportError,
        )


def lost_entries(listed: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Say what the table lists and a CuPy lacks: names, parameters, methods of ufuncs."""
    lost = []
    for section, entries in listed.items():
        if section in ("cupy_version", "generated_by", "by_hand"):
            continue
        lost += [f"{section}.{name}" for name in entries if name not in found[section]]
        if not isinstance(entries, dict):
            continue
        for name, row in entries.items():
            other = found[section].get(name)
            if other is None or other.get("varkw"):
                continue
            for kind in ("args", "kwonly", "methods"):
                accepted = {*other.get(kind, ()), *(other["kwonly"] if kind == "args" else ())}
                lost += [
                    f"{section}.{name}: {part}"
                    for part in row.get(kind, ())
                    if part not in accepted
                ]
    return lost


# --- With CuPy, but without a GPU


def test_the_table_is_what_the_installed_cupy_admits(cupy: types.ModuleType) -> None:
    found = describe(cupy)
    same_minor = found["cupy_version"].split(".")[:2] == TABLE["cupy_version"].split(".")[:2]
    if same_minor:
        found["cupy_version"] = TABLE["cupy_version"]
        assert dump(found) == TEXT, f"run `{TABLE['generated_by']}` and review the diff"
    else:
        assert lost_entries(TABLE, found) == []


@pytest.mark.parametrize("name", sorted(load().always_raises))
def test_names_said_to_raise_do_raise(cupy: types.ModuleType, name: str) -> None:
    with pytest.raises(RuntimeError, match="removed in NumPy v2"):
        getattr(cupy, name)()


class _Bits:
    """Passes the check of dtypes that stands before the one of ``axis``."""

    dtype = np.dtype("uint8")


# Calls that the table refuses and that CuPy refuses before it needs a device: for entries made by
# hand, and for some found by asking. `x` has no memory.
REFUSED_CALLS: dict[str, tuple[str, Callable[[Any, Any], object]]] = {
    "meshgrid(where=)": ("keyword", lambda cupy, x: cupy.meshgrid(where=True)),
    "array(subok=True)": ("^$", lambda cupy, x: cupy.array(1, subok=True)),
    "empty_like(subok=True)": ("subok", lambda cupy, x: cupy.empty_like(x, subok=True)),
    "full_like(subok=True)": ("subok", lambda cupy, x: cupy.full_like(x, 1, subok=True)),
    "ones_like(subok=True)": ("subok", lambda cupy, x: cupy.ones_like(x, subok=True)),
    "zeros_like(subok=True)": ("subok", lambda cupy, x: cupy.zeros_like(x, subok=True)),
    "may_share_memory": ("max_work", lambda cupy, x: cupy.may_share_memory(x, x, max_work=1)),
    "shares_memory": ("max_work", lambda cupy, x: cupy.shares_memory(x, _Bits, max_work=1)),
    "packbits(axis=0)": ("axis option", lambda cupy, x: cupy.packbits(_Bits, axis=0)),
    "unpackbits(axis=0)": ("axis option", lambda cupy, x: cupy.unpackbits(_Bits, axis=0)),
    "argsort(kind=)": ("kind can only", lambda cupy, x: cupy.argsort(x, kind="quicksort")),
    "x.argsort(kind=)": ("kind can only", lambda cupy, x: x.argsort(kind="heapsort")),
    "x.sort(kind=)": ("kind can only", lambda cupy, x: x.sort(kind="quicksort")),
    "x.astype(casting=)": ("casting is not", lambda cupy, x: x.astype("f4", casting="safe")),
    "x.astype(subok=)": ("subok is not", lambda cupy, x: x.astype("f4", subok=True)),
    "del x[0]": ("deletion not supported", lambda cupy, x: x.__delitem__(0)),
    "add(where=)": ("Wrong arguments", lambda cupy, x: cupy.add(1, 2, where=True)),
    "add.outer(1, 2, 3)": ("positional", lambda cupy, x: cupy.add.outer(1, 2, 3)),
    "multiply.at": ("not supported", lambda cupy, x: cupy.multiply.at(x, 0, 1)),
    "maximum.reduce": ("not supported", lambda cupy, x: cupy.maximum.reduce(x)),
    "clip(x, 0)": ("a_max", lambda cupy, x: cupy.clip(x, 0)),
    "matmul(x1=, x2=)": ("x1", lambda cupy, x: cupy.matmul(x1=x, x2=x)),
    "x.item(0)": ("positional", lambda cupy, x: x.item(0)),
}


@pytest.mark.parametrize("call", REFUSED_CALLS)
def test_cupy_refuses_what_the_table_says_it_refuses(cupy: types.ModuleType, call: str) -> None:
    message, function = REFUSED_CALLS[call]
    without_memory = cupy.ndarray.__new__(cupy.ndarray, _no_init=True)
    with pytest.raises((TypeError, ValueError, NotImplementedError), match=message):
        function(cupy, without_memory)


# --- Without CuPy


def test_a_newer_cupy_may_add_and_must_not_take_away() -> None:
    newer = json.loads(TEXT)
    newer["functions"]["sum"]["args"].append("where")
    newer["functions"]["unstack"] = newer["functions"]["split"]
    newer["methods"]["to_device"] = newer["methods"]["get"]
    assert lost_entries(TABLE, newer) == []

    newer["functions"]["sum"]["args"].remove("keepdims")
    newer["ufuncs"]["add"]["methods"].remove("at")
    newer["attributes"].remove("flat")
    del newer["functions"]["round_"]
    assert lost_entries(TABLE, newer) == [
        "functions.round_",
        "functions.sum: keepdims",
        "ufuncs.add: at",
        "attributes.flat",
    ]


def test_the_committed_file_is_as_generated() -> None:
    assert dump(TABLE) == TEXT
    for section, entries in TABLE.items():
        if not isinstance(entries, str):
            assert list(entries) == sorted(entries), section
            assert entries, section


def test_loading_is_fast_and_light() -> None:
    seconds = []
    for _ in range(5):
        start = time.process_time()  # of this process, whatever runs beside it
        load.__wrapped__()
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.010

    program = (
        "import sys, xbackprop.backend.cupy_surface as surface; surface.load();"
        "print(*{'cupy', 'matplotlib', 'rich'} & sys.modules.keys())"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == ""


def test_a_name_stands_in_one_section_only() -> None:
    names = [name for section in TOP_LEVEL for name in TABLE[section]]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("function", "keyword"),
    [
        ("sum", "where"),
        ("sum", "initial"),
        ("max", "initial"),
        ("mean", "where"),
        ("std", "correction"),
        ("var", "mean"),
        ("clip", "min"),
        ("reshape", "shape"),
        ("take", "mode"),
        ("einsum", "out"),
        ("zeros", "like"),
        ("zeros", "device"),
        ("count_nonzero", "keepdims"),
        ("broadcast_to", "subok"),
        ("concatenate", "arrays"),
        ("sort", "stable"),
    ],
)
def test_keywords_of_numpy_that_cupy_lacks(function: str, keyword: str) -> None:
    signature = load().functions[function]
    required = ["x"] * len(signature.required)
    assert signature.refusal(function, required, {}) is None
    message = signature.refusal(function, required, {keyword: None})
    assert message is not None
    assert message.startswith(f"{function} has no argument {keyword!r} in CuPy; it takes ")


@pytest.mark.parametrize(
    ("function", "keyword"),
    [
        ("sum", "keepdims"),
        ("std", "ddof"),
        ("argmax", "dtype"),
        ("concatenate", "casting"),
        ("array", "blocking"),
        ("copyto", "where"),
        ("einsum", "optimize"),
        ("meshgrid", "indexing"),
        ("pad", "constant_values"),
        ("asnumpy", "stream"),
    ],
)
def test_keywords_that_cupy_has(function: str, keyword: str) -> None:
    signature = load().functions[function]
    required = ["x"] * len(signature.required)
    assert signature.refusal(function, required, {keyword: None}) is None


@pytest.mark.parametrize("keyword", ["where", "order", "subok", "initial", "signature"])
def test_ufuncs_have_three_keywords(keyword: str) -> None:
    surface = load()
    for name in surface.ufuncs.keys() - {"matmul"}:
        assert surface.ufuncs[name].kwonly == ("casting", "dtype", "out"), name
    message = surface.ufuncs["add"].refusal("add", [1, 2], {keyword: None})
    assert message == f"add has no keyword {keyword!r} in CuPy; it takes casting, dtype, out"


def test_ufunc_calls() -> None:
    ufuncs = load().ufuncs
    assert ufuncs["add"].refusal("add", [1, 2, 3], {"dtype": "float32"}) is None
    assert ufuncs["divmod"].refusal("divmod", [1, 2, 3, 4], {}) is None
    assert ufuncs["matmul"].refusal("matmul", [1, 2], {"axes": None}) is None
    assert ufuncs["add"].refusal("add", [1], {}) == (
        "add takes 2 to 3 arguments by position; got 1"
    )
    assert ufuncs["exp"].refusal("exp", [1, 2, 3], {}) == (
        "exp takes 1 to 2 arguments by position; got 3"
    )
    assert ufuncs["exp"].refusal("exp", [1, 2], {"out": 3}) == (
        "exp got 'out' twice: by position and by name"
    )


def test_ufunc_methods_are_few() -> None:
    methods = {name: set(ufunc.methods) - {"outer"} for name, ufunc in load().ufuncs.items()}
    assert {name: found for name, found in methods.items() if found} == {
        "add": {"accumulate", "at", "reduce", "reduceat"},
        "multiply": {"accumulate", "reduce"},
        "subtract": {"at"},
        "maximum": {"at"},
        "minimum": {"at"},
        "bitwise_and": {"at"},
        "bitwise_or": {"at"},
        "bitwise_xor": {"at"},
    }
    reduce = load().ufuncs["add"].methods["reduce"]
    assert reduce.args == ("array", "axis", "dtype", "out", "keepdims")
    assert reduce.refusal("add.reduce", ["x"], {"initial": 0}) is not None
    assert "outer" in load().ufuncs["subtract"].methods
    assert "outer" not in load().ufuncs["exp"].methods


def test_functions_that_only_cupy_has() -> None:
    own = {"asnumpy", "get_array_module", "fuse", "get_default_memory_pool", "clear_memo"}
    assert own <= load().functions.keys()
    assert not any(hasattr(np, name) for name in own)


@pytest.mark.parametrize(
    "name",
    ["insert", "block", "unstack", "vecdot", "geomspace", "einsum_path", "spacing", "seterr"],
)
def test_functions_that_only_numpy_has(name: str) -> None:
    assert not any(name in TABLE[section] for section in TOP_LEVEL)
    assert name not in TABLE["linalg"]


def test_members_of_the_array() -> None:
    surface = load()
    assert {"get", "set", "scatter_add", "ptp", "mean", "searchsorted"} <= surface.methods.keys()
    assert surface.methods.keys().isdisjoint(
        {"tostring", "itemset", "resize", "setflags", "getfield", "to_device", "newbyteorder"}
    )
    assert {"T", "mT", "device", "dtype", "flat", "data"} <= surface.attributes
    assert "ctypes" not in surface.attributes
    assert surface.settable == {"shape", "real", "imag"}
    assert {"__add__", "__rmatmul__", "__iter__", "__float__", "__bool__", "__array_ufunc__"} <= (
        surface.special_methods
    )
    assert surface.special_methods.isdisjoint(
        {"__contains__", "__index__", "__hash__", "__imatmul__", "__round__", "__delitem__"}
    )


def test_other_names() -> None:
    surface = load()
    assert {"float_power", "matmul", "abs", "bitwise_count"} <= surface.ufuncs.keys()
    assert {"pi", "newaxis", "inf"} <= surface.constants
    assert {"float16", "complex64", "bool", "intp"} <= surface.dtypes
    assert {"longdouble", "object_", "str_"}.isdisjoint(surface.dtypes)
    assert {"floating", "integer", "generic"} <= surface.abstract_dtypes
    assert {"finfo", "issubdtype", "dtype", "broadcast_shapes"} <= surface.from_numpy
    assert {"r_", "mgrid"} <= surface.index_helpers
    assert {"norm", "svd", "matmul"} <= surface.linalg.keys()
    assert {"vector_norm", "multi_dot"}.isdisjoint(surface.linalg)
    assert surface.linalg["norm"].args == ("x", "ord", "axis", "keepdims")
    assert {"rfft", "fftfreq"} <= surface.fft.keys()


SIGNATURE = Signature(
    args=("x", "dtype", "mode"),
    kwonly=("copy",),
    required=("x", "dtype"),
    posonly=1,
    allowed={"copy": (None,), "mode": ("linear", "lower")},
)


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ([1, 2], {}, None),
        ([1], {"dtype": 2, "copy": None, "mode": "lower"}, None),
        ([1, 2, "linear", 4], {}, "f got 4 arguments by position, too many for CuPy; "),
        ([1], {}, "f needs 'dtype' in CuPy; "),
        ([], {}, "f needs 'x' and 'dtype' in CuPy; "),
        ([1, 2], {"dtype": 3}, "f got 'dtype' twice: by position and by name"),
        ([], {"x": 1, "dtype": 2}, "f takes 'x' by position only in CuPy"),
        ([1, 2], {"where": 1}, "f has no argument 'where' in CuPy; it takes x, dtype, mode, copy"),
        ([1, 2], {"copy": True}, "f takes only None for 'copy' in CuPy; got True"),
        ([1, 2, "hazen"], {}, "f takes only 'linear' or 'lower' for 'mode' in CuPy; got 'hazen'"),
        ([1, 2], {"mode": None}, "f takes only 'linear' or 'lower' for 'mode' in CuPy; got None"),
    ],
)
def test_refusals(args: list[object], kwargs: dict[str, object], message: str | None) -> None:
    refusal = SIGNATURE.refusal("f", args, kwargs)
    if message is None:
        assert refusal is None
    else:
        assert refusal is not None
        assert refusal.startswith(message)


def test_parameters_that_cupy_has_but_does_not_implement() -> None:
    surface = load()
    assert surface.methods["astype"].allowed == {"casting": (None,), "subok": (None,)}
    assert surface.functions["array"].allowed == {"subok": (False,)}
    for signatures in (surface.functions, surface.methods):
        assert signatures["sort"].allowed == {"kind": (None, "stable")}
        assert signatures["argsort"].allowed == {"kind": (None, "stable")}
    assert "weibull" not in surface.functions["quantile"].allowed["method"]
    assert surface.methods["astype"].refusal("astype", ["float32"], {"casting": "safe"}) == (
        "astype takes only None for 'casting' in CuPy; got 'safe'"
    )


def test_variable_arguments_are_open() -> None:
    open_ended = Signature(args=("file",), required=("file",), varargs=True, varkw=True)
    assert open_ended.refusal("savez", ["a.npz", 1, 2], {"weight": 3}) is None
    assert open_ended.refusal("savez", [], {"weight": 3}) == (
        "savez needs 'file' in CuPy; it takes file"
    )


def test_a_name_that_cannot_be_described_is_an_error() -> None:
    module: Any = types.ModuleType("cupy")
    module.__version__ = "99.0"
    module.ufunc = type("ufunc", (), {})
    module.mystery = getattr  # a builtin with neither a signature nor a docstring that gives one
    with pytest.raises(LookupError, match=r"functions\.mystery has no signature"):
        describe(module)

    module.mystery = object()
    with pytest.raises(LookupError, match=r"cupy\.mystery is a object"):
        describe(module)
