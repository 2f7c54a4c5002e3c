"""Real bugs of code for CPU and GPU, as snippets, and what the stand-in GPU makes of each.

Every row was learnt from a public issue or pull request and written down anew. The line with the
bug ends in ``# <--``. Run the file to print the page of the documentation::

    python tests/real_bugs.py > xbackprop/docs/real_bugs.md
"""

import functools
import inspect
import io
import json
import numbers
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from multiprocessing.reduction import ForkingPickler
from typing import Any, Literal

import numpy as np

How = Literal["raises", "synchronizes", "downloads", "uploads", "changes the result", "not caught"]
Run = Callable[[Any, Any], object]

MARK = "# <--"


@dataclass(frozen=True)
class RealBug:
    """One bug: where it happened, the faulty code, and what the stand-in does about it.

    ``count`` is how many synchronisations, downloads or uploads the faulty line causes, ``result``
    the text of the wrong value where only the result shows the bug. ``on_cpu`` is "raises" where
    NumPy refuses the line too and only the real GPU lets it pass. ``needs`` names the package that
    the snippet imports.
    """

    name: str
    source: str
    kind: str
    how: How
    why: str
    run: Run
    count: int = 1
    result: str = ""
    on_cpu: Literal["passes", "raises"] = "passes"
    needs: str = ""

    @property
    def catches(self) -> bool:
        return self.how != "not caught"

    @property
    def faulty_line(self) -> int:
        """The number of the marked line in this file."""
        lines, start = inspect.getsourcelines(self.run)
        return start + next(i for i, line in enumerate(lines) if MARK in line)

    @property
    def faulty_code(self) -> str:
        lines, start = inspect.getsourcelines(self.run)
        code = lines[self.faulty_line - start].partition(MARK)[0].strip()
        return code.removesuffix(":").removeprefix("return ")


ROWS: list[RealBug] = []


def bug(
    kind: str, name: str, source: str, how: How, why: str, **options: Any
) -> Callable[[Run], Run]:
    """Enter the decorated snippet into the table."""

    def register(run: Run) -> Run:
        ROWS.append(RealBug(name, source, kind, how, why, run, **options))
        return run

    return register


def second_device(xp: Any) -> str:
    """Name another device of the kind that ``xp`` computes on; a CPU has only one."""
    return "cpu" if xp is np else "fake:1"


# A row's facts stand on two lines; formatted, the table would be a third longer.
# fmt: off
# ---------------------------------------------------------------------------------------------
numpy_function = functools.partial(bug, "A NumPy function on a device array")
ARRAY_REFUSED = "`__array__` of a device array refuses, as CuPy's does"


@numpy_function("`np.ascontiguousarray` before a neighbour search", "scverse/rapids-singlecell#81",
    "raises", ARRAY_REFUSED)
def ascontiguousarray(xp: Any, xb: Any) -> object:
    features = xb.asarray([[1.0, 2.0], [3.0, 4.0]])
    return np.ascontiguousarray(features, dtype=np.float32)  # <--


@numpy_function("`np.pad` in the GPU path of a terrain filter", "xarray-contrib/xarray-spatial#159",
    "raises", "no NumPy function takes a stand-in array")
def pad(xp: Any, xb: Any) -> object:
    raster = xb.asarray([[1.0, 2.0], [3.0, 4.0]])
    return np.pad(raster, 1, mode="reflect")  # <--


@numpy_function("one `numpy.dot` left among calls of the array module", "pyscf/gpu4pyscf#653",
    "raises", "stricter than CuPy, which takes it over while all arguments are its own")
def dot(xp: Any, xb: Any) -> object:
    density = xb.asarray([[1.0, 0.5], [0.5, 1.0]])
    return np.dot(density, density)  # <--


@numpy_function("a copy made with `np.array(x)` instead of `x.copy()`", "PyLops/pylops#689",
    "raises", ARRAY_REFUSED)
def array_copy(xp: Any, xb: Any) -> object:
    x = xb.asarray([1.0, 2.0])
    result = np.array(x, copy=True)  # <--
    return result * 2


