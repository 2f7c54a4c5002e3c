"""One step of the 2-2-1 network, where calls cost more than arithmetic: W1.

Every contestant does forward, 1/2 (y_hat - y)^2, backward and plain gradient descent on the same
float32 samples, one thread.
"""

import contest
import numpy as np

LR = 0.01
WEIGHTS = {
    "0.weight": np.array([[0.3, -0.2], [0.5, 0.4]], np.float32),
    "0.bias": np.array([0.1, 0.2], np.float32),
    "2.weight": np.array([[0.7, -0.6]], np.float32),
    "2.bias": np.array([0.05], np.float32),
}


def samples(batch):
    rng = np.random.default_rng(0)
    x = rng.random((batch, 2), dtype=np.float32)
    return x, (x.sum(axis=1, keepdims=True) > 1).astype(np.float32)


def our_network():
    import xbackprop as xb

    model = xb.nn.Sequential(xb.nn.Linear(2, 2), xb.nn.ReLU(), xb.nn.Linear(2, 1))
    model.load_state_dict(WEIGHTS)
    return xb, model, xb.nn.HalfSquaredError(), xb.optim.SGD(model.parameters(), lr=LR)


def xbackprop_loop(batch):
    _, model, loss_fn, optimizer = our_network()
    x, y = samples(batch)

    def step():
        optimizer.zero_grad()
        output, saved = model.forward(x)
        loss, loss_saved = loss_fn.forward(output, y)
        model.backward(loss_fn.backward(1.0, loss_saved), saved, input_grad=False)
        optimizer.step()
        return loss

    return step


def xbackprop_value_and_grad(batch):
    xb, model, loss_fn, optimizer = our_network()
    x, y = samples(batch)
    compute = xb.value_and_grad(model, loss_fn)

    def step():
        optimizer.zero_grad()
        loss, _ = compute(x, y)
        optimizer.step()
        return loss

    return step


def pytorch(batch):
    import torch

    torch.set_num_threads(contest.threads())
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    model.load_state_dict({name: torch.from_numpy(array) for name, array in WEIGHTS.items()})
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    x, y = map(torch.from_numpy, samples(batch))

    def step():
        optimizer.zero_grad()
        difference = model(x) - y
        loss = (difference * difference).sum() * (0.5 / batch)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def thinc(batch):
    from thinc.api import SGD, Linear, NumpyOps, Relu, chain, use_ops

    with use_ops("numpy"):
        layers = Relu(2, 2), Linear(1, 2)
    assert isinstance(layers[0].ops, NumpyOps)
    model = chain(*layers)
    model.initialize()
    for layer, name in zip(layers, "02", strict=True):
        layer.set_param("W", WEIGHTS[f"{name}.weight"].copy())
        layer.set_param("b", WEIGHTS[f"{name}.bias"].copy())
    optimizer = SGD(LR, L2=0.0, grad_clip=0.0, use_averages=False)
    x, y = samples(batch)

    def step():
        output, backprop = model.begin_update(x)
        difference = output - y
        loss = (difference * difference).sum() * (0.5 / batch)
        backprop(difference / batch)
        model.finish_update(optimizer)
        return loss

    return step


def scikit_learn(batch):
    from sklearn.neural_network import MLPRegressor

    x, y = samples(batch)
    y = y.ravel()
    model = MLPRegressor(
        hidden_layer_sizes=(2,),
        solver="sgd",
        alpha=0.0,
        batch_size=batch,
        learning_rate_init=LR,
        momentum=0.0,
        nesterovs_momentum=False,
    )
    model.partial_fit(x, y)  # makes the weights, which then are set
    for number, layer in enumerate("02"):
        model.coefs_[number][...] = WEIGHTS[f"{layer}.weight"].T
        model.intercepts_[number][...] = WEIGHTS[f"{layer}.bias"]
    model._optimizer.velocities = [np.zeros_like(v) for v in model._optimizer.velocities]
    return lambda: model.partial_fit(x, y).loss_


def jax(batch):
    import jax

    weights = {name: jax.numpy.asarray(array) for name, array in WEIGHTS.items()}
    x, y = map(jax.numpy.asarray, samples(batch))

    def loss_of(weights):
        hidden = jax.nn.relu(x @ weights["0.weight"].T + weights["0.bias"])
        difference = hidden @ weights["2.weight"].T + weights["2.bias"] - y
        return (difference * difference).sum() * (0.5 / batch)

    @jax.jit
    def update(weights):
        loss, grads = jax.value_and_grad(loss_of)(weights)
        return loss, {name: weights[name] - LR * grads[name] for name in weights}

    def step():
        nonlocal weights
        loss, weights = update(weights)
        return loss

    return step


def of(batch):
    builders = {
        "xbackprop, loop": xbackprop_loop,
        "xbackprop, value_and_grad": xbackprop_value_and_grad,
        "PyTorch, eager": pytorch,
        "JAX, jit": jax,
        "Thinc": thinc,
        "scikit-learn, partial_fit": scikit_learn,
    }
    return contest.Workload(
        name=f"w1_batch_{batch}",
        title=f"W1: 2-2-1 network, batch {batch}, SGD",
        contestants={name: lambda build=build: build(batch) for name, build in builders.items()},
        flops=3 * 2 * 6 * batch,
        bytes_moved=4 * 3 * 9,
        targets=(
            contest.Target("PyTorch", 6, 15),
            contest.Target("Thinc", 4, 8),
            contest.Target("scikit-learn", 9, 20),
        ),
        wait={"JAX, jit": lambda loss: loss.block_until_ready()},
        threads=(1,),
    )


if __name__ == "__main__":
    contest.main(__file__, of(1), of(4))
