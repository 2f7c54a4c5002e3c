"""Checkpoints that nobody should load: each must be refused, fast and in little memory."""

import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from reliability.building import NO_CHECKSUM, checkpoint_bytes, seal_text, sealed, split

Writer = Callable[[Path], Any]

LINEAR = {"type": "Linear", "args": {"in_features": 2, "out_features": 2}}
ARRAYS = {"weight": np.ones((2, 2), np.float32), "bias": np.ones(2, np.float32)}
PLAIN = {"architecture": LINEAR, "frozen": [], "counters": {}}
FLOATS = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


class RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo a file ran code",)


def bytes_of(content: bytes) -> Writer:
    return lambda path: path.write_bytes(content)


def model(architecture: Any, arrays: dict[str, np.ndarray] = ARRAYS) -> Writer:
    return bytes_of(checkpoint_bytes({**PLAIN, "architecture": architecture}, arrays))


def hostile_checkpoints() -> Iterator[tuple[str, Writer]]:
    """Yield names and writers."""
    for family in (
        _other_formats, _lengths, _offsets, _duplicates, _floods, _depths, _bombs, _explosions,
        _sparse, _config_arrays, _fields, _optimizers, _encodings, _classes, _versions,
        _checksums, _ties,
    ):  # fmt: skip
        for name, writer in family():
            yield f"{family.__name__[1:]} {name}", writer


def _other_formats() -> Iterator[tuple[str, Writer]]:
    contents = ([1] * 99, {"model": RunsCode()}, RunsCode(), {"state_dict": ARRAYS})
    for number, content in enumerate(contents):
        for protocol in range(6):
            yield f"pickle {number} {protocol}", bytes_of(pickle.dumps(content, protocol))
    starts = (b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"\x80\x02}", b"\x1f\x8b", b"MZ", b"\x7fELF")
    for start in (*starts, b"%PDF-1.7", b"\x89PNG\r\n\x1a\n", b"#!/bin/sh\n", b"GGUF", b"\0", b""):
        yield f"magic {start[:4]!r}", bytes_of(start)
        yield f"magic {start[:4]!r} and zeros", bytes_of(start + bytes(4096))
        yield (
            f"magic {start[:4]!r} and noise",
            bytes_of(start + np.random.default_rng(0).bytes(999)),
        )


def _lengths() -> Iterator[tuple[str, Writer]]:
    whole = checkpoint_bytes(PLAIN, ARRAYS)
    right = int.from_bytes(whole[:8], "little")
    for length in (
        *range(9), 2**63, 2**63 - 1, 2**64 - 1, 2**32, 2**31, 100_000_000, right - 8, right - 1,
        right + 1, right + 8, len(whole), len(whole) - 8, len(whole) - 7,
    ):  # fmt: skip
        yield str(length), bytes_of(length.to_bytes(8, "little") + whole[8:])


def _offsets() -> Iterator[tuple[str, Writer]]:
    pairs = [
        ([0, 8], [0, 8]), ([0, 8], [4, 12]), ([0, 8], [12, 20]), ([4, 12], [12, 20]),
        ([8, 16], [0, 8.0]), ([-8, 0], [0, 8]), ([0, 8], [-8, 0]), ([8, 0], [8, 16]),
        ([0, 2**63], [0, 8]), ([2**63, 2**63 + 8], [0, 8]), ([2**64, 2**64 + 8], [0, 8]),
        ([0, 10**30], [0, 8]), ([0, 8, 8], [8, 16]), ([0], [8, 16]), ([], []), (None, [0, 8]),
        ("0,8", [8, 16]), ([[0, 8]], [8, 16]), ([True, 8], [8, 16]), ([0, 8], [8, 24]),
        ([0, 8], [8, 15]), ({"0": 8}, [8, 16]), ([0, "8"], [8, 16]), ([0, 8], [2**40, 2**40 + 8]),
    ]  # fmt: skip
    for number, (first, second) in enumerate(pairs):
        for size in (16, 24):
            table = {
                "a": {**FLOATS, "data_offsets": first},
                "b": {**FLOATS, "data_offsets": second},
            }
            yield f"{number} {size}", bytes_of(sealed(PLAIN, table, bytes(size)))
    for weight, bias, size in (  # of the right shapes, so that nothing but their places is wrong
        ([0, 16], [0, 8], 16), ([0, 16], [8, 16], 16), ([0, 16], [24, 32], 32),
        ([8, 24], [24, 32], 32), ([0, 16], [16, 24], 32), ([0, 16], [16, 24], 20),
        ([8, 24], [0, 8], 25), ([8, 24], [4, 12], 24),
    ):  # fmt: skip
        table = {
            "weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": weight},
            "bias": {"dtype": "F32", "shape": [2], "data_offsets": bias},
        }
        yield f"{weight} {bias} {size}", bytes_of(sealed(PLAIN, table, bytes(size)))
    shapes: list[Any] = [
        [-2], [2**63], [2**62, 2**62], [2, 0, 2**63], [1.0], ["2"], None, {}, 2, [2] * 70, [True],
        [0], [4], [2, 2], [[2]],
    ]  # fmt: skip
    for shape in shapes:
        table = {"weight": {**FLOATS, "shape": shape}}
        yield f"shape {shape}", bytes_of(sealed(PLAIN, table, bytes(8)))
    for dtype in ("F8", "O", "", None, 4, "f32", "BF16", "F4", ["F32"], "C64", "I64", "U8"):
        table = {"weight": {**FLOATS, "dtype": dtype}}
        yield f"dtype {dtype}", bytes_of(sealed(PLAIN, table, bytes(8)))
    for entry in (None, 3, [], "x", {}, {**FLOATS, "more": 1}, {"dtype": "F32", "shape": [2]}):
        yield f"entry {entry}", bytes_of(sealed(PLAIN, {"weight": entry}, bytes(8)))


