"""Files of our format made by hand: anything in them, and still with checksums that fit."""

import hashlib
import io
import json
import zipfile
from typing import Any

import numpy as np
import safetensors.numpy

VERSION = 2
NO_CHECKSUM = "0" * 64


def split(blob: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the safetensors header and the tensors' bytes of a file."""
    end = 8 + int.from_bytes(blob[:8], "little")
    return json.loads(blob[8:end]), blob[end:]


def header_of(blob: bytes) -> dict[str, Any]:
    """Return our header of a file, without the checksums."""
    tree, _ = split(blob)
    header: dict[str, Any] = json.loads(tree["__metadata__"]["xbackprop"])
    header.pop("checksums", None)
    return header


def checkpoint_bytes(
    header: dict[str, Any] | str, arrays: dict[str, np.ndarray], **metadata: str
) -> bytes:
    """Return a file of the newest version with our `header`; a text is taken as it is."""
    table, data = split(safetensors.numpy.save(arrays))
    return sealed(header, table, data, **metadata)


def sealed(
    header: dict[str, Any] | str, table: dict[str, Any], data: bytes, **metadata: Any
) -> bytes:
    """Return a file whose table and header are taken as they are, with checksums that fit."""
    if isinstance(header, dict):
        sums = {key: _sum_of(entry, data) for key, entry in table.items()}
        header = json.dumps({"format_version": VERSION, "checksums": sums, **header})
    entries = {"format": "xbackprop", "checksum": NO_CHECKSUM, "xbackprop": header, **metadata}
    return seal_text(json.dumps({"__metadata__": entries, **table}, separators=(",", ":"))) + data


def _sum_of(entry: Any, data: bytes) -> str:
    try:
        start, end = entry["data_offsets"]
        return hashlib.sha256(data[start:end]).hexdigest()
    except (TypeError, ValueError, KeyError):
        return NO_CHECKSUM


def seal_text(text: str | bytes) -> bytes:
    """Return length and header; the first 64 zeros of a `checksum` become the right digits."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    raw += b" " * (-len(raw) % 8)
    length = len(raw).to_bytes(8, "little")
    entry = b'"checksum":"%s"' % NO_CHECKSUM.encode()
    digest = hashlib.sha256(length + raw).hexdigest().encode()
    return length + raw.replace(entry, b'"checksum":"%s"' % digest, 1)


def npy_bytes(header: str, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """Return an array as np.save would write it, with this text for its header."""
    raw = header.encode("latin1") + b"\n"
    size = len(raw).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + size + raw + data


def array_bytes(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array))
    return buffer.getvalue()


def zip_bytes(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """Return an archive with these members, their sizes and checksums right."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()
