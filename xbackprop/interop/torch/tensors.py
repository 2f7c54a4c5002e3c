"""Arrays out of tensors, and PyTorch itself, both without an import at the top."""

from typing import Any

import numpy as np

from xbackprop.backend.array_module import Array, is_array


def import_torch(caller: str) -> Any:
    """Return the module ``torch``; without it an error that says who needs it."""
    try:
        import torch
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{caller} needs PyTorch, which cannot be imported: {error}. Install it: "
            "pip install torch"
        ) from error
    return torch


def array_of(name: str, values: Any) -> Array:
    """Return the values of a tensor, of a foreign array or of numbers as an array.

    Parameters
    ----------
    name : str
        What it is, for messages.
    values : tensor or array_like
        A PyTorch tensor on any device, an array of ours, an object with ``__array__`` or DLPack,
        or nested lists of numbers.

    Returns
    -------
    array
        A host array, without a copy where that is possible; a device array as it is. bfloat16 is
        widened to float32, which holds all its values; other dtypes are kept.

    Raises
    ------
    TypeError
        For what has no values that NumPy can hold: float8, sparse, quantized or meta tensors.
    """
    try:
        if hasattr(values, "detach"):  # a PyTorch tensor, which need not be imported to be read
            is_bfloat16 = str(values.dtype) == "torch.bfloat16"
            return (values.float() if is_bfloat16 else values).numpy(force=True)
        if not is_array(values):
            only_dlpack = hasattr(values, "__dlpack__") and not hasattr(values, "__array__")
            values = np.from_dlpack(values) if only_dlpack else np.asarray(values)
    except (TypeError, ValueError, RuntimeError, NotImplementedError, BufferError) as error:
        kind = getattr(values, "dtype", type(values).__name__)
        raise TypeError(f"{name} ({kind}) cannot be read as an array: {error}") from error
    return values.astype(np.float32) if values.dtype.name == "bfloat16" else values


def as_tensor(array: Array) -> Any:
    """Return a copy as a tensor: what PyTorch may write into is nobody else's."""
    import torch

    return torch.from_numpy(np.array(array, order="C", copy=True))
