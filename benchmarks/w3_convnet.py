"""Two convolutions with pooling on 28x28 images: W3's network, and W6."""

import contest
import inference
import initial
import jax_peer
import numpy as np
import our_peer
import torch_peer

BATCH, LR = 64, 1e-3
WEIGHTS = initial.uniform(
    {
        "0.weight": (32, 1, 3, 3),
        "0.bias": (32,),
        "3.weight": (64, 32, 3, 3),
        "3.bias": (64,),
        "7.weight": (10, 64 * 7 * 7),
        "7.bias": (10,),
    }
)
FIRST, SECOND, LAST = 28 * 28 * 32 * 9, 14 * 14 * 64 * 32 * 9, 64 * 7 * 7 * 10
ACTIVATIONS = 28 * 28 * (1 + 2 * 32) + 14 * 14 * (32 + 2 * 64) + 7 * 7 * 64


def samples(batch):
    rng = np.random.default_rng(1)
    return rng.random((batch, 1, 28, 28), np.float32), rng.integers(0, 10, batch)


def network(nn):
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, 10),
    )


def jax_network(jax, weights, x):
    """The same in NHWC, which XLA prefers on a CPU; the weights stay in PyTorch's layout."""
    x = x.transpose(0, 2, 3, 1)
    for layer in "03":
        kernel = weights[f"{layer}.weight"].transpose(2, 3, 1, 0)
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x + weights[f"{layer}.bias"])
        x = jax.lax.reduce_window(x, -np.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
    return x @ weights["7.weight"].T + weights["7.bias"]


def ours(**form):
    return our_peer.trained(lambda xb: network(xb.nn), WEIGHTS, *samples(BATCH), lr=LR, **form)


def pytorch(**form):
    return torch_peer.trained(
        lambda torch: network(torch.nn), WEIGHTS, *samples(BATCH), lr=LR, fused=True, **form
    )


TRAINING = contest.Workload(
    name="w3_convnet",
    title=f"W3: convolutions 1-32-64 on 28x28 with pooling, batch {BATCH}, Adam",
    contestants={
        "xbackprop": ours,
        "xbackprop, shards": lambda: ours(shards=contest.threads()),
        "PyTorch, default layout": pytorch,
        "PyTorch, channels-last": lambda: pytorch(channels_last=True),
        "PyTorch, compile": lambda: pytorch(compiled=True),
        "JAX, jit": lambda: jax_peer.trained(
            jax_network, WEIGHTS, *samples(BATCH), learning_rate=LR
        ),
    },
    # Forward and gradient of the weights of all, gradient of the input of all but the first.
    flops=2 * BATCH * (2 * FIRST + 3 * SECOND + 3 * LAST),
    # Every activation and its gradient written once and read once.
    bytes_moved=4 * BATCH * ACTIVATIONS * 4,
    targets=(
        contest.Target("PyTorch, default layout", 1.3, 1.6),
        contest.Target("PyTorch, channels-last", 0.95, 1.2),
    ),
    wait={"JAX, jit": jax_peer.wait},
    # All are equal to 1e-6 after 4 steps; after 50 on one batch the loss falls by 5 % a step, and
    # our references, kernels and shards lie 1 % apart, as PyTorch beside them.
    tolerance=3e-2,
    has_memory_target=True,
)


def inference_of(batch):
    return inference.workload(
        "convnet",
        "convolutions of W3, inference",
        (lambda xb: network(xb.nn), lambda torch: network(torch.nn), jax_network),
        WEIGHTS,
        samples(batch)[0],
        forms={
            "eager": {},
            "channels-last": {"channels_last": True},
            "compile": {"compiled": True},
        },
        flops=2 * batch * (FIRST + SECOND + LAST),
        bytes_moved=4 * batch * ACTIVATIONS * 2,
    )


if __name__ == "__main__":
    contest.main(__file__, TRAINING, inference_of(1), inference_of(256))
