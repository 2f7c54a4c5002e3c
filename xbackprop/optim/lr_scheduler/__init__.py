"""Schedules: the learning rate as a function of the epoch, under PyTorch's names."""

from xbackprop.optim.lr_scheduler.base import LRScheduler
from xbackprop.optim.lr_scheduler.chains import ChainedScheduler, SequentialLR
from xbackprop.optim.lr_scheduler.cosine import CosineAnnealingLR, CosineAnnealingWarmRestarts
from xbackprop.optim.lr_scheduler.cyclic import CyclicLR
from xbackprop.optim.lr_scheduler.decay import (
    ConstantLR,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from xbackprop.optim.lr_scheduler.functions import LambdaLR, MultiplicativeLR
from xbackprop.optim.lr_scheduler.one_cycle import OneCycleLR
from xbackprop.optim.lr_scheduler.plateau import ReduceLROnPlateau
from xbackprop.optim.lr_scheduler.warmup_stable_decay import WarmupStableDecayLR

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
    "WarmupStableDecayLR",
]
