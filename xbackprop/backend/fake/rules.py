"""What CuPy's functions take and do beyond their signatures, as read from CuPy 14's source.

Everything here errs on the strict side: a parameter that no table names must be a device array.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

# The role of a parameter.
ARRAY = "array"  # a device array
NUMBER = "?"  # a device array or a number
SEQUENCE = "*"  # a list or tuple of device arrays
MIXED = "~"  # an array, a number, text, or a list of arrays and numbers
SCALAR = "#"  # a number
OPTION = "-"  # any value that stays on the host

_OPTIONS = frozenset(
    "allow_pickle assume_unique axes axis axis1 axis2 axisa axisb axisc bias bitorder casting "
    "compute_uv copy cov ddof deg density destination dimensions dims dtype edge_order endpoint "
    "equal_nan full full_matrices include_initial increasing indexing indices_or_sections inplace "
    "invert k keepdims kind kth max_line_width max_work method minlength mode n ndim ndmin "
    "new_shape newshape norm num offset optimize ord order overwrite_input pad_width precision "
    "range rcond reps requirements retstep return_counts return_index return_indices "
    "return_inverse returned rowvar s shape side signature source sparse start step stop stream "
    "subok suppress_small trim type UPLO width wrap N constant_values end_values stat_length "
    "reflect_type".split()
)

_SCALARS = frozenset("atol beta d decimals discont dx period rtol tol".split())

# Parameters whose role is not the one their name has elsewhere, function by function.
_ROLES = {
    "allclose": "a? b?", "angle": "z?", "append": "values?", "bartlett": "M-",
    "base_repr": "number- base- padding-", "binary_repr": "num- width-", "blackman": "M-",
    "can_cast": "from_- to-", "clip": "a_min? a_max? min? max?", "concat": "tup*",
    "concatenate": "tup*", "cond": "p-", "column_stack": "tup*", "delete": "indices?",
    "diag_indices": "n-", "diff": "prepend? append?", "digitize": "right-", "dstack": "tup*",
    "einsum": "...~", "eye": "N- M-", "fill": "value?", "fill_diagonal": "val?",
    "full": "fill_value?", "full_like": "fill_value?", "gradient": "...?", "hamming": "M-",
    "hanning": "M-", "histogram": "bins?", "histogram2d": "bins~", "histogramdd": "sample* bins~",
    "hstack": "tup*", "interp": "left? right?", "isclose": "a? b?", "kaiser": "M-",
    "kron": "a? b?", "linspace": "start? stop?", "logspace": "start? stop? base#",
    "matrix_rank": "tol?", "nan_to_num": "x? nan? posinf? neginf?", "percentile": "q~",
    "piecewise": "condlist* funclist~", "pinv": "rcond?", "polyadd": "a1? a2?",
    "polymul": "a1? a2?", "polysub": "a1? a2?", "polyval": "x?", "put": "v? values?",
    "put_along_axis": "values?", "putmask": "values?", "quantile": "q~", "ravel_multi_index":
    "multi_index*", "repeat": "repeats~", "reshape": "...-", "roll": "shift~", "row_stack": "tup*",
    "searchsorted": "v?", "select": "condlist* choicelist* default#",
    "sliding_window_view": "window_shape- writeable-", "stack": "tup*",
    "take": "indices?", "tensorinv": "ind-", "tri": "N- M-", "tril_indices": "n- m-",
    "transpose": "...-", "triu_indices": "n- m-", "vstack": "tup*", "where": "x? y?",
}  # fmt: skip


def _read_roles(text: str) -> dict[str, str]:
    roles = {}
    for part in text.split():
        marked = part[-1] in (OPTION, NUMBER, SEQUENCE, MIXED, SCALAR)
        roles[part[:-1] if marked else part] = part[-1] if marked else ARRAY
    return roles


_ROLES_OF: dict[str, dict[str, str]] = {name: _read_roles(text) for name, text in _ROLES.items()}


def role(function: str, parameter: str) -> str:
    """Return what a parameter of a function may be; ``...`` stands for further positional ones."""
    roles = _ROLES_OF.get(function, {})
    if parameter in roles:
        return roles[parameter]
    if parameter in _SCALARS:
        return SCALAR
    return OPTION if parameter in _OPTIONS else ARRAY


# What returns the same memory under another shape, dtype or name where it can.
VIEWS = frozenset(
    "reshape transpose permute_dims matrix_transpose ravel squeeze expand_dims swapaxes moveaxis "
    "rollaxis broadcast_to broadcast_arrays diagonal view flip fliplr flipud rot90 atleast_1d "
    "atleast_2d atleast_3d split array_split hsplit vsplit dsplit real imag real_if_close "
    "astype asarray asanyarray ascontiguousarray asfortranarray require meshgrid ix_ conj "
    "conjugate".split()
)

_ALWAYS = (
    "nonzero flatnonzero argwhere compress extract place unique unique_all unique_counts "
    "unique_inverse unique_values setdiff1d setxor1d intersect1d union1d trim_zeros bincount "
    "delete histogram2d histogramdd nanmax nanmin unravel_index shares_memory polymul "
    "tril_indices tril_indices_from triu_indices triu_indices_from diag_indices_from cond "
    "lstsq polyfit"
)

Given = Mapping[str, Any]


def _has_shape(value: Any) -> bool:
    return getattr(value, "shape", None) is not None and not isinstance(value, np.generic)


# CuPy must learn a size or a condition from the device before it can go on: here always, there
# depending on the arguments.
_SYNCHRONIZES: dict[str, Callable[[Given], bool]] = {
    **dict.fromkeys(_ALWAYS.split(), lambda given: True),
    "array_equal": lambda given: bool(given.get("equal_nan")),
    "average": lambda given: given.get("weights") is not None,
    "choose": lambda given: given.get("mode", "raise") == "raise",
    "cov": lambda given: any(given.get(w) is not None for w in ("fweights", "aweights")),
    "gradient": lambda given: any(_has_shape(x) and x.ndim for x in given.get("...", ())),
    "histogram": lambda given: given.get("range") is None or _has_shape(given.get("bins")),
    "ix_": lambda given: any(x.dtype.kind == "b" for x in given.get("...", ())),
    "linspace": lambda given: _has_shape(given["start"]) or _has_shape(given["stop"]),
    "logspace": lambda given: _has_shape(given["start"]) or _has_shape(given["stop"]),
    "percentile": lambda given: _has_shape(given["q"]),
    "poly": lambda given: given["seq_of_zeros"].ndim == 2,
    "put": lambda given: given.get("mode") == "raise",
    "quantile": lambda given: _has_shape(given["q"]),
    "ravel_multi_index": lambda given: given.get("mode") == "raise",
    "real_if_close": lambda given: given["a"].dtype.kind == "c",
    "repeat": lambda given: np.ndim(given["repeats"]) > 0 or _has_shape(given["repeats"]),
    "where": lambda given: given.get("x") is None and given.get("y") is None,
}


def synchronizes(function: str, given: Given) -> bool:
    """Tell whether CuPy waits for the device inside this call."""
    condition = _SYNCHRONIZES.get(function)
    return condition is not None and condition(given)


def _over_nothing(given: Given) -> bool:
    """Tell whether a mean or variance may divide by zero or less."""
    return given["a"].size == 0 or bool(given.get("ddof"))


# Lists of a few numbers that CuPy uploads for the caller: allowed, and booked.
UPLOADED_LISTS = frozenset({("percentile", "q"), ("quantile", "q"), ("repeat", "repeats")})


# Where NumPy warns by `warnings.warn` (no errstate switches that off) and CuPy need not.
_MAY_WARN: dict[str, Callable[[Given], bool]] = {
    **dict.fromkeys(
        "nanmean nanmedian nanvar nanstd nanmax nanmin nanargmax nanargmin corrcoef polyfit "
        "cross cov".split(),
        lambda given: True,
    ),
    **dict.fromkeys("mean median var std average".split(), _over_nothing),
    "histogram": lambda given: given["x"].dtype.kind == "b",
}


def may_warn(function: str, given: Given) -> bool:
    """Tell whether NumPy may warn inside this call (complex arrays, `execute` knows by itself)."""
    condition = _MAY_WARN.get(function)
    if condition is not None and condition(given):
        return True
    return any(isinstance(value, (complex, np.complexfloating)) for value in given.values())


_BEYOND_CUPY: dict[str, tuple[Callable[[Given], bool], str]] = {
    "histogram": (lambda given: given["x"].dtype.kind == "c", "complex numbers"),
    "interp": (lambda given: not given["x"].flags.c_contiguous, "an x that is not contiguous"),
    "lexsort": (lambda given: given["keys"].ndim > 2, "keys of more than two dimensions"),
    "meshgrid": (
        lambda given: any(x.ndim != 1 for x in given["..."]),
        "arrays of other than one dimension",
    ),
    "nonzero": (lambda given: given["a"].ndim == 0, "arrays without dimensions"),
    "pad": (
        lambda given: (
            callable(given.get("mode"))
            or given.get("mode") == "median"
            or isinstance(given["pad_width"], dict)
        ),
        "a mode that is a function or 'median', nor widths in a dict",
    ),
    "putmask": (lambda given: given["a"].shape != given["mask"].shape, "a mask of another shape"),
    "solve": (
        lambda given: given["b"].ndim > 1 and given["a"].shape[:-1] != given["b"].shape[:-1],
        "a and b of different stacks",
    ),
    "take": (
        lambda given: given.get("out") is not None and given["out"].dtype != given["a"].dtype,
        "an out of another dtype",
    ),
    "trim_zeros": (lambda given: given["filt"].ndim > 1, "arrays of more than one dimension"),
    "where": (
        lambda given: given.get("x") is None and given["condition"].ndim == 0,
        "conditions without dimensions",
    ),
}


def refuse_beyond_cupy(function: str, given: Given) -> None:
    """Refuse what NumPy can do and CuPy has not implemented."""
    condition, what = _BEYOND_CUPY.get(function, (None, ""))
    if condition is not None and condition(given):
        raise NotImplementedError(f"{function}: CuPy does not support {what}")


# Functions whose optional parameters stand in another order in NumPy.
BY_NAME = frozenset("histogram2d histogramdd unpackbits".split())

# Parameters of CuPy that NumPy lacks, with the values that make no difference.
_WITHOUT_COUNTERPART: dict[str, dict[str, tuple[Any, ...]]] = {
    **{name: {"dtype": (None,)} for name in ("argmax", "argmin", "nanargmax", "nanargmin")},
    **{name: {"interpolation": (None,)} for name in ("percentile", "quantile")},
    "corrcoef": {"bias": (None,), "ddof": (None,)},
    "view": {"type": (None,)},
}


def drop_without_counterpart(function: str, given: dict[str, Any]) -> None:
    """Take out parameters that NumPy lacks; refuse values of theirs that mean something."""
    for parameter, harmless in _WITHOUT_COUNTERPART.get(function, {}).items():
        if given.pop(parameter, None) not in harmless:
            raise NotImplementedError(
                f"{function}: the stand-in does not model {parameter!r}, which NumPy has not"
            )


# What would hand NumPy arrays to a caller's function, or is not about arrays.
NOT_MODELLED = frozenset("apply_along_axis apply_over_axes from_dlpack show_config".split())

# Names that NumPy 2 removed and CuPy still carries, most of them with a DeprecationWarning.
SUCCESSORS = {
    "alltrue": "all", "asfarray": "asarray", "cumproduct": "cumprod", "in1d": "isin",
    "msort": "sort(a, axis=0)", "product": "prod", "round_": "round", "row_stack": "vstack",
    "sometrue": "any", "trapz": "trapezoid",
}  # fmt: skip
