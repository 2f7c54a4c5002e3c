"""Files of weights: safetensors are read; pickles, which may run code, are refused."""

import json
import os
from typing import IO, Any

import numpy as np

from xbackprop.training.header import DTYPES, unique_keys

_PICKLES = (".pt", ".pth", ".bin")
_PICKLES_BEGIN = (b"PK\x03\x04", b"\x80\x02")  # PyTorch's since 1.6, and before


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Return all tensors of a file.

    Parameters
    ----------
    path : path
        A ``.safetensors`` file of any library.

    Returns
    -------
    dict of str to numpy.ndarray
        In the file's order. bfloat16 is widened to float32; other dtypes are kept.

    Raises
    ------
    ValueError
        For a pickle (``.pt``, ``.pth``, ``.bin``), with the lines that convert it; for a damaged
        file, and for dtypes that NumPy does not have.
    OSError
        When it cannot be opened or read.
    """
    from safetensors import SafetensorError, safe_open

    name = os.fsdecode(path)
    if name.lower().endswith(_PICKLES):
        raise _refuse_pickle(name)
    with open(name, "rb") as file:
        length = file.read(8)
        try:
            with safe_open(name, framework="numpy"):  # judges header, offsets, holes and sizes
                head_size = int.from_bytes(length, "little")
            table = json.loads(file.read(head_size), object_pairs_hook=unique_keys)
            table.pop("__metadata__", None)
            return {key: _read(file, key, table[key], 8 + head_size) for key in table}
        except (SafetensorError, ValueError) as error:
            # Asked last: a header of 640 bytes begins as a pickle does.
            if length.startswith(_PICKLES_BEGIN):
                raise _refuse_pickle(name) from None
            raise ValueError(f"{name} is not a readable safetensors file: {error}") from error


def _read(file: IO[bytes], key: str, entry: dict[str, Any], data_start: int) -> np.ndarray:
    # Not by the library: it needs ml_dtypes for bfloat16, and panics where memory runs out.
    dtype = np.dtype("<u2") if entry["dtype"] == "BF16" else DTYPES.get(entry["dtype"])
    if dtype is None:
        raise ValueError(f"tensor {key!r} has dtype {entry['dtype']}, which NumPy has not")
    array = np.empty(entry["shape"], dtype)
    file.seek(data_start + entry["data_offsets"][0])
    if file.readinto(array.reshape(-1).view(np.uint8).data) != array.nbytes:  # type: ignore[attr-defined]
        raise ValueError(f"tensor {key!r} is cut short; the file changed while it was read")
    if entry["dtype"] == "BF16":  # the upper half of a float32
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def _refuse_pickle(name: str) -> ValueError:
    target = os.path.splitext(name)[0] + ".safetensors"
    return ValueError(
        f"{name} is a pickle, which may run code when it is opened, so it is not. Convert it where "
        "PyTorch is installed:\n"
        f"import torch, safetensors.torch; state = torch.load({name!r}, map_location='cpu', "
        "weights_only=True)\n"
        "safetensors.torch.save_file({key: tensor.clone().contiguous() for key, tensor in "
        f"state.items()}}, {target!r})"
    )