def _duplicates() -> Iterator[tuple[str, Writer]]:
    whole = checkpoint_bytes(PLAIN, ARRAYS)
    tree, data = split(whole)
    tree["__metadata__"]["checksum"] = NO_CHECKSUM
    text = json.dumps(tree, separators=(",", ":"))
    twice = (
        ('"format":', '"format":"pt","format":'),
        ('"checksum":', f'"checksum":"{NO_CHECKSUM}","checksum":'),
        ('"checksum":', '"checksum":"","checksum":'),
        ('"xbackprop":', '"xbackprop":"{}","xbackprop":'),
        ('{"__metadata__":', '{"__metadata__":{"format":"pt"},"__metadata__":'),
        ('"bias":', '"bias":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"bias":'),
        ('"dtype":', '"dtype":"F64","dtype":'),
        ('"shape":', '"shape":[0],"shape":'),
        ('"data_offsets":', '"data_offsets":[0,0],"data_offsets":'),
        ('\\"counters\\":', '\\"counters\\": {},\\"counters\\":'),
        ('\\"type\\":', '\\"type\\": \\"ReLU\\",\\"type\\":'),
        ('\\"in_features\\":', '\\"in_features\\": 3,\\"in_features\\":'),
        ('\\"format_version\\":', '\\"format_version\\": 1,\\"format_version\\":'),
    )
    for number, (old, new) in enumerate(twice):
        assert old in text
        yield f"{number}", bytes_of(seal_text(text.replace(old, new, 1)) + data)
        yield f"{number} last", bytes_of(seal_text(new.join(text.rsplit(old, 1))) + data)


def _floods() -> Iterator[tuple[str, Writer]]:
    """A million keys, in each place where keys may stand."""

    def keys(count: int, value: str) -> str:
        return ",".join(f'"{i:x}":{value}' for i in range(count))

    def text(outer: str, inner: str) -> Writer:
        metadata = f'"format":"xbackprop","xbackprop":"{inner}"'
        return lambda path: path.write_bytes(seal_text(f'{{"__metadata__":{{{metadata}}}{outer}}}'))

    def header(name: str, count: int) -> Writer:
        def write(path: Path) -> None:
            content = json.dumps({**PLAIN, name: "HERE"}).replace(
                '"HERE"', f"{{{keys(count, '0')}}}"
            )
            path.write_bytes(checkpoint_bytes(content, ARRAYS))

        return write

    floats = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    yield "of tensors", lambda path: text("," + keys(1_000_000, floats), "{}")(path)
    yield "of metadata", lambda path: text(',"more":{' + keys(1_000_000, '""') + "}", "{}")(path)
    for name in ("counters", "architecture", "training"):
        yield f"of {name}", header(name, 1_000_000)
    for name in ("architecture", "optimizer"):  # elsewhere this many would be a file like others
        content = {**PLAIN, name: {f"{i:x}": 0 for i in range(150_000)}}
        yield f"allowed of {name}", bytes_of(checkpoint_bytes(content, ARRAYS))
    for count in (500_000, 150_000):
        for name in ("frozen", "architecture"):
            content = {**PLAIN, name: [[]] * count}
            yield f"list of {count} {name}", bytes_of(checkpoint_bytes(content, ARRAYS))
    yield "of small dicts", text(',"x":[' + '{"":0},' * 1_100_000 + "0]", "{}")
    # Commas as escapes: the bound must hold for what the parser gets to see.
    yield "of escapes", text("", '{\\"a\\":[' + "0\\u002c" * 1_000_000 + "0]}")
    sequence = {"type": "Sequential", "args": {"layers": [{"type": "ReLU", "args": {}}] * 60_000}}
    yield "of layers", model({"type": "Sequential", "args": {"layers": [sequence] * 2}})


