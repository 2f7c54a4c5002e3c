"""How many threads BLAS uses inside a call, and that its user's number is back afterwards."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import xbackprop as xb
from xbackprop.backend import threads

pytest.importorskip("threadpoolctl")
nn = xb.nn


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """Let the user of BLAS have chosen two threads."""
    libraries = threads._find_libraries()
    before = [library.get_num_threads() for library in libraries]
    for library in libraries:
        library.set_num_threads(2)
    yield
    xb.set_num_threads(None)
    for library, number in zip(libraries, before, strict=True):
        library.set_num_threads(number)


def blas_stands_at() -> set[int]:
    return {library.get_num_threads() for library in threads._find_libraries()}


class Looks(nn.Module):
    """Passes its input on, and notes what BLAS stands at."""

    def __init__(self) -> None:
        self.seen: list[set[int]] = []

    def forward(self, x: Any) -> Any:
        self.seen.append(blas_stands_at())
        return x, ()

    def backward(self, grad_output: Any, saved: Any) -> Any:
        self.seen.append(blas_stands_at())
        return grad_output


def test_a_call_runs_with_the_chosen_number_and_leaves_blas_as_it_was() -> None:
    layer = Looks()
    xb.set_num_threads(1)
    output, saved = layer.forward(np.ones((2, 2)))
    assert blas_stands_at() == {2}
    layer.backward(output, saved)
    assert layer.seen == [{1}, {1}]
    assert blas_stands_at() == {2}
    assert xb.get_num_threads() == 1


def test_without_a_choice_blas_is_left_alone() -> None:
    layer = Looks()
    layer(np.ones((2, 2)))
    assert layer.seen == [{2}]
    assert xb.get_num_threads() == 2


def test_a_call_that_fails_leaves_blas_as_it_was() -> None:
    xb.set_num_threads(1)
    with pytest.raises(ValueError, match="Linear"):
        nn.Linear(3, 2)(np.ones((2, 2), np.float32))
    assert blas_stands_at() == {2}


def test_calls_that_overlap_in_any_order_leave_blas_as_it_was() -> None:
    first, second = threads.blas_threads(1), threads.blas_threads(3)
    first.__enter__()
    second.__enter__()
    assert blas_stands_at() == {1}
    first.__exit__()
    assert blas_stands_at() == {3}
    second.__exit__()
    assert blas_stands_at() == {2}


def test_calls_in_many_threads_leave_blas_as_it_was() -> None:
    xb.set_num_threads(1)
    layer = nn.Linear(3, 2)
    x = np.ones((2, 3), np.float32)
    workers = [threading.Thread(target=lambda: [layer(x) for _ in range(50)]) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert blas_stands_at() == {2}


@pytest.mark.parametrize(
    ("number", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_a_number_that_is_none_is_refused(number: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="set_num_threads expects"):
        xb.set_num_threads(number)


def test_the_variable_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XBACKPROP_NUM_THREADS", "1")
    xb.set_num_threads(None)
    layer = Looks()
    layer(np.ones((2, 2)))
    assert layer.seen == [{1}]
    monkeypatch.setenv("XBACKPROP_NUM_THREADS", "many")
    xb.set_num_threads(None)
    with pytest.raises(ValueError, match="XBACKPROP_NUM_THREADS expects"):
        xb.get_num_threads()
    monkeypatch.delenv("XBACKPROP_NUM_THREADS")


def test_without_threadpoolctl_a_choice_is_refused() -> None:
    code = (
        "import sys; sys.modules['threadpoolctl'] = None\n"
        "import xbackprop as xb\n"
        "xb.get_num_threads()\n"
        "try: xb.set_num_threads(1)\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "xbackprop[fast]" in done.stdout
