"""Training loops, metrics and checkpoints."""

from xbackprop.training.checkpoint import Checkpoint, CheckpointError, load, save
from xbackprop.training.trainer import (
    EpochMetrics,
    Evaluation,
    NonFiniteError,
    Trainer,
    value_and_grad,
)

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "EpochMetrics",
    "Evaluation",
    "NonFiniteError",
    "Trainer",
    "load",
    "save",
    "value_and_grad",
]
