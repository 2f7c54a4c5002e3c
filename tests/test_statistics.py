"""What is recorded of each layer: NumPy's numbers, one download a row, nothing else changed."""

import json
import math

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.observe.statistics import EDGES


def parts(rows, every=1, *, lr=0.1, clip_norm=None, accumulation_steps=1):
    model = xb.nn.Sequential(xb.nn.Linear(3, 4), xb.nn.ReLU(), xb.nn.Linear(4, 2), rng=0)
    optimizer = xb.optim.SGD(model.parameters(), lr=lr)
    recorder = xb.observe.StatisticsRecorder(model, optimizer, every=every, on_row=rows.append)
    trainer = xb.Trainer(
        model, xb.nn.MSELoss(), optimizer, clip_norm=clip_norm, watcher=recorder,
        accumulation_steps=accumulation_steps,
    )  # fmt: skip
    return model, trainer


def batch(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(5, 3)).astype("f4"), rng.normal(size=(5, 2)).astype("f4")


def counts_of(histogram):
    counts = np.zeros(len(EDGES) + 1, int)
    first = histogram["first"]
    counts[first : first + len(histogram["counts"])] = histogram["counts"]
    return counts


def expected_counts(values):
    values = np.ravel(values)
    places = np.searchsorted(EDGES.astype("f4"), values, side="right")
    return np.bincount(places, minlength=len(EDGES) + 1)


def assert_describes(told, values):
    values = np.ravel(values).astype(float)
    for name in ("mean", "std", "min", "max"):
        assert told[name] == pytest.approx(getattr(values, name)(), rel=1e-6, abs=1e-9)
    assert (counts_of(told) == expected_counts(values.astype("f4"))).all()


@pytest.mark.parametrize("clip_norm", [None, 1e-3])
def test_a_row_tells_numpys_numbers(xb_device, clip_norm):
    rows = []
    model, trainer = parts(rows, clip_norm=clip_norm)
    x, y = batch()
    before = model.state_dict()
    hidden = x @ before["0.weight"].T + before["0.bias"]
    shown = np.maximum(hidden, 0)
    trainer.step(x, y)
    after = model.state_dict()
    (row,) = rows
    assert (row["step"], row["lr"]) == (1, 0.1)
    assert list(row["layers"]) == ["0", "1", "2"]
    assert [layer["type"] for layer in row["layers"].values()] == ["Linear", "ReLU", "Linear"]
    assert_describes(row["layers"]["0"]["outputs"], hidden)
    assert_describes(row["layers"]["1"]["outputs"], shown)
    assert sorted(row["layers"]["1"]) == ["outputs", "type"]
    grads = gradients_of(x, y, before)
    for path in ("0", "2"):
        layer = row["layers"][path]
        mine = np.concatenate([grads[f"{path}.{name}"].ravel() for name in ("weight", "bias")])
        assert_describes(layer["gradients"], mine)
        assert layer["grad_norm"] == pytest.approx(np.linalg.norm(mine), rel=1e-5)
        weights = [before[f"{path}.{name}"].ravel() for name in ("weight", "bias")]
        assert layer["weight_norm"] == pytest.approx(np.linalg.norm(np.concatenate(weights)))
        moved = [(after[key] - before[key]).ravel() for key in after if key.startswith(path)]
        size = np.linalg.norm(np.concatenate(moved))
        assert layer["update_norm"] == pytest.approx(size, rel=1e-4)
        if clip_norm is None:
            assert size == pytest.approx(0.1 * layer["grad_norm"], rel=1e-4)
    total = math.hypot(*(row["layers"][path]["grad_norm"] for path in ("0", "2")))
    assert row["grad_norm"] == pytest.approx(total)
    json.dumps(row, allow_nan=False)


def gradients_of(x, y, state):
    model = xb.nn.Sequential(xb.nn.Linear(3, 4), xb.nn.ReLU(), xb.nn.Linear(4, 2), rng=0)
    model.load_state_dict(state)
    with xb.use_references():  # the bits of the layers, which are watched
        xb.value_and_grad(model, xb.nn.MSELoss())(xb.asarray(x), xb.asarray(y))
    return {name: xb.to_host(p.grad) for name, p in model.named_parameters()}


