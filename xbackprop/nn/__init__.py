"""Layers, containers and losses: the catalogue, under PyTorch's names.

One row per name; what is not listed here does not exist yet.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from xbackprop.module import Module, Parameter
from xbackprop.module.config import rebuild
from xbackprop.nn.activations import (
    CELU,
    ELU,
    GELU,
    GLU,
    SELU,
    Hardshrink,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    LeakyReLU,
    LogSigmoid,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU,
    ReLU6,
    RReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softmax2d,
    Softmin,
    Softplus,
    Softshrink,
    Softsign,
    Tanh,
    Tanhshrink,
    Threshold,
)
from xbackprop.nn.attention import MultiheadAttention, ScaledDotProductAttention
from xbackprop.nn.bilinear import Bilinear
from xbackprop.nn.containers import (
    Concat,
    ModuleDict,
    ModuleList,
    Parallel,
    Recompute,
    Residual,
    Sequential,
)
from xbackprop.nn.convolution import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    Fold,
    Unfold,
)
from xbackprop.nn.distances import CosineSimilarity, PairwiseDistance
from xbackprop.nn.dropout import (
    AlphaDropout,
    Dropout,
    Dropout1d,
    Dropout2d,
    Dropout3d,
    FeatureAlphaDropout,
)
from xbackprop.nn.embedding import Embedding, EmbeddingBag
from xbackprop.nn.gpt import GPT
from xbackprop.nn.lazy_linear import LazyLinear
from xbackprop.nn.linear import Identity, Linear
from xbackprop.nn.losses import (
    BCELoss,
    BCEWithLogitsLoss,
    CosineEmbeddingLoss,
    CrossEntropyLoss,
    CTCLoss,
    DiceLoss,
    FocalLoss,
    GaussianNLLLoss,
    HalfSquaredError,
    HingeEmbeddingLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    Loss,
    MarginRankingLoss,
    MSELoss,
    MultiLabelMarginLoss,
    MultiLabelSoftMarginLoss,
    MultiMarginLoss,
    NLLLoss,
    PoissonNLLLoss,
    SmoothL1Loss,
    SoftMarginLoss,
    TokenCrossEntropyLoss,
    TripletMarginLoss,
    TripletMarginWithDistanceLoss,
)
from xbackprop.nn.normalization import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    LocalResponseNorm,
    RMSNorm,
)
from xbackprop.nn.padding import (
    CircularPad1d,
    CircularPad2d,
    CircularPad3d,
    ConstantPad1d,
    ConstantPad2d,
    ConstantPad3d,
    ReflectionPad1d,
    ReflectionPad2d,
    ReflectionPad3d,
    ReplicationPad1d,
    ReplicationPad2d,
    ReplicationPad3d,
    ZeroPad1d,
    ZeroPad2d,
    ZeroPad3d,
)
from xbackprop.nn.pooling import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    FractionalMaxPool2d,
    FractionalMaxPool3d,
    LPPool1d,
    LPPool2d,
    LPPool3d,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
    MaxUnpool1d,
    MaxUnpool2d,
    MaxUnpool3d,
)
from xbackprop.nn.positions import LearnedPositionalEmbedding, SinusoidalPositionalEncoding
from xbackprop.nn.recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from xbackprop.nn.reshape import Flatten, Unflatten
from xbackprop.nn.resnet import BasicBlock, ResNet
from xbackprop.nn.rotary import RotaryEmbedding
from xbackprop.nn.shuffle import ChannelShuffle, PixelShuffle, PixelUnshuffle
from xbackprop.nn.swiglu import SwiGLU
from xbackprop.nn.transformer import (
    Transformer,
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
)
from xbackprop.nn.upsample import Upsample, UpsamplingBilinear2d, UpsamplingNearest2d

__all__ = [
    # the base
    "Module",
    "Parameter",
    # linear maps
    "Linear",
    "LazyLinear",
    "Bilinear",
    "Identity",
    # convolutions
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Unfold",
    "Fold",
    # activations
    "ReLU",
    "ReLU6",
    "Hardtanh",
    "Threshold",
    "LeakyReLU",
    "PReLU",
    "RReLU",
    "ELU",
    "CELU",
    "SELU",
    "Sigmoid",
    "LogSigmoid",
    "Hardsigmoid",
    "Tanh",
    "Softsign",
    "Softplus",
    "GELU",
    "SiLU",
    "Mish",
    "Hardswish",
    "GLU",
    "Hardshrink",
    "Softshrink",
    "Tanhshrink",
    "Softmax",
    "Softmin",
    "LogSoftmax",
    "Softmax2d",
    # attention
    "ScaledDotProductAttention",
    "MultiheadAttention",
    # transformers
    "TransformerEncoderLayer",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerDecoder",
    "Transformer",
    "SwiGLU",
    # positions
    "RotaryEmbedding",
    "SinusoidalPositionalEncoding",
    "LearnedPositionalEmbedding",
    # shapes
    "Flatten",
    "Unflatten",
    "PixelShuffle",
    "PixelUnshuffle",
    "ChannelShuffle",
    "Upsample",
    "UpsamplingNearest2d",
    "UpsamplingBilinear2d",
    # normalization
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "LayerNorm",
    "RMSNorm",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LocalResponseNorm",
    # padding
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    # pooling
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MaxUnpool1d",
    "MaxUnpool2d",
    "MaxUnpool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "FractionalMaxPool2d",
    "FractionalMaxPool3d",
    # regularisation
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "AlphaDropout",
    "FeatureAlphaDropout",
    # embeddings
    "Embedding",
    "EmbeddingBag",
    # recurrent layers
    "RNN",
    "LSTM",
    "GRU",
    "RNNCell",
    "LSTMCell",
    "GRUCell",
    # distances
    "CosineSimilarity",
    "PairwiseDistance",
    # containers
    "Sequential",
    "ModuleList",
    "ModuleDict",
    "Residual",
    "Parallel",
    "Concat",
    "Recompute",
    # models
    "BasicBlock",
    "ResNet",
    "GPT",
    # losses
    "Loss",
    "MSELoss",
    "HalfSquaredError",
    "L1Loss",
    "SmoothL1Loss",
    "HuberLoss",
    "CrossEntropyLoss",
    "TokenCrossEntropyLoss",
    "NLLLoss",
    "KLDivLoss",
    "BCELoss",
    "BCEWithLogitsLoss",
    "MultiLabelSoftMarginLoss",
    "FocalLoss",
    "DiceLoss",
    "PoissonNLLLoss",
    "GaussianNLLLoss",
    "SoftMarginLoss",
    "HingeEmbeddingLoss",
    "MarginRankingLoss",
    "CosineEmbeddingLoss",
    "MultiMarginLoss",
    "MultiLabelMarginLoss",
    "TripletMarginLoss",
    "TripletMarginWithDistanceLoss",
    "CTCLoss",
    # architectures as data
    "catalogue",
    "from_config",
]


def catalogue() -> dict[str, type[Module]]:
    """Return every module class of this package by its name."""
    found = {name: globals()[name] for name in __all__}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, type) and issubclass(value, Module) and value is not Module
    }


def from_config(config: Mapping[str, Any], *, types: Iterable[type[Module]] = ()) -> Module:
    """Rebuild the architecture that ``module.config()`` described.

    Parameters
    ----------
    config : mapping
        Plain data; may come from an untrusted file, since only known classes are made.
    types : iterable of Module subclasses
        Your own classes that may appear in it.

    Returns
    -------
    Module
        With fresh initial values.

    Raises
    ------
    ValueError
        For an unknown class or argument; lists the known ones.

    Examples
    --------
    >>> import xbackprop as xb
    >>> model = xb.nn.Sequential(xb.nn.Linear(2, 2), xb.nn.ReLU())
    >>> xb.nn.from_config(model.config()).config() == model.config()
    True
    """
    return rebuild(config, catalogue() | {cls.__name__: cls for cls in types})
