"""A network 784-512-512-10 on batches of 128: products and the optimizer's traffic; W2 and W6."""

import itertools

import contest
import inference
import initial
import jax_peer
import numpy as np
import our_peer
import torch_peer

SIZES = (784, 512, 512, 10)
BATCH, LR = 128, 1e-4  # small, so that 50 steps on one batch leave a loss to compare
SHAPES = {}
for _number, (_inputs, _outputs) in enumerate(itertools.pairwise(SIZES)):
    SHAPES |= {f"{2 * _number}.weight": (_outputs, _inputs), f"{2 * _number}.bias": (_outputs,)}
WEIGHTS = initial.uniform(SHAPES)
PRODUCTS = sum(a * b for a, b in itertools.pairwise(SIZES))
PARAMETERS = sum(array.size for array in WEIGHTS.values())


def samples(batch):
    rng = np.random.default_rng(1)
    return rng.random((batch, SIZES[0]), np.float32), rng.integers(0, SIZES[-1], batch)


def network(nn):
    return nn.Sequential(
        nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )


def jax_network(jax, weights, x):
    for layer in "024":
        x = x @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]
        x = x if layer == "4" else jax.nn.relu(x)
    return x


def ours(**form):
    return our_peer.trained(lambda xb: network(xb.nn), WEIGHTS, *samples(BATCH), lr=LR, **form)


def pytorch(**form):
    return torch_peer.trained(
        lambda torch: network(torch.nn), WEIGHTS, *samples(BATCH), lr=LR, **form
    )


def jax():
    return jax_peer.trained(jax_network, WEIGHTS, *samples(BATCH), learning_rate=LR)


def thinc():
    from thinc.api import Adam, Linear, Relu, chain, use_ops

    x, y = samples(BATCH)
    with use_ops("numpy"):
        layers = Relu(512, 784), Relu(512, 512), Linear(10, 512)
    model = chain(*layers)
    model.initialize()
    for layer, name in zip(layers, "024", strict=True):
        layer.set_param("W", WEIGHTS[f"{name}.weight"].copy())
        layer.set_param("b", WEIGHTS[f"{name}.bias"].copy())
    optimizer = Adam(LR, L2=0.0, grad_clip=0.0, use_averages=False)
    rows = np.arange(BATCH)

    def step():
        output, backprop = model.begin_update(x)
        exponentials = np.exp(output - output.max(axis=1, keepdims=True))
        grad = exponentials / exponentials.sum(axis=1, keepdims=True)
        loss = -np.log(grad[rows, y]).mean()
        grad[rows, y] -= 1
        backprop(grad / BATCH)
        model.finish_update(optimizer)
        return loss

    return step


def scikit_learn():
    from sklearn.neural_network import MLPClassifier

    x, y = samples(BATCH)
    model = MLPClassifier((512, 512), alpha=0.0, batch_size=BATCH, learning_rate_init=LR)
    model.partial_fit(x, y, classes=np.arange(10))  # makes the weights, which then are set
    for number, layer in enumerate("024"):
        model.coefs_[number][...] = WEIGHTS[f"{layer}.weight"].T
        model.intercepts_[number][...] = WEIGHTS[f"{layer}.bias"]
    optimizer = model._optimizer
    optimizer.t = 0
    optimizer.ms = [np.zeros_like(m) for m in optimizer.ms]
    optimizer.vs = [np.zeros_like(v) for v in optimizer.vs]
    return lambda: model.partial_fit(x, y).loss_


TRAINING = contest.Workload(
    name="w2_mlp",
    title=f"W2: MLP 784-512-512-10, batch {BATCH}, cross-entropy, Adam",
    contestants={
        "xbackprop": ours,
        "PyTorch, default Adam": pytorch,
        "PyTorch, fused Adam": lambda: pytorch(fused=True),
        "PyTorch, compile": lambda: pytorch(compiled=True, fused=True),
        "JAX, jit": jax,
        "scikit-learn, partial_fit": scikit_learn,
        "Thinc": thinc,
    },
    # Forward, gradient of the weights, and of the inputs but the first layer's.
    flops=2 * BATCH * (3 * PRODUCTS - SIZES[0] * SIZES[1]),
    # Weights read twice; gradient written and read; weights and both moments read and written.
    bytes_moved=4 * PARAMETERS * (2 + 2 + 6),
    targets=(
        contest.Target("PyTorch, fused Adam", 0.9, 1.2),
        contest.Target("PyTorch, default Adam", 1.5, 2),
        contest.Target("scikit-learn", 2.5, 4),
        contest.Target("Thinc", 2.5, 4),
    ),
    wait={"JAX, jit": jax_peer.wait},
    has_memory_target=True,
)


def inference_of(batch):
    return inference.workload(
        "mlp",
        "MLP 784-512-512-10, inference",
        (lambda xb: network(xb.nn), lambda torch: network(torch.nn), jax_network),
        WEIGHTS,
        samples(batch)[0],
        forms={"eager": {}, "compile": {"compiled": True}},
        flops=2 * batch * PRODUCTS,
        bytes_moved=4 * PARAMETERS,
    )


if __name__ == "__main__":
    contest.main(__file__, TRAINING, inference_of(1), inference_of(256))
