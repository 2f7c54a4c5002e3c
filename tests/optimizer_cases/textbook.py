"""The textbook: the formulas of the papers as PyTorch documents them, in plain NumPy and float64.

One parameter at a time, with nothing of ours but the defaults of options.
"""

import math
from collections import defaultdict
from typing import Any

import numpy as np

import xbackprop as xb
from optimizer_cases.case import OptimizerCase
from optimizer_cases.course import course, initial

Group = dict[str, Any]


class Value:
    """A number or array that the textbook trains, with what its optimizer remembers of it."""

    def __init__(self, data: np.ndarray) -> None:
        self.dtype = data.dtype
        self.data = data.astype(np.float64)
        self.grad: np.ndarray | None = None
        self.requires_grad = True
        self.steps = 0
        self.memory: defaultdict[str, Any] = defaultdict(float)


class Textbook:
    """Any optimizer: gradient, weight decay, formula."""

    def __init__(self, case: OptimizerCase, values: list[Value]) -> None:
        options = getattr(xb.optim, case.cls)([xb.Parameter(np.zeros((1, 1)))], **case.options)
        defaults = {**options.defaults, "lr": 0.05}
        self.update = FORMULAS[case.cls]
        self.is_decoupled = case.cls in ("AdamW", "Lion", "Muon", "Adafactor")
        self.param_groups = [{**defaults, **group} for group in case.grouped(values)]

    def step(self) -> None:
        for group in self.param_groups:
            is_decoupled = self.is_decoupled or group.get("decoupled_weight_decay")
            decay = group.get("weight_decay", 0)
            for value in group["params"]:
                if value.grad is not None:
                    value.steps += 1
                    start = value.data
                    grad = -value.grad if group.get("maximize") else value.grad
                    if is_decoupled:
                        value.data = value.data - group["lr"] * decay * value.data
                    else:
                        grad = grad + decay * value.data
                    value.data = value.data - self.update(value, grad, {**group, "start": start})


def sgd(value: Value, grad: np.ndarray, group: Group) -> Any:
    mu, memory = group["momentum"], value.memory
    if mu:
        share = 1.0 if value.steps == 1 else 1.0 - group["dampening"]
        memory["momentum"] = mu * memory["momentum"] + share * grad
        grad = grad + mu * memory["momentum"] if group["nesterov"] else memory["momentum"]
    return group["lr"] * grad


def mean_hat(value: Value, grad: np.ndarray, beta: float) -> Any:
    value.memory["mean"] = beta * value.memory["mean"] + (1 - beta) * grad
    return value.memory["mean"] / (1 - beta**value.steps)


def square_hat(value: Value, grad: np.ndarray, beta: float) -> Any:
    value.memory["square"] = beta * value.memory["square"] + (1 - beta) * grad**2
    return value.memory["square"] / (1 - beta**value.steps)


def adam(value: Value, grad: np.ndarray, group: Group) -> Any:
    beta1, beta2 = group["betas"]
    mean, square = mean_hat(value, grad, beta1), square_hat(value, grad, beta2)
    if group["amsgrad"]:
        value.memory["largest"] = np.maximum(value.memory["largest"], value.memory["square"])
        square = value.memory["largest"] / (1 - beta2**value.steps)
    return group["lr"] * mean / (np.sqrt(square) + group["eps"])


def nadam(value: Value, grad: np.ndarray, group: Group) -> Any:
    (beta1, beta2), t = group["betas"], value.steps
    mu, mu_next = (beta1 * (1 - 0.5 * 0.96 ** (k * group["momentum_decay"])) for k in (t, t + 1))
    product = value.memory["mu"] = mu * (value.memory["mu"] if t > 1 else 1.0)
    mean_hat(value, grad, beta1)
    m_hat = mu_next * value.memory["mean"] / (1 - product * mu_next)
    m_hat = m_hat + (1 - mu) * grad / (1 - product)
    return group["lr"] * m_hat / (np.sqrt(square_hat(value, grad, beta2)) + group["eps"])


