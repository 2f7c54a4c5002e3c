"""Products of matrices: one op for all layers, and what its kernels tell NVIDIA's libraries."""

import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from column_blas import Cublas, CublasLt, Pointed

import xbackprop as xb
from xbackprop.backend.capture import CaptureError
from xbackprop.backend.device import Device
from xbackprop.dispatch import ArraySpec
from xbackprop.kernels.cuda.libraries import cublas, cublaslt
from xbackprop.kernels.cuda.libraries.layout import Problem, lay_out
from xbackprop.kernels.cuda.nn import linear as linear_kernels
from xbackprop.kernels.cuda.ops import matmul as kernels
from xbackprop.nn.linear import linear_backward, linear_forward
from xbackprop.ops.matmul import product

RNG = np.random.default_rng(7)


def numbers(*shape: int) -> np.ndarray:
    return RNG.integers(-4, 5, size=shape).astype(np.float32)  # products are exact in any order


# Factors of every kind of strides: as they lie, transposed, parts of wider ones, broadcast.
FACTORS: dict[str, tuple[Callable[[], np.ndarray], Callable[[], np.ndarray]]] = {
    "rows": (lambda: numbers(3, 4), lambda: numbers(4, 5)),
    "transposed": (lambda: numbers(4, 3).T, lambda: numbers(5, 4).T),
    "parts": (lambda: numbers(3, 9)[:, 2:6], lambda: numbers(9, 4)[::2].T),
    "row, column": (lambda: numbers(1, 4), lambda: numbers(4, 1)),
    "outer": (lambda: numbers(3, 1), lambda: numbers(1, 5)),
    "one": (lambda: numbers(1, 1), lambda: numbers(1, 1)),
    "no dense axis": (lambda: numbers(3, 8)[:, ::2], lambda: numbers(4, 10)[:, ::-2]),
    "repeated rows": (
        lambda: np.broadcast_to(numbers(4), (3, 4)), lambda: np.broadcast_to(numbers(4, 1), (4, 5)),
    ),
    "batch": (lambda: numbers(6, 3, 4), lambda: numbers(6, 4, 5)),
    "batch of transposes": (
        lambda: numbers(6, 4, 3).swapaxes(1, 2), lambda: numbers(6, 5, 4).swapaxes(1, 2),
    ),
    "one for all": (lambda: numbers(3, 4), lambda: numbers(6, 4, 5)),
    "one for all, said": (lambda: numbers(1, 3, 4), lambda: numbers(2, 3, 4, 5)),
    "heads": (
        lambda: numbers(2, 3, 5, 4).swapaxes(1, 2),
        lambda: numbers(2, 3, 5, 4).transpose(0, 2, 3, 1),
    ),
    "one batch of heads": (
        lambda: numbers(1, 3, 5, 4).swapaxes(1, 2),
        lambda: numbers(1, 3, 5, 4).transpose(0, 2, 3, 1),
    ),
    "half broadcast": (lambda: numbers(2, 1, 3, 4), lambda: numbers(1, 3, 4, 5)),
    "backwards": (lambda: numbers(6, 3, 4)[::-1], lambda: numbers(6, 4, 5)),
    "batch of one": (lambda: numbers(1, 1, 3, 4), lambda: numbers(4, 5)),
}  # fmt: skip
COPIED = {"no dense axis": 2, "repeated rows": 2, "heads": 2, "half broadcast": 2, "backwards": 1}

each_library = pytest.mark.parametrize("library", ["cublas", "cublaslt"])


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Cublas, CublasLt]]:
    """Let the kernels' Python code run against the libraries of plain loops."""
    old = Cublas()
    new = CublasLt(old)
    stream = types.SimpleNamespace(ptr=99)
    cuda = types.ModuleType("cupy.cuda")
    cuda.__dict__.update(
        Device=lambda: types.SimpleNamespace(id=0),
        get_current_stream=lambda: stream,
        device=types.SimpleNamespace(get_cublas_handle=lambda: 77),
    )
    cupy = types.ModuleType("cupy")
    cupy.__dict__.update(cuda=cuda, empty=lambda size, dtype: Pointed(np.empty(size, dtype)))
    core = types.ModuleType("cupy._core")
    core.__dict__["_routines_linalg"] = types.SimpleNamespace(
        COMPUTE_TYPE_TF32=4, get_compute_type=lambda dtype: 0
    )
    modules = {
        "cupy": cupy,
        "cupy._core": core,
        "cupy.cuda": cuda,
        "cupy_backends": types.ModuleType("cupy_backends"),
        "cupy_backends.cuda": types.ModuleType("cupy_backends.cuda"),
        "cupy_backends.cuda.libs": types.SimpleNamespace(cublas=old),
        "nvmath": types.ModuleType("nvmath"),
        "nvmath.bindings": types.SimpleNamespace(cublasLt=new),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)  # type: ignore[arg-type]
    caches = (cublaslt._library, cublaslt._handle, cublaslt._workspace, cublaslt._plan)
    for cache in caches:
        cache.cache_clear()
    yield old, new
    for cache in caches:
        cache.cache_clear()


