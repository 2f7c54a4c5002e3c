"""Weights in PyTorch's layout without PyTorch: NumPy arrays, foreign arrays, safetensors, refusals.

What compares with PyTorch itself stands in test_torch_interop_parity.py.
"""

import json
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layer_cases import CASES, Case
from safetensors.numpy import save_file

import xbackprop as xb
from xbackprop import nn
from xbackprop.interop.torch import (
    IncompatibleKeys,
    as_torch_function,
    from_torch,
    from_torch_state_dict,
    to_torch_state_dict,
)
from xbackprop.interop.torch.files import read_safetensors


def has_state(case: Case) -> bool:
    with xb.use_device("cpu"):
        return bool(case.make().state_dict())


def shifted(module: nn.Module) -> nn.Module:
    """Other values everywhere, so that what is loaded shows."""
    state = {key: array + 1 for key, array in module.state_dict().items()}
    module.load_state_dict(state)
    return module


@pytest.mark.parametrize(
    "case", list(filter(has_state, CASES)), ids=lambda case: case.name.replace(" ", "-")
)
def test_states_of_every_row_go_there_and_back(case: Case, xb_device: str, tmp_path: Path) -> None:
    with xb.use_device(xb_device):
        module = case.make()
        if case.name.startswith("LazyLinear"):
            module(*map(xb.asarray, [case.inputs(np.random.default_rng(0))]))
        state = to_torch_state_dict(module)
        assert all(type(array) is np.ndarray for array in state.values())
        assert sorted(state) == sorted(module.state_dict())
        save_file(state, tmp_path / "state.safetensors")
        for source in (state, str(tmp_path / "state.safetensors")):
            fresh = shifted(case.make())
            assert from_torch_state_dict(fresh, source) == ([], [])
            for key, array in to_torch_state_dict(fresh).items():
                np.testing.assert_array_equal(array, state[key], strict=True)


def test_the_order_is_that_of_pytorch():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))
    assert (
        list(to_torch_state_dict(model))
        == (
            "0.weight 0.bias 0.running_mean 0.running_var 0.num_batches_tracked 1.weight 1.bias"
        ).split()
    )


def test_arrays_are_copies():
    layer = nn.Linear(2, 1)
    to_torch_state_dict(layer)["weight"][...] = 7
    given = {"weight": np.ones((1, 2), np.float32), "bias": np.zeros(1, np.float32)}
    from_torch_state_dict(layer, given)
    given["weight"][...] = 7
    np.testing.assert_array_equal(layer.weight.data, [[1, 1]])


def test_a_lazy_layer_has_no_state_yet():
    model = nn.Sequential(nn.LazyLinear(2))
    with pytest.raises(RuntimeError, match=r"0\.weight, 0\.bias of a lazy layer have no values"):
        to_torch_state_dict(model)
    state = {"0.weight": np.ones((2, 3)), "0.bias": np.ones(2)}
    assert from_torch_state_dict(model, state) == ([], [])
    assert model[0].weight.shape == (2, 3)


# --- keys and shapes ----------------------------------------------------------------------


def test_all_that_does_not_fit_is_named_at_once_and_nothing_changes():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1), rng=0)
    before = model.state_dict()
    state = {**before, "0.weight": np.ones((2, 3)), "2.weight": np.ones(1)}
    del state["1.bias"]
    with pytest.raises(ValueError, match=r"missing: 1\.bias; unexpected: 2\.weight; 0\.weight has"):
        from_torch_state_dict(model, state)
    with pytest.raises(ValueError, match=r"nothing: 0\.weight has shape \(2, 3\), expected \(3, 2"):
        from_torch_state_dict(model, state, strict=False)
    for key, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[key])


def test_not_strict_tells_what_was_left_out():
    layer = nn.Linear(2, 1, rng=0)
    bias = layer.bias.data.copy()
    received = from_torch_state_dict(
        layer, {"weight": np.ones((1, 2)), "gain": np.ones(1)}, strict=False
    )
    assert received == IncompatibleKeys(missing_keys=["bias"], unexpected_keys=["gain"])
    np.testing.assert_array_equal(layer.weight.data, [[1, 1]])
    np.testing.assert_array_equal(layer.bias.data, bias)


class TestCountsOfBatches:
    """PyTorch reads states from before batch norms counted their batches."""

    def old_state(self, version: int | None) -> Any:
        state = OrderedDict(nn.BatchNorm1d(2).state_dict())
        del state["num_batches_tracked"]
        if version is not None:
            state._metadata = {"": {"version": version}}
        return state

    @pytest.mark.parametrize("version", [None, 1])
    def test_an_old_state_keeps_the_count(self, version):
        layer = nn.BatchNorm1d(2)
        layer.load_state_dict(layer.state_dict() | {"num_batches_tracked": np.array(5)})
        assert from_torch_state_dict(layer, self.old_state(version)) == ([], [])
        assert layer.state_dict()["num_batches_tracked"] == 5

    def test_a_newer_state_must_have_it(self):
        with pytest.raises(ValueError, match="missing: num_batches_tracked"):
            from_torch_state_dict(nn.BatchNorm1d(2), self.old_state(2))


