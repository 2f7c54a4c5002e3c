"""Containers: networks made of other modules."""

from xbackprop.nn.containers.branches import Concat, Parallel, Residual
from xbackprop.nn.containers.lists import ModuleDict, ModuleList
from xbackprop.nn.containers.recompute import Recompute
from xbackprop.nn.containers.sequential import Sequential

__all__ = ["Concat", "ModuleDict", "ModuleList", "Parallel", "Recompute", "Residual", "Sequential"]
