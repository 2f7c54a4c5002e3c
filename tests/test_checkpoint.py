"""Saving and loading: everything comes back bit by bit, and no accident leaves half a file."""

import builtins
import errno
import json
import os
import pickle
import random
import stat
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from layer_cases import CASES, Case, tied, used_twice
from optimizer_cases import OPTIMIZERS, OptimizerCase
from reliability.building import checkpoint_bytes, header_of

import xbackprop as xb
from xbackprop.backend.device import Device
from xbackprop.training import CheckpointError
from xbackprop.training.atomic import write_atomically

nn = xb.nn


def assert_same_state(model: nn.Module, other: nn.Module) -> None:
    assert model.config() == other.config()
    for received, expected in (
        (model.state_dict(), other.state_dict()),
        (model.extra_state(), other.extra_state()),
    ):
        assert received.keys() == expected.keys()
        for name, values in expected.items():
            assert received[name].dtype == values.dtype, name
            assert received[name].shape == values.shape, name
            assert received[name].tobytes() == values.tobytes(), name


def make_model(**options: Any) -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 6, **options), nn.Tanh(), nn.Dropout(0.4), nn.Linear(6, 3, **options), rng=0
    )


def one_step(model: nn.Module, optimizer: Any, step: int, dtype: Any = np.float32) -> None:
    rng = np.random.default_rng(step)
    x = xb.asarray(rng.normal(size=(8, 4)), dtype=dtype)
    optimizer.zero_grad()
    xb.value_and_grad(model, nn.CrossEntropyLoss())(x, xb.asarray(rng.integers(0, 3, size=8)))
    optimizer.step()


# --- round trips --------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_every_layer_comes_back(case: Case, xb_device: Device, tmp_path: Path) -> None:
    module = case.make()
    xb.save(tmp_path / "it", module)
    own = {type(part) for part in module.modules()} - set(nn.catalogue().values())
    loaded = xb.load(tmp_path / "it", types=own)
    assert_same_state(loaded.model, module)
    assert (loaded.optimizer_state, loaded.optimizer_type, loaded.counters) == (None, None, {})
    frozen = [name for name, p in module.named_parameters() if not p.requires_grad]
    assert [n for n, p in loaded.model.named_parameters() if not p.requires_grad] == frozen
    assert all(p.device == xb_device for p in loaded.model.parameters())


def test_sharing_comes_back(xb_device: Device, tmp_path: Path) -> None:
    xb.save(tmp_path / "it", nn.Sequential(tied(), used_twice()))
    model = xb.load(tmp_path / "it").model
    assert model[0][2].weight is model[0][0].weight
    assert model[0][2].bias is not model[0][0].bias
    assert model[1][2] is model[1][0]
    optimizer = xb.optim.SGD(model.parameters(), lr=0.1)
    x = xb.asarray(np.ones((2, 3)))
    xb.value_and_grad(model, nn.MSELoss())(x, x)
    optimizer.step()
    assert model[0][2].weight.data is model[0][0].weight.data


@pytest.mark.parametrize("places", [("fake", "cpu"), ("cpu", "fake"), ("fake", "fake:1")])
def test_saved_on_one_device_and_loaded_on_another(places: tuple[str, str], tmp_path: Path) -> None:
    with xb.use_device(places[0]):
        model = make_model()
        optimizer = xb.optim.Adam(model.parameters())
        one_step(model, optimizer, 0)
        xb.save(tmp_path / "it", model, optimizer)
    with xb.use_device(places[1]) as place:
        loaded = xb.load(tmp_path / "it")
        assert_same_state(loaded.model, model)
        assert loaded.model.device == place
        resumed = xb.optim.Adam(loaded.model.parameters())
        resumed.load_state_dict(loaded.optimizer_state)
        one_step(loaded.model, resumed, 1)
    with xb.use_device(places[0]):
        one_step(model, optimizer, 1)
        assert_same_state(loaded.model, model)
        moved = xb.load(tmp_path / "it", device=places[1])
        assert moved.model.device == place
        assert str(moved.model[2].random_state.device) == str(place)