def _depths() -> Iterator[tuple[str, Writer]]:
    for depth in (1_000, 10_000, 100_000, 1_000_000):
        for start, end in (
            ("[", "]"),
            ('{"a":', "}"),
            ('{"type":"Residual","args":{"module":', "}}"),
        ):
            deep = start * depth + "1" + end * depth
            if len(deep) > 30_000_000:
                continue
            name = f"{depth} {start[:8]}"
            text = f'{{"__metadata__":{{"format":"xbackprop"}},"deep":{deep}}}'
            yield f"{name} in the table", bytes_of(seal_text(text))
            header = json.dumps(PLAIN | {"counters": "DEEP", "format_version": 2, "checksums": {}})
            filled = header.replace('"DEEP"', deep)
            yield f"{name} in counters", bytes_of(sealed(filled, {}, b""))
            yield f"{name} open", bytes_of(seal_text(start * depth))
    for depth in (200, 400):
        architecture: Any = LINEAR
        for _ in range(depth):
            architecture = {"type": "Residual", "args": {"module": architecture}}
        yield f"{depth} residuals", model(architecture)


def _bombs() -> Iterator[tuple[str, Writer]]:
    for power in (4, 5, 6, 9, 12, 15, 17, 18, 19, 30, 300):
        for rows, columns in ((10**power, 10**power), (2, 10**power), (10**power, 2)):
            args = {"in_features": columns, "out_features": rows}
            for more in ({}, {"dtype": "float64"}):
                yield (
                    f"{power} {rows > 2}{columns > 2}{bool(more)}",
                    model({"type": "Linear", "args": {**args, **more}}),
                )
    huge = {"type": "Linear", "args": {"in_features": 10**6, "out_features": 10**6}}
    for count in (10, 1_000, 20_000):
        layers = [huge] * count
        yield f"{count} layers", model({"type": "Sequential", "args": {"layers": layers}})
    odd: list[Any] = [1e300, float("nan"), float("inf"), "8", None, [2], {}, True, 2.0, "9" * 4000]
    for value in odd:
        args = {"in_features": value, "out_features": 3}
        yield f"in_features {str(value)[:9]}", model({"type": "Linear", "args": args})
    yield (
        "an int of 4,000 digits",
        model({"type": "Linear", "args": {"in_features": 10**4000, "out_features": 1}}),
    )
    for dtype in ("O", "float16", "U9", "S1000000000", "V9", 3, None, "complex128", "float32,f4"):
        args = {"in_features": 3, "out_features": 2, "dtype": dtype}
        yield f"dtype {dtype}", model({"type": "Linear", "args": args})
    for key, value in (
        ("device", "fake"),
        ("device", "cuda"),
        ("rng", 0),
        ("rng", -1),
        ("self", 1),
    ):
        args = {"in_features": 2, "out_features": 2, key: value}
        yield f"{key} {value}", model({"type": "Linear", "args": args})


def _explosions() -> Iterator[tuple[str, Writer]]:
    """Each level names the one before it twice: 2^levels paths."""
    for levels in (17, 20, 30, 64, 100, 1_000, 2_000, 10_000):
        layers: list[Any] = [{"type": "Sequential", "args": {"layers": [LINEAR]}}]
        number = 1
        for _ in range(levels):
            layers.append({"type": "Sequential", "args": {"layers": [{"shared": number}] * 2}})
            number = number + 2 if number == 1 else number + 1
        yield f"{levels} flat", model({"type": "Sequential", "args": {"layers": layers}})
    for levels in (17, 25, 60, 120):
        nested: Any = LINEAR
        for level in range(levels, 0, -1):
            nested = {"type": "Sequential", "args": {"layers": [nested, {"shared": level}]}}
        yield f"{levels} nested", model(nested)
    for length, count in ((1_000_000, 100), (100_000, 5_000), (7_000_000, 10)):
        inner = {"type": "Sequential", "args": {"layers": [{"type": "ReLU", "args": {}}] * count}}
        yield (
            f"name of {length} letters",
            model({"type": "Sequential", "args": {"layers": [{"x" * length: inner}]}}),
        )
    for shared in (0, 1, 2, -1, 10**9, 1.0, "0", None, True, [0], {"shared": 0}):
        layers = [LINEAR, {"shared": shared}]
        if shared not in (1, True) or shared is True or isinstance(shared, float):
            yield f"of {shared!r}", model({"type": "Sequential", "args": {"layers": layers}})


