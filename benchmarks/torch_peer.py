"""PyTorch in the forms that a user would write, for any network and loss."""

from collections.abc import Callable
from typing import Any

import contest


def trained(
    make_network: Callable[[Any], Any],
    weights: dict[str, Any],
    x: Any,
    y: Any,
    *,
    optimizer: str = "Adam",
    loss: Callable[[Any, Any, Any], Any] | None = None,
    compiled: bool = False,
    channels_last: bool = False,
    **options: Any,
) -> Callable[[], Any]:
    """Return a step: zero_grad, forward, loss (cross-entropy by default), backward, update."""
    import torch

    network, x = _made(torch, make_network, weights, x, channels_last)
    y = torch.from_numpy(y)
    compute = loss or (lambda torch, output, y: torch.nn.functional.cross_entropy(output, y))

    def forward(x: Any, y: Any) -> Any:
        return compute(torch, network(x), y)

    forward = torch.compile(forward) if compiled else forward
    updates = getattr(torch.optim, optimizer)(network.parameters(), **options)

    def step() -> Any:
        updates.zero_grad()
        value = forward(x, y)
        value.backward()
        updates.step()
        return value.detach()

    return step


def inferred(
    make_network: Callable[[Any], Any],
    weights: dict[str, Any],
    x: Any,
    *,
    compiled: bool = False,
    channels_last: bool = False,
) -> Callable[[], Any]:
    """Return an inference of the network on ``x``."""
    import torch

    network, x = _made(torch, make_network, weights, x, channels_last)
    network.eval()
    network = torch.compile(network) if compiled else network

    def step() -> Any:
        with torch.inference_mode():
            return network(x)

    return step


def _made(
    torch: Any, make_network: Callable[[Any], Any], weights: Any, x: Any, channels_last: bool
) -> tuple[Any, Any]:
    torch.set_num_threads(contest.threads())
    network = make_network(torch)
    network.load_state_dict(
        {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
    )
    x = torch.from_numpy(x)
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last)
    return network, x
