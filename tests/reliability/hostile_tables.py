"""CSV and NPZ files that nobody should load."""

import io
import lzma
import pickle
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from reliability.building import array_bytes, npy_bytes, zip_bytes
from reliability.hostile_checkpoints import RunsCode, Writer, bytes_of

X = np.arange(12.0).reshape(6, 2)
Y = np.array([0, 1, 0, 1, 0, 1])
LONG = 2_100_000


def hostile_csv() -> Iterator[tuple[str, Writer]]:
    """Yield names and writers; each is read with `target="y"`."""
    rows = "a,y\n1,0\n2,1\n3,0\n4,1\n5,0\n6,1\n"
    texts = {
        "empty": "", "a blank": "\n", "blanks": "\n" * 500_000, "only a header": "a,y\n",
        "numbers only": "1,2\n3,4\n", "no target": "a,b\n1,2\n", "twice": "a,y,a\n1,0,2\n",
        "no features": "y\n1\n", "no name": "a,,y\n1,2,0\n", "a row of commas": "," * 30_000_000,
        "a field": "x" * LONG, "a quoted field": 'a,y\n"' + "x" * LONG + '",0\n',
        "a quote": 'a,y\n"1,0\n', "quotes": '"' * LONG, "a record": '"' + '\n",,,"' * 600_000,
        "names": ",".join(f"{i:x}" for i in range(300_000)), "cells": "a,y\n" + "1," * 900_000,
        "a name": "y" * 130_000 + ",b\n1,2\n", "NUL": rows.replace("3", "\0"),
        "one class": "a,y\n1,0\n2,0\n",
        "classes": "a,y\n" + "".join(f"1,c{i}\n" for i in range(60_000)),
        "many classes": "a,y\n" + "".join(f"1,c{i % 40_000}\n" for i in range(80_001)),
        "a long name": "a" * 100_000 + ",b\n1,2\n", "tabs": "\t" * LONG, "semicolons": ";" * LONG,
        "carriage returns": "\r" * 300_000, "spaces": " " * LONG,
        "a pickle's name": "cos\nsystem\n",
    }  # fmt: skip
    for cell in (
        "", " ", "x", "nan", "NaN", "inf", "-Infinity", "1e39", "1e999", "-1e400", "1_000", "0x10",
        "1,5", "=1+1", "9" * 5000, "9" * 131_000, "1" + "0" * 400, "None", "true", "1j", "--1",
        "\u2028",
        "1e" + "9" * 1000, "0." + "0" * 5000 + "x", "\U0001f600", "1\t", '"', "'1'",
    ):  # fmt: skip
        if cell != "1\t":
            texts[f"cell {cell[:9]!r}"] = rows.replace("3", f'"{cell}"' if cell == "1,5" else cell)
    for label in ("", " ", "nan", "inf", "1.5", "-Infinity", "1e999"):
        texts[f"label {label!r}"] = "a,y\n1,0\n2,1\n3," + label + "\n4,1\n5,0\n"
    for name, text in texts.items():
        yield name, bytes_of(text.encode())
    for encoding in ("utf-16", "utf-16-be", "utf-32"):
        yield encoding, bytes_of(rows.replace("a", "ä+").encode(encoding))
    for bad in (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\x80", b"\xf8"):
        yield f"{bad!r}", bytes_of(rows.encode().replace(b"3", bad))
        yield f"{bad!r} late", bytes_of(rows.encode() * 20_000 + bad)
    for protocol in range(6):
        yield f"pickle {protocol}", bytes_of(pickle.dumps(RunsCode(), protocol))
    yield "noise", bytes_of(np.random.default_rng(1).bytes(100_000))
    yield "an archive", bytes_of(zip_bytes({"X.npy": array_bytes(X)}))


def hostile_npz() -> Iterator[tuple[str, Writer]]:
    """Yield names and writers."""
    y = array_bytes(Y)

    def with_x(member: bytes, method: int = zipfile.ZIP_STORED) -> Writer:
        return bytes_of(zip_bytes({"X.npy": member, "y.npy": y}, method))

    for protocol in range(6):
        yield f"pickle {protocol}", bytes_of(pickle.dumps(RunsCode(), protocol))
        objects = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            objects, {"descr": "|O", "fortran_order": False, "shape": (6, 2)}
        )
        yield f"objects {protocol}", with_x(objects.getvalue() + pickle.dumps(RunsCode(), protocol))
    for count in (10**10, 10**9, 10**8):
        yield f"bomb of {count}", bomb(count)
    yield "bombs", bytes_of(
        zip_bytes({"X.npy": array_bytes(np.zeros((6, 10**6), np.uint8)), "y.npy": array_bytes(
            np.zeros((6, 2 * 10**6), "f8"))}, zipfile.ZIP_DEFLATED))  # fmt: skip
    for name, header in headers().items():
        yield f"header {name}", with_x(npy_bytes(header, bytes(96)))
        yield f"header {name} deflated", with_x(npy_bytes(header, bytes(96)), zipfile.ZIP_DEFLATED)
        yield f"header {name} of version 2", with_x(npy_bytes(header, bytes(96), (2, 0)))
    good = npy_bytes("{'descr': '<f8', 'fortran_order': False, 'shape': (6, 2)}", bytes(96))
    for version in ((0, 0), (3, 0), (1, 1), (9, 9), (255, 255)):
        yield f"version {version}", with_x(good[:6] + bytes(version) + good[8:])
    for size in (0, 1, 65_535):
        yield f"header of {size} bytes", with_x(good[:8] + struct.pack("<H", size) + good[10:])
    for size in (2**32 - 1, 2**31, 10**8):
        start = b"\x93NUMPY\x02\x00" + struct.pack("<I", size)
        yield (
            f"header of {size} bytes",
            with_x(start + b" " * min(size, 10**7), zipfile.ZIP_DEFLATED),
        )
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        yield f"method {method}", with_x(good, method)
    yield (
        "a dictionary of 4 GB",
        bytes_of(
            zip_bytes({"X.npy": good, "y.npy": y}, zipfile.ZIP_LZMA).replace(
                lzma._encode_filter_properties({"id": lzma.FILTER_LZMA1}), b"\x5d\xff\xff\xff\xff"
            )
        ),
    )
    yield "members", many_members
    for name, content in archives(zip_bytes({"X.npy": good, "y.npy": y})).items():
        yield name, bytes_of(content)
    letters = npy_bytes("{'descr': '<U1', 'fortran_order': False, 'shape': (6,)}", b"\xff" * 24)
    yield "no letters", bytes_of(zip_bytes({"X.npy": good, "y.npy": letters}))
    for name in ("../X.npy", "/X.npy", "X.npy/", "X", "x\0.npy", "X.NPY", "Y.npy", "\ud800.npy"):
        raw = name.encode("utf-8", "surrogatepass").decode("latin1")
        yield f"named {name!r}", bytes_of(zip_bytes({raw: good, "y.npy": y}))


