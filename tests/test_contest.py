"""What `benchmarks/contest.py` calls the memory of a step: its arrays, nothing that is loaded."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
contest = pytest.importorskip("contest")
MEGABYTE = 1 << 20

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not os.access("/proc/self/clear_refs", os.W_OK),
    reason="the contest reads Linux's /proc and calls glibc",
)


def filled(megabytes):
    return np.ones(megabytes * MEGABYTE, np.uint8)


def measure(state):
    """What two rounds find of 24 MB of weights, 32 of temporaries and some of state."""
    loaded = []

    def make():
        weights, kept = filled(300)[: 24 * MEGABYTE].copy(), []
        hole = [filled(2) for _ in range(16)]  # free, and not at the end of the heap
        weights = weights, filled(1)
        del hole

        def step():
            if not loaded:
                loaded.append(filled(200))  # a library, in the first step of the process
            if state and not kept:
                kept.append(filled(state))
            for _ in range(2):  # the first is gone before the second comes
                temporary = [filled(2) for _ in range(16)]
                del temporary
            return weights

        return step

    made = [make()]
    for _ in range(2):
        found = contest._step_bytes(make, made, wait=lambda result: None, count=3)
        yield found / MEGABYTE, len(made)


@pytest.mark.parametrize("state", [0, 48])
def test_arrays_of_steps_count_and_what_is_loaded_does_not(state):
    # In a process of its own, as a contestant: the heap here is as other tests have left it.
    command = [sys.executable, __file__, str(state)]
    rounds = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert len(rounds) == 2
    for found, contestants in rounds:
        assert found == pytest.approx(32 + state, abs=4)
        assert contestants == 1


if __name__ == "__main__":
    print(json.dumps(list(measure(int(sys.argv[1])))))