@numpy_function("`np.asarray` placed before the branch that would download",
    "xarray-contrib/xarray-spatial#3165", "raises", ARRAY_REFUSED + "; the branch is dead")
def asarray_before_get(xp: Any, xb: Any) -> object:
    block = xb.asarray([1.0, 2.0])
    host = np.asarray(block)  # <--
    return host.get() if hasattr(host, "get") else host


@numpy_function("a host generator gets its scale from the device", "explosion/thinc#312",
    "raises", "`xp.sqrt` of a number is a device array; NumPy wants a number")
def device_scale(xp: Any, xb: Any) -> object:
    scale = xp.sqrt(1.0 / 4)
    return np.random.default_rng(0).normal(scale=scale, size=3)  # <--


@numpy_function("`np.add.at` on device arrays", "cupy/cupy#7561",
    "raises", "NumPy's ufuncs do not take stand-in arrays")
def add_at(xp: Any, xb: Any) -> object:
    bins, index = xb.asarray([0.0, 0.0]), xb.asarray([0, 1, 1])
    np.add.at(bins, index, xb.asarray([1.0, 2.0, 3.0]))  # <--
    return bins


@numpy_function("`np.array` over a list of device elements", "MouseLand/pykilosort#67",
    "raises", ARRAY_REFUSED)
def list_of_elements(xp: Any, xb: Any) -> object:
    momentum = xb.asarray([0.9, 0.99])
    return np.array([momentum[0], momentum[1]], dtype=np.float64)  # <--


@numpy_function("a `scipy.special` function on device arrays", "cupy/cupy#6158",
    "raises", "SciPy's ufuncs are NumPy ufuncs", needs="scipy")
def scipy_special(xp: Any, xb: Any) -> object:
    from scipy.special import rel_entr

    p = xb.asarray([0.5, 0.5])
    return rel_entr(p, p)  # <--


# ---------------------------------------------------------------------------------------------
mixed_places = functools.partial(bug, "Host and device arrays mixed")
MIXED = "an operation on arrays of two places names both and the call to make"


@mixed_places("the model is on the GPU, the input is not", "chainer/chainer#3266",
    "raises", MIXED)
def forgotten_input(xp: Any, xb: Any) -> object:
    weight = xb.asarray([[1.0, 2.0]])
    x = np.ones((3, 2), np.float32)
    return x @ weight.T  # <--


@mixed_places("a fallback vector made with NumPy for unknown words", "explosion/spaCy#4673",
    "raises", MIXED)
def unknown_word(xp: Any, xb: Any) -> object:
    table = {"known": xb.asarray([1.0, 2.0])}
    vectors = [table.get(word, np.zeros(2, np.float32)) for word in ("known", "unknown")]
    return vectors[0] + vectors[1]  # <--


@mixed_places("an accumulator made with NumPy for every backend",
    "xarray-contrib/xarray-spatial#3205", "raises", MIXED)
def host_accumulator(xp: Any, xb: Any) -> object:
    visible = xb.asarray([1, 0, 1])
    count = np.zeros(3, np.int64)
    count += visible  # <--
    return count


@mixed_places("host arrays given to the device's `concatenate`", "explosion/spaCy#1798",
    "raises", MIXED)
def concatenate(xp: Any, xb: Any) -> object:
    keys = [np.zeros(2, np.float32), np.ones(2, np.float32)]
    return xp.concatenate(keys)  # <--


@mixed_places("a device result assigned into a host array", "Parallel-in-Time/pySDC#272",
    "raises", ARRAY_REFUSED)
def assign_into_host(xp: Any, xb: Any) -> object:
    solution = np.zeros(2, np.float32)
    solution[:] = xp.tanh(xb.asarray([0.1, 0.2]))  # <--
    return solution


@mixed_places("a host vector assigned into a row of a device table", "explosion/spaCy#7626",
    "raises", MIXED)
def assign_into_device(xp: Any, xb: Any) -> object:
    table = xp.zeros((2, 3), xp.float32)
    table[0] = np.ones(3, np.float32)  # <--
    return table


@mixed_places("the tables of an interpolation stay on the host",
    "xarray-contrib/xarray-spatial#3151", "raises", MIXED)
