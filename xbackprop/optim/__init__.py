"""Optimizers, schedules and clipping, under PyTorch's names."""

from xbackprop.optim import lr_scheduler
from xbackprop.optim.adam import Adam, AdamW
from xbackprop.optim.clipping import clip_grad_norm_
from xbackprop.optim.lr_scheduler import StepLR
from xbackprop.optim.optimizer import Optimizer
from xbackprop.optim.sgd import SGD

__all__ = [
    "Adam",
    "AdamW",
    "Optimizer",
    "SGD",
    "StepLR",
    "clip_grad_norm_",
    "lr_scheduler",
]
