"""Kernels for the CPU; imported by dispatch at the first op there."""

from xbackprop.backend.heap import let_heap_grow
from xbackprop.kernels.cpu import nn, ops, optim

__all__ = ["nn", "ops", "optim"]

let_heap_grow()
