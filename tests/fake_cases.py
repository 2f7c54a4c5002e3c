"""Calls of every function of CuPy that the stand-in GPU admits, with arguments that fit.

Most are generated: arrays that NumPy accepts, then one option at a time. What no generator can
guess stands in ``BY_HAND``; test_fake_functions.py runs them all.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xbackprop.backend.cupy_surface import Signature, load
from xbackprop.backend.fake import rules, xp

SURFACE = load()

# Arrays to try for every parameter that takes one; the first that NumPy accepts are used.
SAMPLES = {
    "matrix": np.array([[4.0, 1.0, 0.5], [1.0, 3.0, 0.25], [0.5, 0.25, 2.0]]),
    "rows": np.array([[0.5, -1.5, 2.0], [3.0, 0.25, -0.75]], np.float32),
    "vector": np.array([0.125, 0.5, 0.75, 0.875]),
    "integers": np.array([1, 0, 2, 3]),
    "bytes": np.array([[1, 200, 3], [4, 5, 6]], np.uint8),
    "mask": np.array([[True, False, True], [False, True, True]]),
    "complex": np.array([1.0 + 2.0j, -0.5j, 3.0]),
    "cube": np.arange(12.0).reshape(2, 3, 2),
    "number": np.array(0.75),
}

# Arrays over which NumPy warns: means of nothing, casts of complex numbers, NaN everywhere.
DEGENERATE = (
    np.zeros(0), np.zeros((0, 3)), np.full(3, np.nan), np.array([[1.0, np.nan, 2.0]]),
    np.array([1.0 + 1.0j, np.nan]), np.array([1]), np.array([True, False]),
    np.array([[1.0, 2.0], [2.0, 4.0]]), np.array(np.nan),
)  # fmt: skip

# Values for parameters that stay on the host, where a function requires them.
REQUIRED = {
    "axis": 0, "axis1": 0, "axis2": 1, "indices_or_sections": 1, "source": 0, "destination": -1,
    "shape": (2, 3), "newshape": (-1,), "new_shape": (2, 2), "N": 3, "M": 4, "n": 3, "beta": 2.0,
    "reps": 2, "pad_width": 1, "kth": 1, "dims": (4, 5), "start": 5, "dimensions": (2, 3),
    "deg": 1, "dtype": np.float32, "shift": 1, "decimals": 1, "window_shape": 2,
    "axes": (1, 0), "ord": 1, "number": 5, "num": 5, "to": np.float32, "from_": np.float16,
}  # fmt: skip

# Values of optional parameters, tried one at a time.
OPTIONAL: dict[str, tuple[Any, ...]] = {
    "axis": (0, -1, (0, 1)), "keepdims": (True,), "dtype": (np.float64,), "ddof": (1,),
    "k": (1, -1), "side": ("right",), "decimals": (1,), "method": ("lower",), "right": (True,),
    "equal_nan": (True,), "assume_unique": (True,), "invert": (True,), "n": (2,), "deg": (True,),
    "return_index": (True,), "return_inverse": (True,), "return_counts": (True,),
    "norm": ("ortho",), "full_matrices": (False,), "compute_uv": (False,), "UPLO": ("U",),
    "increasing": (True,), "density": (True,), "rowvar": (False,), "order": ("F",),
    "minlength": (6,), "endpoint": (False,), "retstep": (True,), "shape": ((2, 2),),
    "trim": ("f",), "tol": (0.1,), "rtol": (0.5,), "atol": (0.5,), "offset": (1,), "bins": (3,),
    "include_initial": (True,), "edge_order": (2,), "axes": ((1, 0), 1), "copy": (True, False),
    "mode": ("clip", "same", "full", "r"), "kind": ("stable",), "start": (1,), "period": (1.0,),
    "bitorder": ("little",), "nan": (2.0,), "posinf": (3.0,), "axisa": (0,), "axisc": (0,),
    "ord": (1, 2, np.inf, "fro"), "rcond": (0.1,), "returned": (True,), "wrap": (True,),
    "range": ((0.0, 0.5),), "d": (0.5,), "s": ((2, 2),), "dx": (0.5,), "discont": (1.0,),
    "N": (2,), "M": (2,), "step": (2,), "stop": (7,), "ndim": (3,), "width": (8,), "base": (3,),
}  # fmt: skip

X = np.array([[0.5, -1.5, 2.0], [3.0, 0.25, -0.75]])
LABELS = np.array([2, 0])


@dataclass
class Case:
    """One call: the arguments as NumPy arrays, and NumPy's way to do the same."""

    name: str
    call: Callable[[Any], Callable[..., Any]]  # of the array module
    reference: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    numpy_kwargs: dict[str, Any] | None = None

    def run(self) -> tuple[Any, Any, tuple[Any, ...], tuple[Any, ...]]:
        """Call both; return results and the arguments as they are afterwards."""
        host_args = copies(self.args)
        kwargs = self.kwargs if self.numpy_kwargs is None else self.numpy_kwargs
        with np.errstate(all="ignore"):
            expected = self.reference(*host_args, **copies(kwargs))
        fake_args = on_device(self.args)
        result = self.call(xp)(*fake_args, **on_device(self.kwargs))
        return result, expected, fake_args, host_args


