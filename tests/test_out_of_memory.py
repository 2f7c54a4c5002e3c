"""A full GPU: the pool is emptied, the step tried once more, and a batch that fits named."""

import re
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cupy_stand_in import CUDARuntimeError, OutOfMemoryError

import xbackprop as xb
from xbackprop.backend.device import Device
from xbackprop.backend.fake import memory_of, set_memory_limit
from xbackprop.backend.memory import (
    DeviceMemoryError,
    free_unused_memory,
    is_out_of_memory,
    limit_memory,
    memory_state,
    requested_limit,
)

nn = xb.nn
SAMPLES = 64
BOOK = memory_of(0)


@pytest.fixture(autouse=True)
def on_an_empty_fake() -> Iterator[None]:
    with xb.use_device("fake"):
        yield
    set_memory_limit(None)
    BOOK.free_unused()


class Training:
    def __init__(self, **options: Any) -> None:
        self.model = nn.Sequential(
            nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 3),
            rng=0,
        )  # fmt: skip
        self.optimizer = xb.optim.Adam(self.model.parameters())
        self.trainer = xb.Trainer(self.model, nn.CrossEntropyLoss(), self.optimizer, **options)
        rng = np.random.default_rng(1)
        self.host = rng.normal(size=(SAMPLES, 8)).astype("f4"), rng.integers(0, 3, size=SAMPLES)
        self.x, self.y = map(xb.asarray, self.host)

    def step(self, samples: int = SAMPLES) -> None:
        self.trainer.step(self.x[:samples], self.y[:samples])

    def need(self) -> int:
        """What a step of all samples takes beyond what is held."""
        twin = Training()
        twin.step(2)
        free_unused_memory(Device("fake"))
        return BOOK.measure(twin.step)

    def everything(self) -> dict[str, Any]:
        found: dict[str, Any] = {"calls": self.optimizer.calls, "steps": self.trainer.steps}
        found |= {name: a.tobytes() for name, a in self.model.state_dict().items()}
        found |= {name: a.tobytes() for name, a in self.model.extra_state().items()}
        for number, entry in self.optimizer.state_dict()["state"].items():
            found |= {f"{name} {number}": np.asarray(v).tobytes() for name, v in entry.items()}
        return found


def message_of(function: Any) -> DeviceMemoryError:
    with pytest.raises(DeviceMemoryError) as caught:
        function()
    return caught.value.with_traceback(None)  # whose frames hold the batch


# --- the step ------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"accumulation_steps": 2}], ids=["plain", "accumulating"])
def test_what_the_pool_keeps_is_freed_and_the_step_made_as_if_nothing_had_been(
    options: dict[str, Any],
) -> None:
    expected, training = Training(**options), Training(**options)
    expected.step()
    need = BOOK.measure(training.need)
    set_memory_limit(BOOK.used + need + 4096)
    BOOK.pooled = need  # no room but for a few arrays
    training.step()
    assert BOOK.pooled == 0
    set_memory_limit(None)
    assert training.everything() == expected.everything()
    for one, other in zip(training.model.parameters(), expected.model.parameters(), strict=True):
        assert xb.to_host(one.grad).tobytes() == xb.to_host(other.grad).tobytes()


@pytest.mark.parametrize("share", [0.6, 0.75, 0.9, 0.99])
def test_the_batch_in_the_message_fits_and_not_much_more(share: float) -> None:
    training = Training()
    training.step(2)
    need = training.need()
    before = training.everything()
    limit = BOOK.used + int(need * share)
    set_memory_limit(limit)
    error = message_of(training.step)
    text = str(error)
    set_memory_limit(None)
    assert training.everything() == before
    assert error.needed_bytes == pytest.approx(need, rel=0.2)  # small batches: the update's
    assert re.match(
        r"out of memory on fake:0 in a training step of 64 samples, also after .*: "
        r"[\d.]+ \w+ used, 0 bytes pooled, [\d.]+ \w+ in all\. It needs about [\d.]+ KiB more",
        text,
    ), text
    assert text.endswith("The weights are unchanged.")
    fits = error.batch_size
    assert f"A batch of {fits} fits" in text
    assert fits is not None
    assert 1 <= fits < SAMPLES
    set_memory_limit(limit)
    training.step(fits)
    with pytest.raises(MemoryError):
        training.step(min(SAMPLES, fits + 5))