def interpolate(xp: Any, xb: Any) -> object:
    break_points, values = np.array([0.0, 1.0]), np.array([10.0, 20.0])
    return xp.interp(xb.asarray([0.5]), break_points, values)  # <--


@mixed_places("`xp.zeros_like` of a host array", "chainer/chainerrl#538",
    "raises", "the prototype lies on the host; `xp.zeros(low.shape)` was meant")
def zeros_like(xp: Any, xb: Any) -> object:
    low = np.zeros(3, np.float32)
    return xp.zeros_like(low)  # <--


@mixed_places("a host array indexed with a device mask", "xarray-contrib/xarray-spatial#1568",
    "raises", ARRAY_REFUSED)
def index_host(xp: Any, xb: Any) -> object:
    friction, source = np.array([1.0, 2.0, 3.0]), xb.asarray([1, 2, 1])
    return friction[source == 1]  # <--


@mixed_places("a list as operand of a ufunc", "cupy/cupy#594",
    "raises", "a list is a hidden upload; CuPy refuses it too")
def list_operand(xp: Any, xb: Any) -> object:
    x = xb.asarray([1, 2, 3])
    return xp.add(x, [2, 1, -1])  # <--


@mixed_places("the array module asked of a list of device arrays", "explosion/thinc#703",
    "raises", "the answer is NumPy; the mix it leads to raises")
def module_of_list(xp: Any, xb: Any) -> object:
    xs = [xb.asarray([1.0]), xb.asarray([2.0])]
    total = xb.get_array_module(xs).zeros(1)
    return total + xs[0]  # <--


@mixed_places("pad widths kept in a device array", "PyLops/pylops#657",
    "raises", "widths, shapes and axes are needed on the host before a launch")
def device_pad_width(xp: Any, xb: Any) -> object:
    widths = xp.zeros((1, 2), dtype=int)
    return xp.pad(xb.asarray([1.0, 2.0]), widths)  # <--


@mixed_places("a shape kept in a device array", "cupy/cupy#5822",
    "raises", "a device array is no index (`__index__`), hence no shape")
def device_shape(xp: Any, xb: Any) -> object:
    shape = xb.asarray([3, 5])
    return xp.zeros(shape)  # <--


# ---------------------------------------------------------------------------------------------
array_scalar = functools.partial(bug, "Scalars that stay arrays")


@array_scalar("counting labels into a dict", "cupy/cupy#8776",
    "raises", "elements and reductions stay 0-d device arrays, which have no hash")
def dict_keys(xp: Any, xb: Any) -> object:
    values, counts = xp.unique(xb.asarray([4, 3, 5, 3]), return_counts=True)
    return dict(zip(values, counts, strict=True))  # <--


@array_scalar("`lru_cache` called with a 0-d array", "PtyLab/PtyLab.py#75",
    "raises", "a device array has no hash")
def cached_argument(xp: Any, xb: Any) -> object:
    transfer = functools.lru_cache(lambda distance: distance * 2)
    return transfer(xb.asarray([1.0, 2.0]).sum())  # <--


@array_scalar("`range` over a 0-d array", "cupy/cupy#9109",
    "raises", "a device array is no index; NumPy's 0-d array is one")
def range_of_scalar(xp: Any, xb: Any) -> object:
    lengths = xb.asarray([2, 3])
    return list(range(lengths.max()))  # <--


@array_scalar("a Python list indexed with what `argsort` yields",
    "oreilly-japan/deep-learning-from-scratch-2#3", "raises", "a device array is no index")
def list_index(xp: Any, xb: Any) -> object:
    words, similarity = ["a", "b", "c"], xb.asarray([0.1, 0.9, 0.5])
    return [words[i] for i in (-similarity).argsort()]  # <--


@array_scalar("numbers and 0-d arrays in one nested list", "cupy/cupy#8389",
    "raises", "CuPy stacks a list of device arrays, not a list that mixes in numbers")
def nested_list(xp: Any, xb: Any) -> object:
    angle = xb.asarray(0.5)
    return xp.array([[0.0, 1.0, xp.cos(angle)]])  # <--


