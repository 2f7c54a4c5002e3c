"""Out of memory in the middle of a step: MemoryError, nothing changed, and training goes on.

The stand-in's memory limit is set at many places between what is held before a step and what the
step needs at its peak.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from optimizer_cases import OPTIMIZERS, OptimizerCase

import xbackprop as xb
from xbackprop.backend.device import Device
from xbackprop.backend.fake import memory_of, set_memory_limit
from xbackprop.backend.fake.memory import Allocation
from xbackprop.optim import Optimizer

nn = xb.nn
every_optimizer = pytest.mark.parametrize(
    "case", OPTIMIZERS, ids=lambda case: case.name.replace(" ", "-")
)
masking = pytest.mark.parametrize("skip", [False, True], ids=["plain", "skip_nonfinite"])


@pytest.fixture(autouse=True)
def no_limit_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # The garbage of a process of tests takes 0.1 s to collect, and memory runs out often here.
    monkeypatch.setattr("xbackprop.backend.memory.gc.collect", lambda: 0)
    yield
    set_memory_limit(None)


def limits(idle: int, peak: int, number: int) -> list[int]:
    """Return so many limits from `idle` to `peak`, both included."""
    return [idle + (peak - idle) * i // (number - 1) for i in range(number)]


def peak_of(function: Callable[[], object]) -> tuple[int, int]:
    """Return the bytes held before a call, and the most that it held."""
    memory = memory_of(0)
    memory.reset_peak()
    idle = memory.used
    function()
    return idle, memory.peak


def runs_out(function: Callable[[], object]) -> bool:
    try:
        function()
    except MemoryError:  # whose traceback would keep the call's arrays alive
        return True
    return False


# --- the update of an optimizer ------------------------------------------------------------


class Updates:
    """Parameters in two groups, and an optimizer a few steps into their training."""

    def __init__(self, case: OptimizerCase, skip: bool, *, apart: bool, size: int = 60) -> None:
        self.rng = np.random.default_rng(0)
        sizes = (size, size // 2, 3 * size)
        self.parameters = [xb.Parameter(xb.asarray(case.arrange(self.draw(n)))) for n in sizes]
        first, *second = self.parameters
        self.optimizer = case.make([{"params": first}, {"params": second, "lr": 0.02}])
        self.optimizer.skip_nonfinite = self.optimizer.stop_at_nonfinite = skip
        for step in range(2):
            self.give_gradients()
            if apart and step == 1:  # from here on the counts of the second group differ
                second[0].zero_grad()
            self.optimizer.step()
        self.give_gradients()

    def draw(self, size: int) -> np.ndarray:
        return self.rng.normal(size=size).astype(np.float32)

    def give_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = xb.asarray(self.draw(parameter.size).reshape(parameter.shape))

    def everything(self) -> dict[str, Any]:
        found: dict[str, Any] = {"calls": self.optimizer.calls}
        for number, parameter in enumerate(self.parameters):
            found[f"data {number}"] = xb.to_host(parameter.data).tobytes()
            found[f"grad {number}"] = xb.to_host(parameter.grad).tobytes()
            found[f"version {number}"] = parameter.version
        for number, entry in self.optimizer.state_dict()["state"].items():
            found |= {f"{name} {number}": np.asarray(v).tobytes() for name, v in entry.items()}
        flats = self.optimizer._flats
        found["counts"] = [list(flat.counts) for flat in flats]
        return found


@xb.use_device("fake")
def starve_updates(case: OptimizerCase, skip: bool, apart: bool, number: int) -> tuple[int, int]:
    """Return how many limits a step refused, and how many steps were made."""
    expected = Updates(case, skip, apart=apart)
    idle, peak = peak_of(expected.optimizer.step)
    after = strip_versions(expected.everything())
    del expected
    refused = 0
    updates = Updates(case, skip, apart=apart)
    idle, peak = memory_of(0).used, memory_of(0).used + peak - idle
    before = updates.everything()
    for limit in limits(idle, peak, number):
        set_memory_limit(limit)
        if not runs_out(updates.optimizer.step):
            assert strip_versions(updates.everything()) == after, (case.name, limit)
            set_memory_limit(None)
            updates = Updates(case, skip, apart=apart)
            before = updates.everything()
            continue
        refused += 1
        set_memory_limit(None)  # looking makes copies
        assert updates.everything() == before, f"{case.name}: a refused step changed something"
    return refused, number - refused


def strip_versions(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if not name.startswith("version")}


@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
@masking
@every_optimizer
def test_an_update_happens_as_a_whole_or_not_at_all(
    case: OptimizerCase, skip: bool, apart: bool
) -> None:
    refused, made = starve_updates(case, skip, apart, 52)
    assert refused >= 50
    assert made >= 1


@masking
@every_optimizer
def test_the_reservation_is_what_the_update_needs(
    case: OptimizerCase, skip: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not less, or it could run out half way; and not one array more than that."""
    monkeypatch.setattr(Optimizer, "_reserve", lambda self, flats: None)
    with xb.use_device("fake"):
        updates = Updates(case, skip, apart=False, size=100_000)
        idle, peak = peak_of(updates.optimizer.step)
    largest = max(updates.optimizer._flats, key=lambda flat: flat.array_bytes)
    scalars = sum(flat.scalar_bytes for flat in updates.optimizer._flats)
    needed = peak - idle
    declared = updates.optimizer.scratch_arrays(largest.group)
    assert needed <= declared * largest.array_bytes + scalars
    assert declared < needed / largest.array_bytes + 1.01


