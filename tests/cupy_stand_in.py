"""A module that passes for CuPy as far as the probe asks, and fails where it is told to."""

import threading
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


class CUDARuntimeError(RuntimeError):
    def __init__(self, status: int) -> None:
        super().__init__(f"cudaError{status}: text of the runtime")
        self.status = status


class CUDADriverError(CUDARuntimeError):
    pass


class CUBLASError(RuntimeError):
    def __init__(self, status: int) -> None:
        super().__init__("CUBLAS_STATUS_ALLOC_FAILED")
        self.status = status


class DynamicLibNotFoundError(RuntimeError):  # of cuda.pathfinder
    pass


class CompileException(Exception):  # of cupy.cuda.compiler
    pass


class OutOfMemoryError(MemoryError):  # of cupy.cuda.memory
    pass


@dataclass
class Gpu:
    """One GPU of the stand-in; an exception in a field is raised at that step."""

    name: str = "Example GPU"
    total: int = 80 * 2**30
    free: int = 70 * 2**30
    compute_mode: int = 0
    context: BaseException | None = None
    allocation: BaseException | None = None
    kernel: BaseException | Callable[[np.ndarray], np.ndarray] | None = None
    product: BaseException | None = None
    memory_info: BaseException | None = None


@dataclass
class Journal:
    """On which GPUs a context was made, and in which threads."""

    contexts: list[int] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)


class Array:
    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def get(self) -> np.ndarray:
        return self.values


def make_cupy(
    *gpus: Gpu,
    count: BaseException | None = None,
    runtime_version: int = 12090,
    is_hip: bool = False,
) -> Any:
    """Return the module; what it saw is in its attribute `journal`."""
    journal = Journal()
    current = threading.local()  # as CUDA's: every thread starts on device 0

    def current_gpu() -> Gpu:
        index = getattr(current, "index", 0)
        if index not in journal.contexts:
            journal.contexts.append(index)
        journal.threads.add(threading.current_thread().name)
        return gpus[index]

    def get_device_count() -> int:
        _raise(count)
        return len(gpus)

    def set_device(index: int) -> None:
        current.index = index
        _raise(current_gpu().context)  # CUDA 12: this makes the context

    def properties(index: int) -> dict[str, Any]:
        gpu = gpus[index]
        return {
            "name": gpu.name.encode(),
            "major": 9,
            "minor": 0,
            "totalGlobalMem": gpu.total,
            "computeMode": gpu.compute_mode,
        }

    def memory_info() -> tuple[int, int]:
        gpu = current_gpu()
        _raise(gpu.memory_info)
        return gpu.free, gpu.total

    def asarray(values: np.ndarray) -> Array:
        _raise(current_gpu().allocation)
        return Array(values.copy())

    def elementwise_kernel(*source: str) -> Callable[[Array], Array]:
        def launch(x: Array) -> Array:
            kernel = current_gpu().kernel
            if callable(kernel):
                return Array(kernel(x.values))
            _raise(kernel)
            return Array(2 * x.values + 1)

        return launch

    def dot(left: Array, right: Array) -> Array:
        _raise(current_gpu().product)
        return Array(left.values @ right.values)

    module: Any = types.ModuleType("cupy")
    module.__version__ = "14.2.0"
    module.journal = journal
    module.asarray, module.dot, module.ElementwiseKernel = asarray, dot, elementwise_kernel
    module.cuda = types.SimpleNamespace(
        runtime=types.SimpleNamespace(
            is_hip=is_hip,
            runtimeGetVersion=lambda: runtime_version,
            getDevice=lambda: getattr(current, "index", 0),
            getDeviceCount=get_device_count,
            getDeviceProperties=properties,
            deviceGetPCIBusId=lambda index: f"0000:{index + 1:02x}:00.0",
            setDevice=set_device,
            memGetInfo=memory_info,
        )
    )
    return module


def _raise(error: object) -> None:
    if isinstance(error, BaseException):
        raise error