def test_no_batch_fits() -> None:
    training = Training()
    training.step(2)
    set_memory_limit(BOOK.used + 64)
    training.model.eval()  # in training BatchNorm refuses a batch of one, for another reason
    error = message_of(training.step)
    assert error.batch_size == 0
    assert "Not even one sample fits" in str(error)


def test_a_model_that_refuses_small_batches_gives_the_message_without_a_batch() -> None:
    class Only64(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 300, rng=0)

        def forward(self, x: Any) -> Any:
            if len(x) != SAMPLES:
                raise ValueError("64 samples or none")
            return self.linear.forward(x)

        def backward(self, grad_output: Any, saved: Any) -> Any:
            return self.linear.backward(grad_output, saved)

    model = Only64()
    trainer = xb.Trainer(model, nn.CrossEntropyLoss(), xb.optim.SGD(model.parameters(), lr=0.1))
    x, y = xb.asarray(np.zeros((SAMPLES, 8))), xb.asarray(np.zeros(SAMPLES, int))
    set_memory_limit(BOOK.used + 100_000)
    error = message_of(lambda: trainer.step(x, y))
    assert error.batch_size is None
    assert "fits" not in str(error)


@pytest.mark.parametrize("after", [0, 1], ids=["first of a group", "second of a group"])
def test_an_accumulated_group_is_kept_or_its_loss_told(after: int) -> None:
    training = Training(accumulation_steps=4)
    for _ in range(after):
        training.step(2)
    before = training.everything()
    set_memory_limit(BOOK.used + training.need() // 2)
    error = message_of(training.step)
    set_memory_limit(None)
    assert training.everything() == before
    lost = after and not training.trainer.stepper.group.batches
    assert ("before it are lost" in str(error)) == bool(lost)


def test_running_statistics_are_written_with_the_weights_or_not_at_all() -> None:
    """Behind the update they are masked by whether it was made, which takes memory as well."""
    training = Training()
    training.step(2)
    need = training.need()
    idle, before = BOOK.used, training.everything()
    for limit in range(idle, idle + need - need // 10, need // 10):
        set_memory_limit(limit)
        with pytest.raises(MemoryError):
            training.step()
        set_memory_limit(None)
        assert training.everything() == before


def test_other_errors_and_the_hosts_memory_pass_untouched(
    monkeypatch: pytest.MonkeyPatch, xb_device: Device
) -> None:
    with xb.use_device(xb_device):
        training = Training()
        asked = []

        def fail(*inputs: Any) -> Any:
            asked.append(None)
            raise error

        for error in (MemoryError("host"), RuntimeError("other")):
            monkeypatch.setattr(type(training.model), "forward", fail)
            with pytest.raises(type(error)) as caught:
                training.step()
            assert caught.value is error
            with pytest.raises(type(error)) as caught:
                training.trainer.predict(training.host[0])
            assert caught.value is error
        assert len(asked) == 4  # nothing was tried twice


# --- without training ----------------------------------------------------------------------


def test_predict_and_evaluate_name_a_batch_that_fits() -> None:
    training = Training()
    x, y = training.host
    wide = nn.Sequential(nn.Linear(8, 400), nn.ReLU(), nn.Linear(400, 3), rng=0)
    trainer = xb.Trainer(wide, nn.CrossEntropyLoss(), xb.optim.SGD(wide.parameters(), lr=0.1))
    expected = trainer.predict(x)
    for name, call in (("predict", lambda **o: trainer.predict(x, **o)),
                       ("evaluate", lambda **o: trainer.evaluate(x, y, **o))):  # fmt: skip
        set_memory_limit(BOOK.used + 64 * 400 * 4)
        error = message_of(call)
        assert f"in {name}() of 64 samples" in str(error)
        assert error.batch_size
        call(batch_size=error.batch_size)
        set_memory_limit(BOOK.used + 64 * 400 * 4 * 4)
        BOOK.pooled = 64 * 400 * 4 * 3
        call()
        assert BOOK.pooled == 0
    np.testing.assert_array_equal(trainer.predict(x), expected)


def test_an_upload_frees_what_the_pool_keeps() -> None:
    free_unused_memory(Device("fake"))
    set_memory_limit(BOOK.used + 1000)
    BOOK.pooled = 500
    with xb.transfer_log() as log:
        array = xb.to_device(np.zeros(100), "fake")
    assert (array.nbytes, BOOK.pooled, log.uploads) == (800, 0, 1)
    with pytest.raises(MemoryError, match="800 bytes asked for"):
        xb.to_device(np.zeros(100), "fake")


# --- the shim ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [("", None), ("1000", 1000), ("1.5KiB", 1536), ("2 GiB", 2**31), ("3mib", 3 << 20)],
)
def test_the_limit_of_the_environment(
    text: str, size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XBACKPROP_MEMORY_LIMIT", text)
    assert requested_limit() == size
    memory_of(5)._has_limit = False
    try:
        assert memory_of(5).limit == size
    finally:
        set_memory_limit(None, 5)


@pytest.mark.parametrize("text", ["much", "-1", "8GB", "50%"])
def test_a_limit_that_is_no_size(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XBACKPROP_MEMORY_LIMIT", text)
    with pytest.raises(ValueError, match="expects a size such as 512MiB"):
        requested_limit()


class Pool:
    """As much of CuPy's pool as is asked."""

    def __init__(self) -> None:
        self.limit, self.used, self.held = 0, 300, 500

    def used_bytes(self) -> int:
        return self.used

    def total_bytes(self) -> int:
        return self.held

    def get_limit(self) -> int:
        return self.limit

    def set_limit(self, *, size: int) -> None:
        self.limit = size

    def free_all_blocks(self) -> None:
        self.held = self.used


def test_the_pool_of_a_real_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool()
    cupy: Any = types.ModuleType("cupy")
    cupy.get_default_memory_pool = lambda: pool
    cupy.cuda = types.SimpleNamespace(
        Device=lambda index: __import__("contextlib").nullcontext(),
        runtime=types.SimpleNamespace(memGetInfo=lambda: (1000, 2000)),
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr("xbackprop.backend.device.use", lambda kind: None)
    monkeypatch.setattr("xbackprop.backend.memory._limited", set())
    gpu = Device("cuda", 0)
    assert memory_state(gpu) == (300, 200, 2000, 1200)
    monkeypatch.setenv("XBACKPROP_MEMORY_LIMIT", "900")
    limit_memory(gpu)
    assert memory_state(gpu) == (300, 200, 900, 600)
    monkeypatch.setenv("XBACKPROP_MEMORY_LIMIT", "800")
    limit_memory(gpu)  # read once: a limit that a program sets later stays
    assert pool.limit == 900
    free_unused_memory(gpu)
    assert memory_state(gpu).pooled == 0


def test_which_errors_say_that_a_gpu_is_full() -> None:
    gpu = Device("cuda", 0)
    assert is_out_of_memory(OutOfMemoryError(), gpu)
    assert is_out_of_memory(CUDARuntimeError(2), gpu)
    assert not is_out_of_memory(CUDARuntimeError(700), gpu)
    assert not is_out_of_memory(MemoryError(), gpu)
    assert not is_out_of_memory(OutOfMemoryError(), Device("cpu"))