@array_scalar("a loss written to a JSON log", "explosion/spaCy#6928",
    "raises", "`np.float64` is a `float` to `json`, a device array is not")
def json_dump(xp: Any, xb: Any) -> object:
    loss = (xb.asarray([1.0, 2.0], dtype="float64") ** 2).sum()
    return json.dumps({"loss": loss})  # <--


@array_scalar("a score formatted with `:.3f`", "explosion/thinc#296",
    "downloads", "it raised in CuPy then; CuPy 14 formats by a download, and so it counts")
def format_score(xp: Any, xb: Any) -> object:
    score = xb.asarray([0.5, 1.0]).mean()
    return f"{score:.3f}"  # <--


@array_scalar("`isinstance(x.sum(), numbers.Number)` chooses the branch", "cupy/cupy#3819",
    "changes the result", "the other branch is taken, as on a GPU", result="array")
def number_check(xp: Any, xb: Any) -> object:
    total = xb.asarray([1, 4, 3]).sum()
    return "scalar" if isinstance(total, numbers.Number) else "array"  # <--


# ---------------------------------------------------------------------------------------------
type_check = functools.partial(bug, "Checks for `np.ndarray`")


@type_check("only `np.ndarray` passes the argument check", "PyLops/pyproximal#200",
    "raises", "a stand-in array is no `np.ndarray` (held by composition, not by subclass)")
def instance_check(xp: Any, xb: Any) -> object:
    b = xb.asarray([1.0, 2.0])
    if not isinstance(b, (float, np.ndarray)):
        raise NotImplementedError("b must be a float or an array")  # <--
    return b


@type_check("`hasattr(x, 'device')` taken for \"is on the GPU\"", "gallantlab/himalaya#99",
    "not caught", "it is right on every device array; the host arrays of NumPy 2 have it too")
def device_attribute(xp: Any, xb: Any) -> object:
    x = xb.asarray([1.0, 2.0])
    return hasattr(x, "device")  # <--


# ---------------------------------------------------------------------------------------------
missing_in_cupy = functools.partial(bug, "What CuPy does not have")
SURFACE = "the stand-in has CuPy 14's functions, methods and keywords only"


@missing_in_cupy("`where=` in a division", "slaue/genosolver#3",
    "raises", SURFACE)
def where_keyword(xp: Any, xb: Any) -> object:
    x, d = xb.asarray([1.0, 2.0]), xb.asarray([0.0, 4.0])
    return xp.divide(x, d, out=xp.zeros_like(x), where=d > 0)  # <--


@missing_in_cupy("`initial=` in a maximum", "cupy/cupy#6935",
    "raises", SURFACE)
def initial_keyword(xp: Any, xb: Any) -> object:
    x = xb.asarray([1.0, 2.0])
    return xp.max(x, initial=0.0)  # <--


@missing_in_cupy("`xp.insert`", "qiboteam/qibo#1793",
    "raises", SURFACE)
def missing_function(xp: Any, xb: Any) -> object:
    x = xb.asarray([1, 2, 3])
    return xp.insert(x, 1, 5)  # <--


@missing_in_cupy("`resize` in place", "explosion/spaCy#3666",
    "raises", "the method is missing to this day; the function was missing then")
def missing_method(xp: Any, xb: Any) -> object:
    table = xp.zeros(3)
    table.resize(6, refcheck=False)  # <--
    return table


@missing_in_cupy("`xp.prod` of a tuple", "explosion/thinc#245",
    "raises", "CuPy's functions take device arrays, not sequences")
def prod_of_shape(xp: Any, xb: Any) -> object:
    x = xb.asarray([[1.0, 2.0]])
    return xp.prod(x.shape)  # <--


@missing_in_cupy("arithmetic on `x.flat`", "ArcetriAdaptiveOptics/SPECULA#183",
    "raises", "CuPy's `flat` cannot be computed with; the stand-in has none")
def flat(xp: Any, xb: Any) -> object:
    grid = xb.asarray([[1.0, 2.0], [3.0, 4.0]])
    return (grid.flat - xp.float32(1.0)) ** 2  # <--


