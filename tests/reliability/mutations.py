"""Mutations that keep most of a file's structure, so that they reach behind the first check.

Input number `i` of a kind is the same wherever and in whatever order it is made.
"""

import copy
import json
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from reliability.building import (
    NO_CHECKSUM,
    array_bytes,
    header_of,
    npy_bytes,
    seal_text,
    sealed,
    split,
    zip_bytes,
)

FIXTURES = Path(__file__).parents[1] / "fixtures" / "checkpoints"

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, 2**31, 2**63 - 1, 2**63, 2**64, 10**30, -(10**18), 0.5,
    -0.0,
    1e308, float("nan"), float("inf"), "", "x", "0", "weight", "0.weight", "float64", "O", "\ud800",
    "é\U0001f600", "x" * 300, "\0", "Linear", "ReLU", "Dropout", "Sequential", "Residual", "SGD",
    [], {}, [[]], [0], [1, 2], {"a": 1}, ["0.weight"], {"shared": 0}, {"shared": 1}, {"dict": {}},
    {"array": [1.0, 2.0], "dtype": "float32"}, {"array": [1], "dtype": "O"},
    {"type": "ReLU", "args": {}}, {"type": "Flatten", "args": {"start_dim": 10**9}},
    {"type": "Linear", "args": {"in_features": 10**9, "out_features": 10**9}},
    {"type": "CrossEntropyLoss", "args": {"weight": [1, 2]}},
    {"type": "Identity", "args": {"args": [1]}},
    {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
]  # fmt: skip

Mutation = Callable[[random.Random], tuple[bytes, dict[str, Any]]]


def make(kind: str, number: int) -> tuple[bytes, dict[str, Any]]:
    """Return the content of an input, and the options to read it with."""
    return MUTATIONS[kind](random.Random(f"{kind} {number}"))


# --- bytes --------------------------------------------------------------------------------


def spoil(rng: random.Random, content: bytes, *, most: int = 8) -> bytes:
    """Flip, splice, cut, repeat or insert a few bytes."""
    raw = bytearray(content)
    for _ in range(rng.randint(1, most)):
        place, size = rng.randrange(len(raw) + 1), rng.choice([1, 1, 2, 4, 8, 64])
        match rng.randrange(7):
            case 0 | 1 if raw:
                raw[place % len(raw)] ^= 1 << rng.randrange(8)
            case 2:
                raw[place : place + size] = rng.randbytes(size)
            case 3:
                del raw[place : place + size]
            case 4:
                source = rng.randrange(len(raw) + 1)
                raw[place:place] = raw[source : source + size]
            case 5:
                raw[place : place + size] = rng.choice([b"\0", b"\xff"]) * size
            case 6 if rng.random() < 0.2:
                del raw[place:]
    return bytes(raw)


# --- checkpoints --------------------------------------------------------------------------

_CHECKPOINTS = [path.read_bytes() for path in sorted(FIXTURES.glob("*.safetensors"))]


def _checkpoint(rng: random.Random) -> tuple[bytes, dict[str, Any]]:
    blob = rng.choice(_CHECKPOINTS)
    if rng.random() < 0.2:
        return spoil(rng, blob), {}
    tree, data = split(blob)
    metadata, header = tree.pop("__metadata__"), header_of(blob)
    match rng.randrange(6):
        case 0 | 1:
            header = _mutated(rng, header)
        case 2:
            header["architecture"] = _mutated(rng, header["architecture"])
        case 3:
            tree = _mutated(rng, tree)
        case 4:
            text = json.dumps({"__metadata__": {**metadata, "checksum": NO_CHECKSUM}, **tree})
            raw = text.replace('": ', '":').encode("utf-8", "surrogatepass")
            return seal_text(spoil(rng, raw, most=3)) + data, {}
        case 5:
            return sealed(_spoiled_text(rng, json.dumps(header)), tree, data), {}
    if not isinstance(tree, dict):
        tree = {"weight": tree}
    if not isinstance(header, dict):
        return sealed(json.dumps(header), tree, data), {}
    header.pop("format_version", None) if rng.random() < 0.95 else None
    return sealed(header, tree, spoil(rng, data, most=1) if rng.random() < 0.1 else data), {}


def _spoiled_text(rng: random.Random, text: str) -> str:
    return spoil(rng, text.encode(), most=3).decode("utf-8", "replace")


