"""What the machine can do: single-precision products and copies, measured when asked."""

import json
import subprocess
import sys

_measured: dict[str, dict[str, float]] = {}

_MEASURE = """
import json, time
import numpy as np
n = 1024
a = np.random.default_rng(0).random((n, n), dtype=np.float32)
b, out = a.copy(), np.empty_like(a)
source = np.ones(32_000_000, dtype=np.float32)
target = np.empty_like(source)
def best(call, repeats):
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)
product = best(lambda: np.dot(a, b, out=out), 20)
copy = best(lambda: np.copyto(target, source), 10)
print(json.dumps({"flops_per_s": 2 * n**3 / product, "bytes_per_s": 2 * source.nbytes / copy}))
"""


def machine(environment: dict[str, str]) -> dict[str, float]:
    """Return product rate and copy bandwidth (read and written), in a fresh process.

    The copy uses one thread: NumPy has no other.
    """
    key = environment["OMP_NUM_THREADS"]
    if key not in _measured:
        done = subprocess.run(
            [sys.executable, "-c", _MEASURE],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        _measured[key] = json.loads(done.stdout)
    return _measured[key]


def floor_ms(flops: float, bytes_moved: float, environment: dict[str, str]) -> dict[str, float]:
    """Return the least time of a step: its products or its traffic, whichever takes longer."""
    rates = machine(environment)
    seconds = max(flops / rates["flops_per_s"], bytes_moved / rates["bytes_per_s"])
    return {**rates, "floor_ms": seconds * 1e3}
