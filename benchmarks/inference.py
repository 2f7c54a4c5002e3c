"""W6: the inference of a network that another workload trains."""

from collections.abc import Callable
from typing import Any

import contest
import initial
import jax_peer
import our_peer
import torch_peer


def workload(
    name: str,
    title: str,
    networks: tuple[Callable[[Any], Any], Callable[[Any], Any], Callable[..., Any]],
    weights: dict[str, Any],
    x: Any,
    *,
    forms: dict[str, dict[str, bool]],
    flops: float,
    bytes_moved: float,
    tolerance: float = 2e-3,
) -> contest.Workload:
    """Return the contest of a batch ``x``.

    ``networks`` makes ours of ``xb``, PyTorch's of ``torch``, and is applied by JAX; ``forms`` are
    those of PyTorch with their options.
    """
    ours, theirs, applied = networks
    pytorch = {
        f"PyTorch, {form}": lambda options=options: torch_peer.inferred(
            theirs, weights, x, **options
        )
        for form, options in forms.items()
    }
    return contest.Workload(
        name=f"w6_{name}_batch_{len(x)}",
        title=f"W6: {title}, batch {len(x)}",
        contestants={
            "xbackprop": lambda: our_peer.inferred(ours, weights, x),
            **pytorch,
            "JAX, jit": lambda: jax_peer.inferred(applied, weights, x),
        },
        flops=flops,
        bytes_moved=bytes_moved,
        targets=(contest.Target("PyTorch", None, 1.5),),
        figure=initial.figure_of_output,
        wait={"JAX, jit": jax_peer.wait},
        checked=(1,),
        tolerance=tolerance,
    )