def _mutated(rng: random.Random, tree: Any) -> Any:
    """Return a copy of plain data with a few of its nodes replaced."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        nodes = list(_nodes(tree))
        if not nodes:
            return _value(rng)
        owner, key = rng.choice(nodes)
        other_owner, other_key = rng.choice(nodes)
        match rng.randrange(8):
            case 0 | 1 | 2:
                owner[key] = _value(rng)
            case 3:
                owner[key] = copy.deepcopy(other_owner[other_key])
            case 4:
                del owner[key]
            case 5 if isinstance(owner, dict):
                owner[str(_value(rng))[:40]] = owner.pop(key)
            case 5 | 6 if isinstance(owner, list):
                owner[key:key] = [_value(rng)] * rng.choice([1, 2, 50])
            case 6 | 7:
                value = owner[key]
                if isinstance(value, int) and not isinstance(value, bool):
                    owner[key] = value + rng.choice([-1, 1, 2**31, -(2**31)])
                else:
                    owner[key] = rng.choice([[value], {"dict": value}, {"shared": value}])
    return tree


def _value(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(VALUES))


def _nodes(tree: Any) -> Any:
    items: list[Any] = []
    if isinstance(tree, dict):
        items = list(tree.items())
    elif isinstance(tree, list):
        items = list(enumerate(tree))
    for key, value in items:
        yield tree, key
        yield from _nodes(value)


# --- CSV ----------------------------------------------------------------------------------

_CELLS = [
    "", " ", "0", "1", "-1", "1.5", "1e3", "1e39", "1e999", "nan", "inf", "-inf", "1_000", "0x1",
    "a",
    "é", "\U0001f600", "\u0663", "\u2028", "\u00a0", "\x00", "\x1c", "\ufeff", '"', '""', "'",
    '"a"',
    '"a,b"', '"a\nb"', "\r", "\r\n", "\n", ",", ";", "\t", "9" * 400, "x" * 200, "\\", "=1+1",
    "None",
    "y", "a\tb", "1,5", "1;5", "+1", "1 2", "\ud7ff", "1e-400", "0.1" * 3, '"a""b"', '"unclosed',
]  # fmt: skip
_TABLES = [
    "a,b,y\n" + "".join(f"{i},{i / 7:.3f},{i % 2}\n" for i in range(12)),
    "a;y\n" + "".join(f"{i};{'xyz'[i % 3]}\n" for i in range(15)),
    "y\ta\tb\tc\n" + "".join(f"{i % 3}\t{i}\t-{i}\t{i}e2\n" for i in range(10)),
    'y,"a b"\r\n' + "".join(f'"k{i % 2}",{i}\r\n' for i in range(8)),
]


def _csv(rng: random.Random) -> tuple[bytes, dict[str, Any]]:
    text = rng.choice(_TABLES)
    delimiter = next(d for d in ";\t," if d in text.split("\n")[0])
    rows = [row.split(delimiter) for row in text.split("\n")]
    for _ in range(rng.choice([0, 1, 1, 2, 5])):
        row = rng.choice(rows)
        match rng.randrange(8):
            case 0 | 1 | 2 if row:
                row[rng.randrange(len(row))] = rng.choice(_CELLS)
            case 3:
                row.insert(rng.randrange(len(row) + 1), rng.choice(_CELLS))
            case 4 if row:
                del row[rng.randrange(len(row))]
            case 5:
                rows.insert(rng.randrange(len(rows) + 1), list(rng.choice(rows)))
            case 6 if len(rows) > 1:
                del rows[rng.randrange(len(rows))]
            case 7:
                rows += [list(row)] * rng.choice([1, 30])
    if rng.random() < 0.05:
        delimiter = rng.choice([",", ";", "\t", "|", " "])
    content = "\n".join(delimiter.join(row) for row in rows).encode("utf-8", "surrogatepass")
    if rng.random() < 0.3:
        content = spoil(rng, content, most=4)
    options: dict[str, Any] = {"target": rng.choice(["y"] * 20 + ["a", None, "", "é"])}
    return content, options | _table_options(rng)


def _table_options(rng: random.Random) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if rng.random() < 0.3:
        options["regression"] = True
    if rng.random() < 0.1:
        options["test_size"] = rng.choice([1, 2, 0.5, 0.01, 0.99, 10**9])
    return options


# --- NPZ ----------------------------------------------------------------------------------

_X = np.arange(24.0).reshape(8, 3)
_Y = np.arange(8) % 2
_ARCHIVES: list[dict[str, Any]] = [
    {"X": _X, "y": _Y},
    {"X": _X.astype(np.float32), "y": np.array(list("abababab"))},
    {"x": _X.astype(np.uint8).reshape(8, 3, 1), "y": _Y.astype(bool)},
    {"x_train": _X, "y_train": _Y, "x_test": _X[:2], "y_test": _Y[:2]},
    {"X": np.asfortranarray(_X), "y": _X[:, 0]},
]
_DTYPES = [
    "<f8", "<f4", "<f2", ">f8", "<i8", "|i1", "|u1", "|b1", "<u8", "<U1", ">U3", "<f16", "<g", "|O",
    "<c8", "<M8[s]", "|S8", "|V8", "<U0", "<i3", "", "<f8,<f8", "=f8", "<U99999", "<m8", "|?",
]  # fmt: skip
_SHAPES = [
    "(8, 3)", "(8,)", "()", "(24,)", "(0,)", "(8, 0)", "(0, 8)", "(4, 6)", "(-1,)", "(8, -3)", "8",
    "(8, 3, 1)", "(2, 4, 3)", "(99999999999999999999,)", "(8.0, 3)", "None", "(8, 3", "(True, 24)",
    "(" + "1," * 70 + ")", "[8, 3]", "(1, 24)", "(3, 8)", "(16,)", "(48,)", "(192,)",
]  # fmt: skip


def _npz(rng: random.Random) -> tuple[bytes, dict[str, Any]]:
    arrays = rng.choice(_ARCHIVES)
    members = {f"{name}.npy": array_bytes(array) for name, array in arrays.items()}
    for _ in range(rng.choice([0, 1, 1, 2])):
        name = rng.choice(list(members))
        raw = members.pop(name)
        match rng.randrange(8):
            case 0 | 1 | 2:
                raw = _other_header(rng, raw)
            case 3:
                raw = spoil(rng, raw, most=3)
            case 4:  # other numbers: infinities, NaN, letters that are none
                size = max(0, min(len(raw) - 128, 64))
                start = 128 + rng.randrange(max(1, len(raw) - 128))
                raw = raw[:start] + rng.randbytes(size) + raw[start + size :]
            case 5:
                name = rng.choice(
                    ["X.npy", "x.npy", "y.npy", "Y.npy", "y", "y_test.npy", "é.npy", ".npy"]
                )
            case 6:
                raw = raw[: rng.randrange(len(raw) + 1)]
            case 7:
                raw = raw[:128] + rng.choice([b"\0", b"\xff", b"\x7f"]) * (len(raw) - 128)
        members[name] = raw
    method = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    content = zip_bytes(members, method)
    if rng.random() < 0.3:
        content = spoil(rng, content, most=4)
    return content, _table_options(rng)


def _other_header(rng: random.Random, raw: bytes) -> bytes:
    text = raw[10:128].decode("latin1").rstrip()
    match rng.randrange(4):
        case 0:
            text = spoil(rng, text.encode("latin1"), most=3).decode("latin1")
        case 1:
            text = re.sub(r"'shape': .*", f"'shape': {rng.choice(_SHAPES)}}}", text)
        case 2:
            text = re.sub(r"'descr': '[^']*'", f"'descr': {rng.choice(_DTYPES)!r}", text)
        case 3:
            start = rng.choice(["-" * 500, "(" * 300, "[" * 5000, "9" * 5000, "{", "1+", "not "])
            text = start + text
    return npy_bytes(text, raw[128:], rng.choice([(1, 0), (1, 0), (2, 0), (3, 0)]))


def good_tables() -> dict[str, bytes]:
    """Return tables that load, by their suffix."""
    archive = {f"{name}.npy": array_bytes(array) for name, array in _ARCHIVES[0].items()}
    return {".csv": _TABLES[0].encode(), ".npz": zip_bytes(archive, zipfile.ZIP_DEFLATED)}


MUTATIONS: dict[str, Mutation] = {"safetensors": _checkpoint, "csv": _csv, "npz": _npz}
