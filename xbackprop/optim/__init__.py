"""Optimizers, schedules, clipping and averages, under PyTorch's names."""

from xbackprop.optim import lr_scheduler, swa_utils
from xbackprop.optim.adadelta import Adadelta
from xbackprop.optim.adafactor import Adafactor
from xbackprop.optim.adagrad import Adagrad
from xbackprop.optim.adam import Adam, AdamW
from xbackprop.optim.adamax import Adamax
from xbackprop.optim.asgd import ASGD
from xbackprop.optim.clipping import (
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)
from xbackprop.optim.lbfgs import LBFGS
from xbackprop.optim.lion import Lion
from xbackprop.optim.lr_scheduler import StepLR
from xbackprop.optim.muon import Muon
from xbackprop.optim.nadam import NAdam
from xbackprop.optim.optimizer import Optimizer
from xbackprop.optim.radam import RAdam
from xbackprop.optim.rmsprop import RMSprop
from xbackprop.optim.rprop import Rprop
from xbackprop.optim.sgd import SGD

__all__ = [
    "ASGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "LBFGS",
    "Lion",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
    "StepLR",
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "get_total_norm",
    "lr_scheduler",
    "swa_utils",
]