def _sparse() -> Iterator[tuple[str, Writer]]:
    def sparse(rows: int, columns: int, key: str, header: dict[str, Any]) -> Writer:
        def write(path: Path) -> None:
            size = rows * columns * 4
            table = {
                "bias": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                key: {"dtype": "F32", "shape": [rows, columns], "data_offsets": [8, 8 + size]},
            }
            head = sealed({**header, "checksums": dict.fromkeys(table, NO_CHECKSUM)}, table, b"")
            with open(path, "wb") as file:
                file.write(head)
                file.truncate(len(head) + 8 + size)

        return write

    for power in (9, 10, 12):
        for key in ("weight", "more", "extra:more", "optimizer:0:exp_avg", "training:x"):
            yield f"{power} {key}", sparse(10 ** (power - 5), 10**5, key, PLAIN)
        header = {**PLAIN, "training": {}}
        yield f"{power} allowed training", sparse(10 ** (power - 5), 10**5, "training:x", header)
    optimizer = {"type": "Adam", "param_groups": [{"params": [0]}], "state": {}}
    for more in ({}, {"parameters": ["bias"]}):
        header = {**PLAIN, "optimizer": optimizer | more}
        yield f"optimizer {more}", sparse(10**7, 10**5, "optimizer:0:exp_avg", header)


def _config_arrays() -> Iterator[tuple[str, Writer]]:
    deep: Any = [1.0]
    for _ in range(70):
        deep = [deep]
    for number, array in enumerate((
        {"array": [1, 2], "dtype": "O"}, {"array": [{"type": "Linear"}], "dtype": "object"},
        {"array": ["a"], "dtype": "U1000000000"}, {"array": ["a"], "dtype": "S2000000000"},
        {"array": ["2001-01-01"], "dtype": "M8[s]"}, {"array": [1], "dtype": "c16"},
        {"array": [1], "dtype": "V1000000000"}, {"array": [1], "dtype": "i4,i4"},
        {"array": [1], "dtype": "(1000000,1000)f8"}, {"array": [1], "dtype": [["a", "O"]]},
        {"array": [1], "dtype": {"names": ["a"], "formats": ["O"]}}, {"array": [1], "dtype": None},
        {"array": [1]}, {"array": deep, "dtype": "f4"}, {"array": [[1], [1, 2]], "dtype": "f4"},
        {"array": ["x"], "dtype": "f4"}, {"array": [10**400], "dtype": "f4"},
        {"array": [10**30], "dtype": "i8"}, {"array": {}, "dtype": "f4"},
        {"array": [1], "dtype": ""},
        {"array": [None], "dtype": "i4"}, {"array": [1], "dtype": "nonsense"},
    )):  # fmt: skip
        yield f"{number}", model({"type": "CrossEntropyLoss", "args": {"weight": array}}, {})
    for value in ([1, 2], "abc", {}, {"a": [1]}, LINEAR, 3, [["a"]], [None], [[1], [1, 2]]):
        args = {"weight": value}
        yield f"plain {value!r}"[:40], model({"type": "CrossEntropyLoss", "args": args}, ARRAYS)