# --- what holds the values ----------------------------------------------------------------


class WithArray:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.shape, self.dtype = array.shape, array.dtype

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.array


class WithDLPack:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


@pytest.mark.parametrize("wrap", [WithArray, WithDLPack, np.ndarray.tolist, xb.asarray])
def test_anything_with_values_is_read(wrap, xb_device):
    values = np.array([[1.5, -2.0]], np.float32)
    with xb.use_device(xb_device):
        layer = nn.Linear(2, 1, bias=False)
        from_torch_state_dict(layer, {"weight": wrap(values)})
        np.testing.assert_array_equal(xb.to_host(layer.weight.data), values)


def test_half_precision_is_widened_exactly(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for dtype in (np.float16, ml_dtypes.bfloat16):
        values = np.array([[1.0, -3.140625, 2.0**-14]]).astype(dtype)
        save_file({"weight": values}, tmp_path / "half.safetensors")
        for source in ({"weight": values}, tmp_path / "half.safetensors"):
            layer = nn.Linear(3, 1, bias=False)
            from_torch_state_dict(layer, source)
            assert layer.weight.dtype == np.float32
            np.testing.assert_array_equal(layer.weight.data, values.astype(np.float32))


def test_what_holds_no_numbers_is_refused_by_name():
    layer = nn.Linear(2, 1, bias=False)
    with pytest.raises(ValueError, match=r"weight has dtype .*, expected real numbers"):
        from_torch_state_dict(layer, {"weight": np.array([["a", "b"]])})
    with pytest.raises(TypeError, match=r"weight \(list\) cannot be read as an array"):
        from_torch_state_dict(layer, {"weight": [[1.0], [1.0, 2.0]]})
    with pytest.raises(TypeError, match=r"mapping from keys to arrays, or the path.*got list"):
        from_torch_state_dict(layer, [("weight", np.ones((1, 2)))])


# --- files --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "pytorch_model.bin", "MODEL.PT"])
def test_pickles_are_refused_with_the_lines_that_convert_them(name, tmp_path):
    with pytest.raises(ValueError, match="is a pickle, which may run code") as refused:
        from_torch_state_dict(nn.Linear(2, 1), tmp_path / name)  # whether it is there or not
    lines = str(refused.value).splitlines()
    assert len(lines) == 3
    assert f"torch.load({str(tmp_path / name)!r}" in lines[1]
    assert lines[2].endswith(f"{str(tmp_path / name).rpartition('.')[0] + '.safetensors'!r})")
    compile("\n".join(lines[1:]), "<message>", "exec")


@pytest.mark.parametrize("size", [0x280, 0x380, 0x480, 0x580])
def test_a_header_whose_length_begins_as_a_pickle_does_is_read(size, tmp_path):
    path, state = tmp_path / "state.safetensors", {"weight": np.ones(2, np.float32)}
    save_file(state, path, metadata={"note": ""})
    shorter = int.from_bytes(path.read_bytes()[:8], "little")
    save_file(state, path, metadata={"note": "x" * (size - shorter)})
    assert path.read_bytes()[:2] == size.to_bytes(2, "little")
    assert (read_safetensors(path)["weight"] == 1).all()


@pytest.mark.parametrize("start", [b"PK\x03\x04 a zip", b"\x80\x02 a pickle"])
def test_pickles_of_another_name_are_refused_too(start, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(start + bytes(100))
    with pytest.raises(ValueError, match="is a pickle"):
        from_torch_state_dict(nn.Linear(2, 1), path)


def test_bad_files_are_refused_by_name(tmp_path):
    path = tmp_path / "bad.safetensors"
    layer = nn.Linear(2, 1)
    with pytest.raises(FileNotFoundError, match=r"bad\.safetensors"):
        from_torch_state_dict(layer, path)
    for content in (b"", b"\x08\0\0\0\0\0\0\0{}", bytes(100)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"bad\.safetensors is not a readable safetensors"):
            from_torch_state_dict(layer, path)
    save_file(layer.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is not a readable safetensors file"):
        from_torch_state_dict(layer, path)


def test_dtypes_that_numpy_has_not_are_refused_by_name(tmp_path):
    entry = {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}
    head = json.dumps({"weight": entry}).encode()
    path = tmp_path / "eight.safetensors"
    path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(2))
    with pytest.raises(ValueError, match="tensor 'weight' has dtype F8_E4M3"):
        from_torch_state_dict(nn.Linear(2, 1), path)


# --- without PyTorch ----------------------------------------------------------------------


def test_without_pytorch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    layer = nn.Linear(2, 1)
    with pytest.raises(ModuleNotFoundError, match=r"as_torch_function needs PyTorch.*pip install"):
        as_torch_function(layer)
    with pytest.raises(ModuleNotFoundError, match=r"as_tensors=True\) needs PyTorch"):
        to_torch_state_dict(layer, as_tensors=True)
    with pytest.raises(TypeError, match=r"expects a torch\.nn\.Module; got Linear"):
        from_torch(layer)


def test_interop_is_loaded_when_it_is_used():
    assert xb.interop.torch.from_torch_state_dict is from_torch_state_dict