def radam(value: Value, grad: np.ndarray, group: Group) -> Any:
    (beta1, beta2), t = group["betas"], value.steps
    mean = mean_hat(value, grad, beta1)
    square_hat(value, grad, beta2)
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * t * beta2**t / (1 - beta2**t)
    if length <= 5:
        return group["lr"] * mean
    scale = math.sqrt(1 - beta2**t) / (np.sqrt(value.memory["square"]) + group["eps"])
    rectification = math.sqrt(
        (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    )
    return group["lr"] * mean * rectification * scale


def adamax(value: Value, grad: np.ndarray, group: Group) -> Any:
    beta1, beta2 = group["betas"]
    mean = mean_hat(value, grad, beta1)
    value.memory["largest"] = np.maximum(
        beta2 * value.memory["largest"], np.abs(grad) + group["eps"]
    )
    return group["lr"] * mean / value.memory["largest"]


def adadelta(value: Value, grad: np.ndarray, group: Group) -> Any:
    rho, eps, memory = group["rho"], group["eps"], value.memory
    memory["square"] = rho * memory["square"] + (1 - rho) * grad**2
    delta = np.sqrt((memory["delta"] + eps) / (memory["square"] + eps)) * grad
    memory["delta"] = rho * memory["delta"] + (1 - rho) * delta**2
    return group["lr"] * delta


def adagrad(value: Value, grad: np.ndarray, group: Group) -> Any:
    if value.steps == 1:
        value.memory["sum"] = group["initial_accumulator_value"]
    value.memory["sum"] = value.memory["sum"] + grad**2
    rate = group["lr"] / (1 + (value.steps - 1) * group["lr_decay"])
    return rate * grad / (np.sqrt(value.memory["sum"]) + group["eps"])


def rmsprop(value: Value, grad: np.ndarray, group: Group) -> Any:
    alpha, memory = group["alpha"], value.memory
    memory["square"] = alpha * memory["square"] + (1 - alpha) * grad**2
    variance = memory["square"]
    if group["centered"]:
        memory["mean"] = alpha * memory["mean"] + (1 - alpha) * grad
        variance = variance - memory["mean"] ** 2
    memory["momentum"] = group["momentum"] * memory["momentum"] + grad / (
        np.sqrt(variance) + group["eps"]
    )
    return group["lr"] * memory["momentum"]


def rprop(value: Value, grad: np.ndarray, group: Group) -> Any:
    memory = value.memory
    size = np.full_like(grad, group["lr"]) if value.steps == 1 else memory["size"]
    agreement = np.sign(grad * memory["grad"])
    size = size * np.choose((agreement + 1).astype(int), [group["etas"][0], 1.0, group["etas"][1]])
    memory["size"] = np.clip(size, *group["step_sizes"])
    memory["grad"] = np.where(agreement == -1, 0.0, grad)
    return np.sign(memory["grad"]) * memory["size"]


def asgd(value: Value, grad: np.ndarray, group: Group) -> Any:
    # What it averages has no effect on the weights; test_optim_parity.py compares it.
    lr, lambd, memory = group["lr"], group["lambd"], value.memory
    eta = lr if value.steps == 1 else memory["eta"]
    memory["eta"] = lr / (1 + lambd * lr * value.steps) ** group["alpha"]
    return eta * (grad + lambd * value.data)


def adafactor(value: Value, grad: np.ndarray, group: Group) -> Any:
    share, memory = value.steps ** group["beta2_decay"], value.memory
    eps1 = np.finfo(value.dtype).eps if group["eps"][0] is None else group["eps"][0]
    if grad.ndim > 1:
        for name, axis in (("row", -1), ("column", -2)):
            mean = (grad**2).mean(axis, keepdims=True)
            memory[name] = (1 - share) * memory[name] + share * mean
        variance = np.matmul(memory["row"], memory["column"])
        variance = variance / np.maximum(memory["row"].mean(-2, keepdims=True), eps1)
    else:
        variance = memory["square"] = (1 - share) * memory["square"] + share * grad**2
    direction = grad / np.maximum(np.sqrt(variance), eps1)
    direction = direction / max(1.0, np.sqrt((direction**2).mean()) / group["d"])
    scale = max(group["eps"][1], np.sqrt((group["start"] ** 2).mean()))
    return scale * min(group["lr"], 1 / math.sqrt(value.steps)) * direction


def bfloat16(array: Any) -> np.ndarray:
    """Round to 8 bits of precision."""
    mantissa, exponent = np.frexp(np.float32(array))
    return np.ldexp(np.rint(np.float64(mantissa) * 256) / 256, exponent)


def muon(value: Value, grad: np.ndarray, group: Group) -> Any:
    mu, (a, b, c) = group["momentum"], group["ns_coefficients"]
    mean = value.memory["mean"] = mu * value.memory["mean"] + (1 - mu) * grad
    x = bfloat16((1 - mu) * grad + mu * mean if group["nesterov"] else mean)
    rows, columns = x.shape
    x = x.T if rows > columns else x
    x = bfloat16(x / max(bfloat16(np.sqrt((x**2).sum())), group["eps"]))
    for _ in range(group["ns_steps"]):
        gram = bfloat16(x @ x.T)
        x = bfloat16(a * x + bfloat16(b * gram + c * gram @ gram) @ x)
    if group["adjust_lr_fn"] == "match_rms_adamw":
        rate = 0.2 * math.sqrt(max(rows, columns))
    else:
        rate = math.sqrt(max(1, rows / columns))
    return group["lr"] * rate * (x.T if rows > columns else x)


def lion(value: Value, grad: np.ndarray, group: Group) -> Any:
    (beta1, beta2), mean = group["betas"], value.memory["mean"]
    value.memory["mean"] = beta2 * mean + (1 - beta2) * grad
    return group["lr"] * np.sign(beta1 * mean + (1 - beta1) * grad)


FORMULAS = {
    "SGD": sgd, "Adam": adam, "AdamW": adam, "NAdam": nadam, "RAdam": radam, "Adamax": adamax,
    "Adadelta": adadelta, "Adagrad": adagrad, "RMSprop": rmsprop, "Rprop": rprop, "ASGD": asgd,
    "Adafactor": adafactor, "Muon": muon, "Lion": lion,
}  # fmt: skip


def run_textbook(case: OptimizerCase, dtype: Any) -> list[list[np.ndarray]]:
    """Return the values after every step; `dtype` is that of initial values and gradients."""
    values = [Value(data) for data in initial(case, dtype)]
    textbook = Textbook(case, values)

    def give_gradient(value: Value, grad: np.ndarray | None) -> None:
        value.grad = None if grad is None else grad.astype(np.float64)

    return [
        [value.data.copy() for value in values]
        for _ in course(case, textbook, values, give_gradient, dtype)
    ]