def copies(value: Any) -> Any:
    return convert(value, np.copy)


def on_device(value: Any) -> Any:
    return convert(value, xp.array)


def convert(value: Any, function: Callable[[np.ndarray], Any]) -> Any:
    if isinstance(value, np.ndarray):
        return function(value)
    if isinstance(value, dict):
        return {key: convert(part, function) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(convert(part, function) for part in value)
    return value


def of_module(name: str) -> Callable[[Any], Any]:
    """Return what finds ``linalg.norm`` or ``add.reduce`` in an array module."""

    def find(module: Any) -> Any:
        for part in name.split("."):
            module = getattr(module, part)
        return module

    return find


def of_array(name: str) -> Callable[[Any], Any]:
    return lambda module: lambda array, *args, **kwargs: getattr(array, name)(*args, **kwargs)


def is_accepted(reference: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> bool:
    """Tell whether NumPy takes these arguments, without a warning."""
    try:
        with np.errstate(all="ignore"):
            reference(*copies(args), **copies(kwargs))
    except Exception:  # noqa: BLE001  (whatever NumPy raises, the arguments do not fit)
        return False
    return True


def candidates(function: str, parameter: str) -> list[Any]:
    """Return what a required parameter may be given."""
    role = rules.role(function, parameter)
    if role in (rules.OPTION, rules.SCALAR):
        return [REQUIRED[parameter]] if parameter in REQUIRED else []
    if role == rules.SEQUENCE:
        return [[array, array[::-1]] for array in SAMPLES.values() if array.ndim]
    numbers = [1] if role in (rules.NUMBER, rules.MIXED) else []
    return [*SAMPLES.values(), *numbers]


def required_arguments(
    function: str, parameters: tuple[str, ...], reference: Callable[..., Any]
) -> list[tuple[Any, ...]]:
    """Return the combinations of arguments that NumPy accepts, at most six."""
    choices = [candidates(function, parameter) for parameter in parameters]
    found = []
    for args in itertools.product(*choices):
        if is_accepted(reference, args, {}):
            found.append(args)
        if len(found) == 6:
            break
    return found


def generated(
    title: str, signature: Signature, reference: Callable[..., Any], *, method: bool = False
) -> list[Case]:
    """Make calls of one function: the required arguments, then one option at a time."""
    name = title.rpartition(".")[2]
    parameters = tuple(p for p in signature.args if p in signature.required)
    call = of_array(name) if method else of_module(title)
    if method:
        parameters = ("a", *parameters)
    cases: list[Case] = []
    if signature.varargs and not parameters:
        return cases  # atleast_1d() and the like: rows by hand
    for args in required_arguments(name, parameters, reference):
        cases.append(Case(title, call, reference, args))
        for parameter in (*signature.args, *signature.kwonly):
            if parameter in signature.required:
                continue
            for value in OPTIONAL.get(parameter, ()):
                kwargs = {parameter: value}
                if is_allowed(signature, kwargs) and is_accepted(reference, args, kwargs):
                    cases.append(Case(title, call, reference, args, kwargs))
    return cases


def is_allowed(signature: Signature, kwargs: dict[str, Any]) -> bool:
    return all(value in signature.allowed.get(key, (value,)) for key, value in kwargs.items())


def degenerate(title: str, signature: Signature, *, method: bool = False) -> list[Case]:
    """Make calls of one function with degenerate arrays; many are refused."""
    name = title.rpartition(".")[2]
    choices: list[Any] = [DEGENERATE] if method else []
    for parameter in signature.args:
        if parameter in signature.required:
            is_array = rules.role(name, parameter) not in (rules.OPTION, rules.SCALAR)
            choices.append(DEGENERATE if is_array else [REQUIRED.get(parameter, 1)])
    call = of_array(name) if method else of_module(title)
    options: list[dict[str, Any]] = [{}, {"axis": 0}, {"ddof": 3}, {"dtype": np.float32}]
    return [
        Case(title, call, call(np), args, option)
        for args in itertools.islice(itertools.product(*choices), 90)
        for option in options
        if all(key in (*signature.args, *signature.kwonly) for key in option)
    ]


def degenerate_cases() -> list[Case]:
    cases = []
    for name, signature in SURFACE.functions.items():
        if name not in SELF_MADE | NOT_MODELLED and not signature.varargs:
            cases += degenerate(name, signature)
    for name, signature in SURFACE.linalg.items():
        cases += degenerate(f"linalg.{name}", signature)
    for name, signature in SURFACE.methods.items():
        if name not in NO_METHOD | {"put", "item", "tobytes", "tolist"}:
            cases += degenerate(f"ndarray.{name}", signature, method=True)
    return cases


def row(title: str, *args: Any, numpy: Callable[..., Any] | None = None, **kwargs: Any) -> Case:
    """Write one call by hand; ``numpy`` is the reference where the names or results differ."""
    return Case(title, of_module(title), numpy or of_module(title)(np), args, kwargs)


def method_row(title: str, *args: Any, numpy: Callable[..., Any], **kwargs: Any) -> Case:
    return Case(f"ndarray.{title}", of_array(title), numpy, args, kwargs)


V = SAMPLES["vector"]
M = SAMPLES["matrix"]

# Calls that no generator guesses: sequences, subscripts, masks, other names than NumPy's.
BY_HAND = [
    row("array", X, copy=True, numpy=np.array),
    row("array", [X, X], numpy=np.array),
    row("array", X, order="F", ndmin=3, numpy=np.array),
    row("asarray", X, dtype=np.float32),
    row("asanyarray", X),
    row("asarray_chkfinite", X),
    row("require", X, requirements=["F"]),
    row("atleast_1d", X, V), row("atleast_2d", V), row("atleast_3d", V),
    row("broadcast_arrays", X, V[:3]),
    row("meshgrid", V, V[:2], indexing="ij"), row("meshgrid", V, V[:2], sparse=True),
    row("gradient", V), row("gradient", V, 0.5), row("gradient", X, axis=0),
    row("gradient", V, np.array([0.0, 1.0, 3.0, 4.0])),
    row("ix_", LABELS, LABELS), row("ix_", V > 0.5, LABELS),
    row("einsum", "ij,kj->ik", X, X), row("einsum", "ii", M),
    row("einsum", "ij,j", X, V[:3], optimize=True),
    row("select", [X > 1, X < 0], [X, -X], 7.0),
    row("piecewise", X, [X < 0, X > 1], [-1.0, 1.0]),
    row("choose", np.array([1, 0, 1]), np.array([V[:3], V[1:]])),
    row("ravel_multi_index", (LABELS, LABELS), (3, 4)),
    row("unravel_index", np.array([5, 11]), (3, 4)),
    row("unravel_index", np.array([5, 11]), dims=(3, 4),
        numpy=lambda indices, dims: np.unravel_index(indices, dims)),
    row("where", X > 0, X, 0.0), row("where", X > 0), row("where", X > 0, y=X, x=1.0,
        numpy=lambda c, x, y: np.where(c, x, y)),
    row("take_along_axis", X, np.argsort(X, axis=1), 1),
    row("put_along_axis", X, np.argmax(X, axis=1, keepdims=True), -9.0, 1),
    row("put", X, np.array([0, 4]), V[:2]), row("put", X, np.array([7, 2]), 1.0, mode="wrap"),
    row("place", X, X > 0, V), row("putmask", X, X > 0, 3.0), row("putmask", X, X > 0, V),
    row("copyto", X, 2.0), row("copyto", X, V[:3]),
    row("fill_diagonal", M, 9.0),
    row("compress", np.array([True, False]), X, axis=0),
    row("extract", X > 0, X), row("extract", condition=X > 0, a=X,
        numpy=lambda condition, a: np.extract(condition, a)),
    row("delete", X, 1, axis=1), row("delete", X, slice(0, 2), axis=1),
    row("delete", V, indices=np.array([0, 2]), numpy=lambda v, indices: np.delete(v, indices)),
    row("repeat", V, 2), row("repeat", V, [1, 0, 2, 1]), row("repeat", V, np.array([1, 0, 2, 1])),
    row("roll", X, (1, 2), axis=(0, 1)), row("roll", V, np.array(2)),
    row("unpackbits", SAMPLES["bytes"], None, "little",
        numpy=lambda a, axis, bitorder: np.unpackbits(a, axis, bitorder=bitorder)),
    row("tile", X, (2, 1)), row("pad", X, ((1, 0), (2, 2)), mode="edge"),
    row("pad", X, 1, constant_values=5.0), row("pad", X, 1, mode="linear_ramp", end_values=2.0),
    row("clip", X, a_min=0.0, a_max=None), row("clip", X, X - 1, 0.5),
    row("searchsorted", V, 0.6), row("searchsorted", V[::-1], 0.6,
        sorter=np.array([3, 2, 1, 0])),
    row("percentile", X, [25, 50], axis=1), row("quantile", X, np.array([0.25, 0.5])),
    row("histogram", X, bins=np.array([-2.0, 0.0, 4.0])),
    row("histogram", x=X, bins=2, numpy=lambda x, bins: np.histogram(x, bins)),
    row("histogram2d", V, V, 2, None, V,
        numpy=lambda x, y, bins, range, weights: np.histogram2d(x, y, bins, range, None, weights)),
    row("histogramdd", [V, V], bins=[2, 3]),
    row("linspace", V, 2.0, 5), row("linspace", 0, 1, 5, retstep=True), row("logspace", 0, 1, 4),
    row("full", (2, 2), 3.0), row("full", (2,), np.array(3)), row("full_like", X, 2),
    row("argmax", X, 1, None, None, True, numpy=lambda a, *rest: np.argmax(a, 1, keepdims=True)),
    row("reshape", X, newshape=(3, 2), numpy=lambda a, newshape: np.reshape(a, newshape)),
    row("concatenate", tup=(X, X), axis=1, numpy=lambda tup, axis: np.concatenate(tup, axis)),
    row("stack", tup=[X, X], axis=1, numpy=lambda tup, axis: np.stack(tup, axis)),
    row("concatenate", [X, X], axis=None), row("hstack", [V, V], dtype=np.float32,
        numpy=lambda parts, dtype: np.hstack(parts, dtype=dtype)),
    row("flip", a=X, axis=0, numpy=lambda a, axis: np.flip(a, axis)),
    row("rot90", a=X, numpy=lambda a: np.rot90(a)),
    row("cov", a=X, numpy=lambda a: np.cov(a)), row("cov", X, aweights=V[:3]),
    row("corrcoef", a=X, numpy=lambda a: np.corrcoef(a)),
    row("union1d", arr1=LABELS, arr2=LABELS + 1, numpy=lambda arr1, arr2: np.union1d(arr1, arr2)),
    row("intersect1d", arr1=LABELS, arr2=LABELS, return_indices=True,
        numpy=lambda arr1, arr2, return_indices: np.intersect1d(arr1, arr2, False, True)),
    row("ediff1d", arr=V, to_end=V[:1], numpy=lambda arr, to_end: np.ediff1d(arr, to_end)),
    row("take_along_axis", a=V, indices=LABELS, axis=0,
        numpy=lambda a, indices, axis: np.take_along_axis(a, indices, axis)),
    row("mask_indices", 3, lambda array, k: array, numpy=np.mask_indices),
    row("interp", V, V, V + 1, left=0.0), row("nan_to_num", np.array([np.nan, np.inf]), nan=1.0),
    row("nan_to_num", np.array([np.nan, 1.0]), copy=False),
    row("average", X, axis=1, weights=V[:3], returned=True),
    row("average", X, axis=0, keepdims=True),
    row("polyfit", np.arange(4.0), V, 1), row("polyfit", np.arange(4.0), V, 1, full=True),
    row("polyval", V, 2.0), row("trapezoid", V, dx=2.0), row("moveaxis", X, 0, -1),
    row("trim_zeros", np.array([0.0, 1.0, 0.0])),
    row("result_type", X, np.float32), row("result_type", LABELS, 1.0),
    row("common_type", X, LABELS), row("can_cast", np.float32, np.float64),
    row("min_scalar_type", 300), row("size", X, 1), row("ndim", 3.0),
    row("fromfunction", lambda i, j: i + j, (2, 3)), row("fromiter", range(4), np.float32),
    row("frombuffer", b"\x01\x02", np.uint8), row("fromstring", "1 2 3", sep=" "),
    row("lexsort", np.array([[3, 1, 2], [0, 0, 1]])),
    row("tril_indices", 3, -1, 4), row("indices", (2, 3), dtype=np.int32),
    row("linalg.matrix_power", M=M, n=3, numpy=lambda M, n: np.linalg.matrix_power(M, n)),
    row("linalg.matrix_rank", M=M, numpy=lambda M: np.linalg.matrix_rank(M)),
    row("linalg.cross", X, X[::-1]), row("linalg.tensorinv", np.eye(4).reshape(2, 2, 4), ind=2),
    row("linalg.eig", M + 0j), row("linalg.matmul", X, X.T),
    row("linalg.matrix_transpose", a=X, numpy=lambda a: np.swapaxes(a, -1, -2)),
    row("matmul", X, X.T), row("divmod", X, 2.0), row("modf", X), row("frexp", X),
    row("exp", 2.0), row("add", X, 1), row("add", X, X, dtype=np.float32, casting="same_kind"),
    row("ldexp", V, LABELS[0]),
    row("lib.stride_tricks.sliding_window_view", X, 2, axis=1),
    row("lib.stride_tricks.sliding_window_view", X, (2, 2)),
    method_row("reshape", X, 3, 2, numpy=np.ndarray.reshape),
    method_row("reshape", X, (3, -1), order="F", numpy=np.ndarray.reshape),
    method_row("transpose", X, 1, 0, numpy=np.ndarray.transpose),
    method_row("transpose", X, numpy=np.ndarray.transpose),
    method_row("astype", X, np.int32, numpy=np.ndarray.astype),
    method_row("astype", X, "f4", "F", copy=False, numpy=lambda x, *_, copy: x.astype("f4")),
    method_row("view", X, np.int64, numpy=np.ndarray.view),
    method_row("view", X, numpy=np.ndarray.view),
    method_row("fill", X, 3, numpy=np.ndarray.fill), method_row("sort", M, numpy=np.ndarray.sort),
    method_row("sort", M, axis=0, numpy=np.ndarray.sort),
    method_row("put", X, LABELS, V[:2], numpy=np.ndarray.put),
    method_row("copy", X, order="F", numpy=np.ndarray.copy),
    method_row("dot", M, b=M, numpy=lambda a, b: a.dot(b)),
    method_row("argmin", X, axis=0, keepdims=True, numpy=np.ndarray.argmin),
    method_row("clip", X, max=1.0, numpy=np.ndarray.clip),
    method_row("choose", np.array([1, 0]), np.array([V[:2], V[2:]]), numpy=np.ndarray.choose),
    method_row("compress", X, np.array([True, False]), axis=0, numpy=np.ndarray.compress),
    method_row("swapaxes", X, 0, 1, numpy=np.ndarray.swapaxes),
    method_row("squeeze", X[:1], 0, numpy=np.ndarray.squeeze),
    method_row("take", X, np.array([[0, 1]]), axis=1, numpy=np.ndarray.take),
    method_row("round", X, 1, numpy=np.ndarray.round),
    method_row("searchsorted", V, 0.5, "right", numpy=np.ndarray.searchsorted),
    method_row("byteswap", LABELS, True, numpy=np.ndarray.byteswap),
    method_row("item", X[:1, :1], numpy=np.ndarray.item),
    method_row("tolist", X, numpy=np.ndarray.tolist),
    method_row("tobytes", X, numpy=np.ndarray.tobytes),
]  # fmt: skip


def ufunc_arguments(name: str, nin: int, reference: Callable[..., Any]) -> Iterator[Any]:
    """Return inputs of an elementwise function: arrays, an array with numbers, broadcasts."""
    found = 0
    samples = [SAMPLES[key] for key in ("vector", "rows", "integers", "mask", "complex", "number")]
    partners: list[Any] = [*samples, 2, 0.5, np.float64(0.5), np.array([1, 2, 3])]
    for first in samples:
        for rest in itertools.product(partners, repeat=nin - 1):
            if found < 12 and is_accepted(reference, (first, *rest), {}):
                found += 1
                yield (first, *rest)


def all_cases() -> list[Case]:
    cases = list(BY_HAND)
    for name, signature in SURFACE.functions.items():
        reference = getattr(np, name, None)
        if name in SELF_MADE or name in NOT_MODELLED or reference is None:
            continue
        cases += generated(name, signature, reference)
    for module in ("linalg", "fft"):
        for name, signature in getattr(SURFACE, module).items():
            if name != "matmul":
                reference = getattr(getattr(np, module), name)
                cases += generated(f"{module}.{name}", signature, reference)
    for name, signature in SURFACE.methods.items():
        reference = np.ptp if name == "ptp" else getattr(np.ndarray, name, None)
        if name not in NO_METHOD | {"put"} and reference is not None:
            cases += generated(f"ndarray.{name}", signature, reference, method=True)
    for name, spec in SURFACE.ufuncs.items():
        reference = getattr(np, name)
        for args in ufunc_arguments(name, spec.nin, reference):
            if not (name.startswith("logical_") and any(map(np.iscomplexobj, args))):
                cases.append(Case(name, of_module(name), reference, args))
    for name, spec in SURFACE.ufuncs.items():
        for method, signature in spec.methods.items():
            if method != "at":
                reference = getattr(getattr(np, name), method)
                cases += generated(f"{name}.{method}", signature, reference)
    return cases


# Functions whose arguments are not arrays of the device: covered by test_fake.py or by rows above.
SELF_MADE = frozenset(
    "array asarray asanyarray asnumpy copyto get_array_module put put_along_axis can_cast "
    "common_type min_scalar_type result_type mask_indices empty empty_like asarray_chkfinite "
    "frombuffer fromfile fromfunction fromiter fromstring genfromtxt load loadtxt save savetxt "
    "savez savez_compressed array2string array_repr array_str format_float_positional "
    "format_float_scientific base_repr binary_repr isscalar".split()
)

# What the stand-in cannot run, and says so.
NOT_MODELLED = frozenset(
    # Callbacks, code for the device, other objects.
    "apply_along_axis apply_over_axes fuse memoize clear_memo fromDlpack from_dlpack "
    "get_default_memory_pool get_default_pinned_memory_pool is_available show_config who "
    "byte_bounds make_aligned_dtype "
    # NumPy 2 removed them, CuPy deprecates them.
    "alltrue asfarray cumproduct in1d msort product round_ row_stack sometrue trapz issctype "
    "issubclass_ issubsctype obj2sctype sctype2char".split()
) | {name for name in ("cumulative_sum", "cumulative_prod") if not hasattr(np, name)}  # NumPy 2.0

# Methods that are missing, or are no computation (tested in test_fake.py).
NO_METHOD = frozenset(
    "dump dumps get set tofile toDlpack mdspan reduced_view scatter_add scatter_max "
    "scatter_min".split()
)

# Answers about types, shapes and memory, and numbers that CuPy returns too.
PLAIN_RESULTS = frozenset(
    "result_type common_type can_cast min_scalar_type size ndim shape isscalar iscomplexobj "
    "isrealobj isfortran may_share_memory shares_memory ndarray.item ndarray.tolist "
    "ndarray.tobytes base_repr binary_repr".split()
)

CASES = all_cases()
