"""Rows of containers."""

from typing import Any

from layer_cases.case import Case, normal, torch_function
from xbackprop import nn
from xbackprop.module import Module


def tied() -> Module:
    network = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), rng=1)
    network[2].weight = network[0].weight
    return network


def tied_torch(torch: Any) -> Any:
    network = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh(), torch.nn.Linear(3, 3))
    network[2].weight = network[0].weight
    return network


def used_twice() -> Module:
    layer = nn.Linear(3, 3, rng=1)
    return nn.Sequential(layer, nn.Sigmoid(), layer)


def used_twice_torch(torch: Any) -> Any:
    layer = torch.nn.Linear(3, 3)
    return torch.nn.Sequential(layer, torch.nn.Sigmoid(), layer)


class Ladder(Module):
    """Adds what each module of a list makes of the sum so far."""

    def __init__(self) -> None:
        self.steps = nn.ModuleList([nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)], rng=0)

    def forward(self, x: Any) -> tuple[Any, Any]:
        saved = []
        for step in self.steps:
            y, step_saved = step.forward(x)
            x = x + y
            saved.append(step_saved)
        return x, saved

    def backward(self, grad_output: Any, saved: Any, **options: Any) -> Any:
        for step, step_saved in zip(reversed(list(self.steps)), reversed(saved), strict=True):
            grad_output = grad_output + step.backward(grad_output, step_saved)
        return grad_output


def ladder_torch(torch: Any) -> Any:
    class TorchLadder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            linear = torch.nn.Linear
            self.steps = torch.nn.ModuleList([linear(3, 3), torch.nn.Tanh(), linear(3, 3)])

        def forward(self, x: Any) -> Any:
            for step in self.steps:
                x = x + step(x)
            return x

    return TorchLadder()


class TwoHeads(Module):
    """The product of two named modules."""

    def __init__(self) -> None:
        parts = {"scale": nn.Linear(3, 2), "shared": nn.Linear(3, 2)}
        self.heads = nn.ModuleDict(parts, rng=0)

    def forward(self, x: Any) -> tuple[Any, Any]:
        first, first_saved = self.heads["scale"].forward(x)
        second, second_saved = self.heads["shared"].forward(x)
        return first * second, (first, first_saved, second, second_saved)

    def backward(self, grad_output: Any, saved: Any, **options: Any) -> Any:
        first, first_saved, second, second_saved = saved
        grad = self.heads["scale"].backward(grad_output * second, first_saved)
        return grad + self.heads["shared"].backward(grad_output * first, second_saved)


def two_heads_torch(torch: Any) -> Any:
    class TorchTwoHeads(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            parts = {"scale": torch.nn.Linear(3, 2), "shared": torch.nn.Linear(3, 2)}
            self.heads = torch.nn.ModuleDict(parts)

        def forward(self, x: Any) -> Any:
            return self.heads["scale"](x) * self.heads["shared"](x)

    return TorchTwoHeads()


def changed() -> Module:
    """A Sequential after every way of changing it; what is left is that of `changed_torch`."""
    model = nn.Sequential(nn.ReLU(), nn.Linear(3, 3))
    return change(model, nn)


def changed_torch(torch: Any) -> Any:
    model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(3, 3))
    return change(model, torch.nn)


def change(model: Any, library: Any) -> Any:
    model.append(library.Tanh()).extend([library.Linear(3, 2), library.ReLU()])
    model.insert(1, library.Linear(3, 3))
    model[0] = library.Sigmoid()
    del model[-1]
    model.pop(2)
    if hasattr(model, "reset_parameters"):
        model.reset_parameters(0)
    return model


def side_by_side(torch: Any, join: Any, *modules: Any) -> Any:
    """PyTorch modules "0", "1", ... on one input."""

    class SideBySide(torch.nn.ModuleList):
        def forward(self, x: Any) -> Any:
            return join([module(x) for module in self])

    return SideBySide(modules)