@pytest.mark.parametrize("case", OPTIMIZERS, ids=lambda case: case.name.replace(" ", "-"))
def test_training_resumes_bit_by_bit(
    case: OptimizerCase, xb_device: Device, tmp_path: Path
) -> None:
    model = make_model()
    optimizer = case.make(
        [
            {"params": case.trainable(model[0].parameters()), "lr": 0.2},
            {"params": case.trainable(model[3].parameters())},
        ]
    )
    for step in range(3):
        model[3].requires_grad_(step != 1)
        one_step(model, optimizer, step)
    optimizer.param_groups[0]["lr"] = np.float32(0.125)  # as a schedule may leave it
    xb.save(tmp_path / "it", model, optimizer, counters={"epoch": 3, "best": [0.5, None]})

    loaded = xb.load(tmp_path / "it")
    assert loaded.optimizer_type == case.cls
    assert loaded.counters == {"epoch": 3, "best": [0.5, None]}
    assert_same_state(loaded.model, model)
    resumed = case.make(
        [{"params": case.trainable(loaded.model[i].parameters())} for i in (0, 3)],
        lr=9.0,
    )
    resumed.load_state_dict(loaded.optimizer_state)
    for step in range(3, 6):
        one_step(model, optimizer, step)
        one_step(loaded.model, resumed, step)
    assert_same_state(loaded.model, model)


def test_lists_of_arrays_come_back(xb_device: Device, tmp_path: Path) -> None:
    """L-BFGS keeps lists of arrays, each over all parameters at once."""
    x, y = (np.random.default_rng(n).normal(size=(8, size)) for n, size in ((0, 4), (1, 3)))
    models = [make_model(dtype=np.float64).eval() for _ in range(2)]

    def train(model: nn.Module, optimizer: Any) -> None:
        def closure() -> Any:
            optimizer.zero_grad()
            return xb.value_and_grad(model, nn.MSELoss())(
                xb.asarray(x, dtype=np.float64), xb.asarray(y, dtype=np.float64)
            )[0]

        optimizer.step(closure)

    first = xb.optim.LBFGS(models[0].parameters(), max_iter=4, history_size=3)
    for steps in (0, 1, 2):  # nothing yet, and with a history
        if steps:
            train(models[0], first)
        xb.save(tmp_path / "it", models[0], first)
        loaded = xb.load(tmp_path / "it")
        resumed = xb.optim.LBFGS(loaded.model.eval().parameters(), max_iter=4)
        resumed.load_state_dict(loaded.optimizer_state)
    train(models[0], first)
    train(loaded.model, resumed)
    assert_same_state(loaded.model, models[0])


def test_frozen_parameters_stay_frozen(xb_device: Device, tmp_path: Path) -> None:
    model = make_model()
    model[0].requires_grad_(False)
    xb.save(tmp_path / "it", model)
    loaded = xb.load(tmp_path / "it").model
    optimizer = xb.optim.AdamW(loaded.parameters(), lr=0.1)
    one_step(loaded, optimizer, 0)
    assert loaded.state_dict()["0.weight"].tobytes() == model.state_dict()["0.weight"].tobytes()
    assert loaded.state_dict()["3.weight"].tobytes() != model.state_dict()["3.weight"].tobytes()


def test_every_parameter_keeps_its_dtype(xb_device: Device, tmp_path: Path) -> None:
    mixed = nn.Sequential(nn.Linear(2, 2, dtype=np.float64), nn.Linear(2, 2), rng=0)
    cast = make_model().to(dtype=np.float64)
    for model in (mixed, cast, make_model(dtype=np.float64)):
        xb.save(tmp_path / "it", model)
        assert_same_state(xb.load(tmp_path / "it").model, model)


class Scaled(nn.Module):
    """A class of a user's own, with a buffer in another dtype than its weights."""

    def __init__(self, size: int) -> None:
        self.inner = nn.Linear(size, size, rng=0)
        self.register_buffer("scale", xb.asarray(np.ones(size)))
        self.register_buffer("calls", xb.asarray(0))

    def forward(self, x: Any) -> Any:
        return self.inner.forward(x)

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        return self.inner.backward(grad_output, saved, input_grad=input_grad)


def test_own_classes(xb_device: Device, tmp_path: Path) -> None:
    model = nn.Sequential(Scaled(3), nn.ReLU())
    model[0].register_buffer("scale", xb.asarray([1 / 3, 0.1, 2.0], dtype=np.float64))
    xb.save(tmp_path / "it", model)
    with pytest.raises(CheckpointError, match=r"it: .*unknown layer 'Scaled'.*types=\["):
        xb.load(tmp_path / "it")
    assert_same_state(xb.load(tmp_path / "it", types=[Scaled]).model, model)


# --- the file -----------------------------------------------------------------------------


