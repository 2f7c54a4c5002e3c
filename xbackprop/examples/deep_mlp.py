"""A deep network, and why its initial weights matter: 20 layers of 64 ReLUs.

Run: python -m xbackprop.examples.deep_mlp
"""

import math

import numpy as np

import xbackprop as xb

DEPTH, WIDTH = 20, 64
# Weights of standard deviation gain / sqrt(inputs) multiply the mean square of what passes, forward
# or back, by gain^2, and ReLU halves it: a layer by 1/6 as Linear is made, by 1 after He et al.
GAINS = {"Linear's default": 1 / math.sqrt(3), "He et al.": math.sqrt(2)}


def make_network(gain: float) -> xb.nn.Sequential:
    """Return the network with weights of this gain, and biases of 0."""
    hidden = [part for _ in range(DEPTH) for part in (xb.nn.Linear(WIDTH, WIDTH), xb.nn.ReLU())]
    model = xb.nn.Sequential(*hidden, xb.nn.Linear(WIDTH, 10))
    rng, state = np.random.default_rng(0), model.state_dict()
    for values in state.values():
        values[:] = rng.normal(size=values.shape) * gain / math.sqrt(WIDTH) * (values.ndim == 2)
    model.load_state_dict(state)
    return model


def scales(model: xb.nn.Sequential, x: xb.Array, y: xb.Array) -> list[list[float]]:
    """Return the typical size of each linear layer's output, and of its gradient."""
    loss_fn, tape, sizes = xb.nn.CrossEntropyLoss(), [], []
    for layer in model:  # what Sequential.forward does
        x, saved = layer.forward(x)
        tape.append((layer, x, saved))
    grad = loss_fn.backward(1.0, loss_fn.forward(x, y)[1])
    for layer, output, saved in reversed(tape):  # what Sequential.backward does
        if isinstance(layer, xb.nn.Linear):
            sizes.append([math.sqrt(float((a * a).mean())) for a in (output, grad)])
        grad = layer.backward(grad, saved)
    return sizes[::-1]


def main(epochs: int = 6) -> None:
    """Show what reaches each layer before training, and whether the network learns."""
    data = xb.data.load_digits()
    x, y = xb.asarray(data.x_train[:256]), xb.asarray(data.y_train[:256])
    for name, gain in GAINS.items():
        model = make_network(gain)
        print(f"{name}: weights of standard deviation {gain:.2f} / sqrt(inputs)")
        for number, (output, grad) in list(enumerate(scales(model, x, y), start=1))[::5]:
            print(f"  layer {number:2d}   activations {output:.1e}   gradients {grad:.1e}")
        trainer = xb.Trainer(model, xb.nn.CrossEntropyLoss(), xb.optim.Adam(model.parameters()))
        rows = trainer.fit(data.x_train, data.y_train, epochs=epochs, rng=0)
        print("  Loss of each epoch" + "".join(f"{row.train_loss:8.4f}" for row in rows) + "\n")
    print(f"a guess among ten costs log(10) = {math.log(10):.4f}")


if __name__ == "__main__":
    main()
