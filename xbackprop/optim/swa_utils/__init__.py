"""Averages of weights over a training (EMA, SWA), under the names of torch.optim.swa_utils."""

from xbackprop.optim.swa_utils.averages import (
    get_ema_avg_fn,
    get_ema_multi_avg_fn,
    get_swa_avg_fn,
    get_swa_multi_avg_fn,
)
from xbackprop.optim.swa_utils.batch_norm import update_bn
from xbackprop.optim.swa_utils.model import AveragedModel
from xbackprop.optim.swa_utils.schedule import SWALR

__all__ = [
    "AveragedModel",
    "SWALR",
    "get_ema_avg_fn",
    "get_ema_multi_avg_fn",
    "get_swa_avg_fn",
    "get_swa_multi_avg_fn",
    "update_bn",
]