@pytest.mark.parametrize("shape", [(300, 300), (300, 40), (40, 300)], ids=str)
@every_optimizer
def test_the_reservation_of_a_matrix(
    case: OptimizerCase, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Optimizer, "_reserve", lambda self, flats: None)
    with xb.use_device("fake"):
        w = xb.Parameter(xb.asarray(np.random.default_rng(0).normal(size=shape)))
        optimizer = case.make([w])
        for _ in range(2):
            w.grad = w.data
            idle, peak = peak_of(optimizer.step)  # of the second step: the first packs
    (flat,) = optimizer._flats
    assert peak - idle <= optimizer.scratch_arrays(flat.group) * flat.array_bytes + 4096


@pytest.mark.parametrize("skip", [False, True], ids=["plain", "skip_nonfinite"])
@every_optimizer
def test_the_reservation_suffices_where_memory_comes_in_blocks(
    case: OptimizerCase, skip: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in CuPy's pool: a scalar takes 512 bytes, and here are many parameters of one number."""
    allocate = Allocation.__init__

    def in_blocks(self: Allocation, memory: Any, size_bytes: int) -> None:
        allocate(self, memory, -(-size_bytes // 512) * 512)

    monkeypatch.setattr(Allocation, "__init__", in_blocks)
    with xb.use_device("fake"):
        parameters = [xb.Parameter(xb.asarray(case.arrange([1.0]))) for _ in range(40)]
        optimizer = case.make(parameters)
        optimizer.skip_nonfinite = optimizer.stop_at_nonfinite = skip
        for parameter in parameters[:39]:  # so that they are updated one by one
            parameter.grad = xb.asarray(case.arrange([1.0]))
        optimizer.packed()
        idle = memory_of(0).used
        _, reserved = peak_of(lambda: optimizer._reserve(optimizer._flats))
        set_memory_limit(reserved - 1)
        assert runs_out(optimizer.step)
        set_memory_limit(reserved)
        optimizer.step()
        assert idle < memory_of(0).used <= reserved
        set_memory_limit(None)
        assert all(xb.to_host(p.data).item() != 1.0 for p in parameters[:39])


@every_optimizer
def test_packing_runs_out_of_memory(case: OptimizerCase) -> None:
    """The state of training is the same before, after, and wherever packing stopped."""
    with xb.use_device("fake"):
        expected = Updates(case, False, apart=True)
        expected.optimizer.step()
        for limit_number in range(12):
            updates = Updates(case, False, apart=True)
            before = strip_counts(updates.everything())
            for parameter in updates.parameters:  # new storage: the cache is stale
                grad = parameter.grad
                parameter.data = parameter.data.copy()
                parameter.grad = grad.copy()
            idle = memory_of(0).used
            set_memory_limit(idle + 150 * limit_number)
            was_refused = runs_out(updates.optimizer.step)
            set_memory_limit(None)
            if was_refused:
                assert strip_counts(updates.everything()) == before
                updates.optimizer.step()
            assert strip_counts(updates.everything()) == strip_counts(expected.everything())
            if limit_number < 3:
                assert was_refused


def strip_counts(found: dict[str, Any]) -> dict[str, Any]:
    return {name: v for name, v in strip_versions(found).items() if name != "counts"}


def test_scaling_of_gradients_runs_out_of_memory() -> None:
    with xb.use_device("fake"):
        parameters = [xb.Parameter(xb.asarray(np.full(3, 2.0))) for _ in range(5)]
        for parameter in parameters:
            parameter.grad = parameter.data
        idle, peak = peak_of(lambda: xb.optim.clip_grad_norm_(parameters, 1e9))
        refused = 0
        for limit in range(idle, peak):
            set_memory_limit(limit)
            refused += runs_out(lambda: xb.optim.clip_grad_norm_(parameters, 0.5))
            set_memory_limit(None)
            for parameter in parameters:
                assert xb.to_host(parameter.grad).tolist() == [2.0] * 3
        assert refused == peak - idle


# --- the whole step ------------------------------------------------------------------------

LARGE, SMALL = 64, 2


class Training:
    """A network with running random state, trained by the Trainer."""

    def __init__(self, case: OptimizerCase, warm: int) -> None:
        self.model = nn.Sequential(
            nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.3), nn.Recompute(nn.Linear(16, 16)),
            nn.Dropout(0.2), nn.Linear(16, 3), rng=0,
        )  # fmt: skip
        self.optimizer = case.make(case.trainable(self.model.parameters()))
        self.trainer = xb.Trainer(
            self.model, nn.CrossEntropyLoss(), self.optimizer, check_every=1000
        )
        rng = np.random.default_rng(1)
        self.x = xb.asarray(rng.normal(size=(LARGE, 6)))
        self.y = xb.asarray(rng.integers(0, 3, size=LARGE))
        for _ in range(warm):
            self.step(SMALL)

    def step(self, samples: int) -> None:
        self.trainer.step(self.x[:samples], self.y[:samples])

    def everything(self) -> dict[str, Any]:
        found: dict[str, Any] = {"calls": self.optimizer.calls, "steps": self.trainer.steps}
        found |= {name: a.tobytes() for name, a in self.model.state_dict().items()}
        found |= {name: a.tobytes() for name, a in self.model.extra_state().items()}
        for number, entry in self.optimizer.state_dict()["state"].items():
            found |= {f"{name} {number}": np.asarray(v).tobytes() for name, v in entry.items()}
        return found


def run_out_of_memory(case: OptimizerCase, warm: int, number: int) -> dict[str, int]:
    """Return how many limits there were, how many large steps and how many small ones passed."""
    unlimited = {}
    needs = {}
    with xb.use_device("fake"):
        for samples in (LARGE, SMALL):
            training = Training(case, warm)
            idle, peak = peak_of(lambda t=training, n=samples: t.step(n))
            needs[samples], unlimited[samples] = peak - idle, training.everything()
            del training
        counts = dict.fromkeys(("limits", "large refused", "small after it"), 0)
        for more in limits(0, needs[LARGE], number):
            training = Training(case, warm)
            before = training.everything()
            limit = memory_of(0).used + more
            set_memory_limit(limit)
            counts["limits"] += 1
            if not runs_out(lambda t=training: t.step(LARGE)):
                set_memory_limit(None)
                assert training.everything() == unlimited[LARGE]
                del training
                continue
            counts["large refused"] += 1
            set_memory_limit(None)
            assert training.everything() == before, f"{case.name} changed by a refused step"
            set_memory_limit(limit)
            small_ran_out = runs_out(lambda t=training: t.step(SMALL))
            set_memory_limit(None)
            if small_ran_out:
                assert more < needs[SMALL] + gradient_bytes(training)
                assert training.everything() == before
                training.step(LARGE)  # the limit is lifted
                assert training.everything() == unlimited[LARGE]
            else:
                counts["small after it"] += 1
                assert training.everything() == unlimited[SMALL]
            del training
    return counts


def gradient_bytes(training: Training) -> int:
    """What the refused step may have left allocated: gradients, to be filled by the next."""
    return sum(parameter.data.nbytes for parameter in training.model.parameters())


@pytest.mark.parametrize("warm", [0, 2], ids=["first step", "third step"])
@pytest.mark.parametrize(
    "name", ["SGD", "SGD with everything", "Adam with everything", "AdamW", "Muon"]
)
def test_a_smaller_batch_goes_on(name: str, warm: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Which batch would fit is looked for in test_out_of_memory.py.
    monkeypatch.setattr("xbackprop.training.memory._measure", lambda *arguments: None)
    (case,) = (row for row in OPTIMIZERS if row.name == name)
    counts = run_out_of_memory(case, warm, 50)
    assert counts["limits"] == 50
    assert counts["large refused"] >= 49
    assert counts["small after it"] >= 5


def test_memory_of_a_process_runs_out_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, xb_device: Device
) -> None:
    """The reservation comes first on every device, the CPU included."""
    model = nn.Linear(3, 2, rng=0)
    optimizer = xb.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = parameter.data
    optimizer.step()
    before, state = model.state_dict(), optimizer.state_dict()

    def refuse(self: Any, flats: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Optimizer, "_reserve", refuse)
        assert runs_out(optimizer.step)
    assert optimizer.calls == 1
    for name, array in model.state_dict().items():
        assert array.tobytes() == before[name].tobytes()
    np.testing.assert_equal(optimizer.state_dict(), state)