def test_update_one_and_every_nth_are_recorded_with_one_download_each(xb_device):
    rows = []
    _, trainer = parts(rows, every=4)
    x, y = (xb.asarray(array) for array in batch())
    trainer.step(x, y)
    recorded = []
    for _ in range(8):
        before = len(rows)
        with xb.transfer_log() as log:
            trainer.step(x, y)
        recorded.append((len(rows) - before, log.uploads, log.downloads, log.synchronizations))
    assert [row["step"] for row in rows] == [1, 4, 8]
    on_device = str(xb_device) != "cpu"
    quiet, due = (0, 0, 0, 0), (1, 0, int(on_device), int(on_device))
    assert recorded == [quiet, quiet, due, quiet, quiet, quiet, due, quiet]


@pytest.mark.parametrize("accumulation_steps", [1, 3])
def test_recording_changes_no_bit(xb_device, accumulation_steps):
    courses = []
    for every in (1, 10**9):
        rows = []
        model, trainer = parts(rows, every=every, accumulation_steps=accumulation_steps)
        trainer.fit(np.tile(batch()[0], (4, 1)), np.tile(batch()[1], (4, 1)), batch_size=4, rng=0,
                    epochs=2)  # fmt: skip
        courses.append((trainer.history[-1].train_loss, model.state_dict()))
        assert [row["step"] for row in rows] == (
            list(range(1, trainer.steps + 1)) if every == 1 else [1]
        )
    (loss, state), (other_loss, other_state) = courses
    assert loss == other_loss
    for key, array in state.items():
        assert (array == other_state[key]).all()


def test_a_loss_that_is_nan_is_recorded_as_plain_data():
    rows = []
    with xb.use_device("cpu"):
        _, trainer = parts(rows)
        x, y = batch()
        x[0, 0] = np.nan
        with pytest.raises(xb.training.NonFiniteError):
            trainer.step(x, y)
    layer = rows[0]["layers"]["0"]
    assert layer["grad_norm"] is None
    assert layer["update_norm"] == 0.0  # left out
    assert sum(layer["outputs"]["counts"]) == 20
    assert counts_of(layer["outputs"])[-1] == 4
    json.dumps(rows, allow_nan=False)


def test_shared_layers_and_frozen_parameters():
    rows = []
    with xb.use_device("cpu"):
        shared = xb.nn.Linear(3, 3, rng=0)
        model = xb.nn.Sequential(shared, xb.nn.Tanh(), shared, xb.nn.Linear(3, 2, rng=1))
        model[0].weight.requires_grad = False
        optimizer = xb.optim.SGD(model.parameters(), lr=0.1)
        recorder = xb.observe.StatisticsRecorder(model, optimizer, every=1, on_row=rows.append)
        xb.Trainer(model, xb.nn.MSELoss(), optimizer, watcher=recorder).step(*batch())
    layers = rows[0]["layers"]
    assert sum(layers["0"]["gradients"]["counts"]) == 3  # of the bias only
    assert set(layers) >= {"0", "1", "3"}


def test_every_is_at_least_one():
    model = xb.nn.Linear(1, 1, rng=0)
    optimizer = xb.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="every >= 1; got 0"):
        xb.observe.StatisticsRecorder(model, optimizer, every=0, on_row=print)


def test_a_number_at_an_edge_belongs_to_the_bin_above(xb_device):
    rows = []
    model = xb.nn.Sequential(xb.nn.Identity(), xb.nn.Linear(1, 1, rng=0))
    optimizer = xb.optim.SGD(model.parameters(), lr=0.1)
    recorder = xb.observe.StatisticsRecorder(model, optimizer, every=1, on_row=rows.append)
    x = EDGES.astype("f4")[:, np.newaxis]
    trainer = xb.Trainer(model, xb.nn.MSELoss(), optimizer, watcher=recorder)
    trainer.step(x, np.zeros_like(x))
    assert counts_of(rows[0]["layers"]["0"]["outputs"]).tolist() == [0] + [1] * len(EDGES)
    assert not any("forward" in module.__dict__ for module in model.modules())
