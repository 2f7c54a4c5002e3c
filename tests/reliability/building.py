"""Files of our format made by hand: anything in them, and still with checksums that fit."""

import hashlib
import json
from typing import Any

import numpy as np
import safetensors.numpy

from xbackprop.training.container import FORMAT_VERSION, seal


def split(blob: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the safetensors header and the tensors' bytes of a file."""
    end = 8 + int.from_bytes(blob[:8], "little")
    return json.loads(blob[8:end]), blob[end:]


def checkpoint_bytes(
    header: dict[str, Any] | str, arrays: dict[str, np.ndarray], **metadata: str
) -> bytes:
    """Return a file of the newest version with our `header`; a text is taken as it is."""
    table, data = split(safetensors.numpy.save(arrays))
    return sealed(header, table, data, **metadata)


def sealed(
    header: dict[str, Any] | str, table: dict[str, Any], data: bytes, **metadata: str
) -> bytes:
    """Return a file whose table and header are taken as they are, with checksums that fit."""
    if isinstance(header, dict):
        sums = {}
        for key, entry in table.items():
            try:
                start, end = entry["data_offsets"]
                sums[key] = hashlib.sha256(data[start:end]).hexdigest()
            except (TypeError, ValueError, KeyError):
                sums[key] = "0" * 64
        header = json.dumps({"format_version": FORMAT_VERSION, "checksums": sums, **header})
    entries = {"format": "xbackprop", "checksum": "0" * 64, "xbackprop": header, **metadata}
    return seal(entries, table) + data


def header_of(blob: bytes) -> dict[str, Any]:
    """Return our header of a file, without the checksums."""
    tree, _ = split(blob)
    header = json.loads(tree["__metadata__"]["xbackprop"])
    header.pop("checksums", None)
    return header
