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
    shards: int = 0,
    **options: Any,
) -> Callable[[], Any]:
    """Return a step as README writes it; or as a trainer does over shards."""
    import xbackprop as xb

    network = make_network(xb)
    network.load_state_dict(weights)
    updates = getattr(xb.optim, optimizer)(network.parameters(), **options)
    loss_fn = getattr(xb.nn, loss)()
    if shards:
        trainer = xb.Trainer(network, loss_fn, updates, shards=shards)
        return lambda: trainer.stepper.run(x, y)[0]
    compute = xb.value_and_grad(network, loss_fn)

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
