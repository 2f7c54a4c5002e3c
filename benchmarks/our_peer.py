"""xbackprop in the forms that a user would write, for any network and loss."""

from collections.abc import Callable
from typing import Any


def trained(
    make_network: Callable[[Any], Any],
    weights: dict[str, Any],
    x: Any,
    y: Any,
    *,
    optimizer: str = "Adam",
    loss: str = "CrossEntropyLoss",
    **options: Any,
) -> Callable[[], Any]:
    """Return a step as README writes it."""
    import xbackprop as xb

    network = make_network(xb)
    network.load_state_dict(weights)
    updates = getattr(xb.optim, optimizer)(network.parameters(), **options)
    compute = xb.value_and_grad(network, getattr(xb.nn, loss)())

    def step() -> Any:
        updates.zero_grad()
        value, _ = compute(x, y)
        updates.step()
        return value

    return step


def inferred(
    make_network: Callable[[Any], Any], weights: dict[str, Any], x: Any
) -> Callable[[], Any]:
    """Return an inference of the network on ``x``."""
    import xbackprop as xb

    network = make_network(xb)
    network.load_state_dict(weights)
    network.eval()
    return lambda: network(x)