CONTAINERS = [
    Case(
        "Sequential",
        lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), rng=0),
        normal(4, 3),
        lambda t: t.nn.Sequential(t.nn.Linear(3, 4), t.nn.Tanh(), t.nn.Linear(4, 2)),
    ),
    Case("Sequential of nothing", nn.Sequential, normal(4, 3), lambda t: t.nn.Sequential()),
    Case(
        "Sequential with names",
        lambda: nn.Sequential({"first": nn.Linear(3, 2), "act": nn.Sigmoid()}, rng=0),
        normal(4, 3),
        lambda t: t.nn.ModuleDict({"first": t.nn.Linear(3, 2), "act": t.nn.Sigmoid()}),
    ),
    Case(
        "Sequential in Sequential",
        lambda: nn.Sequential(
            nn.Flatten(),
            nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.Tanh(), nn.Linear(3, 3))),
            nn.Sigmoid(),
            rng=0,
        ),
        normal(3, 2, 2),
        lambda t: t.nn.Sequential(
            t.nn.Flatten(),
            t.nn.Sequential(t.nn.Linear(4, 3), t.nn.Sequential(t.nn.Tanh(), t.nn.Linear(3, 3))),
            t.nn.Sigmoid(),
        ),
    ),
    Case(
        "Sequential with Dropout",
        lambda: nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 2), rng=0),
        normal(4, 3),
        lambda t: t.nn.Sequential(t.nn.Linear(3, 8), t.nn.Dropout(0.5), t.nn.Linear(8, 2)),
        is_random=True,
    ),
    Case("Sequential with a layer used twice", used_twice, normal(4, 3), used_twice_torch),
    Case("Sequential with tied weights", tied, normal(4, 3), tied_torch),
    Case(
        "Residual",
        lambda: nn.Residual(nn.Sequential(nn.Linear(3, 3), nn.Tanh(), rng=0)),
        normal(4, 3),
        lambda t: torch_function(
            t,
            lambda module, x: x + module(x),
            t.nn.Sequential(t.nn.Linear(3, 3), t.nn.Tanh()),
        ),
    ),
    Case("Sequential that was changed", changed, normal(4, 3), changed_torch),
    Case("ModuleList", Ladder, normal(4, 3), ladder_torch),
    Case("ModuleDict", TwoHeads, normal(4, 3), two_heads_torch),
    Case(
        "Parallel",
        lambda: nn.Parallel(nn.Linear(3, 2), nn.Identity(), nn.Linear(3, 1), rng=0),
        normal(4, 3),
        lambda t: side_by_side(t, tuple, t.nn.Linear(3, 2), t.nn.Identity(), t.nn.Linear(3, 1)),
    ),
    Case(
        "Parallel of one",
        lambda: nn.Parallel(nn.Linear(3, 2), rng=0),
        normal(4, 3),
        lambda t: side_by_side(t, tuple, t.nn.Linear(3, 2)),
    ),
    Case(
        "Parallel in Sequential",
        lambda: nn.Sequential(nn.Linear(3, 3), nn.Parallel(nn.Tanh(), nn.Linear(3, 2)), rng=0),
        normal(4, 3),
        lambda t: t.nn.Sequential(
            t.nn.Linear(3, 3), side_by_side(t, tuple, t.nn.Tanh(), t.nn.Linear(3, 2))
        ),
    ),
    Case(
        "Concat",
        lambda: nn.Concat(nn.Linear(3, 2), nn.Identity(), nn.Linear(3, 1), rng=0),
        normal(4, 3),
        lambda t: side_by_side(
            t, lambda ys: t.cat(ys, 1), t.nn.Linear(3, 2), t.nn.Identity(), t.nn.Linear(3, 1)
        ),
    ),
    Case(
        "Concat along the last axis",
        lambda: nn.Concat(nn.Linear(3, 2), nn.Dropout(0.0, rng=0), dim=-1, rng=0),
        normal(2, 4, 3),
        lambda t: side_by_side(t, lambda ys: t.cat(ys, -1), t.nn.Linear(3, 2), t.nn.Dropout(0.0)),
    ),
    Case(
        "Concat along the batch",
        lambda: nn.Concat(nn.Linear(3, 2), nn.Linear(3, 2), dim=0, rng=0),
        normal(4, 3),
        lambda t: side_by_side(t, lambda ys: t.cat(ys, 0), t.nn.Linear(3, 2), t.nn.Linear(3, 2)),
    ),
    Case(
        "Recompute",
        lambda: nn.Recompute(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), rng=0)),
        normal(4, 3),
        lambda t: torch_function(
            t,
            lambda module, x: module(x),
            t.nn.Sequential(t.nn.Linear(3, 4), t.nn.Tanh(), t.nn.Linear(4, 2)),
        ),
    ),
    Case(
        "Recompute with Dropout inside",
        lambda: nn.Recompute(nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.4), rng=0)),
        normal(4, 3),
        lambda t: torch_function(
            t,
            lambda module, x: module(x),
            t.nn.Sequential(t.nn.Linear(3, 8), t.nn.Dropout(0.4)),
        ),
        is_random=True,
    ),
]
