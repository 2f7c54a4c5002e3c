"""The three things that must work on a GPU before it counts as usable."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xbackprop.backend.probe.errors import one_line


@dataclass(frozen=True)
class CheckOutcome:
    """What one check said; ``ok`` is None when it was not run."""

    name: str
    ok: bool | None
    detail: str


def check_device(
    cupy: Any, index: int
) -> tuple[tuple[CheckOutcome, ...], int | None, Exception | None]:
    """Make ``index`` the current GPU of this thread and run the checks on it.

    Parameters
    ----------
    cupy : module
        CuPy.
    index : int
        The GPU.

    Returns
    -------
    checks : tuple of CheckOutcome
        Allocation, kernel and product, in this order.
    free_bytes : int or None
        Free memory of the GPU after the checks; None when even the allocation failed.
    error : Exception or None
        The first exception, as it was raised.
    """
    outcomes: list[CheckOutcome] = []
    first_error: Exception | None = None
    steps: dict[str, Callable[[], None]] = {
        "allocation": lambda: _check_allocation(cupy, index),
        "kernel": lambda: _check_kernel(cupy),
        "product": lambda: _check_product(cupy),
    }
    for name, step in steps.items():
        if outcomes and not outcomes[0].ok:
            outcomes.append(CheckOutcome(name, None, "not run, because the allocation failed"))
            continue
        try:
            step()
        except Exception as error:  # noqa: BLE001 - every failure is an outcome
            first_error = first_error or error
            outcomes.append(CheckOutcome(name, False, one_line(error)))
        else:
            outcomes.append(CheckOutcome(name, True, "passed"))
    free_bytes = _free_bytes(cupy) if outcomes[0].ok else None
    return tuple(outcomes), free_bytes, first_error


def _free_bytes(cupy: Any) -> int | None:
    try:
        return int(cupy.cuda.runtime.memGetInfo()[0])
    except Exception:  # noqa: BLE001 - after an error that sticks this fails too, and says no more
        return None


def _check_allocation(cupy: Any, index: int) -> None:
    cupy.cuda.runtime.setDevice(index)
    _compare("an upload and download", cupy.asarray(np.arange(4, dtype=np.float32)), [0, 1, 2, 3])


def _check_kernel(cupy: Any) -> None:
    # An element-wise kernel rather than a raw one: it includes CUDA's headers, as every kernel
    # behind `x + y` does, and they are a package of their own.
    kernel = cupy.ElementwiseKernel("float32 x", "float32 y", "y = 2 * x + 1", "xbackprop_probe")
    _compare("a kernel", kernel(cupy.asarray(np.arange(4, dtype=np.float32))), [1, 3, 5, 7])


def _check_product(cupy: Any) -> None:
    left = cupy.asarray(np.array([[1, 2], [3, 4]], dtype=np.float32))
    right = cupy.asarray(np.array([[5, 6], [7, 8]], dtype=np.float32))
    _compare("a matrix product", cupy.dot(left, right), [[19, 22], [43, 50]])


def _compare(what: str, array: Any, expected: list[Any]) -> None:
    got = array.get()
    if not np.array_equal(got, expected):
        raise RuntimeError(f"{what} gave {got.tolist()} instead of {expected}")
