"""A cuBLAS of plain loops over memory, and nvmath-python's cuBLASLt on top of it.

Both take raw addresses and count by columns, as NVIDIA's do; what is told to them is checked by the
numbers that come out.
"""

import ctypes
import types
from typing import Any

import numpy as np

DTYPES = {0: np.dtype(np.float32), 1: np.dtype(np.float64), 2: np.dtype(np.float16)}
COMPUTE = {68: np.dtype(np.float32), 70: np.dtype(np.float64), 77: np.dtype(np.float32)}


class Pointed:
    """An array as the libraries' wrappers see it: an address."""

    def __init__(self, array: np.ndarray) -> None:
        self.data = types.SimpleNamespace(ptr=array.ctypes.data)
        self.nbytes = array.nbytes


def at(pointer: int, count: int, dtype: np.dtype) -> np.ndarray:
    memory = (ctypes.c_char * (count * dtype.itemsize)).from_address(pointer)
    return np.frombuffer(memory, dtype)


def by_columns(pointer: int, rows: int, columns: int, leading: int, dtype: np.dtype) -> np.ndarray:
    """View memory as a matrix that is stored column after column."""
    assert leading >= rows
    memory = at(pointer, (columns - 1) * leading + rows, dtype)
    step = dtype.itemsize
    return np.lib.stride_tricks.as_strided(memory, (rows, columns), (step, leading * step))


class Cublas:
    """gemmEx and gemmStridedBatchedEx with the arguments of CuPy 14's wrappers."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.computed: set[int] = set()

    def gemmEx(
        self, handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int,
        a: int, atype: int, lda: int, b: int, btype: int, ldb: int, beta: int,
        c: int, ctype: int, ldc: int, compute: int, algo: int,
    ) -> None:  # fmt: skip
        self.calls.append("gemmEx")
        assert (handle, algo) == (77, -1)
        self.multiply(transa, transb, m, n, k, alpha, a, atype, lda, b, btype, ldb, beta, c, ctype,
                      ldc, compute)  # fmt: skip

    def gemmStridedBatchedEx(
        self, handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int,
        a: int, atype: int, lda: int, stride_a: int, b: int, btype: int, ldb: int, stride_b: int,
        beta: int, c: int, ctype: int, ldc: int, stride_c: int, count: int, compute: int, algo: int,
    ) -> None:  # fmt: skip
        self.calls.append("gemmStridedBatchedEx")
        assert (handle, algo) == (77, -1)
        for number in range(count):
            width = DTYPES[atype].itemsize * number
            self.multiply(
                transa, transb, m, n, k, alpha, a + stride_a * width, atype, lda,
                b + stride_b * width, btype, ldb, beta,
                c + stride_c * DTYPES[ctype].itemsize * number, ctype, ldc, compute,
            )  # fmt: skip

    def multiply(
        self, transa: int, transb: int, m: int, n: int, k: int, alpha: int,
        a: int, atype: int, lda: int, b: int, btype: int, ldb: int, beta: int,
        c: int, ctype: int, ldc: int, compute: int,
    ) -> None:  # fmt: skip
        accumulator = COMPUTE[compute]
        self.computed.add(compute)
        assert at(alpha, 1, accumulator)[0] == 1
        assert at(beta, 1, accumulator)[0] == 0
        first = by_columns(a, *((k, m) if transa else (m, k)), lda, DTYPES[atype])
        second = by_columns(b, *((n, k) if transb else (k, n)), ldb, DTYPES[btype])
        first, second = first.astype(accumulator), second.astype(accumulator)
        result = (first.T if transa else first) @ (second.T if transb else second)
        by_columns(c, m, n, ldc, DTYPES[ctype])[...] = result


class CublasLt:
    """The functions of ``nvmath.bindings.cublasLt`` that a product needs."""

    MatmulDescAttribute = types.SimpleNamespace(TRANSA=3, TRANSB=4)
    MatrixLayoutAttribute = types.SimpleNamespace(BATCH_COUNT=5, STRIDED_BATCH_OFFSET=6)
    MatmulPreferenceAttribute = types.SimpleNamespace(
        MAX_WORKSPACE_BYTES=1, MIN_ALIGNMENT_A_BYTES=5, MIN_ALIGNMENT_B_BYTES=6
    )

    def __init__(self, cublas: Cublas) -> None:
        self.cublas = cublas
        self.objects: dict[int, dict[Any, Any]] = {}
        self.calls: list[str] = []
        self.finds = 1

    def create(self) -> int:
        return 55

    def MatmulHeuristicResult(self, size: int) -> Any:
        return types.SimpleNamespace(ptr=4242)

    def _make(self, **content: Any) -> int:
        self.objects[len(self.objects) + 1] = content
        return len(self.objects)

    def _set(self, owner: int, attribute: int, pointer: int, size: int) -> None:
        dtype = np.dtype(np.int64 if attribute == 6 else np.int32)
        assert size == dtype.itemsize
        self.objects[owner][attribute] = int(at(pointer, 1, dtype)[0])

    matmul_desc_set_attribute = matrix_layout_set_attribute = _set

    def matmul_desc_create(self, compute: int, scale: int) -> int:
        assert COMPUTE[compute] == DTYPES[scale]
        return self._make(compute=compute)

    def matrix_layout_create(self, kind: int, rows: int, columns: int, leading: int) -> int:
        return self._make(kind=kind, rows=rows, columns=columns, leading=leading)

    def matmul_preference_create(self) -> int:
        return self._make()

    def matmul_preference_destroy(self, preference: int) -> None:
        self.objects[preference] = {}

    def matmul_preference_set_attribute(
        self, owner: int, attribute: int, pointer: int, size: int
    ) -> None:
        assert size == {1: 8, 5: 4, 6: 4}[attribute]

    def matmul_algo_get_heuristic(self, *args: Any) -> None:
        assert len(args) == 10
        assert args[7:9] == (1, 4242)
        self.calls.append("heuristic")
        at(args[9], 1, np.dtype(np.int32))[0] = self.finds

    def matmul(
        self, handle: int, description: int, alpha: int, a: int, a_layout: int, b: int,
        b_layout: int, beta: int, c: int, c_layout: int, d: int, d_layout: int, algorithm: int,
        workspace: int, workspace_bytes: int, stream: int,
    ) -> None:  # fmt: skip
        self.calls.append("matmul")
        assert (handle, algorithm, stream, c, c_layout) == (55, 4242, 99, d, d_layout)
        about = self.objects[description]
        first, second, output = (self.objects[name] for name in (a_layout, b_layout, d_layout))
        m, n = output["rows"], output["columns"]
        k = first["rows"] if about[3] else first["columns"]
        stored = ((k, m) if about[3] else (m, k)), ((n, k) if about[4] else (k, n))
        assert stored == tuple((x["rows"], x["columns"]) for x in (first, second))
        for number in range(output.get(5, 1)):
            width = DTYPES[first["kind"]].itemsize * number
            to = DTYPES[output["kind"]].itemsize * number
            self.cublas.multiply(
                about[3], about[4], m, n, k, alpha,
                a + first.get(6, 0) * width, first["kind"], first["leading"],
                b + second.get(6, 0) * width, second["kind"], second["leading"], beta,
                d + output.get(6, 0) * to, output["kind"], output["leading"], about["compute"],
            )  # fmt: skip
