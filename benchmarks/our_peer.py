"""xbackprop in the forms that a user would write, for any network and loss."""

import contextlib
from collections.abc import Callable
from typing import Any


def _load_numba() -> None:
    """Import it before memory is measured, as the others' libraries are; a step would do it."""
    with contextlib.suppress(ImportError):
        import numba  # noqa: F401


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

    _load_numba()

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

    _load_numba()

    network = make_network(xb)
    network.load_state_dict(weights)
    network.eval()
    return lambda: network(x)
