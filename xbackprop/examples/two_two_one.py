"""The lesson: 2 inputs, 2 hidden units, 1 output, and backpropagation with its numbers shown.

Run: python -m xbackprop.examples.two_two_one [--activation sigmoid] [--loss bce] [--steps 3000]
"""

import argparse

import numpy as np

import xbackprop as xb

# The exclusive or: no single line separates the two answers, so the hidden units are needed.
X = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
Y = [[0.0], [1.0], [1.0], [0.0]]

# Small readable numbers from which both hidden units learn, whichever the activation.
WEIGHTS = {
    "0.weight": [[0.8, -0.7], [-0.9, 0.6]],
    "0.bias": [0.1, 0.2],
    "2.weight": [[0.5, 0.4]],
    "2.bias": [-0.1],
}


def make_network(activation: str = "relu", loss: str = "half") -> tuple[xb.Module, xb.Module]:
    """Return the 2-2-1 network with the lesson's weights, and its loss.

    Parameters
    ----------
    activation : {"relu", "sigmoid"}
        Of the hidden units.
    loss : {"half", "bce"}
        ``1/2 (y_hat - y)^2`` with a linear output, or binary cross-entropy with a sigmoid output.

    Returns
    -------
    model, loss_fn
    """
    layers: list[xb.Module] = [
        xb.nn.Linear(2, 2, dtype=np.float64),
        xb.nn.ReLU() if activation == "relu" else xb.nn.Sigmoid(),
        xb.nn.Linear(2, 1, dtype=np.float64),
    ]
    if loss == "bce":
        layers.append(xb.nn.Sigmoid())
    model = xb.nn.Sequential(*layers)
    model.load_state_dict({name: np.asarray(values) for name, values in WEIGHTS.items()})
    return model, xb.nn.BCELoss() if loss == "bce" else xb.nn.HalfSquaredError()


def show_one_step(model: xb.Module, loss_fn: xb.Module, lr: float) -> None:
    """Print one sample's forward pass, its gradients and the update they make."""
    x = xb.asarray([0.0, 1.0], dtype=np.float64)
    y = xb.asarray([1.0], dtype=np.float64)
    output, saved = model.forward(x)
    loss, loss_saved = loss_fn.forward(output, y)
    grad_output = loss_fn.backward(1.0, loss_saved)
    model.zero_grad()
    model.backward(grad_output, saved)
    print(f"one sample   x = {show(x)}   y = {show(y)}")
    print(f"forward      y_hat = {show(output)}   Loss = {float(loss):.6f}")
    print(f"backward     dLoss/dy_hat = {show(grad_output)}")
    for name, parameter in model.named_parameters():
        print(f"             dLoss/d({name}) = {show(parameter.grad)}")
    print(f"update       w_new = w - eta dLoss/dw   with eta = {lr:g}\n")


def show(array: xb.Array) -> str:
    """Write an array of any device as plain numbers."""
    return np.array2string(xb.to_host(array), precision=6, separator=", ").replace("\n", "")


def main(arguments: list[str] | None = None) -> int:
    """Show one step, train, and print what the network answers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--activation", choices=("relu", "sigmoid"), default="relu")
    parser.add_argument("--loss", choices=("half", "bce"), default="half")
    parser.add_argument("--lr", type=float, default=0.5, metavar="ETA")
    parser.add_argument("--steps", type=int, default=3000)
    options = parser.parse_args(arguments)

    model, loss_fn = make_network(options.activation, options.loss)
    optimizer = xb.optim.SGD(model.parameters(), lr=options.lr)
    show_one_step(model, loss_fn, options.lr)

    x, y = xb.asarray(X, dtype=np.float64), xb.asarray(Y, dtype=np.float64)
    for step in range(options.steps + 1):
        output, saved = model.forward(x)
        loss, loss_saved = loss_fn.forward(output, y)
        if step % max(1, options.steps // 5) == 0:
            print(f"step {step:5d}   Loss {float(loss):.6f}")
        optimizer.zero_grad()
        model.backward(loss_fn.backward(1.0, loss_saved), saved)
        optimizer.step()

    print()
    for inputs, target, answer in zip(X, Y, xb.to_host(model(x)), strict=True):
        print(f"x = {inputs}   y = {target[0]:g}   y_hat = {answer[0]:.4f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
