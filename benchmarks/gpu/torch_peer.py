"""The same networks in PyTorch, eager and compiled, where it is installed and has the device."""

from collections.abc import Callable
from typing import Any

from benchmarks.gpu.networks import LR, Network
from xbackprop.backend.device import Device


def steps(network: Network, device: Device) -> dict[str, Callable[[], Any]]:
    """Return a step of each of PyTorch's ways; none where it cannot run."""
    try:
        import torch
    except ImportError:
        return {}
    if device.kind == "cuda" and not torch.cuda.is_available():
        return {}
    found = {"torch eager": step_of(torch, network, device, compiled=False)}
    if device.kind == "cuda":  # on a CPU it needs a C++ compiler, and is not what is asked
        compiled = step_of(torch, network, device, compiled=True)
        try:
            compiled()
        except Exception as error:  # noqa: BLE001 - its back end may lack anything; told, not hidden
            print(f"torch.compile of {network.name} does not run: {error}")
        else:
            found["torch.compile"] = compiled
    return found


def step_of(torch: Any, network: Network, device: Device, *, compiled: bool) -> Callable[[], Any]:
    place = torch.device(str(device))
    model = network.make_torch(torch).to(place)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01)
    loss_fn = torch.nn.CrossEntropyLoss()
    x, y = (torch.from_numpy(array).to(place) for array in network.batch())
    run = torch.compile(model) if compiled else model

    def step() -> None:
        optimizer.zero_grad()
        loss_fn(run(x), y).backward()
        optimizer.step()

    return step
