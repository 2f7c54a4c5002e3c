"""The lesson: 2 inputs, 2 hidden units, 1 output, and backpropagation with its numbers shown.

Run: python -m xbackprop.examples.two_two_one [--activation sigmoid] [--loss bce] [--steps 3000]
"""

import argparse

import numpy as np

import xbackprop as xb

# The exclusive or: no single line separates the two answers, so the hidden units are needed.
X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
Y = np.array([[0.0], [1.0], [1.0], [0.0]])
# Small readable numbers from which both hidden units learn, whichever the activation.
WEIGHTS = {"0.weight": [[0.8, -0.7], [-0.9, 0.6]], "0.bias": [0.1, 0.2]}
WEIGHTS |= {"2.weight": [[0.5, 0.4]], "2.bias": [-0.1]}


def make_network(activation: str = "relu", loss: str = "half") -> tuple[xb.Module, xb.Module]:
    """Return the network, and 1/2 (y_hat - y)^2 or, for "bce", a cross-entropy of a sigmoid."""
    hidden = xb.nn.ReLU() if activation == "relu" else xb.nn.Sigmoid()
    layers = [xb.nn.Linear(2, 2, dtype=np.float64), hidden, xb.nn.Linear(2, 1, dtype=np.float64)]
    model = xb.nn.Sequential(*layers, *([xb.nn.Sigmoid()] if loss == "bce" else []))
    model.load_state_dict({name: np.array(values) for name, values in WEIGHTS.items()})
    return model, xb.nn.BCELoss() if loss == "bce" else xb.nn.HalfSquaredError()


def main(arguments: list[str] | None = None) -> None:
    """Show one step, train, and print what the network answers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--activation", choices=("relu", "sigmoid"), default="relu")
    parser.add_argument("--loss", choices=("half", "bce"), default="half")
    parser.add_argument("--lr", type=float, default=0.5, metavar="ETA")
    parser.add_argument("--steps", type=int, default=3000)
    options = parser.parse_args(arguments)
    model, loss_fn = make_network(options.activation, options.loss)
    optimizer = xb.optim.SGD(model.parameters(), lr=options.lr)
    backpropagate = xb.value_and_grad(model, loss_fn)  # the four lines of linear_unit.py
    x, y = xb.asarray(X, dtype=np.float64), xb.asarray(Y, dtype=np.float64)

    loss, y_hat = backpropagate(x[1], y[1])
    print(f"x = {X[1]}, y = {Y[1, 0]:g}: y_hat = {float(y_hat[0]):g}, Loss = {float(loss):g}")
    for name, parameter in model.named_parameters():
        print(f"  dLoss/d({name}) = {(xb.to_host(parameter.grad).round(6) + 0.0).tolist()}")
    print(f"\nw_new = w - eta dLoss/dw with eta = {options.lr:g}, on all four samples at once")
    for step in range(options.steps + 1):
        optimizer.zero_grad()
        loss, y_hat = backpropagate(x, y)
        if step in (0, 10, 30, 100, 300, 1000, options.steps):
            print(f"  step {step:4d}   Loss {float(loss):.2e}")
        optimizer.step()
    for inputs, target, answer in zip(X, Y, xb.to_host(y_hat), strict=True):
        print(f"x = {inputs}   y = {target[0]:g}   y_hat = {round(answer[0], 4) + 0.0:.4f}")


if __name__ == "__main__":
    main()
