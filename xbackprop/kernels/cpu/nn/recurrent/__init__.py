"""Kernels for the ops of :mod:`xbackprop.nn.recurrent`."""

from xbackprop.kernels.cpu.nn.recurrent import gru, lstm, rnn

__all__ = ["gru", "lstm", "rnn"]
