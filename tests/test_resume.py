"""A run that was broken off goes on bit by bit, and refuses what is not its own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.backend.device import Device
from xbackprop.testing import TOLERANCES
from xbackprop.training import CheckpointError, CheckpointFolder, EpochMetrics
from xbackprop.training.history import history_arrays, history_rows

nn = xb.nn

EPOCHS, BATCHES = 3, 5  # of 10 samples; the last batch of each epoch is smaller


def make_trainer(
    seed: int = 0, *, optimizer: str = "Adam", accumulation_steps: int = 1, p: float = 0.3
) -> xb.Trainer:
    model = nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(), nn.Dropout(p), nn.Linear(8, 3), rng=seed
    )  # fmt: skip
    options: dict[str, Any] = {"momentum": 0.9, "dampening": 0.1} if optimizer == "SGD" else {}
    groups = [{"params": model[0].parameters(), "lr": 0.05}, {"params": model[3].parameters()}]
    made = getattr(xb.optim, optimizer)(groups, lr=0.02, **options)
    return xb.Trainer(
        model,
        nn.CrossEntropyLoss(weight=[1.0, 0.5, 2.0]),
        made,
        scheduler=xb.optim.StepLR(made, 1, gamma=0.5),
        accumulation_steps=accumulation_steps,
    )


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    y = rng.integers(0, 3, size=47)
    return rng.normal(size=(47, 4)) + y[:, None], y


def fit(trainer: xb.Trainer, kind: str = "arrays", **options: Any) -> list[EpochMetrics]:
    X, y = data()
    settings = {"epochs": EPOCHS, "test": (X[:9], y[:9]), **options}
    if kind == "arrays":
        return trainer.fit(X, y, batch_size=10, rng=7, **settings)
    batches = [(X[i : i + 10], y[i : i + 10]) for i in range(0, 47, 10)]
    return trainer.fit(batches if kind == "list" else Unsized(batches), **settings)


class Unsized:
    """An iterable that does not say how long it is."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Any:
        return iter(self.batches)


def everything(trainer: xb.Trainer) -> dict[str, Any]:
    state = trainer.optimizer.state_dict()
    return {
        "weights": {k: v.tobytes() for k, v in trainer.model.state_dict().items()},
        "extra": {k: v.tobytes() for k, v in trainer.model.extra_state().items()},
        "optimizer": {
            (number, name): value.tobytes() if isinstance(value, np.ndarray) else value
            for number, entry in state["state"].items()
            for name, value in entry.items()
        },
        "groups": state["param_groups"],
        "schedule": trainer.scheduler.state_dict(),
        "history": [replace(row, seconds=0.0) for row in trainer.history],
        "counts": (trainer.steps, trainer.epochs),
    }


def save_after(trainer: xb.Trainer, path: Path, batch: int, **options: Any) -> None:
    """Save after so many batches of the whole run, and go on to the end regardless."""
    done = 0

    def on_batch(number: int, total: int) -> None:
        nonlocal done
        done += 1
        if done == batch:
            trainer.save(path, counters={"batch": batch})

    fit(trainer, on_batch=on_batch, **options)


