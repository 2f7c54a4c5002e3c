"""The arithmetic of a training step in pure Python: numbers, fractions and `math`, no arrays.

Where all is rational (ReLU, linear output, squared losses, SGD) the numbers are exact fractions.
"""

import math
from fractions import Fraction
from typing import Any

Numbers = dict[str, Any]

# Each activation with its derivative, both as functions of the input.
FUNCTIONS = {
    "sigmoid": (
        lambda z: 1 / (1 + math.exp(-z)),
        lambda z: math.exp(-z) / (1 + math.exp(-z)) ** 2,
    ),
    "relu": (lambda z: max(z, Fraction(0)), lambda z: Fraction(z > 0)),
    "tanh": (math.tanh, lambda z: 1 / math.cosh(z) ** 2),
    "linear": (lambda z: z, lambda z: Fraction(1)),
}


def loss_of(kind: str, output: list[Any], target: Any, has_sigmoid: bool) -> Any:
    if kind == "cross_entropy":
        return -math.log(math.exp(output[target]) / sum(map(math.exp, output)))
    pairs = list(zip(output, target, strict=True))
    if kind == "half_squared":
        return sum((p - y) ** 2 for p, y in pairs) / 2
    if kind == "mse":
        return sum((p - y) ** 2 for p, y in pairs) / len(pairs)
    chances = [(p if has_sigmoid else 1 / (1 + math.exp(-p)), y) for p, y in pairs]
    return -sum(y * math.log(p) + (1 - y) * math.log(1 - p) for p, y in chances) / len(pairs)


def loss_slopes(kind: str, output: list[Any], target: Any, has_sigmoid: bool) -> list[Any]:
    if kind == "cross_entropy":
        total = sum(map(math.exp, output))
        return [math.exp(p) / total - (place == target) for place, p in enumerate(output)]
    pairs = list(zip(output, target, strict=True))
    if kind == "half_squared":
        return [p - y for p, y in pairs]
    if kind == "mse":
        return [2 * (p - y) / len(pairs) for p, y in pairs]
    if has_sigmoid:
        return [(-y / p + (1 - y) / (1 - p)) / len(pairs) for p, y in pairs]
    return [(1 / (1 + math.exp(-p)) - y) / len(pairs) for p, y in pairs]


