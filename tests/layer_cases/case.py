"""What a row of the table says, and what several families draw and build."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xbackprop.module import Module

Rng = np.random.Generator


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[], Module]
    inputs: Callable[[Rng], Any]
    torch: Callable[[Any], Any]  # takes the module `torch`
    has_batch: bool = True  # the inputs' first axis is the batch
    is_random: bool = False  # in training PyTorch draws other masks: compared in evaluation only
    # Made of layers with rows of their own: its gradients are compared with differences on the CPU,
    # and elsewhere with those of the CPU, bit by bit.
    is_network: bool = False
    is_plain: bool = (
        True  # the ops' formulas show this case; see test_formulas_are_what_ops_compute
    )


# --- inputs -------------------------------------------------------------------------------


def normal(*shape: int) -> Callable[[Rng], np.ndarray]:
    return lambda rng: rng.normal(size=shape)


def pair(*shape: int) -> Callable[[Rng], tuple[np.ndarray, np.ndarray]]:
    return lambda rng: (rng.normal(size=shape), rng.normal(size=shape))


# --- PyTorch's side -----------------------------------------------------------------------


def torch_function(torch: Any, function: Callable[..., Any], module: Any = None) -> Any:
    """A PyTorch module of `function(*inputs)`, or of `function(module, *inputs)`."""

    class Wrapper(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            if module is not None:
                self.module = module

        def forward(self, *inputs: Any) -> Any:
            return function(*inputs) if module is None else function(self.module, *inputs)

    return Wrapper()