# --- bit by bit ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["arrays", "list", "unsized"])
@pytest.mark.parametrize("accumulation_steps", [1, 3])
@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
@pytest.mark.parametrize("batch", [1, 4, 5, 6, 9, 14, 15])
def test_a_run_goes_on_bit_by_bit(
    batch: int,
    optimizer: str,
    accumulation_steps: int,
    kind: str,
    xb_device: Device,
    tmp_path: Path,
) -> None:
    options: Any = {"optimizer": optimizer, "accumulation_steps": accumulation_steps}
    whole = make_trainer(**options)
    save_after(whole, tmp_path / "it", batch, kind=kind)
    resumed = make_trainer(seed=1, **options).resume(tmp_path / "it")
    rows = fit(resumed, kind)
    assert everything(resumed) == everything(whole)
    assert [row.epoch for row in rows] == list(range((batch - 1) // BATCHES + 1, EPOCHS + 1))


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("batch", [4, 6])
def test_running_statistics_go_on_bit_by_bit(
    batch: int, momentum: float | None, xb_device: Device, tmp_path: Path
) -> None:
    def make(seed: int) -> xb.Trainer:
        trainer = make_trainer(seed, accumulation_steps=2)
        trainer.model[1] = nn.BatchNorm1d(8, momentum=momentum)
        return trainer

    whole = make(0)
    save_after(whole, tmp_path / "it", batch)
    resumed = make(1).resume(tmp_path / "it")
    fit(resumed)
    assert everything(resumed) == everything(whole)
    assert whole.model[1].state_dict()["num_batches_tracked"] == EPOCHS * BATCHES


def test_at_the_end_of_an_epoch(xb_device: Device, tmp_path: Path) -> None:
    whole = make_trainer()
    fit(whole, on_epoch=lambda row: whole.save(tmp_path / str(row.epoch)))
    for epoch in range(1, EPOCHS + 1):
        resumed = make_trainer(seed=1).resume(tmp_path / str(epoch))
        assert [row.epoch for row in resumed.history] == list(range(1, epoch + 1))
        assert len(fit(resumed)) == EPOCHS - epoch
        assert everything(resumed) == everything(whole)


def test_stopped_again_and_again(xb_device: Device, tmp_path: Path) -> None:
    whole = make_trainer(accumulation_steps=2)
    fit(whole)
    trainer = make_trainer(accumulation_steps=2)
    for number in range(EPOCHS * BATCHES + 1):

        def on_batch(done: int, total: int, trainer: xb.Trainer = trainer) -> None:
            trainer.request_stop()

        fit(trainer, on_batch=on_batch)
        trainer.save(tmp_path / "it")
        if trainer.epochs == EPOCHS:
            break
        trainer = make_trainer(seed=number, accumulation_steps=2).resume(tmp_path / "it")
    assert everything(trainer) == everything(whole)


def test_after_a_change_of_the_learning_rate(xb_device: Device, tmp_path: Path) -> None:
    def run(trainer: xb.Trainer, save_at: int | None) -> None:
        def on_batch(number: int, total: int) -> None:
            if trainer.steps == 7:  # in the second epoch
                trainer.optimizer.param_groups[0]["lr"] = 0.3
            if trainer.steps == save_at:
                trainer.save(tmp_path / "it")

        fit(trainer, on_batch=on_batch)

    whole = make_trainer()
    run(whole, 8)
    resumed = make_trainer(seed=3).resume(tmp_path / "it")
    run(resumed, None)
    assert everything(resumed) == everything(whole)
    assert [row.lr for row in resumed.history] == [0.05, 0.025, 0.15]


SCHEDULES: dict[str, Any] = {
    "OneCycleLR": (lambda s, o: s.OneCycleLR(o, 0.1, total_steps=40), "step"),
    "CyclicLR": (lambda s, o: s.CyclicLR(o, 0.01, 0.1, 3, cycle_momentum=False), "step"),
    "ReduceLROnPlateau": (lambda s, o: s.ReduceLROnPlateau(o, patience=0, threshold=1.0), "epoch"),
    "SequentialLR": (
        lambda s, o: s.SequentialLR(o, [s.LinearLR(o), s.ExponentialLR(o, 0.9)], [4]), "step",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULES)
def test_with_every_kind_of_schedule(name: str, xb_device: Device, tmp_path: Path) -> None:
    make, interval = SCHEDULES[name]

    def trainer(seed: int) -> xb.Trainer:
        plain = make_trainer(seed)
        optimizer = xb.optim.Adam(plain.model.parameters(), lr=0.05)
        schedule = make(xb.optim.lr_scheduler, optimizer)
        return xb.Trainer(
            plain.model, plain.loss_fn, optimizer,
            scheduler=schedule, scheduler_interval=interval,
        )  # fmt: skip

    whole = trainer(0)
    save_after(whole, tmp_path / "it", 7)
    resumed = trainer(1).resume(tmp_path / "it")
    fit(resumed)
    assert everything(resumed) == everything(whole)
    rates = [row.lr for row in whole.history]
    assert len(set(rates)) > 1, "a schedule that does nothing shows nothing"


def test_schedules_that_make_no_sense() -> None:
    plain = make_trainer()
    schedule = xb.optim.lr_scheduler.ReduceLROnPlateau(plain.optimizer)
    for options, words in (
        ({"scheduler_interval": "batch"}, "'epoch' or 'step'; got 'batch'"),
        ({"scheduler": schedule, "scheduler_interval": "step"}, "ReduceLROnPlateau watches epochs"),
    ):
        with pytest.raises(ValueError, match=words):
            xb.Trainer(plain.model, plain.loss_fn, plain.optimizer, **options)


def test_an_optimizer_that_needs_a_closure_is_refused() -> None:
    plain = make_trainer()
    optimizer = xb.optim.LBFGS(plain.model.parameters())
    with pytest.raises(NotImplementedError, match=r"Trainer with LBFGS.*step\(closure\)"):
        xb.Trainer(plain.model, plain.loss_fn, optimizer)


def test_a_longer_run_is_the_longer_run(xb_device: Device, tmp_path: Path) -> None:
    short, whole = make_trainer(), make_trainer()
    fit(short, epochs=2, on_epoch=lambda row: short.save(tmp_path / "it"))
    fit(whole, epochs=4)
    resumed = make_trainer(seed=1).resume(tmp_path / "it")
    fit(resumed, epochs=4)
    assert everything(resumed) == everything(whole)


def test_a_finished_fit_leaves_nothing_to_go_on_with(xb_device: Device, tmp_path: Path) -> None:
    whole = make_trainer()
    fit(whole)
    whole.save(tmp_path / "it")
    resumed = make_trainer(seed=1).resume(tmp_path / "it")
    assert everything(resumed) == everything(whole)
    fit(whole, epochs=1)
    assert len(fit(resumed, epochs=1)) == 1
    assert everything(resumed) == everything(whole)


@pytest.mark.parametrize("places", [("cpu", "fake"), ("fake", "cpu"), ("fake", "fake:1")])
def test_saved_on_one_device_and_resumed_on_another(
    places: tuple[str, str], tmp_path: Path
) -> None:
    with xb.use_device(places[0]):
        whole = make_trainer(accumulation_steps=3)
        save_after(whole, tmp_path / "it", 7)
    with xb.use_device(places[1]) as place:
        resumed = make_trainer(seed=1, accumulation_steps=3).resume(tmp_path / "it")
        fit(resumed)
        assert resumed.model.device == place
    expected = whole.model.state_dict()
    for name, values in resumed.model.state_dict().items():
        np.testing.assert_allclose(values, expected[name], rtol=TOLERANCES["float32"].peer)
    assert [row.test_accuracy for row in resumed.history] == [
        row.test_accuracy for row in whole.history
    ]


def test_shuffled_by_the_process_generator(xb_device: Device, tmp_path: Path) -> None:
    X, y = data()
    whole = make_trainer()
    xb.manual_seed(3)
    done = []

    def on_batch(number: int, total: int) -> None:
        done.append(number)
        if len(done) == 7:
            whole.save(tmp_path / "it")

    whole.fit(X, y, epochs=2, batch_size=10, on_batch=on_batch)
    xb.manual_seed(4)
    resumed = make_trainer(seed=1).resume(tmp_path / "it")
    resumed.fit(X, y, epochs=2, batch_size=10)
    assert everything(resumed) == everything(whole)


def test_frozen_layers_stay_frozen(xb_device: Device, tmp_path: Path) -> None:
    whole = make_trainer()
    whole.model[0].requires_grad_(False)
    save_after(whole, tmp_path / "it", 7)
    resumed = make_trainer(seed=1).resume(tmp_path / "it")
    fit(resumed)
    assert everything(resumed) == everything(whole)


def test_load_reads_what_a_trainer_saved(xb_device: Device, tmp_path: Path) -> None:
    trainer = make_trainer()
    save_after(trainer, tmp_path / "it", 15)
    found = xb.load(tmp_path / "it")
    assert found.counters == {"batch": 15}
    assert found.optimizer_type == "Adam"
    expected = trainer.model.state_dict()
    assert all((v == expected[k]).all() for k, v in found.model.state_dict().items())


# --- accumulation -------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weight", [None, [1.0, 0.25, 3.0]])
def test_accumulated_batches_are_one_batch(weight: Any, reduction: str, xb_device: Device) -> None:
    X, y = data()
    y = np.where(np.arange(47) % 5 == 0, -100, y)  # ignored labels, unevenly spread
    models = []
    for parts in ([slice(0, 47)], [slice(0, 10), slice(10, 14), slice(14, 47)]):
        model = nn.Sequential(nn.Linear(4, 3, dtype=np.float64), rng=0)
        loss = nn.CrossEntropyLoss(weight, reduction=reduction).to(dtype=np.float64)
        optimizer = xb.optim.SGD(model.parameters(), lr=0.1)
        trainer = xb.Trainer(model, loss, optimizer, accumulation_steps=len(parts))
        for part in parts:
            before = model.state_dict()["0.weight"]
            trainer.step(X[part], y[part])
        assert (before != model.state_dict()["0.weight"]).any()
        assert trainer.steps == 1
        models.append(model.state_dict())
    for name, values in models[0].items():
        np.testing.assert_allclose(models[1][name], values, rtol=1e-12, atol=1e-14)


def test_an_epoch_ends_with_an_update_of_what_is_left(xb_device: Device) -> None:
    trainer = make_trainer(accumulation_steps=3)
    rows = fit(trainer, epochs=2)
    assert [row.step for row in rows] == [2, 4]  # 3 + 2 batches an epoch
    assert trainer.stepper.group.batches == 0


@pytest.mark.parametrize("xb_device", ["fake"], indirect=True)
@pytest.mark.parametrize("weight", [None, [1.0, 0.25, 3.0]])
def test_accumulation_uploads_its_batches_and_downloads_nothing(
    weight: Any, xb_device: Device
) -> None:
    X, y = data()
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.1), rng=0)
    trainer = xb.Trainer(
        model,
        nn.CrossEntropyLoss(weight),
        xb.optim.Adam(model.parameters()),
        accumulation_steps=2,
    )
    with xb.transfer_log() as log:
        for _ in range(5):
            trainer.step(X[:8], y[:8])
    assert (log.uploads, log.downloads, log.synchronizations) == (10, 0, 0)


def test_a_batch_that_fails_leaves_no_half_of_its_gradients(xb_device: Device) -> None:
    X, y = data()
    trainer, clean = (make_trainer(accumulation_steps=2) for _ in range(2))
    trainer.step(X[:8], y[:8])
    with pytest.raises(ValueError, match="expects x of shape"):
        trainer.step(X[:8, :2], y[:8])  # refused in the forward: the group stays
    assert trainer.stepper.group.batches == 1
    first = trainer.model[0]
    backward, first.backward = first.backward, fail
    with pytest.raises(MemoryError):
        trainer.step(X[8:16], y[8:16])
    first.backward = backward
    clean.model.load_extra_state(trainer.model.extra_state())
    for each in (trainer, clean):
        for part in (slice(16, 24), slice(24, 40)):
            each.step(X[part], y[part])
    assert everything(trainer)["weights"] == everything(clean)["weights"]


def fail(*arguments: Any, **options: Any) -> Any:
    raise MemoryError


# --- refusals -----------------------------------------------------------------------------


def other_network() -> xb.Trainer:
    return make_trainer(p=0.5)


def other_optimizer() -> xb.Trainer:
    return make_trainer(optimizer="SGD")


def other_accumulation() -> xb.Trainer:
    return make_trainer(accumulation_steps=2)


def other_loss() -> xb.Trainer:
    trainer = make_trainer()
    return xb.Trainer(
        trainer.model, nn.CrossEntropyLoss(), trainer.optimizer, scheduler=trainer.scheduler
    )


def no_schedule() -> xb.Trainer:
    trainer = make_trainer()
    return xb.Trainer(trainer.model, trainer.loss_fn, trainer.optimizer)


def other_groups() -> xb.Trainer:
    trainer = make_trainer()
    optimizer = xb.optim.Adam(trainer.model.parameters())
    schedule = xb.optim.StepLR(optimizer, 1)
    return xb.Trainer(trainer.model, trainer.loss_fn, optimizer, scheduler=schedule)


def other_dtype() -> xb.Trainer:
    trainer = make_trainer()
    trainer.model.to(dtype=np.float64)
    return trainer


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (other_network, "another network"),
        (other_optimizer, "another optimizer .*saved Adam, here SGD"),
        (other_accumulation, "another accumulation_steps .*saved 1, here 2"),
        (other_loss, "another loss"),
        (no_schedule, "another scheduler_type .*saved StepLR, here None"),
        (other_groups, r"expected groups of \[4\] parameters; got \[2, 2\]"),
        (other_dtype, "0.weight is float64, and was saved as float32"),
    ],
)
def test_another_run_is_refused_and_nothing_changes(
    make: Any, words: str, xb_device: Device, tmp_path: Path
) -> None:
    save_after(make_trainer(), tmp_path / "it", 7)
    trainer = make()
    before = trainer.model.state_dict(), trainer.optimizer.state_dict(), trainer.steps
    with pytest.raises(CheckpointError, match=f"it: cannot be resumed.*{words}"):
        trainer.resume(tmp_path / "it")
    for name, values in trainer.model.state_dict().items():
        assert values.tobytes() == before[0][name].tobytes()
    assert str(trainer.optimizer.state_dict()) == str(before[1])
    assert (trainer.steps, trainer.resumed_fit) == (before[2], None)