def test_plain_safetensors_reads_it_under_the_keys_of_pytorch(
    xb_device: Device, tmp_path: Path
) -> None:
    model = make_model()
    xb.save(tmp_path / "model.safetensors", model)
    arrays = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    weights = {"0.weight", "0.bias", "3.weight", "3.bias"}
    assert arrays.keys() == {*weights, "extra:2.random_state"}
    for key in weights:
        assert arrays[key].tobytes() == model.state_dict()[key].tobytes()
    with safetensors.safe_open(tmp_path / "model.safetensors", framework="numpy") as file:
        metadata = file.metadata()
    assert metadata["format"] == "xbackprop"
    header = json.loads(metadata["xbackprop"])
    assert header["format_version"] == 2
    assert header["architecture"] == model.config()


def test_transposed_and_fortran_ordered_arrays_are_saved_right(
    xb_device: Device, tmp_path: Path
) -> None:
    """safetensors writes the memory of an array as it lies there, without a word."""
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    pitfall = safetensors.numpy.load(safetensors.numpy.save({"it": np.asfortranarray(values)}))
    assert not np.array_equal(pitfall["it"], values), "safetensors has learned: drop the copies"

    layer = nn.Linear(4, 3, rng=0)
    optimizer = xb.optim.SGD(layer.parameters(), lr=0.5, momentum=0.9)
    layer.weight.data = xb.asarray(np.asfortranarray(values))
    transposed = xb.asarray(np.ascontiguousarray(values.T)).T
    for data in (layer.weight.data, transposed, xb.asarray(np.repeat(values, 2, axis=1))[:, ::2]):
        layer.weight.data = data
        assert layer.state_dict()["weight"].flags.c_contiguous
        xb.save(tmp_path / "it", layer)
        np.testing.assert_array_equal(xb.load(tmp_path / "it").model.state_dict()["weight"], values)

    buffers = {"weight": np.asfortranarray(values), "bias": np.arange(6, dtype=np.float32)[::2]}
    state = {n: {"momentum_buffer": array} for n, array in enumerate(buffers.values())}
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    xb.save(tmp_path / "it", layer, optimizer)  # before any step has packed them
    saved = xb.load(tmp_path / "it").optimizer_state["state"]
    for number, array in enumerate(buffers.values()):
        np.testing.assert_array_equal(saved[number]["momentum_buffer"], array)


@pytest.mark.skipif(os.name != "posix", reason="permissions of files are those of POSIX")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(mask: int, mode: int, tmp_path: Path) -> None:
    earlier = os.umask(mask)
    try:
        xb.save(tmp_path / "it", nn.Linear(2, 2))
        assert os.umask(mask) == mask  # as it was
    finally:
        os.umask(earlier)
    assert (tmp_path / "it").stat().st_mode & 0o777 == mode


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    xb.save(tmp_path / "it", make_model(), xb.optim.Adam(make_model().parameters()))

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("pickle was asked to read something")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    xb.load(tmp_path / "it")
    text = Path(sys.modules["xbackprop.training.checkpoint"].__file__ or "").read_text("utf-8")
    assert "pickle" not in text


# --- files that are none ------------------------------------------------------------------


def file_with(path: Path, header: Any = None, tensors: Any = None) -> Path:
    """Write a file by hand: our model's, with some parts replaced and checksums that fit."""
    xb.save(path, make_model(), xb.optim.SGD(make_model().parameters(), momentum=0.9))
    original = header_of(path.read_bytes())
    arrays = safetensors.numpy.load_file(path)
    if callable(header):
        header(original)
    if tensors is not None:
        tensors(arrays)
    content = header if isinstance(header, str) else original
    path.write_bytes(checkpoint_bytes(content, arrays))
    return path