@missing_in_cupy("`normal` of a random generator", "bbrzycki/setigen#39",
    "raises", "draw on the host from an explicit generator, then move")
def generator_normal(xp: Any, xb: Any) -> object:
    return xp.random.default_rng(0).normal(0.0, 1.0, 3)  # <--


@missing_in_cupy("`permutation` of a random generator", "cupy/cupy#7726",
    "raises", "draw on the host from an explicit generator, then move")
def generator_permutation(xp: Any, xb: Any) -> object:
    return xp.random.default_rng(0).permutation(10)  # <--


@missing_in_cupy("only NumPy's generator is seeded", "chainer/chainerrl#207",
    "raises", "the hidden generator of the device cannot be used at all")
def hidden_generator(xp: Any, xb: Any) -> object:
    np.random.seed(0)  # noqa: NPY002  (the bug is about this interface)
    return xp.random.rand(3)  # <--


# ---------------------------------------------------------------------------------------------
host_only_dtype = functools.partial(bug, "Dtypes that no GPU holds")


@host_only_dtype("labels that are dicts", "chainer/chainer#4147",
    "raises", "objects cannot be uploaded")
def object_dtype(xp: Any, xb: Any) -> object:
    labels = np.asarray([{"box": 1}, {"box": 2}])
    return xp.asarray(labels)  # <--


@host_only_dtype("an array of text", "cupy/cupy#8698",
    "raises", "text cannot be uploaded")
def text_dtype(xp: Any, xb: Any) -> object:
    return xp.array(["apple", "banana"])  # <--


@host_only_dtype("an array of dates", "cupy/cupy#2622",
    "raises", "dates cannot be uploaded")
def date_dtype(xp: Any, xb: Any) -> object:
    days = np.arange("2020-01", "2020-02", dtype="datetime64[D]")
    return xp.asarray(days)  # <--


# ---------------------------------------------------------------------------------------------
leaving_the_process = functools.partial(bug, "Leaving the process, and other libraries")


@leaving_the_process("a model pickled with its device arrays", "chainer/chainer#325",
    "raises", "stricter than CuPy, whose pickle cannot be loaded without a GPU")
def pickled_model(xp: Any, xb: Any) -> object:
    model = {"weight": xb.asarray([1.0, 2.0])}
    return pickle.dumps(model)  # <--


@leaving_the_process("device arrays sent to worker processes", "explosion/spaCy#4725",
    "raises", "a device array is not pickled")
def worker_process(xp: Any, xb: Any) -> object:
    vectors = xb.asarray([1.0, 2.0])
    return bytes(ForkingPickler.dumps(vectors))  # <--


@leaving_the_process("`x.tobytes()` in an exporter", "chainer/onnx-chainer#126",
    "downloads", "CuPy has the method today; it is a download, and so it counts")
def tobytes(xp: Any, xb: Any) -> object:
    weight = xb.asarray([1.0, 2.0])
    return weight.tobytes()  # <--


@leaving_the_process("a compiled function wants the buffer of the array", "explosion/thinc#74",
    "raises", "device arrays have no buffer protocol")
def buffer_protocol(xp: Any, xb: Any) -> object:
    keys = xb.asarray([1, 2, 3])
    return memoryview(keys).nbytes  # <--


@leaving_the_process("a device array written to a file", "abTEM/abTEM#50",
    "raises", ARRAY_REFUSED)
def write_file(xp: Any, xb: Any) -> object:
    wave = xb.asarray([1.0, 2.0])
    np.save(io.BytesIO(), wave)  # <--
    return None


@leaving_the_process("a device array given to a plot", "matplotlib/matplotlib#17516",
    "raises", ARRAY_REFUSED, needs="matplotlib")
def plot(xp: Any, xb: Any) -> object:
    from matplotlib.figure import Figure

    losses = xb.asarray([3.0, 2.0, 1.0])
    return Figure().add_subplot().plot(losses)  # <--


@leaving_the_process("a device array given to scikit-learn", "scikit-learn/scikit-learn#22352",
    "raises", ARRAY_REFUSED, needs="sklearn")
