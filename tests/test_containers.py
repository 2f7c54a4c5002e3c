"""Lists and dicts of modules: PyTorch's methods, and what they refuse; the rest is in the table."""

import operator
import re
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from needs_torch import import_torch

import xbackprop as xb
from xbackprop import nn
from xbackprop.backend.device import Device
from xbackprop.module import Module


def names(container: Any) -> list[str]:
    return [f"{name}:{type(child).__name__}" for name, child in container.named_children()]


def layers(*classes: str, library: Any = nn) -> list[Any]:
    return [getattr(library, name)() for name in classes]


CHANGES = {
    "append": lambda box, new: box.append(new[0]),
    "extend": lambda box, new: box.extend(new),
    "iadd": lambda box, new: box.__iadd__(new) if not is_sequential(box) else box.extend(new),
    # Sequential's returns itself in PyTorch, ModuleList's nothing; ours both return themselves.
    "insert at 0": lambda box, new: (box.insert(0, new[0]), None)[1],
    "insert at 1": lambda box, new: (box.insert(1, new[0]), None)[1],
    "insert at the end": lambda box, new: (box.insert(3, new[0]), None)[1],
    "set": lambda box, new: box.__setitem__(1, new[0]),
    "set the last": lambda box, new: box.__setitem__(-1, new[0]),
    "delete": lambda box, new: box.__delitem__(0),
    "delete the last": lambda box, new: box.__delitem__(-1),
    "delete a slice": lambda box, new: box.__delitem__(slice(0, 2)),
    "pop": lambda box, new: box.pop(1),
    "slice": lambda box, new: box[1:],
    "slice of one": lambda box, new: box[-1:],
    "add": lambda box, new: box + (type(box)(*new) if is_sequential(box) else new),
}


def is_sequential(box: Any) -> bool:
    return type(box).__name__ == "Sequential"


def changed(library: Any, kind: str, change: str) -> list[str]:
    """The names after a change; those of the result where it is a container as well."""
    three = layers("ReLU", "Tanh", "Sigmoid", library=library)
    box = library.Sequential(*three) if kind == "Sequential" else library.ModuleList(three)
    result = CHANGES[change](box, layers("ELU", "GELU", library=library))
    found = names(box)
    if type(result) is type(box):
        found += ["result:", *names(result)]
    elif result is not None:
        found += ["result:", type(result).__name__]
    return found


@pytest.mark.torch_parity
@pytest.mark.parametrize("kind", ["Sequential", "ModuleList"])
@pytest.mark.parametrize("change", CHANGES)
def test_changes_beside_pytorch(kind: str, change: str) -> None:
    assert changed(nn, kind, change) == changed(import_torch().nn, kind, change)


@pytest.mark.torch_parity
def test_changes_of_named_layers_beside_pytorch() -> None:
    found = []
    for library in (nn, import_torch().nn):
        relu, tanh = layers("ReLU", "Tanh", library=library)
        named = {"a": relu, "b": tanh}
        model = library.Sequential(named if library is nn else OrderedDict(named))
        record = [names(model.append(library.ELU())), names(model[1:])]
        model[0] = library.GELU()
        record.append(names(model))
        del model[1]
        record.append(names(model))
        found.append(record)
    assert found[0] == found[1]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["Sequential", "ModuleList"])
def test_config_follows_changes(kind: str, change: str) -> None:
    three = layers("ReLU", "Tanh", "Sigmoid")
    box = nn.Sequential(*three, rng=0) if kind == "Sequential" else nn.ModuleList(three, rng=0)
    CHANGES[change](box, layers("ELU", "GELU"))
    rebuilt = nn.from_config(box.config())
    assert names(rebuilt) == names(box)
    assert rebuilt.config() == box.config()


def test_config_follows_changes_of_names_and_options() -> None:
    model = nn.Sequential({"a": nn.ReLU(), "b": nn.Tanh()})
    model.append(nn.ELU())
    assert names(nn.from_config(model.config())) == ["a:ReLU", "b:Tanh", "2:ELU"]
    heads = nn.ModuleDict({"type": nn.ReLU()})
    heads["b"] = nn.Tanh()
    assert names(nn.from_config(heads.config())) == ["type:ReLU", "b:Tanh"]
    wide = nn.Concat(nn.ReLU(), dim=-1)
    wide.append(nn.Tanh())
    rebuilt = nn.from_config(wide.config())
    assert (names(rebuilt), rebuilt.dim) == (["0:ReLU", "1:Tanh"], -1)
    listed = nn.ModuleList(modules=iter(layers("ReLU", "Tanh")))
    assert names(nn.from_config(listed.config())) == ["0:ReLU", "1:Tanh"]