def _fields() -> Iterator[tuple[str, Writer]]:
    values: tuple[Any, ...] = (None, 0, "x", [1], {"a": 1}, 1.5, True)
    fine = {("counters", 4), ("optimizer", 0), ("training", 0), ("training", 4)}
    for name in ("architecture", "frozen", "counters", "optimizer", "training", "checksums"):
        for number, value in enumerate(values):
            if (name, number) not in fine:
                content = checkpoint_bytes({**PLAIN, name: value}, ARRAYS)
                yield f"{name} {value!r}", bytes_of(content)
    for frozen in (["9.weight"], [None], [[]], [{}], ["weight", "weights"], [""], [2]):
        yield (
            f"the frozen {frozen}",
            bytes_of(checkpoint_bytes({**PLAIN, "frozen": frozen}, ARRAYS)),
        )
    for name in PLAIN:
        rest = {key: value for key, value in PLAIN.items() if key != name}
        yield f"without {name}", bytes_of(checkpoint_bytes(rest, ARRAYS))
    for text in ("", "null", "3", "[]", "{", "nan", '"x"', "{}", "\x00", "{'a': 1}", "{}{}"):
        yield f"text {text!r}", bytes_of(checkpoint_bytes(text, ARRAYS))
    for change in ({"xbackprop": None}, {"xbackprop": {}}, {"format": "pt"}, {"format": None}):
        tree, data = split(checkpoint_bytes(PLAIN, ARRAYS))
        tree["__metadata__"] |= {"checksum": NO_CHECKSUM, **change}
        text = json.dumps(tree, separators=(",", ":"))
        yield f"metadata {change}", bytes_of(seal_text(text) + data)
    for metadata in (None, [], "x", 3, {}, {"format": "xbackprop"}):
        tree, data = split(checkpoint_bytes(PLAIN, ARRAYS))
        tree["__metadata__"] = metadata
        yield f"metadata {metadata}", bytes_of(seal_text(json.dumps(tree)) + data)


def _optimizers() -> Iterator[tuple[str, Writer]]:
    good: dict[str, Any] = {
        "type": "SGD",
        "param_groups": [{"params": [0, 1]}],
        "parameters": ["weight", "bias"],
        "state": {"0": {"step": 1}},
    }
    for name, values in {
        "type": (None, 3, [], {}),
        "param_groups": (None, 3, {}, [3], [[]], [{}], [{"params": 3}], [{"params": [0]}],
                         [{"params": [0, 0]}], [{"params": [0, 2]}], [{"params": ["0", "1"]}],
                         [{"params": [0.0, 1.0]}], [{"params": [-1, 0]}], [{"params": [[0], 1]}]),
        "parameters": (3, {}, [], ["weight"], ["weight", "no"], ["weight", 3], ["weight", []]),
        "state": (None, 3, [], {"2": {}}, {"-1": {}}, {"x": {}}, {"00": {}}, {"0": 3}, {"0": []},
                  {"1" * 5000: {}}, {"²": {}}),
    }.items():  # fmt: skip
        for value in values:
            header = {**PLAIN, "optimizer": {**good, name: value}}
            yield f"{name} {value!r}"[:50], bytes_of(checkpoint_bytes(header, ARRAYS))
    for key in ("2:m", "-1:m", "x:m", "", ":", "01:m", "0" * 5000, "9" * 5000 + ":m", "²:m"):
        arrays = {**ARRAYS, f"optimizer:{key}": np.ones((2, 2), np.float32)}
        content = checkpoint_bytes({**PLAIN, "optimizer": good}, arrays)
        yield f"key {key[:9]}", bytes_of(content)
    for shape in ((3,), (2,), (2, 3), (2, 2, 1), (10**6,)):
        arrays = {**ARRAYS, "optimizer:0:m": np.ones(shape, np.float32)}
        content = checkpoint_bytes({**PLAIN, "optimizer": good}, arrays)
        yield f"shape {shape}", bytes_of(content)


def _encodings() -> Iterator[tuple[str, Writer]]:
    whole = checkpoint_bytes(PLAIN, ARRAYS)
    tree, data = split(whole)
    tree["__metadata__"]["checksum"] = NO_CHECKSUM
    text = json.dumps(tree, separators=(",", ":"))
    for encoding in ("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7", "cp037"):
        yield encoding, bytes_of(seal_text(text.encode(encoding)) + data)
    for bad in (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"\0"):
        raw = text.encode().replace(b'"bias"', b'"bi' + bad + b'as"')
        yield f"{bad!r} in a key", bytes_of(seal_text(raw) + data)
        yield f"{bad!r} in front", bytes_of(seal_text(bad + text.encode()) + data)
    for start in (" ", "\n", "[", "//", "\ufeff", "null"):
        yield f"{start!r} in front", bytes_of(seal_text(start + text) + data)
    for end in ("}", "x", "\0", "{}", ","):
        yield f"{end!r} behind", bytes_of(seal_text(text + end) + data)
    for key in ("\ud800", "a\ud800b"):
        table = {**{k: v for k, v in tree.items() if k != "__metadata__"}, key: FLOATS}
        yield f"surrogate {key!r}", bytes_of(sealed(PLAIN, table, data))


