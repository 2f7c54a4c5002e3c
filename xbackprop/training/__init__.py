"""Training loops, metrics and checkpoints."""

from xbackprop.training.checkpoint import Checkpoint, CheckpointError, load, save
from xbackprop.training.evaluation import Evaluation
from xbackprop.training.gradients import value_and_grad
from xbackprop.training.history import EpochMetrics
from xbackprop.training.rotation import CheckpointFolder
from xbackprop.training.scaling import GradScaler
from xbackprop.training.stepping import NonFiniteError
from xbackprop.training.trainer import Trainer

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "CheckpointFolder",
    "EpochMetrics",
    "Evaluation",
    "GradScaler",
    "NonFiniteError",
    "Trainer",
    "load",
    "save",
    "value_and_grad",
]