class Network:
    """A fully connected network as nested lists, under W1, b1, W2, b2, ..."""

    def __init__(self, hidden: str, output: str, loss: str, parameters: Numbers) -> None:
        self.loss, self.has_sigmoid = loss, output == "sigmoid"
        self.depth = len(parameters) // 2
        self.functions = [*[FUNCTIONS[hidden]] * (self.depth - 1), FUNCTIONS[output]]
        self.parameters = {
            key: [[Fraction(w) for w in row] for row in rows]
            if key[0] == "W"
            else [Fraction(b) for b in rows]
            for key, rows in parameters.items()
        }

    def forward(self, x: list[Any]) -> tuple[list[Any], list[Any]]:
        """Return the sums z and the activations a of every layer; a[0] is the input."""
        sums, activations = [], [x]
        for number, (function, _) in enumerate(self.functions, start=1):
            weight, bias = self.parameters[f"W{number}"], self.parameters[f"b{number}"]
            z = [
                sum(w * a for w, a in zip(row, activations[-1], strict=True)) + b
                for row, b in zip(weight, bias, strict=True)
            ]
            sums.append(z)
            activations.append([function(value) for value in z])
        return sums, activations

    def loss_at(self, x: list[Any], target: Any) -> Any:
        return loss_of(self.loss, self.forward(x)[1][-1], target, self.has_sigmoid)

    def elements(self) -> list[tuple[str, Any, int]]:
        """Return every parameter's name with the list that holds it, and its place there."""
        found = []
        for key, rows in self.parameters.items():
            name = key.replace("W", "w")
            for i, row in enumerate(rows):
                if key[0] == "b":
                    found.append((f"{name}[{i + 1}]", rows, i))
                else:
                    found += [(f"{name}[{i + 1},{j + 1}]", row, j) for j in range(len(row))]
        return found

    def tell(self, x: list[Any], target: Any) -> Numbers:
        """Return every number of forward and backward pass, by the names of the explanation."""
        numbers: Numbers = {}
        sums, activations = self.forward(x)
        output = activations[-1]

        def name(letter: str, i: int) -> str:
            return letter if letter == "y_hat" and len(output) == 1 else f"{letter}[{i + 1}]"

        grad = loss_slopes(self.loss, output, target, self.has_sigmoid)
        numbers |= {name("y_hat", i): value for i, value in enumerate(output)}
        numbers |= {f"dLoss/d{name('y_hat', i)}": g for i, g in enumerate(grad)}
        numbers["Loss"] = loss_of(self.loss, output, target, self.has_sigmoid)
        if self.loss == "cross_entropy":
            largest = max(output)
            total = sum(math.exp(value - largest) for value in output)
            numbers |= {"m[1]": largest, "s[1]": math.log(total)}
        for number in range(self.depth, 0, -1):
            is_last = number == self.depth
            letter, above = f"z{number}", "y_hat" if is_last else f"a{number}"
            if is_last and not self.has_sigmoid:
                letter = "y_hat"
            else:
                slopes = [self.functions[number - 1][1](z) for z in sums[number - 1]]
                grad = [g * slope for g, slope in zip(grad, slopes, strict=True)]
                for i, (z, g, slope) in enumerate(zip(sums[number - 1], grad, slopes, strict=True)):
                    numbers[name(letter, i)] = z
                    numbers[f"d{name(above, i)}/d{name(letter, i)}"] = slope
                    numbers[f"dLoss/d{name(letter, i)}"] = g
                    numbers[name(above, i)] = activations[number][i]
            below = activations[number - 1]
            for i, g in enumerate(grad):
                for j, value in enumerate(below):
                    weight = f"w{number}[{i + 1},{j + 1}]"
                    numbers[f"d{name(letter, i)}/d{weight}"] = value
                    numbers[f"dLoss/d{weight}"] = g * value
                numbers[f"d{name(letter, i)}/db{number}[{i + 1}]"] = 1
                numbers[f"dLoss/db{number}[{i + 1}]"] = g
            weight_rows = self.parameters[f"W{number}"]
            grad = [
                sum(g * row[j] for g, row in zip(grad, weight_rows, strict=True))
                for j in range(len(below))
            ]
            if number > 1:
                numbers |= {f"dLoss/da{number - 1}[{j + 1}]": g for j, g in enumerate(grad)}
        return numbers

    def difference(self, x: list[Any], target: Any, row: Any, place: int) -> float:
        """Return the central difference that a parameter's derivative is compared with."""
        kept = row[place]
        step = Fraction(1e-5) * max(Fraction(1), abs(Fraction(kept)))
        losses = []
        for sign in (1, -1):
            row[place] = kept + sign * step
            losses.append(self.loss_at(x, target))
        row[place] = kept
        return float((losses[0] - losses[1]) / (2 * step))


class Update:
    """SGD, with momentum 0.9, and Adam, as their papers write them."""

    def __init__(self, kind: str, lr: float) -> None:
        self.kind, self.lr = kind, Fraction(lr)
        self.steps = 0
        self.velocity: Numbers = {}
        self.square: Numbers = {}

    def step(self, network: Network, numbers: Numbers) -> Numbers:
        """Change a network's parameters, and return their new values by name."""
        self.steps += 1
        found = {}
        for name, row, place in network.elements():
            row[place] -= self.change(name, numbers[f"dLoss/d{name}"])
            found[f"{name}_new"] = row[place]
        return found

    def change(self, name: str, grad: Any) -> Any:
        if self.kind == "sgd":
            return self.lr * grad
        if self.kind == "momentum":
            self.velocity[name] = Fraction(0.9) * self.velocity.get(name, 0) + grad
            return self.lr * self.velocity[name]
        self.velocity[name] = 0.9 * self.velocity.get(name, 0.0) + 0.1 * grad
        self.square[name] = 0.999 * self.square.get(name, 0.0) + 0.001 * grad * grad
        mean = self.velocity[name] / (1 - 0.9**self.steps)
        variance = self.square[name] / (1 - 0.999**self.steps)
        return float(self.lr) * mean / (math.sqrt(variance) + 1e-8)