def headers() -> dict[str, str]:
    found = {}
    for number, shape in enumerate((
        "(-6, 2)", "(6, -2)", "(2**40,)", "(999999999999,)", "(6, 2.0)", "(6, '2')", "None",
        "[6, 2]",
        "(6, 2, 0)", "(3, 2)", "(" + "1, " * 80 + ")", "(9223372036854775808,)", "((6, 2),)",
        "(True, 12)", "(-1,)", "(" + "9" * 5000 + ",)", "(6, 3)", "()",
    )):  # fmt: skip
        found[f"shape {number}"] = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}"
    for descr in (
        "'|O'", "'<c16'", "'<M8[s]'", "'|V8'", "[('a', '<f8')]", "[('a', '|O')]", "'x'", "''",
        "None",
        "'<U0'", "'<U999999999'", "('<f8', (1000000, 1000))", "'<f8,<f8'", "8", "[]", "{}", "'|S8'",
    ):  # fmt: skip
        found[f"dtype {descr}"] = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (6, 2)}}"
    found |= {
        "brackets": "(" * 9000, "lists": "[" * 9000 + "]" * 900, "signs": "-" * 9000 + "1",
        "code": "__import__('os').system('echo a file ran code')", "empty": "", "a number": "1",
        "a key more": "{'descr': '<f8', 'fortran_order': False, 'shape': (6, 2), 'a': 1}",
        "a key less": "{'descr': '<f8', 'shape': (6, 2)}", "no dict": "[1, 2]", "NUL": "\0",
        "powers": "9**9**9", "a call": "dict()", "a product": "{'descr': '<f8' * 99}",
        "order": "{'descr': '<f8', 'fortran_order': 2, 'shape': (6, 2)}", "long": "1" * 9900,
    }  # fmt: skip
    return found


