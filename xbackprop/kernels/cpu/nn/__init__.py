"""Kernels for the ops of :mod:`xbackprop.nn`, one module for each of theirs."""

from xbackprop.kernels.cpu.nn import (
    activations,
    attention,
    convolution,
    losses,
    normalization,
    perceptron,
    perceptron_epoch,
    pooling,
    recurrent,
    remade,
)

__all__ = ["activations", "attention", "convolution", "losses", "normalization", "perceptron",
           "perceptron_epoch", "pooling", "recurrent", "remade"]  # fmt: skip