def test_a_model_without_a_run_is_refused(xb_device: Device, tmp_path: Path) -> None:
    trainer = make_trainer()
    xb.save(tmp_path / "it", trainer.model, trainer.optimizer)
    with pytest.raises(CheckpointError, match="holds a model and no run"):
        trainer.resume(tmp_path / "it")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        trainer.resume(tmp_path / "nowhere")


def test_other_data_are_refused(xb_device: Device, tmp_path: Path) -> None:
    save_after(make_trainer(), tmp_path / "it", 7)
    X, y = data()
    with pytest.raises(ValueError, match="batch_size"):
        make_trainer().resume(tmp_path / "it").fit(X, y, batch_size=9, rng=0, epochs=EPOCHS)
    with pytest.raises(ValueError, match="given in the same way"):
        fit(make_trainer().resume(tmp_path / "it"), "list")


# --- the folder ---------------------------------------------------------------------------


def test_the_last_and_the_best_are_kept(xb_device: Device, tmp_path: Path) -> None:
    trainer = make_trainer()
    folder = CheckpointFolder(tmp_path / "checkpoints", keep=2)
    scores = [3.0, 1.0, 2.0, 2.0, float("nan"), 1.5]
    for number, score in enumerate(scores, 1):
        trainer.stepper.steps = number
        row = EpochMetrics(number, number, 9.0, None, score, None, 0.1, 0, 1.0)
        trainer.history.append(row)
        folder.save(trainer)
        names = [int(path.stem[5:]) for path in folder.newest_first()]
        expected = {1: [1], 2: [2, 1], 3: [3, 2], 4: [4, 3, 2], 5: [5, 4, 2], 6: [6, 5, 2]}
        assert names == expected[number]
    assert folder.best(trainer.history) == tmp_path / "checkpoints" / "step-00000002.safetensors"
    assert folder.best([]) is None


