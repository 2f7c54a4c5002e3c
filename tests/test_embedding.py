"""Embeddings: what is no row of the table, beside PyTorch's and beside loops."""

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from needs_torch import import_torch

import xbackprop as xb
from xbackprop import nn
from xbackprop.backend.device import Device
from xbackprop.testing import TOLERANCES

F = np.float32
on_fake = pytest.mark.parametrize("xb_device", ["fake"], indirect=True)
BAGS = np.array([1, 2, 1, 4, 2, 2, 0, 1, 1]), np.array([0, 3, 3, 8])
# Every index as often: PyTorch's CPU kernel of bags divides by the counts of wrong indices.
EVEN = np.array([0, 4, 2, 2, 0, 4, 4, 0, 2]), BAGS[1]
FACTORS = np.linspace(-1, 2, 9)


def on_device(array: np.ndarray) -> Any:
    return xb.asarray(array, dtype=array.dtype)


def table(rows: int = 6, columns: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(F)


# --- beside PyTorch: what differences do not show --------------------------------------------

# The layer, its options, its inputs, and how they are given.
BESIDE_PYTORCH = [
    ("Embedding", {"padding_idx": 0}, (BAGS[0],)),
    ("Embedding", {"padding_idx": 2}, (BAGS[0].reshape(3, 3),)),
    ("Embedding", {"padding_idx": -2}, (BAGS[0],)),
    ("Embedding", {"scale_grad_by_freq": True}, (BAGS[0],)),
    ("Embedding", {"scale_grad_by_freq": True, "padding_idx": 1}, (BAGS[0].reshape(3, 3),)),
    ("Embedding", {"max_norm": 1.0, "padding_idx": 1}, (BAGS[0],)),
    ("Embedding", {"max_norm": 0.0}, (BAGS[0],)),
    ("Embedding", {"max_norm": -1.0}, (BAGS[0],)),
    *(("Embedding", {"max_norm": 0.6, "norm_type": p}, (BAGS[0],))
      for p in (0.0, -1.0, 1.5, np.inf, -np.inf)),
    *(("EmbeddingBag", {"mode": mode, **options}, inputs)
      for mode in ("sum", "mean", "max")
      for options in ({}, {"padding_idx": 1}, {"padding_idx": -2, "max_norm": 0.7},
                      {"include_last_offset": True})
      for inputs in (BAGS, (BAGS[0].reshape(3, 3),), (BAGS[0][:0], BAGS[1][:2] * 0))),
    *(("EmbeddingBag", {"mode": mode, "scale_grad_by_freq": True, **options}, inputs)
      for mode in ("sum", "mean") for options in ({}, {"padding_idx": 2})
      for inputs in (EVEN, (EVEN[0].reshape(3, 3),))),
    ("EmbeddingBag", {"mode": "sum", "scale_grad_by_freq": True}, (*EVEN, FACTORS)),
    *(("EmbeddingBag", {"mode": "sum", **options}, inputs)
      for options in ({}, {"padding_idx": 1, "max_norm": 0.7})
      for inputs in ((*BAGS, FACTORS),
                     (BAGS[0].reshape(3, 3), None, FACTORS.reshape(3, 3)))),
]  # fmt: skip


@pytest.mark.torch_parity("Embedding", "EmbeddingBag")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "options", "inputs"), BESIDE_PYTORCH)
def test_beside_pytorch(name: str, options: Any, inputs: Any, dtype: str) -> None:
    torch = import_torch()
    if options.get("include_last_offset") and inputs[0].ndim == 1 and inputs[0].size:
        inputs = (inputs[0], np.append(inputs[1], 9))
    inputs = [x.astype(dtype) if x is not None and x.dtype.kind == "f" else x for x in inputs]
    theirs = getattr(torch.nn, name)(6, 3, **options, dtype=getattr(torch, dtype))
    torch.nn.init.normal_(theirs.weight)  # the row of padding_idx too: it may be no zeros
    values = theirs.weight.detach().numpy().copy()
    tensors = [None if x is None else torch.tensor(x) for x in inputs]
    if len(tensors) == 3:
        tensors[2].requires_grad_()
    with xb.use_device("cpu"):
        ours = getattr(nn, name)(6, 3, **options, _weight=values, dtype=dtype)
        for _ in range(2):  # the second time no row is too long
            output, saved = ours.forward(*inputs)
            expected = theirs(*tensors)
            close(output, expected, dtype)
            close(ours.weight.data, theirs.weight, dtype)
            g = np.random.default_rng(1).normal(size=output.shape).astype(dtype)
            grads = ours.backward(g, saved)
            expected.backward(torch.tensor(g))
            close(ours.weight.grad, theirs.weight.grad, dtype)
            if len(tensors) == 3:
                assert grads[:2] == (None, None)
                close(grads[2], tensors[2].grad, dtype)
                tensors[2].grad = None


