"""An LSTM over 64 steps and a classifier of its last output: small products in a row; W5, W6."""

import contest
import inference
import initial
import jax_peer
import numpy as np
import our_peer
import torch_peer

INPUTS, HIDDEN, STEPS, BATCH, LR = 128, 128, 64, 32, 1e-3
WEIGHTS = initial.uniform(
    {
        "lstm.weight_ih_l0": (4 * HIDDEN, INPUTS),
        "lstm.weight_hh_l0": (4 * HIDDEN, HIDDEN),
        "lstm.bias_ih_l0": (4 * HIDDEN,),
        "lstm.bias_hh_l0": (4 * HIDDEN,),
        "last.weight": (10, HIDDEN),
        "last.bias": (10,),
    }
)
PRODUCTS = 4 * HIDDEN * (INPUTS + HIDDEN)
PARAMETERS = sum(array.size for array in WEIGHTS.values())


def samples(batch):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((batch, STEPS, INPUTS), np.float32)
    return x, rng.integers(0, 10, batch)


def our_network(xb):
    class Classifier(xb.nn.Module):
        def __init__(self):
            self.lstm = xb.nn.LSTM(INPUTS, HIDDEN, batch_first=True)
            self.last = xb.nn.Linear(HIDDEN, 10)

        def forward(self, x):
            (output, _), lstm_saved = self.lstm.forward(x)
            logits, last_saved = self.last.forward(output[:, -1])
            return logits, (output.shape, lstm_saved, last_saved)

        def backward(self, grad_output, saved, *, input_grad=True):
            shape, lstm_saved, last_saved = saved
            grad = xb.get_array_module(grad_output).zeros(shape, grad_output.dtype)
            grad[:, -1] = self.last.backward(grad_output, last_saved)
            return self.lstm.backward((grad, None), lstm_saved, input_grad=input_grad)

    return Classifier()


def ours(**form):
    return our_peer.trained(our_network, WEIGHTS, *samples(BATCH), lr=LR, **form)


def torch_network(torch):
    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = torch.nn.LSTM(INPUTS, HIDDEN, batch_first=True)
            self.last = torch.nn.Linear(HIDDEN, 10)

        def forward(self, x):
            return self.last(self.lstm(x)[0][:, -1])

    return Classifier()


def jax_network(jax, weights, x):
    inputs = x @ weights["lstm.weight_ih_l0"].T + (
        weights["lstm.bias_ih_l0"] + weights["lstm.bias_hh_l0"]
    )

    def move(state, row):
        h, c = state
        gates = row + h @ weights["lstm.weight_hh_l0"].T
        i, f, g, o = jax.numpy.split(gates, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jax.numpy.tanh(g)
        h = jax.nn.sigmoid(o) * jax.numpy.tanh(c)
        return (h, c), None

    zeros = jax.numpy.zeros((x.shape[0], HIDDEN), x.dtype)
    (h, _), _ = jax.lax.scan(move, (zeros, zeros), inputs.swapaxes(0, 1))
    return h @ weights["last.weight"].T + weights["last.bias"]


TRAINING = contest.Workload(
    name="w5_lstm",
    title=f"W5: LSTM, hidden {HIDDEN}, {STEPS} steps, batch {BATCH}, Adam",
    contestants={
        "xbackprop": ours,
        "PyTorch, eager": lambda: torch_peer.trained(
            torch_network, WEIGHTS, *samples(BATCH), lr=LR, fused=True
        ),
        "JAX, jit": lambda: jax_peer.trained(
            jax_network, WEIGHTS, *samples(BATCH), learning_rate=LR
        ),
    },
    # All but the gradient of the first inputs.
    flops=2 * BATCH * STEPS * (3 * PRODUCTS - 4 * HIDDEN * INPUTS),
    bytes_moved=4 * (BATCH * STEPS * HIDDEN * 8 * 4 + 10 * PARAMETERS),
    targets=(contest.Target("PyTorch", 0.65, 1.0),),
    wait={"JAX, jit": jax_peer.wait},
    tolerance=1e-2,
    has_memory_target=True,
)


def inference_of(batch):
    return inference.workload(
        "lstm",
        "LSTM of W5, inference",
        (our_network, torch_network, jax_network),
        WEIGHTS,
        samples(batch)[0],
        forms={"eager": {}},
        flops=2 * batch * STEPS * PRODUCTS,
        bytes_moved=4 * batch * STEPS * HIDDEN * 8 * 2,
    )


if __name__ == "__main__":
    contest.main(__file__, TRAINING, inference_of(1), inference_of(256))