def test_a_damaged_newest_file_is_passed_over(xb_device: Device, tmp_path: Path) -> None:
    whole = make_trainer()
    folder = CheckpointFolder(tmp_path, keep=2)
    fit(whole, on_epoch=lambda row: folder.save(whole))
    newest, older = folder.newest_first()
    newest.write_bytes(newest.read_bytes()[:-1])
    (tmp_path / ".xbackprop-0123456789abcdef.tmp").write_bytes(b"left by a killed process")
    resumed = make_trainer(seed=1)
    path, damaged = folder.resume(resumed)
    assert path == older
    assert len(damaged) == 1
    assert newest.name in str(damaged[0])
    assert [path.name for path in sorted(tmp_path.iterdir())] == [older.name, newest.name]
    fit(resumed)
    assert everything(resumed) == everything(whole)
    older.write_bytes(b"")
    with pytest.raises(CheckpointError, match=newest.name):
        folder.resume(make_trainer())
    assert CheckpointFolder(tmp_path / "none").resume(make_trainer()) == (None, [])


def test_history_survives_as_arrays() -> None:
    rows = [
        EpochMetrics(1, 90, 0.1 + 0.2, None, None, None, 1e-3, 0, 0.5),
        EpochMetrics(2, 2**53, float("nan"), 1 / 3, float("inf"), 0.0, 1e-4, 7, 1.25),
    ]
    for some in (rows, rows[:1], []):
        assert str(history_rows(history_arrays(some))) == str(some)
