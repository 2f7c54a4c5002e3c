"""The file format: old files load for ever, and no bit of a new one may change unseen."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reliability.building import checkpoint_bytes, header_of, sealed, split

import xbackprop as xb
from xbackprop.backend.device import Device
from xbackprop.backend.fake.memory import set_memory_limit
from xbackprop.training import CheckpointError, container
from xbackprop.training.atomic import remove_leftovers, write_atomically
from xbackprop.training.checkpoint import read_state, save_state
from xbackprop.training.header import seal

nn = xb.nn
FIXTURES = Path(__file__).parent / "fixtures" / "checkpoints"
PINS = json.loads((FIXTURES / "pins.json").read_text("utf-8"))


def make_model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.4), nn.Linear(6, 3), rng=0)


def assert_pinned(pins: dict[str, Any], prefix: str, arrays: dict[str, np.ndarray]) -> None:
    expected = {key.removeprefix(prefix): pin for key, pin in pins.items()}
    for key, array in arrays.items():
        received = [array.dtype.name, list(array.shape), hashlib.sha256(array).hexdigest()]
        assert received == expected[key], key


# --- what releases have written -----------------------------------------------------------


@pytest.mark.parametrize("name", PINS)
def test_released_files_load_to_the_values_they_had(name: str, xb_device: Device) -> None:
    pins = PINS[name]
    loaded = xb.load(FIXTURES / name)
    state, extra = loaded.model.state_dict(), loaded.model.extra_state()
    assert_pinned(pins, "", state)
    assert_pinned(pins, "extra:", extra)
    own = {key for key in pins if not key.startswith(("extra:", "optimizer:", "training:"))}
    assert state.keys() == own
    assert {f"extra:{key}" for key in extra} == {k for k in pins if k.startswith("extra:")}
    entries = {} if loaded.optimizer_state is None else loaded.optimizer_state["state"]
    arrays = {
        f"{number}:{key}": value
        for number, entry in entries.items()
        for key, value in entry.items()
        if isinstance(value, np.ndarray)
    }
    assert_pinned(pins, "optimizer:", arrays)
    assert {f"optimizer:{key}" for key in arrays} == {
        key for key in pins if key.startswith("optimizer:")
    }


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_released_files_say_what_they_said(version: str) -> None:
    adam = xb.load(FIXTURES / f"{version}-adam.safetensors")
    assert adam.counters == {"epochs": 3, "best": [0.5, None]}
    assert adam.optimizer_type == "Adam"
    assert adam.optimizer_state["state"][3]["step"] == 3
    assert adam.optimizer_state["param_groups"][0]["betas"] == [0.9, 0.999]
    sgd = xb.load(FIXTURES / f"{version}-sgd-float64.safetensors")
    assert [n for n, p in sgd.model.named_parameters() if not p.requires_grad] == [
        "first.weight",
        "first.bias",
    ]
    assert [group["lr"] for group in sgd.optimizer_state["param_groups"]] == [0.2, 0.05]
    shared = xb.load(FIXTURES / f"{version}-shared.safetensors").model
    assert shared[2] is shared[0]
    assert shared[3].weight is shared[0].weight


def test_state_of_a_run_comes_back_without_a_model() -> None:
    state = read_state(FIXTURES / "v2-adam.safetensors")
    assert state.training == {"epoch": 3, "order": {"seed": 7}}
    assert state.arrays["seen"].tolist() == [0, 1, 2, 3, 4]
    assert state.arrays["loss"].shape == ()
    assert state.arrays["loss"] == 0.25
    assert state.counters == {"epochs": 3, "best": [0.5, None]}
    assert (state.optimizer_type, state.frozen) == ("Adam", [])
    model = nn.from_config(state.architecture)
    model.load_state_dict(state.model_state)
    model.load_extra_state(state.extra_state)
    xb.optim.Adam(model.parameters()).load_state_dict(state.optimizer_state)
    assert_pinned(PINS["v2-adam.safetensors"], "", model.state_dict())

    old = read_state(FIXTURES / "v1-shared.safetensors")
    assert (old.training, old.arrays, old.optimizer_state, old.optimizer_type) == (
        None,
        {},
        None,
        None,
    )


def test_state_of_a_run_is_passed_over_by_load(xb_device: Device, tmp_path: Path) -> None:
    model = make_model()
    optimizer = xb.optim.SGD(model.parameters(), lr=0.1)
    arrays = {"order": np.arange(9)[::2], "empty": np.zeros((0, 3))}
    for given in (None, optimizer):
        save_state(tmp_path / "it", model, given, counters={"a": 1}, training={}, arrays=arrays)
        state = read_state(tmp_path / "it")
        assert state.training == {}
        assert state.arrays["order"].tolist() == [0, 2, 4, 6, 8]
        assert state.arrays["empty"].shape == (0, 3)
        loaded = xb.load(tmp_path / "it")
        assert loaded.counters == {"a": 1}
        assert (loaded.optimizer_state is None) is (given is None)


def test_state_is_compared_with_a_model_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    xb.save(tmp_path / "it", make_model())
    assert read_state(tmp_path / "it", like=make_model()).model_state.keys() == {
        "0.weight", "0.bias", "3.weight", "3.bias"
    }  # fmt: skip
    monkeypatch.setattr(container.Container, "read", None)
    with pytest.raises(CheckpointError, match=r"it: is of another model: 0\.weight has shape"):
        read_state(tmp_path / "it", like=nn.Sequential(nn.Linear(3, 6), *list(make_model())[1:]))


def test_arrays_of_a_run_are_bounded(tmp_path: Path) -> None:
    model, most = nn.Linear(10, 10), 256 * 2**20 + 4 * 440
    arrays = {"a": np.broadcast_to(np.uint8(0), most + 1)}
    with pytest.raises(ValueError, match=f"take {most + 1} bytes; at most {most} are read"):
        save_state(tmp_path / "it", model, None, counters={}, training={}, arrays=arrays)
    header = {"architecture": model.config(), "frozen": [], "counters": {}, "training": {}}
    table = {
        "weight": {"dtype": "F32", "shape": [10, 10], "data_offsets": [0, 400]},
        "bias": {"dtype": "F32", "shape": [10], "data_offsets": [400, 440]},
        "training:a": {"dtype": "U8", "shape": [most + 1], "data_offsets": [440, most + 441]},
    }
    head = sealed({**header, "checksums": dict.fromkeys(table, "0" * 64)}, table, b"")
    with open(tmp_path / "it", "wb") as file:
        file.write(head)
        file.truncate(len(head) + most + 441)
    for read in (xb.load, read_state):
        with pytest.raises(CheckpointError, match="at most"):
            read(tmp_path / "it")


def test_damage_of_what_load_passes_over_is_seen(tmp_path: Path) -> None:
    arrays = {"order": np.arange(9)}
    save_state(tmp_path / "it", make_model(), None, counters={}, training={}, arrays=arrays)
    whole = (tmp_path / "it").read_bytes()
    tree, data = split(whole)
    start, _ = tree["training:order"]["data_offsets"]
    spoiled = bytearray(whole)
    spoiled[len(whole) - len(data) + start] ^= 1
    (tmp_path / "it").write_bytes(spoiled)
    with pytest.raises(CheckpointError, match="'training:order' is damaged"):
        xb.load(tmp_path / "it")


def test_same_state_gives_the_same_bytes(xb_device: Device, tmp_path: Path) -> None:
    model = make_model()
    optimizer = xb.optim.Adam(model.parameters())
    for name in "abcdefgh":  # the library alone would order the metadata by chance
        xb.save(tmp_path / name, model, optimizer, counters={"x": 1, "y": [1.5]})
    assert len({(tmp_path / name).read_bytes() for name in "abcdefgh"}) == 1


# --- checksums ----------------------------------------------------------------------------


def test_a_flipped_bit_of_every_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "it"
    xb.save(path, nn.Linear(2, 1, rng=0))
    whole = path.read_bytes()
    for place in range(len(whole)):
        spoiled = bytearray(whole)
        spoiled[place] ^= 1 << place * 5 % 8
        path.write_bytes(spoiled)
        with pytest.raises(CheckpointError, match="it: "):
            xb.load(path)


def test_damaged_tensor_is_named(tmp_path: Path) -> None:
    path = tmp_path / "it"
    xb.save(path, make_model())
    tree, data = split(path.read_bytes())
    start, _ = tree["3.bias"]["data_offsets"]
    spoiled = bytearray(path.read_bytes())
    spoiled[len(spoiled) - len(data) + start] ^= 1
    path.write_bytes(spoiled)
    for read in (xb.load, read_state):
        with pytest.raises(CheckpointError, match=r"it: tensor '3\.bias' is damaged"):
            read(path)


def test_version_2_is_never_read_as_version_1(tmp_path: Path) -> None:
    """Whoever says version 1 must not look like version 2 in any way."""
    path = tmp_path / "it"
    xb.save(path, make_model())
    tree, data = split(path.read_bytes())
    metadata, header = tree.pop("__metadata__"), header_of(path.read_bytes())
    old = {**header, "format_version": 1}
    sums = json.loads(metadata["xbackprop"])["checksums"]
    plain = {"format": "xbackprop", "xbackprop": json.dumps(old)}
    path.write_bytes(seal(plain, tree) + data)
    assert xb.load(path).counters == {}  # such is version 1
    for entries in (
        {**plain, "checksum": "0" * 64},
        {**plain, "checksum": "A" * 64},
        {**plain, "xbackprop": json.dumps({**old, "checksums": sums})},
        {**plain, "xbackprop": json.dumps(header)},
        {**plain, "xbackprop": json.dumps({**header, "checksums": sums})},
        {**plain, "checksum": "0" * 64, "xbackprop": json.dumps(header)},
        {**plain, "checksum": "0" * 64, "xbackprop": json.dumps({**header, "checksums": {}})},
        {**plain, "checksum": "0" * 64, "xbackprop": json.dumps({**header, "checksums": [1]})},
    ):
        path.write_bytes(seal(entries, tree) + data)
        with pytest.raises(CheckpointError, match=r"damaged|other tensors"):
            xb.load(path)


# --- reader and writer agree --------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"counters": {1: 0, "1": 0}}, "a key stands twice"),
        ({"counters": {"long": "x" * (8 << 20)}}, "longer than 8388608"),
        ({"counters": {"many": [0] * 400_001}}, "brackets and commas"),
    ],
)
def test_writer_refuses_what_the_reader_would(
    header: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"no reader would take this: .*{message}"):
        container.write(tmp_path / "it", {}, header)
    assert list(tmp_path.iterdir()) == []


def test_writer_refuses_what_is_nested_too_deeply(tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="no reader would take this"):
        container.write(tmp_path / "it", {}, {"deep": deep})
    while deep:  # a list this deep would overflow the stack where it is freed
        (deep,) = deep


@pytest.mark.parametrize("dtype", [np.complex64, "U3", object, "M8[s]"])
def test_writer_refuses_other_dtypes(dtype: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tensor 'a' of dtype"):
        container.write(tmp_path / "it", {"a": np.zeros(2, dtype)}, {})


@pytest.mark.parametrize(
    "dtype", ["?", "i1", "u1", ">i2", "u2", "i4", ">u4", "i8", "u8", "f2", ">f4", "f8"]
)
def test_dtypes_of_tensors(dtype: str, tmp_path: Path) -> None:
    values = np.arange(12).reshape(3, 4).astype(dtype)
    container.write(tmp_path / "it", {"é\U0001f600": values.T, "none": values[:0]}, {"a": [1]})
    with container.open_container(tmp_path / "it") as file:
        assert file.header == {"format_version": 2, "a": [1]}
        read = file.read("é\U0001f600")
        assert read.dtype == values.dtype.newbyteorder("<")
        np.testing.assert_array_equal(read, values.T)
        assert file.read("none").shape == (0, 4)
        assert file.table["none"].shape == (0, 4)


# --- loading ------------------------------------------------------------------------------


def test_loading_draws_nothing(tmp_path: Path) -> None:
    xb.save(tmp_path / "it", make_model())
    xb.manual_seed(3)
    expected = nn.Linear(2, 2).weight.data.copy()
    xb.manual_seed(3)
    xb.load(tmp_path / "it")
    np.testing.assert_array_equal(nn.Linear(2, 2).weight.data, expected)


def test_loaded_arrays_are_ordinary(xb_device: Device, tmp_path: Path) -> None:
    weight = [1.0, 2.0]
    model = nn.Sequential(make_model(), nn.CrossEntropyLoss(weight=weight))
    xb.save(tmp_path / "it", model)
    loaded = xb.load(tmp_path / "it").model
    arrays = [p.data for p in loaded.parameters()]
    for module in loaded.modules():
        for persistent in (True, False):
            arrays += [array for _, array in module.own_buffers(persistent=persistent)]
    assert len(arrays) == 6
    for array in arrays:
        assert xb.backend.device.device_of(array) == xb_device
        array[...] = 1  # of their own, and writable
    assert loaded[0][0].weight.data.size == 24


class Initialised(nn.Module):
    """A user's class that gives its layers other initial values."""

    def __init__(self, size: int) -> None:
        self.net = nn.Sequential(nn.Linear(size, size), nn.Dropout(0.5), rng=0)
        self.net[0].load_state_dict({"bias": np.zeros(size)}, strict=False)
        self.scale = nn.Parameter(xb.asarray(np.ones(size)))