DAMAGED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "not a readable checkpoint"),
    "text": (lambda path: path.write_text("no tensors " * 99), "not a readable checkpoint"),
    "a pickle": (lambda path: path.write_bytes(pickle.dumps([1] * 99)), "not a readable"),
    "cut in the header": (lambda path: truncate(path, 100), "not a readable checkpoint"),
    "cut in the tensors": (lambda path: truncate(path, -1), "not a readable checkpoint"),
    "of another program": (
        lambda path: safetensors.numpy.save_file({"w": np.ones(2)}, path),
        "a safetensors file, but not one of xbackprop",
    ),
    "of PyTorch": (
        lambda path: safetensors.numpy.save_file({"w": np.ones(2)}, path, {"format": "pt"}),
        "a safetensors file, but not one of xbackprop",
    ),
    "without our header": (
        lambda path: safetensors.numpy.save_file({"w": np.ones(2)}, path, {"format": "xbackprop"}),
        "not a readable checkpoint",
    ),
    "of a newer version": (
        lambda path: file_with(path, lambda header: header.update(format_version=3)),
        "format version 3; this xbackprop reads versions 1 to 2. Read it with the release",
    ),
    "with a version that is none": (
        lambda path: file_with(path, lambda header: header.update(format_version="1")),
        "format version '1'; this xbackprop",
    ),
    "with no JSON": (lambda path: file_with(path, "{"), "not a readable checkpoint"),
    "with JSON too deep": (lambda path: file_with(path, "[" * 100_000), "not a readable"),
    "with a list": (lambda path: file_with(path, "[]"), "not a readable checkpoint"),
    "with a number": (lambda path: file_with(path, "3"), "not a readable checkpoint"),
    "without architecture": (
        lambda path: file_with(path, lambda header: header.pop("architecture")),
        "does not describe a model",
    ),
    "of an unknown class": (
        lambda path: file_with(path, lambda header: header["architecture"].update(type="os")),
        "unknown layer 'os'",
    ),
    "with an unknown argument": (
        lambda path: file_with(path, lambda h: layer_of(h)["args"].update(gamma=1)),
        "Linear has no argument 'gamma'",
    ),
    "with an argument out of range": (
        lambda path: file_with(path, lambda h: layer_of(h)["args"].update(in_features=-4)),
        "in_features >= 0",
    ),
    "without an argument": (
        lambda path: file_with(path, lambda h: layer_of(h)["args"].pop("in_features")),
        "in_features",
    ),
    "of a plain value": (
        lambda path: file_with(path, lambda header: header.update(architecture=3)),
        "does not describe a model",
    ),
    "shared with what is not there": (
        lambda path: file_with(path, lambda header: header.update(architecture={"shared": 7})),
        "does not describe a model",
    ),
    "with other shapes": (
        lambda path: file_with(path, lambda h: layer_of(h)["args"].update(in_features=5)),
        r"0.weight has shape \(6, 4\), expected \(6, 5\)",
    ),
    "without a tensor": (
        lambda path: file_with(path, tensors=lambda arrays: arrays.pop("3.bias")),
        "missing: 3.bias",
    ),
    "without a counter": (
        lambda path: file_with(path, tensors=lambda arrays: arrays.pop("extra:2.random_state")),
        "missing: extra:2.random_state",
    ),
    "with one tensor more": (
        lambda path: file_with(path, tensors=lambda arrays: arrays.update(more=np.ones(2))),
        "unexpected: more",
    ),
    "with half floats": (
        lambda path: file_with(
            path, tensors=lambda a: a.update({"0.bias": a["0.bias"].astype(np.float16)})
        ),
        "expected float32 or float64; got float16",
    ),
    "with integers for weights": (
        lambda path: file_with(
            path, tensors=lambda a: a.update({"0.bias": a["0.bias"].astype(np.int32)})
        ),
        "expected float32 or float64; got int32",
    ),
    "with a frozen parameter that is not there": (
        lambda path: file_with(path, lambda header: header.update(frozen=["9.weight"])),
        "9.weight",
    ),
    "with an optimizer that is none": (
        lambda path: file_with(path, lambda header: header.update(optimizer=[1])),
        "does not describe a model",
    ),
}


def truncate(path: Path, size: int) -> None:
    xb.save(path, make_model())
    path.write_bytes(path.read_bytes()[:size])


def layer_of(header: dict[str, Any]) -> dict[str, Any]:
    (layers,) = header["architecture"]["args"].values()
    return layers[0]


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_file_is_refused_with_its_name(what: str, tmp_path: Path) -> None:
    write, message = DAMAGED[what]
    path = tmp_path / "my model.safetensors"
    write(path)
    with pytest.raises(CheckpointError, match=rf"my model\.safetensors: .*{message}") as caught:
        xb.load(path)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(CheckpointError):
        xb.load(str(path))


@pytest.mark.parametrize("seed", range(4))
def test_file_with_random_faults_gives_no_other_error(seed: int, tmp_path: Path) -> None:
    xb.save(tmp_path / "it", make_model(), xb.optim.Adam(make_model().parameters()))
    whole = (tmp_path / "it").read_bytes()
    (header_size,) = struct.unpack("<Q", whole[:8])
    rng = random.Random(seed)
    for _ in range(60):
        spoiled = bytearray(whole)
        for _ in range(rng.choice([1, 1, 2, 8])):
            # Bits of the header, where there is something to misread; digits stay digits, so
            # that no test asks for a layer as large as memory.
            place = rng.randrange(8 + header_size)
            if not chr(spoiled[place]).isdigit():
                spoiled[place] ^= 1 << rng.randrange(8)
        (tmp_path / "it").write_bytes(spoiled)
        try:
            xb.load(tmp_path / "it")
        except CheckpointError as error:
            assert str(tmp_path / "it") in str(error)  # noqa: PT017  (it need not raise)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file: .*nothing here"):
        xb.load(tmp_path / "nothing here")
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*nowhere"):
        xb.save(tmp_path / "nowhere" / "it", nn.Linear(2, 2))


