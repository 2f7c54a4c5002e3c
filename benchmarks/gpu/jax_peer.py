"""The MLP in JAX, where it is installed and has the device; the other networks are not compared."""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.gpu.networks import LR, Network
from xbackprop.backend.device import Device


def steps(network: Network, device: Device) -> dict[str, Callable[[], Any]]:
    """Return the jitted step; none where it cannot run."""
    if network.name != "MLP":
        return {}
    try:
        import jax
    except ImportError:
        return {}
    platform = "gpu" if device.kind == "cuda" else "cpu"
    if jax.default_backend() != platform:
        return {}
    return {"jax.jit": _step(jax, network)}


def _step(jax: Any, network: Network) -> Callable[[], Any]:
    """AdamW written out: JAX has no optimizers of its own."""
    state = list(network.make().state_dict().values())
    parameters = [jax.numpy.asarray(array) for array in state]
    x, y = map(jax.numpy.asarray, network.batch())
    zeros = [jax.numpy.zeros_like(array) for array in parameters]
    kept = {"values": (parameters, zeros, zeros, 0)}

    def loss(values: Any) -> Any:
        hidden = x
        for weight, bias in zip(values[:-2:2], values[1:-2:2], strict=True):
            hidden = jax.nn.relu(hidden @ weight.T + bias)
        logits = jax.nn.log_softmax(hidden @ values[-2].T + values[-1])
        return -logits[np.arange(len(y)), y].mean()

    @jax.jit
    def update(values: Any, first: Any, second: Any, count: Any) -> Any:
        grads = jax.grad(loss)(values)
        count = count + 1
        first = [0.9 * m + 0.1 * g for m, g in zip(first, grads, strict=True)]
        second = [0.999 * v + 0.001 * g * g for v, g in zip(second, grads, strict=True)]
        scale = jax.numpy.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        values = [
            p * (1 - LR * 0.01) - LR * scale * m / (jax.numpy.sqrt(v) + 1e-8)
            for p, m, v in zip(values, first, second, strict=True)
        ]
        return values, first, second, count

    def step() -> None:
        kept["values"] = update(*kept["values"])
        jax.block_until_ready(kept["values"])

    return step
