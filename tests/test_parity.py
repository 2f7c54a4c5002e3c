"""`xb.observe.parity` and `xbackprop parity`: the op that differs on a device is the one named."""

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import call
from layer_cases import CASES

import xbackprop as xb
from xbackprop import nn
from xbackprop.backend.array_module import is_device_array
from xbackprop.cli import parity_options
from xbackprop.dispatch import registered_ops
from xbackprop.module import Module
from xbackprop.module.frame import layer_path
from xbackprop.observe import Parity, parity, record_parity, replay_parity
from xbackprop.observe.parity import error_in_units, unit_of
from xbackprop.testing.structures import transform
from xbackprop.training import CheckpointError
from xbackprop.training.container import open_container, write


def images() -> tuple[Module, Any]:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, rng=0), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Dropout(0.5, rng=0), nn.Linear(8, 3, rng=0),
    )  # fmt: skip
    return model, np.random.default_rng(0).normal(size=(4, 1, 6, 6)).astype(np.float32)


def tokens() -> tuple[Module, Any]:
    return nn.GPT(7, 4, 2, 2, 8, 0.0, rng=0), np.arange(8).reshape(2, 4) % 7


def inject(monkeypatch: Any, name: str, layer: str | None, factor: float) -> None:
    """Let an op give other numbers on devices, where a layer calls it, or by itself."""
    (op,) = {o for full, o in registered_ops().items() if full.rpartition(".")[2] == name}
    original = op.reference

    def scaled(leaf: Any) -> Any:
        is_float = is_device_array(leaf) and leaf.dtype.kind == "f"
        return leaf * leaf.dtype.type(factor) if is_float else leaf

    def reference(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        if layer_path() not in ("", layer or layer_path()):
            return result
        return transform(result, scaled)

    reference.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
    monkeypatch.setattr(op, "reference", reference)
    monkeypatch.setattr(op, "_has_saved", op._has_saved)  # looks beside the reference for names


@pytest.mark.parametrize("make", [images, tokens])
def test_all_is_well(make: Any) -> None:
    model, x = make()
    before = model.state_dict()
    cpu, wide, narrow = parity(model, x, devices=["fake"])
    assert [each.target for each in (cpu, wide, narrow)] == [
        "cpu float32", "fake:0 float64", "fake:0 float32",
    ]  # fmt: skip
    assert {each.problem for each in (cpu, wide, narrow)} == {None}
    # Not always 0: BLAS sums in another order where memory is aligned otherwise.
    assert all(max(each.own, each.accumulated or 0) < 10 for each in wide.ops)
    assert 0 < max(each.own for each in narrow.ops) < 10
    assert len({len(each.ops) for each in (cpu, wide, narrow)}) == 1
    for name, array in model.state_dict().items():
        assert array.tobytes() == before[name].tobytes(), name


PLACES = [
    (images, "convolution_forward", "Sequential.0"),
    (images, "normalize_forward", "Sequential.1"),
    (images, "max_pool_forward", "Sequential.3"),
    (images, "linear_backward", "Sequential.6"),
    (images, "relu_backward", "Sequential.2"),
    (images, "convolution_backward", "Sequential.0"),
    (tokens, "embedding_forward", "GPT.wte"),
    (tokens, "scaled_dot_product_attention_forward", "GPT.h.0.attn.attention"),
    (tokens, "gelu_tanh_backward", "GPT.h.1.mlp.act"),
    (tokens, "embedding_backward", "GPT.wte"),
]


@pytest.mark.parametrize("factor", [1 + 1e-4, float("nan")])
@pytest.mark.parametrize(("make", "op", "layer"), PLACES, ids=[op for _, op, _ in PLACES])
def test_a_difference_on_a_device_is_found_at_its_op(
    make: Any, op: str, layer: str, factor: float, monkeypatch: Any
) -> None:
    model, x = make()
    inject(monkeypatch, op, None, factor)
    cpu, wide, narrow = parity(model, x, devices=["fake"])
    assert cpu.problem is None
    for each in (wide, narrow):
        assert each.first is not None
        assert each.first.op == op
        calls = [found for found in each.ops if found.op == op]
        assert each.first is calls[0], "the first of its calls"
        assert "its own error of" in str(each.problem)
        if len(calls) == 1:
            assert each.first.layer == layer


class OnDevices(Module):
    """Arithmetic of its own, with no op, that is other on devices."""

    def forward(self, x: Any) -> tuple[Any, Any]:
        return x * (1.01 if is_device_array(x) else 1.0), ()

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        return grad_output * 1.0


def test_what_differs_between_ops_is_found_by_the_accumulated_error() -> None:
    model = nn.Sequential(nn.Linear(3, 4, rng=0), OnDevices(), nn.Linear(4, 2, rng=1))
    _, _, narrow = parity(model, np.ones((2, 3)), devices=["fake"])
    assert narrow.first is not None
    assert (narrow.first.op, narrow.first.layer) == ("linear_forward", "Sequential.2")
    assert "accumulated error" in str(narrow.problem)


class OtherOps(Module):
    """Another op on devices."""

    def __init__(self) -> None:
        self.relu, self.tanh = nn.ReLU(), nn.Tanh()

    def forward(self, x: Any) -> tuple[Any, Any]:
        return (self.tanh if is_device_array(x) else self.relu).forward(x)

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        return (self.tanh if is_device_array(grad_output) else self.relu).backward(
            grad_output, saved
        )


def test_other_ops_are_said_to_be_so() -> None:
    _, _, narrow = parity(OtherOps(), np.ones((2, 3)), devices=["fake"])
    assert narrow.problem == (
        "OtherOps.tanh calls tanh_forward where it calls relu_forward in float64 on the CPU"
    )


def test_gradients_that_are_zero_whatever_the_weights_are_no_differences() -> None:
    layer = nn.MultiheadAttention(8, 2, rng=0)  # of the keys' bias
    x = np.random.default_rng(0).normal(size=(3, 2, 8))
    (cpu,) = parity(layer, x, x, x)
    assert cpu.problem is None
    assert max(each.accumulated or 0 for each in cpu.ops) < 50


@pytest.mark.parametrize("start", range(3))
def test_rows_are_within_the_tolerances(start: int) -> None:
    for case in CASES[start * 7 :: 21]:
        with xb.use_device("cpu"):
            inputs = case.inputs(np.random.default_rng(0))
            (cpu,) = parity(case.make(), *(inputs if isinstance(inputs, tuple) else (inputs,)))
        assert cpu.problem is None, case.name


def test_units() -> None:
    exact = np.array([1.0, -4.0])
    unit = unit_of(exact, exact, "float32")
    assert unit == 4 * np.finfo("float32").eps
    assert error_in_units(exact, exact + 3 * unit, unit) == pytest.approx(3)
    assert unit_of(exact, exact + 1e-3, "float32") == pytest.approx(1e-3)
    assert error_in_units(exact, np.array([1.0, np.nan]), unit) == np.inf
    assert error_in_units(exact, exact[:1], unit) == np.inf
    spread = np.array([np.inf, 1.0])
    assert error_in_units(spread, spread, unit_of(spread, spread, "float32")) == 0
    assert error_in_units(np.arange(2), np.arange(2), 1.0) == 0
    assert error_in_units(np.arange(2), np.arange(1, 3), 1.0) == np.inf


# --- recordings ---------------------------------------------------------------------------


@pytest.mark.parametrize("make", [images, tokens])
def test_a_recording_is_checked_without_its_device(make: Any, tmp_path: Path) -> None:
    model, x = make()
    assert record_parity(tmp_path / "it", model, x, device="fake") == []
    recorded, cpu = replay_parity(tmp_path / "it")
    assert (recorded.target, cpu.target) == ("recorded fake:0 float32", "cpu float32")
    assert (recorded.problem, cpu.problem) == (None, None)
    assert {each.accumulated for each in recorded.ops} == {None}
    assert [each.op for each in recorded.ops] == [each.op for each in parity(model, x)[0].ops]


def test_a_difference_is_in_the_recording(tmp_path: Path, monkeypatch: Any) -> None:
    with monkeypatch.context() as patch:
        inject(patch, "normalize_backward", None, 1.001)
        record_parity(tmp_path / "it", *images(), device="fake")
    recorded, cpu = replay_parity(tmp_path / "it")
    assert (recorded.first and recorded.first.op) == "normalize_backward"
    assert cpu.problem is None


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        replay_parity(path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path}: ")
    return line


def small_recording(path: Path) -> None:
    record_parity(path, nn.Linear(2, 1, rng=0), np.ones((1, 2)), device="fake")


def test_damaged_files_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "it"
    small_recording(path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 37):
        path.write_bytes(whole[:place])
        refused(path)
        path.write_bytes(
            whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :]
        )
        refused(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: header.update(kind="model"), "holds no recording"),
        (lambda header: header.pop("kind"), "holds no recording"),
        (lambda header: header.update(dtype="float8"), "expected float32 or float64"),
        (lambda header: header.pop("calls"), "does not describe a recording"),
        (lambda header: header.update(calls=[1]), "does not describe a recording"),
        (lambda header: header["calls"][0].update(op="os.system"), "'os.system', which is not"),
        (lambda header: header["calls"][0].update(args=[]), "does not describe a recording"),
        (
            lambda header: header["calls"][0].update(args=[{"named": ["os", "system", ["true"]]}]),
            "is no named tuple of xbackprop",
        ),
        (
            lambda header: header["calls"][0].update(args=[{"array": "none"}]),
            "does not describe a recording",
        ),
    ],
)
def test_files_that_describe_something_else_are_refused(
    change: Any, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "it"
    small_recording(path)
    with open_container(path) as file:
        header = dict(file.header)
        tensors = {key: file.read(key) for key in file.table}
    header.pop("format_version")
    change(header)
    write(path, tensors, header)
    assert message in refused(path)


def test_a_model_is_no_recording(tmp_path: Path) -> None:
    xb.save(tmp_path / "it", nn.Linear(2, 1, rng=0))
    assert "holds no recording of parity" in refused(tmp_path / "it")


# --- the command --------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_command(capsys: Any, monkeypatch: Any) -> None:
    code, out, err = call(capsys, "parity", "cnn", "--devices", "cpu,fake")
    assert (code, err) == (0, "")
    assert [line.split(":")[0] for line in out.splitlines()] == [
        "ok     cpu float32", "ok     fake",  "ok     fake",
    ]  # fmt: skip
    inject(monkeypatch, "max_pool_backward", None, 1.001)
    code, out, err = call(capsys, "parity", "cnn", "--devices", "fake")
    assert (code, err) == (1, "")
    wrong = [line for line in out.splitlines() if line.startswith("WRONG")]
    assert len(wrong) == 2
    assert all("max_pool_backward of Sequential.11: its own error of" in line for line in wrong)
    code, out, err = call(capsys, "parity", "cnn", "--devices", "fake", "--json")
    found = json.loads(out)
    assert (code, found[0]["first"], found[1]["first"]) == (1, None, found[2]["first"])
    code, out, err = call(
        capsys, "parity", "cnn", "--devices", "fake", "--tolerance", "1e15",
        "--accumulated-tolerance", "1e15", "--ops",
    )  # fmt: skip
    assert (code, len(out.splitlines())) == (0, 3 * (len(found[0]["ops"]) + 1))


def test_the_command_records_and_replays(capsys: Any, monkeypatch: Any) -> None:
    code, out, err = call(capsys, "parity", "mlp", "--devices", "fake", "--record", "it")
    assert (code, out, err) == (0, "recorded mlp on fake:0 in float32: it\n", "")
    code, out, err = call(capsys, "parity", "--replay", "it")
    assert (code, err, len(out.splitlines())) == (0, "", 2)
    inject(monkeypatch, "relu_forward", None, 1.001)
    call(capsys, "parity", "mlp", "--devices", "fake", "--record", "it")
    code, out, err = call(capsys, "parity", "--replay", "it")
    assert (code, err) == (1, "")
    assert out.startswith("WRONG  recorded fake:0 float32: first at op 2, relu_forward of Sequ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "expected MODEL, or --replay FILE; got neither"),
        (("mlp", "--replay", "it"), "leave out MODEL, --record and --devices"),
        (("--replay", "none"), "--replay none: no such file"),
        (("--replay", "text"), "--replay text: not a readable checkpoint"),
        (("mlp", "--devices", "fkae"), "Did you mean fake?"),
        (("mlp", "--devices", "cpu,fake", "--record", "it"), "expected one device; got 2"),
        (("mlp", "--tolerance", "0"), "--tolerance: expected a number above 0"),
    ],
)
def test_mistakes_are_one_line(words: Any, message: str, capsys: Any, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("nothing")
    code, out, err = call(capsys, "parity", *words)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert message in err


def test_a_file_that_cannot_be_written(capsys: Any) -> None:
    code, out, err = call(capsys, "parity", "mlp", "--record", "no/folder/it")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "cannot write no/folder/it" in err


def test_the_result_is_plain() -> None:
    (cpu,) = parity(*images())
    assert isinstance(cpu, Parity)
    assert set(cpu.ops[0].as_dict()) == {"number", "op", "layer", "own", "accumulated", "result"}


def test_the_command_has_the_tolerances_of_the_function() -> None:
    defaults = inspect.signature(parity).parameters
    assert defaults["own_tolerance"].default == parity_options.OWN_TOLERANCE
    assert defaults["accumulated_tolerance"].default == parity_options.ACCUMULATED_TOLERANCE
