"""One linear unit, y_hat = w x + b: its gradient by hand, the library's beside it, and the update.

Run: python -m xbackprop.examples.linear_unit
"""

import numpy as np

import xbackprop as xb

SAMPLES = [(2.0, 3.0), (1.0, 1.0), (3.0, 5.0)]  # (x, y) on the line y = 2 x - 1
ETA = 0.1


def step_by_hand(x: float, y: float, w: float, b: float) -> dict[str, float]:
    """Derive one step with pencil and paper.

    The chain rule: dLoss/dw = dLoss/dy_hat * dy_hat/dw, and dy_hat/dw = x, dy_hat/db = 1.
    """
    y_hat = w * x + b
    error = y_hat - y  # dLoss/dy_hat, for Loss = 1/2 (y_hat - y)^2
    dw, db = error * x, error
    update = {"w_new = w - eta dLoss/dw": w - ETA * dw, "b_new = b - eta dLoss/db": b - ETA * db}
    return {"y_hat": y_hat, "Loss": error**2 / 2, "dLoss/dw": dw, "dLoss/db": db, **update}


def step(unit: xb.Module, optimizer: xb.optim.Optimizer, x: float, y: float) -> dict[str, float]:
    """Let the library do the same, in the order of every training step."""
    loss_fn = xb.nn.HalfSquaredError()
    y_hat, saved = unit.forward(xb.asarray([x], dtype=np.float64))
    loss, loss_saved = loss_fn.forward(y_hat, xb.asarray([y], dtype=np.float64))
    optimizer.zero_grad()
    unit.backward(loss_fn.backward(1.0, loss_saved), saved)
    optimizer.step()
    numbers = (y_hat, loss, unit.weight.grad, unit.bias.grad, unit.weight.data, unit.bias.data)
    names = step_by_hand(0, 0, 0, 0)
    return {name: float(number.sum()) for name, number in zip(names, numbers, strict=True)}


def main(rounds: int = 100) -> None:
    """Print the first step twice, then train."""
    unit = xb.nn.Linear(1, 1, dtype=np.float64)
    unit.load_state_dict({"weight": np.array([[0.5]]), "bias": np.array([0.0])})
    optimizer = xb.optim.SGD(unit.parameters(), lr=ETA)
    (x, y), w, b = SAMPLES[0], 0.5, 0.0
    print(f"x = {x:g}, y = {y:g}, w = {w:g}, b = {b:g}, eta = {ETA:g}; Loss = 1/2 (y_hat - y)^2")
    print(f"{'by hand':>36}{'library':>12}")
    hand, library = step_by_hand(x, y, w, b), step(unit, optimizer, x, y)
    for name, value in hand.items():
        print(f"{name:24}{value:12.6f}{library[name]:12.6f}")
    print("\nthree samples of the line 2 x - 1, again and again")
    for number in range(1, rounds + 1):
        *_, w, b = [step(unit, optimizer, x, y) for x, y in SAMPLES][-1].values()
        if number in (1, 3, 10, 30, rounds):
            print(f"round {number:3d}   y_hat = {w:.4f} x {b:+.4f}")


if __name__ == "__main__":
    main()