def estimator(xp: Any, xb: Any) -> object:
    from sklearn.preprocessing import StandardScaler

    features = xb.asarray([[1.0, 2.0], [3.0, 4.0]])
    return StandardScaler().fit(features)  # <--


# ---------------------------------------------------------------------------------------------
indices_and_memory = functools.partial(bug, "Indices and memory")


@indices_and_memory("`gradient[tokens] += g` with a token twice", "chainer/chainer#1920",
    "raises", "an element written twice is undefined on a GPU; the sum is wrong on both")
def duplicate_indices(xp: Any, xb: Any) -> object:
    gradient, tokens = xp.zeros((3, 2), xp.float32), xb.asarray([0, 2, 2])
    gradient[tokens] += 1.0  # <--
    return gradient


@indices_and_memory("an index past the end wraps around", "chainer/chainer#4648",
    "raises", "CuPy wraps silently; the stand-in refuses, as NumPy does", on_cpu="raises")
def out_of_range(xp: Any, xb: Any) -> object:
    x, index = xp.arange(5), xb.asarray([0, 4, 5])
    return x[index]  # <--


@indices_and_memory("`+=` on a broadcast view", "cupy/cupy#2405",
    "raises", "CuPy's views are writable and the sum is a race", on_cpu="raises")
def broadcast_view(xp: Any, xb: Any) -> object:
    view = xp.broadcast_to(xb.asarray([1.0]), (1000,))
    view += 1  # <--
    return view


@indices_and_memory("`empty * 0` taken for zeros", "open-atmos/PySDM#1201",
    "changes the result", "`xp.empty` comes full of NaN", result="nan")
def uninitialized(xp: Any, xb: Any) -> object:
    total = xp.empty(3, xp.float32) * 0  # <--
    return float((total + xb.asarray([1.0, 2.0, 3.0])).sum())


# ---------------------------------------------------------------------------------------------
two_gpus = functools.partial(bug, "Two GPUs")


@two_gpus("arrays of two GPUs in one update", "mikgroup/sigpy#67",
    "raises", "`fake:0` and `fake:1` do not mix")
def two_devices(xp: Any, xb: Any) -> object:
    x, y = xb.asarray([1.0]), xb.asarray([2.0], device=second_device(xp))
    return y + 0.5 * x  # <--


@two_gpus("a state created on the current GPU, not on that of the input", "chainer/chainer#1882",
    "raises", "new arrays lie on the current device; mixing raises")
def state_on_current(xp: Any, xb: Any) -> object:
    x = xb.asarray([[1.0, 2.0]], device=second_device(xp))
    state = xp.zeros(x.shape, x.dtype)
    return x + state  # <--


@two_gpus("an array used while another GPU is current", "AdvancedPhotonSource/tike#183",
    "raises", "the result would be allocated on the wrong GPU; stricter than CuPy")
def foreign_context(xp: Any, xb: Any) -> object:
    probes = xb.asarray([[1.0, 2.0], [3.0, 4.0]], device=second_device(xp))
    return probes * 2.0  # <--


# ---------------------------------------------------------------------------------------------
hidden_transfer = functools.partial(bug, "Transfers and waits in a loop")


@hidden_transfer("the loss read in every step", "chainer/chainer#19",
    "downloads", "one a step; the fix adds the losses up on the device", count=3)
def loss_in_loop(xp: Any, xb: Any) -> object:
    total = 0.0
    for loss in xb.asarray([[3.0], [2.0], [1.0]]):
        total += float(loss[0])  # <--
    return total


@hidden_transfer("`if rate < 1` decides on clipping", "chainer/chainer#4982",
    "synchronizes", "`bool(x)` waits for the device; without it 20 % faster there")
def clipping(xp: Any, xb: Any) -> object:
    gradient = xb.asarray([3.0, 4.0])
    rate = 1.0 / xp.sqrt((gradient * gradient).sum())
    if rate < 1:  # <--
        gradient *= rate
    return gradient


@hidden_transfer("`int(length)` for every piece of a batch", "explosion/thinc#573",
    "synchronizes", "one a piece", count=3)