def run(library: str, a: np.ndarray, b: np.ndarray, dtype: Any = None) -> np.ndarray:
    problem = lay_out(a, b, dtype)
    pointed = Problem(problem.geometry, *map(Pointed, problem[1:]))
    {"cublas": cublas, "cublaslt": cublaslt}[library].run(pointed)
    output: np.ndarray = problem.output
    return output


@each_library
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("name", FACTORS)
def test_libraries_give_the_product(
    name: str, dtype: Any, library: str, libraries: tuple[Cublas, CublasLt]
) -> None:
    a, b = (make().astype(dtype, order="K") for make in FACTORS[name])
    received = run(library, a, b)
    assert received.dtype == dtype
    np.testing.assert_array_equal(received, a.astype(np.float64) @ b.astype(np.float64))
    if library == "cublas":
        batch = np.prod(np.broadcast_shapes(a.shape[:-2], b.shape[:-2]))
        assert libraries[0].calls == ["gemmEx" if batch == 1 else "gemmStridedBatchedEx"]


@each_library
@pytest.mark.parametrize("name", FACTORS)
def test_libraries_leave_sums_of_halves_in_float32(
    name: str, library: str, libraries: tuple[Cublas, CublasLt]
) -> None:
    a, b = ((make() + 1 / 512).astype(np.float16, order="K") for make in FACTORS[name])
    received = run(library, a, b, np.float32)
    assert received.dtype == np.float32
    expected = a.astype(np.float64) @ b.astype(np.float64)
    np.testing.assert_allclose(received, expected, rtol=1e-6, atol=1e-6)


