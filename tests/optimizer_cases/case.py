"""One row: an optimizer with its options, and what it can train."""

import inspect
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import xbackprop as xb
from xbackprop.testing import TOLERANCES

SHAPES = ((3, 4), (4,), (), (0, 5), (2, 2, 2))
MATRICES = ((3, 4), (4, 1), (1, 1), (0, 5), (5, 3))
FILLED = ((3, 4), (4,), (), (1, 5), (2, 2, 2))
GROUPS = ((0, 1, 2), (3, 4))
SECOND_GROUP = {"lr": 0.02, "weight_decay": 0.3}


@dataclass(frozen=True)
class OptimizerCase:
    name: str
    cls: str  # the same name here and in PyTorch
    options: dict[str, Any] = field(default_factory=dict)
    rate: float = 0.1  # a learning rate that minimises the functions of test_optim.py
    steps: int = 300  # so many of them
    shapes: tuple[tuple[int, ...], ...] = SHAPES  # what it is given to train

    def make(self, params: Any, **options: Any) -> Any:
        return getattr(xb.optim, self.cls)(params, **self.known({**self._options, **options}))

    def make_torch(self, torch: Any, params: Any, **options: Any) -> Any:
        return getattr(torch.optim, self.cls)(params, **self.known({**self._options, **options}))

    @property
    def _options(self) -> dict[str, Any]:
        return {"lr": 0.05, **self.options}

    def known(self, options: dict[str, Any]) -> dict[str, Any]:
        """Leave out what the optimizer does not have: not each has a weight decay."""
        names = inspect.signature(getattr(xb.optim, self.cls)).parameters
        return {name: value for name, value in options.items() if name in names}

    @property
    def follows_lr(self) -> bool:
        """A learning rate set before a step is that step's."""
        return self.cls not in ("Rprop", "ASGD")

    @property
    def is_in_pytorch(self) -> bool:
        return self.cls != "Lion"

    def tolerance(self, dtype: str) -> float:
        """Return how far two sound implementations may lie apart.

        Muon's products are rounded to bfloat16: where another order of a sum tips a rounding, an
        update moves by 1/256 of itself.
        """
        return 1e-3 if self.cls == "Muon" else TOLERANCES[dtype].peer

    # --- optimizers of matrices only ------------------------------------------------------

    @property
    def wants_matrices(self) -> bool:
        return self.shapes is MATRICES

    def arrange(self, values: Any) -> np.ndarray:
        """Return values in a shape that it can train."""
        array = np.asarray(values)
        return np.atleast_2d(array) if self.wants_matrices else array

    def trainable(self, parameters: Iterable[Any]) -> list[Any]:
        """Return those of a model's parameters, here or in PyTorch, that it can train."""
        return [p for p in parameters if not self.wants_matrices or len(p.shape) == 2]

    def grouped(self, parameters: list[Any]) -> list[dict[str, Any]]:
        first, second = ([parameters[i] for i in numbers] for numbers in GROUPS)
        return [{"params": first}, {"params": second, **self.known(SECOND_GROUP)}]