# --- accidents while writing --------------------------------------------------------------


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file that was saved before, alone in its folder."""
    path = tmp_path / "model.safetensors"
    xb.save(path, nn.Linear(2, 2, rng=0))
    return path


def assert_whole(path: Path) -> None:
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert_same_state(xb.load(path).model, nn.Linear(2, 2, rng=0))


def fail(*args: Any, **kwargs: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_failing_disk_leaves_the_old_file(
    call: str, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match="No space left"):
            xb.save(old, make_model())
    assert_whole(old)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("is_there", [True, False])
def test_error_while_writing_leaves_what_was_there(
    error: type[BaseException], is_there: bool, old: Path
) -> None:
    def write_half(path: Path) -> None:
        with write_atomically(path) as file:
            file.write(b"half of i")
            file.flush()
            raise error("stop")

    with pytest.raises(error):
        write_half(old if is_there else old.parent / "new")
    assert_whole(old)


@pytest.mark.parametrize(
    ("model", "counters", "message"),
    [
        (nn.Linear(2, 2), {"when": object()}, "cannot write object as plain data"),
        (nn.Linear(2, 2), {"rates": np.ones(2)}, "cannot write ndarray as plain data"),
        (nn.Sequential({"extra:1": nn.Linear(2, 2)}), {}, "rename the layer of 'extra:1.weight'"),
    ],
)
def test_what_cannot_be_written_leaves_the_old_file(
    model: nn.Module, counters: dict[str, Any], message: str, old: Path
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        xb.save(old, model, counters=counters)
    assert_whole(old)


def test_file_is_never_half_there(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the rename the old content is under the name; the new one is on the disk by then."""
    events: list[str] = []
    content = old.read_bytes()
    sync, replace = os.fsync, os.replace

    def watched_sync(descriptor: int) -> None:
        events.append("sync")
        assert events != ["sync"] or old.read_bytes() == content
        sync(descriptor)

    def watched_replace(source: Any, target: Any) -> None:
        assert old.read_bytes() == content
        assert Path(source).parent == old.parent
        assert safetensors.numpy.load_file(source).keys() >= {"0.weight"}
        events.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_sync)
    monkeypatch.setattr(os, "replace", watched_replace)
    xb.save(old, make_model())
    assert events[:2] == ["sync", "replace"]
    assert old.read_bytes() != content
    assert [entry.name for entry in old.parent.iterdir()] == [old.name]


@pytest.mark.skipif(os.name != "posix", reason="only POSIX syncs folders")
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_file_system_that_syncs_no_folder_is_no_error(
    number: int, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def sync_files_only(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", sync_files_only)
    xb.save(old, make_model())
    assert_same_state(xb.load(old).model, make_model())


def test_temporary_name_never_takes_another_file(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[str] = []
    plain_open = builtins.open

    def watched_open(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if str(old.parent) in str(file) and mode != "r":
            modes.append(mode)
        return plain_open(file, mode, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", watched_open)
    xb.save(old, make_model())
    assert modes == ["xb"]


def test_trainer_resumes_from_a_file(xb_device: Device, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 4)), rng.integers(0, 3, size=40)

    def trainer_of(model: nn.Module) -> xb.Trainer:
        optimizer = xb.optim.AdamW(model.parameters(), lr=0.01)
        return xb.Trainer(model, nn.CrossEntropyLoss(), optimizer)

    whole = trainer_of(make_model())
    whole.fit(X, y, epochs=2, batch_size=10, rng=1)
    whole.fit(X, y, epochs=2, batch_size=10, rng=2)
    first = trainer_of(make_model())
    first.fit(X, y, epochs=2, batch_size=10, rng=1)
    xb.save(tmp_path / "it", first.model, first.optimizer, counters={"epochs": first.epochs})
    loaded = xb.load(tmp_path / "it")
    second = trainer_of(loaded.model)
    second.optimizer.load_state_dict(loaded.optimizer_state)
    second.fit(X, y, epochs=2, batch_size=10, rng=2)
    assert_same_state(second.model, whole.model)