def split_by_lengths(xp: Any, xb: Any) -> object:
    x, pieces = xb.asarray([1.0, 2.0, 3.0, 4.0]), []
    lengths = xb.asarray([1, 2, 1])
    for i in range(len(lengths)):
        n = int(lengths[i])  # <--
        pieces, x = [*pieces, x[:n]], x[n:]
    return pieces


@hidden_transfer("a Python loop that asks every element", "explosion/spaCy#5330",
    "synchronizes", "one an element; one product with the mask was the fix", count=4)
def element_loop(xp: Any, xb: Any) -> object:
    ids, total = xb.asarray([[0, -1], [2, -1]]), xp.zeros((), xp.float32)
    for i in range(2):
        for j in range(2):
            if ids[i, j] < 0:  # <--
                total = total + 1
    return total


@hidden_transfer("`xp.nonzero` between two kernels", "cupy/cupy#4050",
    "synchronizes", "the size of the result must be known on the host")
def nonzero(xp: Any, xb: Any) -> object:
    x = xb.asarray([0.2, 0.7, 0.9])
    return xp.nonzero(x > 0.5)  # <--


@hidden_transfer("four bounds read one by one", "xarray-contrib/xarray-spatial#1457",
    "downloads", "four; stacked on the device first, it is one", count=4)
def four_bounds(xp: Any, xb: Any) -> object:
    rows, columns = xb.asarray([1.0, 5.0]), xb.asarray([2.0, 8.0])
    reductions = [xp.min(rows), xp.max(rows), xp.min(columns), xp.max(columns)]
    return [float(bound) for bound in reductions]  # <--


@hidden_transfer("a step done on the host in a GPU path", "xarray-contrib/xarray-spatial#2734",
    "downloads", "down and up again for every chunk")
def round_trip(xp: Any, xb: Any) -> object:
    z = xb.asarray([0.5, 2.0, 3.0])
    classes = np.digitize(xb.to_host(z), [1.0, 2.5])  # <--
    return xb.asarray(classes)


@hidden_transfer("lengths uploaded to be downloaded at once", "explosion/thinc#861",
    "uploads", "an upload beyond the batch's")
def lengths_up_and_down(xp: Any, xb: Any) -> object:
    pieces = [xb.asarray([1.0]), xb.asarray([2.0, 3.0])]
    lengths = xb.asarray([len(piece) for piece in pieces])  # <--
    return np.cumsum(xb.to_host(lengths))


# ---------------------------------------------------------------------------------------------
real_gpu_only = functools.partial(bug, "What only a real GPU shows")


@real_gpu_only("subnormal float32 numbers become zero", "cupy/cupy#8382",
    "not caught", "CuPy compiles with `-ftz=true`; the stand-in computes as NumPy does")
def subnormal(xp: Any, xb: Any) -> object:
    tiny = xb.asarray(np.finfo(np.float32).smallest_normal)
    return tiny / 2  # <--


@real_gpu_only("a negative float cast to unsigned", "chainer/chainer#557",
    "not caught", "undefined in C: NumPy on x86 wraps, CUDA gives 0")
def undefined_cast(xp: Any, xb: Any) -> object:
    x = xb.asarray([-1.0])
    return x.astype(xp.uint8)  # <--


@real_gpu_only("a float32 sum differs in the last digits", "cupy/cupy#2559",
    "not caught", "another order of additions; use tolerances by dtype")
def order_of_sum(xp: Any, xb: Any) -> object:
    x = xb.asarray(np.linspace(0.0, 1.0, 1000))
    return x.sum()  # <--


@real_gpu_only("`ravel(order='K')` of a result whose strides differ", "cupy/cupy#8779",
    "not caught", "CuPy does not promise NumPy's memory order; the stand-in has NumPy's")
def memory_order(xp: Any, xb: Any) -> object:
    x = xb.asarray(np.arange(12.0).reshape(2, 3, 2)).swapaxes(1, 2)
    return (x * 2).ravel(order="K")  # <--


@real_gpu_only("a float64 constant widens everything after it", "SuperDARNCanada/borealis#310",
    "not caught", "right but slow on a GPU; layers of xbackprop refuse another float dtype")