@each_library
def test_products_follow_the_choice_of_tf32(
    library: str, libraries: tuple[Cublas, CublasLt], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(library, numbers(2, 3), numbers(3, 2))
    products = sys.modules["cupy._core"]._routines_linalg
    monkeypatch.setattr(products, "get_compute_type", lambda dtype: products.COMPUTE_TYPE_TF32)
    for dtype in (np.float32, np.float16, np.float64):
        run(library, numbers(2, 3).astype(dtype), numbers(3, 2).astype(dtype))
    assert libraries[0].computed == {68, 70, 77}


@pytest.mark.parametrize("name", FACTORS)
def test_only_memory_without_a_form_is_copied(name: str) -> None:
    a, b = (make() for make in FACTORS[name])
    problem = lay_out(a, b)
    copied = sum(not np.shares_memory(x, y) for x, y in ((a, problem.a), (b, problem.b)))
    assert copied == COPIED.get(name, 0)


def test_half_precision_is_told_as_such(libraries: tuple[Cublas, CublasLt]) -> None:
    assert cublas.DATA_TYPES["bfloat16"] == 14
    assert {cublas.COMPUTE_TYPES[name] for name in ("float16", "bfloat16", "float32")} == {68}
    assert cublas.FACTORS["bfloat16"].alpha.dtype == np.float32


def test_a_plan_is_made_once(libraries: tuple[Cublas, CublasLt]) -> None:
    for _ in range(3):
        run("cublaslt", numbers(3, 4), numbers(4, 5))
    run("cublaslt", numbers(4, 4), numbers(4, 5))
    calls = libraries[1].calls
    assert calls.count("matmul") == 4
    assert 2 <= calls.count("heuristic") <= 4  # one for each geometry and alignment
    plans = cublaslt._plan.cache_info()
    assert plans.misses == calls.count("heuristic")


def test_a_product_without_an_algorithm_is_refused(libraries: tuple[Cublas, CublasLt]) -> None:
    libraries[1].finds = 0
    with pytest.raises(CaptureError, match="cuBLASLt has no algorithm"):
        run("cublaslt", numbers(2, 3), numbers(3, 2))


def test_without_nvmath_a_recorded_product_says_what_to_install(
    libraries: tuple[Cublas, CublasLt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nvmath.bindings", None)
    assert not cublaslt.is_available()
    with pytest.raises(CaptureError, match=r"nvmath-python.*Install xbackprop\[cuda13-fast\]"):
        run("cublaslt", numbers(2, 3), numbers(3, 2))


@pytest.mark.parametrize(
    ("a", "b", "is_served"),
    [
        ((2, 3), (3, 4), True), ((5, 2, 3), (3, 4), True), ((0, 3), (3, 4), False),
        ((2, 0), (0, 4), False), ((3,), (3, 4), False), ((0, 2, 3), (3, 4), False),
        ((2**31, 3), (3, 4), False),
    ],
)  # fmt: skip
def test_kernel_serves_matrices_that_are_not_empty(a: Any, b: Any, is_served: bool) -> None:
    first, second = (ArraySpec(shape, np.dtype(np.float16)) for shape in (a, b))
    assert kernels.can_multiply(first, second) is is_served
    assert not kernels.can_multiply(first, second._replace(dtype=np.dtype(np.float32)))
    assert not kernels.can_multiply(
        *(x._replace(dtype=np.dtype(np.int64)) for x in (first, second))
    )
    for dtype in (np.float16, np.float32):
        assert kernels.can_multiply(first, second, np.dtype(dtype)) is is_served
    assert not kernels.can_multiply(first, second, np.dtype(np.float64))
    wide = (x._replace(dtype=np.dtype(np.float32)) for x in (first, second))
    assert not kernels.can_multiply(*wide, np.dtype(np.float16))


def test_kernel_counts_bytes() -> None:
    a, b = ArraySpec((6, 2, 3), np.dtype(np.float16)), ArraySpec((3, 4), np.dtype(np.float16))
    assert kernels.count_product_bytes(a, b) == 2 * (6 * 2 * 3 + 3 * 4 + 6 * 2 * 4)
    wide = kernels.count_product_bytes(a, b, np.dtype(np.float32))
    assert wide == 2 * (6 * 2 * 3 + 3 * 4) + 4 * 6 * 2 * 4


def test_op_is_the_product_on_every_device(xb_device: Device) -> None:
    for first, second in FACTORS.values():
        a, b = first().copy(), second().copy()
        received = product(*(xb.asarray(x, device=xb_device) for x in (a, b)))
        np.testing.assert_array_equal(xb.to_host(received), a @ b)


@pytest.mark.parametrize("lead", [(), (2,)])
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_half_precision_is_rounded_once(
    name: str, lead: tuple[int, ...], xb_device: Device
) -> None:
    if name == "bfloat16":
        pytest.importorskip("ml_dtypes")
    a, b = (RNG.integers(-9, 9, size=(*lead, *s)).astype(name) for s in ((3, 4000), (4000, 2)))
    received = product(*(xb.asarray(x, device=xb_device) for x in (a, b)))
    expected = (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float32).astype(name)
    assert received.dtype == expected.dtype
    np.testing.assert_array_equal(xb.to_host(received), expected)


@pytest.mark.parametrize("xb_device", ["fake"], indirect=True)
def test_linear_books_its_launches(xb_device: Device) -> None:
    x, weight, bias = (xb.asarray(numbers(*s)) for s in ((2, 3), (4, 3), (4,)))
    many, grad = xb.asarray(numbers(200, 3)), xb.asarray(numbers(200, 4))
    low, low_weight, low_grad = (array.astype(np.float16) for array in (many, weight, grad))
    for call, launches in (
        (lambda: linear_backward(grad, many, weight), 2 + 2),  # several blocks share a column
        (lambda: linear_backward(low_grad, low, low_weight), 2 + 2),
        (lambda: linear_backward(grad, low, low_weight), 2 * 2 + 2),  # the gradient is rounded
        (lambda: linear_forward(x, low_weight, None), 2),
        (lambda: linear_forward(x, weight, bias), 2),
        (lambda: linear_forward(x, weight, None), 1),
        (lambda: linear_backward(x.dot(weight.T), x, weight), 4),
        (lambda: linear_backward(x.dot(weight.T), x, weight, False, True, False), 2),
    ):
        with xb.transfer_log() as log:
            call()
        assert log.launches == launches


def test_linear_kernels_in_half_precision_are_their_references() -> None:
    rows = 3000  # whose sum stops at 2048 in float16
    x, weight, bias = np.ones((rows, 3)), numbers(4, 3), numbers(4)
    low = [array.astype(np.float16) for array in (x, weight, bias)]
    output, saved = linear_kernels.linear_forward(*low)
    assert output.dtype == np.float16
    np.testing.assert_array_equal(output, linear_forward.reference(*low)[0])
    grads = linear_kernels.linear_backward(np.ones((rows, 4), np.float16), *saved)
    assert [grad.dtype.name for grad in grads] == ["float16", "float16", "float32"]
    for received, wanted in zip(
        grads, linear_backward.reference(np.ones((rows, 4), np.float16), *saved), strict=True
    ):
        np.testing.assert_array_equal(received, wanted)
    np.testing.assert_array_equal(grads[2], rows)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 2, 3)])
def test_linear_kernels_are_their_references(shape: tuple[int, ...]) -> None:
    x, weight, bias = numbers(*shape), numbers(4, 3), numbers(4)
    output, saved = linear_kernels.linear_forward(x, weight, bias)
    expected, _ = linear_forward.reference(x, weight, bias)
    np.testing.assert_array_equal(output, expected)
    assert saved[0] is x
    grads = linear_kernels.linear_backward(output, *saved)
    for received, wanted in zip(grads, linear_backward.reference(output, *saved), strict=True):
        np.testing.assert_array_equal(received, wanted)
    assert linear_kernels.linear_backward(output, *saved, False, False, False) == (None,) * 3
    spec = [ArraySpec(a.shape, a.dtype) for a in (x, weight, bias)]
    written = 2 * output.size + x.size + weight.size + output.size + bias.size
    assert linear_kernels.count_forward_bytes(*spec) == 4 * written
    assert linear_kernels.count_forward_bytes(spec[0], spec[1], None) == 4 * (
        x.size + weight.size + output.size
    )
    assert linear_kernels.count_backward_bytes(
        ArraySpec(output.shape, output.dtype), *spec[:2], False, False, True
    ) == 4 * (output.size + 4)