class Tower(nn.Sequential):
    """Has a constructor of its own, which its config goes by."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        for _ in range(depth):
            self.append(nn.Tanh())


def test_a_subclass_is_described_by_its_own_constructor() -> None:
    tower = Tower(2)
    assert tower.config() == {"type": "Tower", "args": {"depth": 2}}
    assert names(nn.from_config(tower.config(), types=[Tower])) == names(tower)


def test_changed_sequentials_compute_with_what_they_hold(xb_device: Device) -> None:
    model = nn.Sequential(nn.Linear(3, 3, rng=0), nn.Tanh())
    x = xb.asarray(np.ones((2, 3), np.float32))
    model.append(nn.Linear(3, 1, rng=0))
    assert model(x).shape == (2, 1)
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    output, saved = model.forward(x)
    model.backward(output, saved)
    assert model[2].weight.has_grad
    del model[:2]
    assert list(model.state_dict()) == ["0.weight", "0.bias"]
    assert len(list(model.parameters())) == 2


def test_module_dict_is_a_dict() -> None:
    relu, tanh, elu = layers("ReLU", "Tanh", "ELU")
    box = nn.ModuleDict({"a": relu})
    box.update([("b", tanh)])
    box["a"] = elu
    assert (list(box), list(box.keys()), len(box)) == (["a", "b"], ["a", "b"], 2)
    assert list(box.values()) == [elu, tanh]
    assert list(box.items()) == [("a", elu), ("b", tanh)]
    assert "a" in box
    assert relu not in box.values()
    assert box.pop("a") is elu
    assert names(box) == ["b:Tanh"]
    del box["b"]
    box["c"] = relu
    box.clear()
    assert len(box) == 0
    assert nn.ModuleDict().config() == nn.from_config(nn.ModuleDict().config()).config()


def test_seeds_reach_modules_in_containers() -> None:
    def made(rng: int) -> list[dict[str, np.ndarray]]:
        boxes = (
            nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)], rng=rng),
            nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)}, rng=rng),
            nn.Parallel(nn.Linear(2, 2), nn.Linear(2, 2), rng=rng),
            nn.Concat(nn.Linear(2, 2), nn.Linear(2, 2), rng=rng),
        )
        return [box.state_dict() for box in boxes]

    for first, again, other in zip(made(0), made(0), made(1), strict=True):
        weights = [array.tobytes() for array in first.values()]
        assert weights == [array.tobytes() for array in again.values()]
        assert weights != [array.tobytes() for array in other.values()]
        assert len(set(weights)) == 4


# --- branches -----------------------------------------------------------------------------


def test_an_unused_branch_is_skipped(xb_device: Device) -> None:
    heads = nn.Parallel(nn.Linear(3, 2, rng=0), nn.Linear(3, 1, rng=1), nn.Linear(3, 2, rng=0))
    x = xb.asarray(np.ones((4, 3), np.float32))
    outputs, saved = heads.forward(x)
    grad = heads.backward((outputs[0], None, outputs[2]), saved, keep=True)
    assert not heads[1].weight.has_grad
    alone, alone_saved = heads[0].forward(x)
    expected = heads[0].backward(alone, alone_saved)
    np.testing.assert_allclose(xb.to_host(grad), 2 * xb.to_host(expected), rtol=1e-6)
    assert heads.backward((None, None, None), saved, keep=True) is None
    with pytest.raises(ValueError, match="a gradient, or None, for each of 3 outputs; got 2"):
        heads.backward((None, None), saved)


def test_branches_let_go_of_their_activations() -> None:
    heads = nn.Parallel(nn.Tanh(), nn.Tanh())
    outputs, saved = heads.forward(np.ones(3, np.float32))
    inside = saved.content
    heads.backward(outputs, saved)
    assert inside == []


# --- refusals -----------------------------------------------------------------------------

RELU = nn.ReLU()

REFUSED = [
    (lambda: nn.Sequential(RELU).append(3), TypeError, "argument 1 is int"),
    (lambda: nn.Sequential(RELU).append(nn.ReLU), TypeError, "is type; call it to make a layer"),
    (lambda: nn.Sequential(RELU).extend([RELU, 3]), TypeError, "argument 2 is int"),
    (lambda: nn.Sequential(RELU).extend(RELU), TypeError, "not iterable"),
    (lambda: nn.Sequential(RELU).insert(0, 3), TypeError, "argument 0 is int"),
    (lambda: nn.Sequential(RELU).insert(5, RELU), IndexError, "Sequential.insert: 5 is out of"),
    (lambda: nn.Sequential({"a": RELU}).insert(0, RELU), ValueError, "these have names: a"),
    (lambda: nn.Sequential({"1": RELU}).append(RELU), ValueError, "has a module '1' already"),
    (lambda: nn.Sequential(RELU).pop(4), IndexError, "out of range"),
    (lambda: nn.Sequential(RELU).__delitem__(4), IndexError, "out of range"),
    (lambda: nn.Sequential(RELU).__setitem__(4, RELU), IndexError, "out of range"),
    (lambda: nn.Sequential(RELU)[4], IndexError, "out of range"),
    (lambda: operator.add(nn.Sequential(RELU), [RELU]), TypeError, "unsupported operand"),
    (lambda: nn.ModuleList([3]), TypeError, "ModuleList expects modules; argument 0 is int"),
    (lambda: nn.ModuleList(3), TypeError, "not iterable"),
    (lambda: nn.ModuleList([RELU])(1), NotImplementedError, "ModuleList has no forward"),
    (lambda: nn.ModuleList([RELU]).__setitem__(slice(0, 1), [RELU]), TypeError, "slice"),
    (lambda: nn.ModuleList([RELU]).extend([3]), TypeError, "argument 1 is int"),
    (lambda: nn.ModuleList([RELU]).insert(-4, RELU), IndexError, "-4 is out of range"),
    (lambda: nn.ModuleDict({3: RELU}), TypeError, "names as str; got int"),
    (lambda: nn.ModuleDict({"a.b": RELU}), ValueError, "got 'a.b'"),
    (lambda: nn.ModuleDict({"": RELU}), ValueError, "got ''"),
    (lambda: nn.ModuleDict({"a": 3}), TypeError, "argument 'a' is int"),
    (lambda: nn.ModuleDict({"a": None}), TypeError, "argument 'a' is NoneType"),
    (lambda: nn.ModuleDict([["a"]]), ValueError, "length 1; 2 is required"),
    (lambda: nn.ModuleDict(3), TypeError, "not iterable"),
    (lambda: nn.ModuleDict({"a": RELU})(1), NotImplementedError, "ModuleDict has no forward"),
    (lambda: nn.ModuleDict().__delitem__("a"), KeyError, "a"),
    (lambda: nn.ModuleDict().pop("a"), KeyError, "a"),
    (nn.Parallel, ValueError, "Parallel expects at least one module"),
    (nn.Concat, ValueError, "Concat expects at least one module"),
    (lambda: nn.Parallel(RELU)[0:1], TypeError, "Parallel has no slices"),
    (lambda: nn.Concat(RELU, dim=None), NotImplementedError, "Concat(dim=None)"),
    (lambda: nn.Concat(RELU, dim=1.0), TypeError, "Concat expects dim to be an int; got float"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_refused(call: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call()


@pytest.mark.parametrize(
    "change",
    [
        lambda box: box.append(3),
        lambda box: box.extend([nn.ReLU(), 3]),
        lambda box: box.insert(0, 3),
        lambda box: box.insert(9, nn.ReLU()),
        lambda box: box.__setitem__(0, 3),
        lambda box: box.pop(9),
    ],
)
@pytest.mark.parametrize("make", [nn.Sequential, nn.Parallel, lambda *x: nn.ModuleList(x)])
def test_a_refused_change_changes_nothing(make: Any, change: Any) -> None:
    box: Module = make(nn.ReLU(), nn.Tanh())
    before = names(box), box.config()
    with pytest.raises((TypeError, IndexError)):
        change(box)
    assert (names(box), box.config()) == before


def test_refused_dict_updates_change_nothing() -> None:
    box = nn.ModuleDict({"a": nn.ReLU()})
    for wrong in ({"b": nn.Tanh(), "c": 3}, {"b": nn.Tanh(), "c.d": nn.Tanh()}):
        with pytest.raises((TypeError, ValueError)):
            box.update(wrong)
        assert names(box) == ["a:ReLU"]


def test_concat_explains_what_does_not_join(xb_device: Device) -> None:
    x = xb.asarray(np.ones((4, 3), np.float32))
    flat = nn.Concat(nn.Linear(3, 2), nn.Flatten(0))
    with pytest.raises(ValueError, match=r"joins outputs along axis 1, .* \(4, 2\), \(12,\)"):
        flat(x)
    with pytest.raises(ValueError, match=r"Concat works along axis 2; got x of shape \(4, 2\)"):
        nn.Concat(nn.Linear(3, 2), dim=2)(x)
    with pytest.raises(ValueError, match=r"joins outputs along axis 0, which must agree"):
        nn.Concat(nn.Linear(3, 2), nn.Linear(3, 1), dim=0)(x)
