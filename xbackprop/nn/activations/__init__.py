"""Activations: a formula and its derivative side by side, one file a theme."""

from xbackprop.nn.activations.elementwise import Elementwise, as_number, check_float, refuse_inplace
from xbackprop.nn.activations.exponential import CELU, ELU, SELU
from xbackprop.nn.activations.gates import GELU, Hardswish, Mish, SiLU
from xbackprop.nn.activations.glu import GLU
from xbackprop.nn.activations.leaky import LeakyReLU, PReLU, RReLU
from xbackprop.nn.activations.rectifiers import Hardtanh, ReLU, ReLU6, Threshold
from xbackprop.nn.activations.shrink import Hardshrink, Softshrink, Tanhshrink
from xbackprop.nn.activations.smooth import (
    Hardsigmoid,
    LogSigmoid,
    Sigmoid,
    Softplus,
    Softsign,
    Tanh,
)
from xbackprop.nn.activations.softmax import LogSoftmax, Softmax, Softmax2d, Softmin

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "SELU",
    "Elementwise",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "PReLU",
    "RReLU",
    "ReLU",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softmax2d",
    "Softmin",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Tanh",
    "Tanhshrink",
    "Threshold",
    "as_number",
    "check_float",
    "refuse_inplace",
]
