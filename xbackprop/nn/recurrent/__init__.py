"""Recurrent layers and cells: networks that carry a state along a sequence."""

from xbackprop.nn.recurrent.gru import GRU, GRUCell
from xbackprop.nn.recurrent.lstm import LSTM, LSTMCell
from xbackprop.nn.recurrent.rnn import RNN, RNNCell

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell"]
