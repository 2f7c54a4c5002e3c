"""Losses: a number that says how wrong the output is, and its gradient."""

from xbackprop.nn.losses.absolute import HuberLoss, L1Loss, SmoothL1Loss
from xbackprop.nn.losses.base import Loss
from xbackprop.nn.losses.binary import BCELoss, BCEWithLogitsLoss
from xbackprop.nn.losses.class_indices import check_class_indices
from xbackprop.nn.losses.cosine_embedding import CosineEmbeddingLoss
from xbackprop.nn.losses.cross_entropy import CrossEntropyLoss
from xbackprop.nn.losses.ctc import CTCLoss
from xbackprop.nn.losses.dice import DiceLoss
from xbackprop.nn.losses.divergence import KLDivLoss
from xbackprop.nn.losses.likelihood import GaussianNLLLoss, PoissonNLLLoss
from xbackprop.nn.losses.margin import HingeEmbeddingLoss, MarginRankingLoss, SoftMarginLoss
from xbackprop.nn.losses.multi_margin import MultiLabelMarginLoss, MultiMarginLoss
from xbackprop.nn.losses.multilabel import FocalLoss, MultiLabelSoftMarginLoss
from xbackprop.nn.losses.nll import NLLLoss
from xbackprop.nn.losses.squared import HalfSquaredError, MSELoss
from xbackprop.nn.losses.token_cross_entropy import TokenCrossEntropyLoss
from xbackprop.nn.losses.triplet import TripletMarginLoss, TripletMarginWithDistanceLoss

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "CTCLoss",
    "CosineEmbeddingLoss",
    "CrossEntropyLoss",
    "DiceLoss",
    "FocalLoss",
    "GaussianNLLLoss",
    "HalfSquaredError",
    "HingeEmbeddingLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "Loss",
    "MSELoss",
    "MarginRankingLoss",
    "MultiLabelMarginLoss",
    "MultiLabelSoftMarginLoss",
    "MultiMarginLoss",
    "NLLLoss",
    "PoissonNLLLoss",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "TokenCrossEntropyLoss",
    "TripletMarginLoss",
    "TripletMarginWithDistanceLoss",
    "check_class_indices",
]