def promotion(xp: Any, xb: Any) -> object:
    signal = xb.asarray([1.0, 2.0, 3.0])
    return signal * xp.linspace(0.0, 1.0, 3)  # <--


@real_gpu_only("the CUDA text of an optimizer differs from its NumPy text", "chainer/chainer#18",
    "not caught", "the stand-in compiles nothing and runs the reference; test kernels on a GPU")
def other_formula(xp: Any, xb: Any) -> object:
    gradient, v, eps = xb.asarray([1.0]), xb.asarray([4.0]), 0.5
    if xp.__name__ == "cupy":
        return gradient / xp.sqrt(v + eps)
    return gradient / (xp.sqrt(v) + eps)  # <--


@real_gpu_only("CuPy's own kernel does not compile on a platform", "cupy/cupy#9829",
    "not caught", "no kernel is compiled")
def compile_error(xp: Any, xb: Any) -> object:
    x, mask = xp.zeros(1024, xp.float32), xp.arange(1024) % 2 == 0
    x[mask] = 1.0  # <--
    return x


@real_gpu_only("out of memory although the pool reports nothing used", "cupy/cupy#7678",
    "not caught", "the stand-in's memory limit counts live bytes; it knows no fragments")
def fragmented_pool(xp: Any, xb: Any) -> object:
    first = xp.ones(512, xp.float32)
    del first
    return xp.ones(800, xp.float32)  # <--


@real_gpu_only("a host buffer overwritten while its upload still runs", "cupy/cupy#5155",
    "not caught", "no streams: an upload is finished when the call returns")
def asynchronous_upload(xp: Any, xb: Any) -> object:
    batch = np.ones(4, np.float32)
    x = xb.to_device(batch)
    batch[:] = 0.0  # <--
    return x * 2


# fmt: on
def describe(row: RealBug) -> str:
    """Say in one cell what ``fake`` does."""
    if row.how in ("synchronizes", "downloads", "uploads"):
        noun = {"synchronizes": "wait", "downloads": "download", "uploads": "upload"}[row.how]
        what = f"counts {row.count} {noun}{'s' * (row.count > 1)} at the line"
    elif row.how == "changes the result":
        what = f"gives `{row.result}`"
    else:
        what = row.how
    return f"**{what}**: {row.why}"


def link(source: str) -> str:
    repository, _, number = source.partition("#")
    return f"[{source}](https://github.com/{repository}/issues/{number})"


def documentation() -> str:
    """Return the page of the documentation."""
    caught = sum(row.catches for row in ROWS)
    also_on_cpu = [row for row in ROWS if row.on_cpu == "raises"]
    lines = [
        "# Real bugs of CPU and GPU code, and what the stand-in GPU makes of them",
        "",
        "<!-- Generated by `python tests/real_bugs.py > xbackprop/docs/real_bugs.md`; "
        "tests/test_real_bugs.py runs every row. -->",
        "",
        f"{len(ROWS)} bugs from {len({row.source.split('#')[0] for row in ROWS})} public projects. "
        f"Under `XBACKPROP_DEVICE=fake` {caught} of them show on a machine without GPU, "
        f"{len(ROWS) - caught} do not. On a CPU each of these lines passes, which is why tests "
        f"without a GPU did not see them; the {len(also_on_cpu)} that NumPy refuses too, and only "
        "a real GPU lets through, are marked with (*). Counts become failures with "
        "`xb.transfer_guard()` or `@pytest.mark.xb_budget(downloads=0)`. The snippets were written "
        "for this table and are shown by their faulty line; each stands in `tests/real_bugs.py`.",
    ]
    for kind, rows in groupby(ROWS, lambda row: row.kind):
        lines += ["", f"## {kind}", "", "| bug | where it happened | what `fake` does |"]
        lines += ["|---|---|---|"]
        for row in rows:
            star = " (*)" if row.on_cpu == "raises" else ""
            name = f"{row.name}{star}: `{row.faulty_code}`"
            lines.append(f"| {name} | {link(row.source)} | {describe(row)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(documentation(), end="")