def test_constructor_may_set_initial_values(xb_device: Device, tmp_path: Path) -> None:
    model = nn.Sequential(Initialised(3))
    model[0].scale.data = xb.asarray([1.0, 2.0, 3.0])
    xb.save(tmp_path / "it", model)
    loaded = xb.load(tmp_path / "it", types=[Initialised]).model
    for key, values in model.state_dict().items():
        np.testing.assert_array_equal(loaded.state_dict()[key], values)
    assert all(p.device == xb_device for p in loaded.parameters())


def test_tied_weights_of_two_values_are_refused(tmp_path: Path) -> None:
    blob = (FIXTURES / "v2-shared.safetensors").read_bytes()
    tree, data = split(blob)
    del tree["__metadata__"]
    arrays = {
        key: np.frombuffer(data[slice(*e["data_offsets"])], np.float32).reshape(e["shape"])
        for key, e in tree.items()
    }
    (tmp_path / "it").write_bytes(checkpoint_bytes(header_of(blob), arrays))
    xb.load(tmp_path / "it")
    arrays["3.weight"] = arrays["3.weight"] + 1
    (tmp_path / "it").write_bytes(checkpoint_bytes(header_of(blob), arrays))
    with pytest.raises(CheckpointError, match=r"it: (2|3)\.weight differs from 0\.weight"):
        xb.load(tmp_path / "it")