def _classes() -> Iterator[tuple[str, Writer]]:
    for name in (
        "os", "os.system", "__import__", "eval", "Module", "Parameter", "object", "type", "Trainer",
        "linear", "", "Lin\u0435ar", "catalogue", "from_config", "Loss.forward", "__class__",
        "xbackprop.nn.Linear", "RunsCode", None, 3, [], {}, 1.5, True, ["Linear"],
    ):  # fmt: skip
        yield f"{name!r}", model({"type": name, "args": LINEAR["args"]})
    for args in (None, 3, "x", [], ["in_features"], {"": 1}, {"__init__": 1}, {"weight": [1]}):
        yield f"args {args!r}", model({"type": "Linear", "args": args})
    for layers in (None, 3, "x", [3], ["Linear"], [None], [[LINEAR]], {"a": LINEAR}, [{"a": 3}]):
        yield f"layers {layers!r}"[:40], model({"type": "Sequential", "args": {"layers": layers}})
    for reduction in (3, None, "x", [], {}):
        loss = {"type": "MSELoss", "args": {"reduction": reduction}}
        yield f"reduction {reduction!r}", model(loss, {})
    for p in (-1, 2, "x", None, [], float("nan"), 10**400):
        yield f"p {str(p)[:5]}", model({"type": "Dropout", "args": {"p": p}}, {})


def _versions() -> Iterator[tuple[str, Writer]]:
    for version in (0, -1, 3, 10**30, "1", "2", 1.0, 2.0, None, True, [2], {}, float("nan")):
        header = {**PLAIN, "format_version": version}
        yield f"{version!r}", bytes_of(checkpoint_bytes(header, ARRAYS))
    yield "1 with checksums", bytes_of(checkpoint_bytes({**PLAIN, "format_version": 1}, ARRAYS))
    tree, data = split(checkpoint_bytes(PLAIN, ARRAYS))
    for dropped in ("checksum", "format", "xbackprop"):
        kept = {k: v for k, v in tree["__metadata__"].items() if k != dropped}
        text = json.dumps({**tree, "__metadata__": kept}, separators=(",", ":"))
        yield f"without {dropped}", bytes_of(seal_text(text) + data)


def _checksums() -> Iterator[tuple[str, Writer]]:
    sums = json.loads(split(checkpoint_bytes(PLAIN, ARRAYS))[0]["__metadata__"]["xbackprop"])
    right = sums["checksums"]
    for number, wrong in enumerate((
        {}, {"weight": right["weight"]}, {**right, "more": NO_CHECKSUM},
        {**right, "bias": right["weight"]}, {**right, "bias": right["bias"].upper()},
        {**right, "bias": ""}, {**right, "bias": None}, {**right, "bias": 3},
        {**right, "bias": right["bias"][:-1]}, {**right, "bias": right["bias"] + "0"},
        list(right.items()), "x",
    )):  # fmt: skip
        content = checkpoint_bytes({**PLAIN, "checksums": wrong}, ARRAYS)
        yield f"{number}", bytes_of(content)
    for digits in ("", "x" * 64, "1" * 64, "0" * 63, "0" * 65, "A" * 64):
        yield (
            f"digits {digits[:2]}{len(digits)}",
            bytes_of(checkpoint_bytes(PLAIN, ARRAYS, checksum=digits)),
        )


def _ties() -> Iterator[tuple[str, Writer]]:
    layers = {"type": "Sequential", "args": {"layers": [LINEAR, LINEAR]}}
    arrays = {f"{i}.{key}": array for i in "01" for key, array in ARRAYS.items()}
    for tied in (
        3, "x", [3], [[]], [["0.weight"]], [["0.weight", "1.forward"]], [["0.weight", "9.weight"]],
        [["9.weight", "0.weight"]], [["0.weight", "1.bias"]], [["0", "1"]], [["", ""]],
        [["0.weight", "1.__class__"]], [["0.weight", "1.training"]], [["0.__dict__", "1.weight"]],
        [["0.weight", None]], [[0, 1]], {"0.weight": 1}, [["0.weight", "1.weight", "0.bias"]],
        [["0.weight", "1..weight"]], [["_layers.0", "_order"]],
    ):  # fmt: skip
        yield f"{tied!r}"[:50], model({**layers, "tied": tied}, arrays)
    yield "many", model({**layers, "tied": [["0.weight", "1.bias"]] * 100_000}, arrays)
    other = {**arrays, "1.weight": arrays["0.weight"] + 1}
    yield "of two values", model({**layers, "tied": [["0.weight", "1.weight"]]}, other)