def close(received: Any, expected: Any, dtype: str) -> None:
    tolerance = TOLERANCES[dtype].peer
    expected = expected.detach().numpy()
    assert received.shape == expected.shape
    assert received.dtype == expected.dtype
    np.testing.assert_allclose(received, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.torch_parity("Embedding", "EmbeddingBag")
@pytest.mark.parametrize("norm_type", [0.0, 1.0, 2.0, 3.0, np.inf, -np.inf])
def test_rows_at_the_ends_of_float32(norm_type: float) -> None:
    """Too long for float32, not finite, or without length: scaled or left as PyTorch does."""
    torch = import_torch()
    values = np.array(
        [[3e38, 3e38], [np.nan, 1], [np.inf, 1], [-np.inf, np.nan], [0, -0.0], [1e-45, 0],
         [1, 2], [np.inf, np.nan], [3e38, 3e38]], F
    )  # fmt: skip
    x = np.arange(8)  # the last row is not read
    for name in ("Embedding", "EmbeddingBag"):
        options = {"max_norm": 1.0, "norm_type": norm_type}
        theirs = getattr(torch.nn, name)(9, 2, _weight=torch.tensor(values), **options)
        expected = theirs(torch.tensor(x[:, None])).detach().numpy()
        with xb.use_device("cpu"):
            ours = getattr(nn, name)(9, 2, _weight=values, **options)
            output = ours(x[:, None])
        np.testing.assert_allclose(output, expected, rtol=1e-6)
        np.testing.assert_allclose(ours.weight.data, theirs.weight.detach().numpy(), rtol=1e-6)
        np.testing.assert_array_equal(ours.weight.data[8], values[8])


@pytest.mark.torch_parity("Embedding")
def test_first_values_repr_and_attributes_are_pytorchs() -> None:
    torch = import_torch()
    for name in ("Embedding", "EmbeddingBag"):
        for options in (
            {}, {"padding_idx": -2}, {"max_norm": 2.0, "norm_type": 1.0, "padding_idx": 0},
            {"scale_grad_by_freq": True},
        ):  # fmt: skip
            ours = getattr(nn, name)(400, 30, **options)
            theirs = getattr(torch.nn, name)(400, 30, **options)
            assert repr(ours) == repr(theirs)
            for attribute in ("num_embeddings", "embedding_dim", "padding_idx", "max_norm",
                              "norm_type", "scale_grad_by_freq", "sparse"):  # fmt: skip
                assert getattr(ours, attribute) == getattr(theirs, attribute)
            drawn = xb.to_host(ours.weight.data)
            assert abs(drawn.mean()) < 0.05
            assert abs(drawn.std() - 1) < 0.05
            if ours.padding_idx is not None:
                assert not drawn[ours.padding_idx].any()


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_frequencies_of_bags_are_those_of_indices(mode: str, xb_device: Device) -> None:
    grads = {}
    for is_scaled in (False, True):
        layer = nn.EmbeddingBag(6, 3, mode=mode, scale_grad_by_freq=is_scaled, _weight=table())
        _, saved = layer.forward(on_device(BAGS[0]), on_device(BAGS[1]))
        layer.backward(on_device(table(4, 3, seed=1)), saved)
        grads[is_scaled] = xb.to_host(layer.weight.grad)
    counts = np.maximum(np.bincount(BAGS[0], minlength=6), 1)
    np.testing.assert_allclose(grads[True], grads[False] / counts[:, None], rtol=1e-6)


# --- the same everywhere, every time --------------------------------------------------------


def test_twenty_runs_give_the_same_bits(xb_device: Device) -> None:
    rng = np.random.default_rng(0)
    x, values = rng.integers(0, 7, size=(16, 32)), table(7, 8)
    g = rng.normal(size=(16, 32, 8)).astype(F)

    def run(layer: Any, g: np.ndarray) -> bytes:
        _, saved = layer.forward(on_device(x))
        layer.backward(on_device(g), saved)
        return xb.to_host(layer.weight.grad).tobytes()

    seen = {run(nn.Embedding(7, 8, _weight=values), g) for _ in range(20)}
    assert len(seen) == 1
    for mode in ("sum", "mean", "max"):
        layers = [nn.EmbeddingBag(7, 8, mode=mode, _weight=values) for _ in range(20)]
        assert len({run(layer, g[:, 0]) for layer in layers}) == 1


@on_fake
@pytest.mark.parametrize("name", ["Embedding", "EmbeddingBag"])
def test_steps_upload_download_and_wait_for_nothing(name: str, xb_device: Device) -> None:
    model = nn.Sequential(getattr(nn, name)(6, 3, max_norm=1.0, padding_idx=1), nn.Linear(3, 2))
    optimizer = xb.optim.Adam(model.parameters(), lr=0.1)
    trainer = xb.Trainer(model, nn.MSELoss(), optimizer, on_nan="skip")
    x = on_device(np.array([[0, 1], [2, 2]]))
    y = xb.asarray(np.zeros((2, 2, 2) if name == "Embedding" else (2, 2)))
    trainer.step(x, y)
    with xb.transfer_log() as log:
        for _ in range(2):
            trainer.step(x, y)
    assert (log.uploads, log.downloads, log.synchronizations) == (0, 0, 0)
    with xb.transfer_log() as log:  # a loop of one's own: the table gets other storage each time
        for _ in range(2):
            output, saved = model.forward(x)
            optimizer.zero_grad()
            model.backward(output, saved)
            optimizer.step()
    assert (log.uploads, log.downloads, log.synchronizations) == (0, 0, 0)


# --- max_norm: a forward that changes a parameter -------------------------------------------


def long_rows() -> np.ndarray:
    return table() * np.array([[4], [0.1], [4], [4], [4], [4]], F)


def norms(layer: Any) -> np.ndarray:
    return np.linalg.norm(xb.to_host(layer.weight.data), axis=1)


@pytest.mark.parametrize("make", [
    lambda **o: (nn.Embedding(6, 3, max_norm=1.0, **o), np.array([0, 1, 2, 2])),
    lambda **o: (nn.EmbeddingBag(6, 3, max_norm=1.0, **o), np.array([[0, 1], [2, 2]])),
])  # fmt: skip
def test_rows_that_are_read_become_short_and_others_stay(make: Any, xb_device: Device) -> None:
    layer, x = make(_weight=long_rows())
    first = layer.weight.data
    held = xb.to_host(first).copy()
    output = layer.eval()(on_device(x))
    np.testing.assert_allclose(norms(layer)[[0, 2]], 1, rtol=1e-6)
    received = xb.to_host(layer.weight.data)
    np.testing.assert_array_equal(received[[1, 3, 4, 5]], held[[1, 3, 4, 5]])
    np.testing.assert_array_equal(xb.to_host(first), held)  # the old array is as it was
    assert layer.weight.value is layer.weight.data
    again = layer(on_device(x))
    np.testing.assert_allclose(xb.to_host(again), xb.to_host(output), rtol=1e-6)


class Refusing(nn.Module):
    def forward(self, x: Any) -> Any:
        raise ValueError("refused")


def test_a_refused_call_changes_nothing(xb_device: Device) -> None:
    layer = nn.Embedding(6, 3, max_norm=1.0, _weight=long_rows())
    x = on_device(np.array([0, 2]))
    before = layer.weight.data
    with pytest.raises(ValueError, match="refused"):
        nn.Sequential(layer, Refusing())(x)
    assert layer.weight.data is layer.weight.value is before
    with pytest.raises(ValueError, match="MSELoss"):
        xb.value_and_grad(layer, nn.MSELoss())(x, xb.asarray(np.zeros((5, 5))))
    assert layer.weight.data is layer.weight.value is before
    assert norms(layer)[0] > 1


class Tied(nn.Module):
    """Scores of every row of the table against a row of it, before or after the lookup."""

    def __init__(self, embedding: nn.Embedding, head_is_first: bool = False) -> None:
        self.embedding = embedding
        self.head = nn.Linear(embedding.embedding_dim, embedding.num_embeddings, bias=False)
        self.head.weight = embedding.weight
        self.head_is_first = head_is_first

    def forward(self, x: Any, h: Any) -> Any:
        if self.head_is_first:
            scores, saved_head = self.head.forward(h)
            rows, saved = self.embedding.forward(x)
        else:
            rows, saved = self.embedding.forward(x)
            scores, saved_head = self.head.forward(h)
        return (rows, scores), (saved, saved_head)

    def backward(self, grad_output: Any, saved: Any, *, input_grad: bool = True) -> Any:
        self.embedding.backward(grad_output[0], saved[0])
        return None, self.head.backward(grad_output[1], saved[1])


@pytest.mark.parametrize("head_is_first", [False, True])
def test_a_tied_layer_reads_what_is_so_in_its_turn(head_is_first: bool, xb_device: Device) -> None:
    model = Tied(nn.Embedding(6, 3, max_norm=1.0, _weight=long_rows()), head_is_first)
    h = table(2, 3, seed=3)
    (_, scores), saved = model.forward(on_device(np.array([0, 2])), on_device(h))
    after = xb.to_host(model.embedding.weight.data)
    read = long_rows() if head_is_first else after
    np.testing.assert_allclose(xb.to_host(scores), h @ read.T, rtol=1e-5, atol=1e-6)
    g = on_device(table(2, 3, seed=4)), on_device(table(2, 6, seed=5))
    grad_h = model.backward(g, saved)[1]  # with what the forward computed with
    np.testing.assert_allclose(xb.to_host(grad_h), xb.to_host(g[1]) @ read, rtol=1e-5, atol=1e-6)


def test_a_forward_in_between_leaves_saved_usable(xb_device: Device) -> None:
    layer = nn.EmbeddingBag(6, 3, max_norm=1.0, mode="sum", _weight=long_rows())
    x, w = on_device(np.array([[0, 2]])), xb.asarray([[1.0, 2.0]])
    output, saved = layer.forward(x, None, w)
    layer(on_device(np.array([[0, 3, 4]])))
    g = xb.asarray([[1.0, -1.0, 2.0]])
    grad = xb.to_host(layer.backward(g, saved)[2])
    rows = xb.to_host(layer.weight.data)[[0, 2]]
    np.testing.assert_allclose(grad, xb.to_host(g) @ rows.T, rtol=1e-5)
    assert output.shape == (1, 3)


def network(wrap: Callable[[nn.Module], nn.Module]) -> nn.Module:
    inner = nn.Sequential(
        nn.Embedding(90, 3, max_norm=1.0, _weight=4 * table(90)), nn.Linear(3, 4, rng=1), nn.Tanh()
    )
    return nn.Sequential(wrap(inner), nn.Linear(4, 2, rng=2))


def gradients(model: nn.Module) -> list[bytes]:
    return [xb.to_host(parameter.grad).tobytes() for parameter in model.parameters()]


@pytest.mark.parametrize("at_once", [True, False])
def test_recompute_gives_the_same_bits(at_once: bool, xb_device: Device) -> None:
    """Scaled again, a row of norm 1 + 6e-8 would get other bits."""
    x, y = on_device(np.arange(90)), xb.asarray(np.ones((90, 2)))
    found = []
    for wrap in (lambda inner: inner, nn.Recompute, lambda m: nn.Recompute(nn.Recompute(m))):
        model = network(wrap)
        for _ in range(2):  # the second time, few rows are too long
            if at_once:
                xb.value_and_grad(model, nn.MSELoss())(x, y)
            else:
                output, saved = model.forward(x)
                model.backward(output, saved)
        found.append((gradients(model), [a.tobytes() for a in model.state_dict().values()]))
    assert found[0] == found[1] == found[2]


def test_recompute_reads_the_table_of_its_forward() -> None:
    """Of the plain Linear inside, tied to an embedding that changes the table afterwards."""
    h = table(2, 3, seed=3)
    found = []
    for wrap in (lambda inner: inner, nn.Recompute):
        model = Tied(nn.Embedding(6, 3, max_norm=1.0, _weight=long_rows()), True)
        model.head = wrap(nn.Sequential(model.head, nn.Tanh()))
        model.to("cpu")
        _, saved = model.forward(np.array([0, 2]), h)
        grad = model.backward((table(2, 3, seed=4), table(2, 6, seed=5)), saved)[1]
        found.append((grad.tobytes(), gradients(model)))
    assert found[0] == found[1]


def train(steps: Callable[[nn.Module, Any, Any, Any], None]) -> dict[str, np.ndarray]:
    model = network(lambda inner: inner)
    optimizer = xb.optim.SGD(model.parameters(), lr=0.5, momentum=0.9, weight_decay=0.1)
    x, y = on_device(np.array([0, 2, 3, 0, 1])), xb.asarray(np.ones((5, 2)))
    steps(model, optimizer, x, y)
    return model.state_dict()


def by_trainer(model: nn.Module, optimizer: Any, x: Any, y: Any) -> None:
    trainer = xb.Trainer(model, nn.MSELoss(), optimizer)
    trainer.step(x, y)
    storage = [p.data for p in model.parameters()]
    for _ in range(4):
        trainer.step(x, y)
        assert all(a is p.data for a, p in zip(storage, model.parameters(), strict=True))


def by_hand(model: nn.Module, optimizer: Any, x: Any, y: Any) -> None:
    loss_fn = nn.MSELoss()
    for _ in range(5):
        output, saved = model.forward(x)
        _, loss_saved = loss_fn.forward(output, y)
        optimizer.zero_grad()
        model.backward(loss_fn.backward(1.0, loss_saved), saved)
        optimizer.step()


def test_trainer_does_what_a_loop_does(xb_device: Device) -> None:
    """The step inside one outermost call moves the scaled rows, and keeps the flat storage."""
    expected, received = train(by_hand), train(by_trainer)
    for name, values in expected.items():
        np.testing.assert_array_equal(received[name], values, err_msg=name)


@pytest.mark.torch_parity("Embedding")
def test_training_beside_pytorch() -> None:
    torch = import_torch()
    with xb.use_device("cpu"):
        ours = train(by_trainer)
        first = network(lambda inner: inner).state_dict()
    inner = torch.nn.Sequential(
        torch.nn.Embedding(90, 3, max_norm=1.0), torch.nn.Linear(3, 4), torch.nn.Tanh()
    )
    model = torch.nn.Sequential(inner, torch.nn.Linear(4, 2))
    model.load_state_dict({name: torch.tensor(values) for name, values in first.items()})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9, weight_decay=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        torch.nn.MSELoss()(model(torch.tensor([0, 2, 3, 0, 1])), torch.ones(5, 2)).backward()
        optimizer.step()
    for name, values in model.state_dict().items():
        np.testing.assert_allclose(ours[name], values.numpy(), rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_a_skipped_batch_leaves_the_table(accumulation_steps: int, xb_device: Device) -> None:
    model = network(lambda inner: inner)
    optimizer = xb.optim.SGD(model.parameters(), lr=0.5)
    trainer = xb.Trainer(
        model, nn.MSELoss(), optimizer, on_nan="skip", accumulation_steps=accumulation_steps
    )
    before = model.state_dict()
    x = on_device(np.array([0, 2]))
    trainer.step(x, xb.asarray(np.full((2, 2), np.nan)))
    for name, values in model.state_dict().items():
        np.testing.assert_array_equal(values, before[name], err_msg=name)
    assert model[0][0].weight.value is model[0][0].weight.data


# --- indices and offsets that name nothing --------------------------------------------------


@pytest.mark.parametrize("xb_device", ["cpu"], indirect=True)
@pytest.mark.parametrize("name", ["Embedding", "EmbeddingBag"])
@pytest.mark.parametrize("wrong", [-1, 6, 2**40])
def test_on_the_host_an_index_out_of_range_is_refused(
    name: str, wrong: int, xb_device: Device
) -> None:
    layer = getattr(nn, name)(6, 3, max_norm=0.1, rng=0)
    before = layer.state_dict()["weight"]
    x = np.array([[0, 1], [4, wrong]])
    message = rf"^{name}: index {wrong} in x\[1, 1\] is out of range; expected 0 to 5\. Check"
    with pytest.raises(IndexError, match=message):
        layer.forward(x)
    np.testing.assert_array_equal(layer.state_dict()["weight"], before)


@pytest.mark.parametrize("xb_device", ["cpu"], indirect=True)
@pytest.mark.parametrize("offsets", [[1, 2], [0, 3, 2], [0, 4], [-1, 0]])
def test_on_the_host_wrong_offsets_are_refused(offsets: list[int], xb_device: Device) -> None:
    message = r"^EmbeddingBag expects offsets that start at 0, never fall, and end within the 3 ind"
    with pytest.raises(ValueError, match=message):
        nn.EmbeddingBag(6, 3)(np.array([1, 2, 3]), np.array(offsets))


@pytest.mark.parametrize("name", ["Embedding", "EmbeddingBag"])
@pytest.mark.parametrize("shape", [(), (6,), (6, 3, 1)])
def test_from_pretrained_wants_a_matrix(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=f"^{name}.from_pretrained expects embeddings of shape"):
        getattr(nn, name).from_pretrained(np.zeros(shape, F))
    with pytest.raises(TypeError, match="float32 or float64; got int64"):
        getattr(nn, name).from_pretrained([[1, 2], [3, 4]], device="cpu")


@pytest.mark.parametrize("xb_device", ["fake", "fake:1"], indirect=True)
@pytest.mark.parametrize("wrong", [-1, 6, 2**40])
def test_on_a_device_an_index_out_of_range_reads_nan(wrong: int, xb_device: Device) -> None:
    x = on_device(np.array([[0, wrong], [1, 2]]))
    layer = nn.Embedding(6, 3, max_norm=5.0, rng=0)
    with xb.transfer_log() as log:
        output, saved = layer.forward(x)
        layer.backward(output, saved)
    assert (log.downloads, log.synchronizations) == (0, 0)
    lost = np.isnan(xb.to_host(output)).all(axis=-1)
    assert lost.tolist() == [[False, True], [False, False]]
    assert np.isfinite(xb.to_host(layer.weight.grad)).all()
    for mode in ("sum", "mean", "max"):
        bag = nn.EmbeddingBag(6, 3, mode=mode, rng=0)
        output = xb.to_host(bag(x))
        assert np.isnan(output).all(axis=-1).tolist() == [True, False]
        assert np.isfinite(output[1]).all()


@pytest.mark.parametrize("xb_device", ["fake", "fake:1"], indirect=True)
@pytest.mark.parametrize("offsets", [[1, 2], [0, 3, 2], [0, 5], [-1, 0]])
def test_on_a_device_wrong_offsets_give_nan(offsets: list[int], xb_device: Device) -> None:
    x = on_device(np.array([1, 2, 3]))
    for mode in ("sum", "mean", "max"):
        layer = nn.EmbeddingBag(6, 3, mode=mode, rng=0)
        with xb.transfer_log() as log:
            output = layer(x, on_device(np.array(offsets)))
        assert (log.downloads, log.synchronizations) == (0, 0)
        assert np.isnan(xb.to_host(output)).all()


def test_what_stands_after_the_last_offset_is_in_no_bag(xb_device: Device) -> None:
    values = table()
    x, offsets = on_device(np.array([1, 2, 3, 4, 5])), on_device(np.array([0, 2, 4]))
    for mode, reduce in (("sum", np.sum), ("mean", np.mean), ("max", np.max)):
        layer = nn.EmbeddingBag(6, 3, mode=mode, include_last_offset=True, _weight=values)
        output, saved = layer.forward(x, offsets)
        expected = [reduce(values[[1, 2]], axis=0), reduce(values[[3, 4]], axis=0)]
        np.testing.assert_allclose(xb.to_host(output), expected, rtol=1e-6)
        layer.backward(output, saved)
        assert not xb.to_host(layer.weight.grad)[5].any()


# --- where the table comes from -------------------------------------------------------------


@pytest.mark.parametrize("name", ["Embedding", "EmbeddingBag"])
def test_from_pretrained_copies_and_freezes(name: str, xb_device: Device) -> None:
    values = table()
    for given in (values, on_device(values)):
        layer = getattr(nn, name).from_pretrained(given)
        assert not layer.weight.requires_grad
        layer.load_state_dict({"weight": values + 1})
        np.testing.assert_array_equal(xb.to_host(given), table())
    layer = getattr(nn, name).from_pretrained(values, freeze=False, padding_idx=-1)
    assert layer.weight.requires_grad
    assert layer.padding_idx == 5
    np.testing.assert_array_equal(xb.to_host(layer.weight.data), values)  # of the padding too
    wide = getattr(nn, name).from_pretrained(values.astype(np.float64), dtype="float64")
    assert wide.dtype == np.float64


@pytest.mark.parametrize("name", ["Embedding", "EmbeddingBag"])
def test_an_architecture_holds_no_values(name: str, tmp_path: Any, xb_device: Device) -> None:
    layer = getattr(nn, name).from_pretrained(table(), freeze=False, max_norm=2.0)
    plain = json.dumps(layer.config())
    assert "array" not in plain
    rebuilt = nn.from_config(json.loads(plain))
    assert rebuilt.config() == layer.config()
    assert (rebuilt.max_norm, rebuilt.weight.shape) == (2.0, (6, 3))
    xb.save(tmp_path / "model.safetensors", layer)
    loaded = xb.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.model.state_dict()["weight"], table())


@pytest.mark.parametrize("name", ["Embedding", "EmbeddingBag"])
def test_reset_parameters(name: str, xb_device: Device) -> None:
    layer = getattr(nn, name)(6, 3, padding_idx=2, rng=0)
    first = layer.state_dict()["weight"]
    assert not first[2].any()
    layer.reset_parameters(1)
    assert not layer.state_dict()["weight"][2].any()
    layer.reset_parameters(0)
    np.testing.assert_array_equal(layer.state_dict()["weight"], first)
    same = copy.deepcopy(layer)
    np.testing.assert_array_equal(same.state_dict()["weight"], first)