def bomb(count: int) -> Writer:
    """An archive of zeros, `count` bytes, that is a thousandth of it on the disk."""

    def write(path: Path) -> None:
        head = npy_bytes(f"{{'descr': '|u1', 'fortran_order': False, 'shape': (6, {count // 6})}}")
        head += bytes(count // 6 * 6 % 4096)
        block = bytes(10**6)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("y.npy", array_bytes(Y))
            with archive.open("X.npy", "w", force_zip64=True) as member:
                member.write(head)
                for _ in range(min(count, 10**8) // len(block)):
                    member.write(block)
        if count > 10**8:  # the rest is claimed only, as writing it would take its time
            raw = bytearray(path.read_bytes())
            place = raw.rindex(b"PK\x01\x02")
            raw[place + 24 : place + 28] = struct.pack("<I", min(2**32 - 2, count))
            path.write_bytes(raw)

    return write


def many_members(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("X.npy", b"")
    whole = path.read_bytes()
    first, last = whole.index(b"PK\x01\x02"), whole.index(b"PK\x05\x06")
    listed = whole[first:last] * 600_000
    end = bytearray(whole[last:])
    end[8:12] = struct.pack("<HH", 60_000, 60_000)
    end[12:16] = struct.pack("<I", len(listed))
    path.write_bytes(whole[:first] + listed + end)


def archives(whole: bytes) -> dict[str, bytes]:
    """What can be wrong with an archive itself."""
    found: dict[str, bytes] = {"empty": b"", "the magic": b"PK\x05\x06" + bytes(18)}
    first, last = whole.index(b"PK\x01\x02"), whole.index(b"PK\x05\x06")
    for name, place, width in (
        ("flags", 8, 2), ("method", 10, 2), ("checksum", 16, 4), ("packed", 20, 4), ("size", 24, 4),
        ("name", 28, 2), ("extra", 30, 2), ("offset", 42, 4),
    ):  # fmt: skip
        for value in (1, 7, 2 ** (8 * width) - 1, 2 ** (8 * width - 1)):
            raw = bytearray(whole)
            raw[first + place : first + place + width] = value.to_bytes(width, "little")
            # A stored member is as long as its size, whatever is claimed of its packed size.
            harmless = {("flags", 7), ("flags", 2**15), ("packed", 2**31), ("packed", 2**32 - 1)}
            if (name, value) not in harmless and raw != whole:
                found[f"{name} {value}"] = bytes(raw)
    for name, place, width in (("count", 10, 2), ("list's size", 12, 4), ("list's place", 16, 4)):
        for value in (1, 2 ** (8 * width) - 1):
            raw = bytearray(whole)
            raw[last + place : last + place + width] = value.to_bytes(width, "little")
            if name != "count":
                found[f"{name} {value}"] = bytes(raw)
    for end in (4, 30, first, first + 10, last, last + 10, len(whole) - 1):
        found[f"cut at {end}"] = whole[:end]
    return found