def test_no_memory_is_an_error_of_its_own(tmp_path: Path) -> None:
    """A file that really is as large as it says is no bad file."""
    xb.save(tmp_path / "it", nn.Linear(64, 64))
    set_memory_limit(1000)
    try:
        with xb.use_device("fake"), pytest.raises(MemoryError):
            xb.load(tmp_path / "it")
    finally:
        set_memory_limit(None)


OPTIMIZER = {
    "type": "SGD",
    "param_groups": [{"params": [0, 1]}],
    "parameters": ["weight", "bias"],
    "state": {"0": {"step": 1}},
}


@pytest.mark.parametrize(
    ("change", "arrays", "message"),
    [
        ({}, {"optimizer:2:momentum": np.ones((2, 2))}, "of no parameter; there are 2"),
        ({}, {"optimizer:-1:momentum": np.ones((2, 2))}, "of no parameter"),
        ({}, {"optimizer:01:momentum": np.ones((2, 2))}, "of no parameter"),
        ({}, {"optimizer:0:momentum": np.ones(2)}, r"has shape \(2,\), and its parameter another"),
        ({"parameters": None}, {"optimizer:0:momentum": np.ones(3)}, "its parameter another"),
        ({"parameters": ["weight", "more"]}, {"optimizer:1:m": np.ones(2)}, "'more' has no values"),
        ({"parameters": ["weight"]}, {}, "of 2 parameters names 1"),
        ({"state": {"2": {}}}, {}, "state of a parameter '2'"),
        ({"state": {"0": 3}}, {}, "state of a parameter '0'"),
        ({"param_groups": [{"params": [0, 0]}]}, {}, "every parameter once"),
        ({"param_groups": [{"params": [True]}]}, {}, "every parameter once"),
        ({"param_groups": [3]}, {}, "param_groups expects dicts"),
        ({"type": 3}, {}, "type expects a str"),
    ],
)
def test_state_of_an_optimizer_is_checked_first(
    change: dict[str, Any], arrays: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    layer = nn.Linear(2, 2, rng=0)
    header = {
        "architecture": layer.config(),
        "frozen": [],
        "counters": {},
        "optimizer": {**OPTIMIZER, **change},
    }
    blob = checkpoint_bytes(header, {**layer.state_dict(), **arrays})
    (tmp_path / "it").write_bytes(blob)
    for read in (xb.load, read_state):
        with pytest.raises(CheckpointError, match=f"it: .*{message}"):
            read(tmp_path / "it")
    header["optimizer"] = OPTIMIZER
    (tmp_path / "it").write_bytes(checkpoint_bytes(header, layer.state_dict()))
    assert xb.load(tmp_path / "it").optimizer_type == "SGD"


def test_table_that_lies_is_refused(tmp_path: Path) -> None:
    header = {"architecture": nn.Linear(2, 2).config(), "frozen": [], "counters": {}}
    good = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    for change in (
        {"data_offsets": [0, 7]},
        {"data_offsets": [-8, 0]},
        {"data_offsets": [4, 12]},
        {"data_offsets": [0, 2**70]},
        {"data_offsets": [8, 0]},
        {"data_offsets": [0]},
        {"shape": [2**62, 4]},
        {"shape": [-2]},
        {"shape": [2.0]},
        {"shape": "2"},
        {"dtype": "F31"},
        {"dtype": "BF16"},
        {"dtype": 3},
        {"more": 1},
    ):
        (tmp_path / "it").write_bytes(sealed(header, {"a": {**good, **change}}, b"\0" * 8))
        with pytest.raises(CheckpointError):
            read_state(tmp_path / "it")
    (tmp_path / "it").write_bytes(sealed(header, {"a": good}, b"\0" * 8))
    assert read_state(tmp_path / "it").model_state["a"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("weight", "bias", "size"),
    [
        ([0, 16], [0, 8], 16),
        ([0, 16], [8, 16], 16),
        ([0, 16], [24, 32], 32),
        ([8, 24], [24, 32], 32),
        ([0, 16], [16, 24], 32),
        ([0, 16], [16, 24], 20),
    ],
)
def test_tensors_that_overlap_or_leave_holes_are_refused(
    weight: list[int], bias: list[int], size: int, tmp_path: Path
) -> None:
    header = {"architecture": nn.Linear(2, 2).config(), "frozen": [], "counters": {}}
    table = {
        "weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": weight},
        "bias": {"dtype": "F32", "shape": [2], "data_offsets": bias},
    }
    (tmp_path / "it").write_bytes(sealed(header, table, bytes(size)))
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        xb.load(tmp_path / "it")
    table["weight"]["data_offsets"], table["bias"]["data_offsets"] = [0, 16], [16, 24]
    (tmp_path / "it").write_bytes(sealed(header, table, bytes(24)))
    xb.load(tmp_path / "it")


# --- writing ------------------------------------------------------------------------------


def test_leftovers_of_killed_processes_are_removed(tmp_path: Path) -> None:
    left = [tmp_path / f".xbackprop-{name}.tmp" for name in ("0", "ab12")]
    kept = [tmp_path / name for name in ("model", ".xbackprop-x", "xbackprop-1.tmp")]
    for path in (*left, *kept):
        path.write_bytes(b"x")
    assert remove_leftovers(tmp_path) == left
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_error_names_the_path_whatever_raised_it(tmp_path: Path) -> None:
    path = tmp_path / "it"
    for error in (OSError(5, "Input/output error"), OSError("stop"), OSError(5, "x", "a", 0, "b")):
        with pytest.raises(OSError, match="it") as caught, write_atomically(path):
            raise error
        assert caught.value is error
        assert caught.value.filename == os.fspath(path)
        assert "None" not in str(caught.value).replace("[Errno None]", "")
    assert list(tmp_path.iterdir()) == []
