"""Arguments and inputs that layers refuse, and that PyTorch refuses them too, or why it does not.

A row: the layer, its arguments, the shapes of its inputs (None where the constructor refuses), the
exception, what the message must hold, and what PyTorch does.
"""

import re
import warnings
from typing import Any

import numpy as np
import pytest
from needs_torch import import_torch

import xbackprop as xb
from xbackprop import nn
from xbackprop.backend.device import Device

INF, NAN = float("inf"), float("nan")

RAISES = "raises"
WARNS = "warns"
ACCEPTS = "accepts"

REFUSED = [
    # activations
    ("CELU", (0,), None, ValueError, "CELU expects alpha other than 0", RAISES),
    ("ELU", ("a",), None, TypeError, "ELU expects alpha to be a number; got str", RAISES),
    ("ELU", (None,), None, TypeError, "ELU expects alpha to be a number; got NoneType", RAISES),
    ("GELU", ("erf",), None, ValueError, "GELU expects approximate 'none' or 'tanh'; got 'erf'",
     RAISES),
    ("GLU", (), [(4, 3)], ValueError, "GLU halves axis -1, whose length must be even; got x of sh",
     RAISES),
    ("GLU", (0,), [(3, 4)], ValueError, "GLU halves axis 0, whose length must be even", RAISES),
    ("GLU", (), [()], ValueError, "GLU halves axis -1, whose length must be even", RAISES),
    ("GLU", (2,), [(4, 4)], ValueError, "GLU works along axis 2; got x of shape (4, 4). Choose",
     RAISES),
    ("GLU", ("a",), None, TypeError, "GLU expects dim to be an int; got str", RAISES),
    ("GLU", (None,), None, NotImplementedError, "GLU(dim=None)", RAISES),
    ("Hardtanh", (1, 1), None, ValueError, "Hardtanh expects max_val > min_val; got min_val=1, max",
     RAISES),
    ("Hardtanh", (2, -1), None, ValueError, "Hardtanh expects max_val > min_val", RAISES),
    ("Hardtanh", (NAN, 1), None, ValueError, "Hardtanh expects max_val > min_val", ACCEPTS),
    ("Hardtanh", (-1, 1, False, -2), None, NotImplementedError,
     "Hardtanh(min_value=...) is deprecated: use min_val", WARNS),
    ("Hardtanh", (-1, 1, False, None, 2), None, NotImplementedError,
     "Hardtanh(max_value=...) is deprecated: use max_val", WARNS),
    ("RReLU", (0.5, 0.2), None, ValueError, "RReLU expects finite lower <= upper; got lower=0.5",
     RAISES),
    ("RReLU", (0.5, INF), None, ValueError, "RReLU expects finite lower <= upper", RAISES),
    ("RReLU", (-INF, 0.5), None, ValueError, "RReLU expects finite lower <= upper", RAISES),
    ("PReLU", (-1,), None, ValueError, "PReLU expects num_parameters >= 0; got -1", RAISES),
    ("PReLU", (2,), [(4, 3)], ValueError, "PReLU expects x of shape (batch, 2, ...); got (4, 3)",
     RAISES),
    ("PReLU", (3,), [(3,)], ValueError, "PReLU expects x of shape (batch, 3, ...); got (3,)",
     RAISES),
    ("PReLU", (3,), [()], ValueError, "PReLU expects x of shape (batch, 3, ...); got ()", RAISES),
    ("PReLU", (0,), [(4, 3)], ValueError, "PReLU expects x of shape (batch, 0, ...)", RAISES),
    ("Softshrink", (-1,), None, ValueError, "Softshrink expects a finite lambd >= 0; got -1",
     RAISES),
    ("Softshrink", (NAN,), None, ValueError, "Softshrink expects a finite lambd >= 0", RAISES),
    ("Threshold", (1,), None, TypeError, "missing 1 required positional argument: 'value'", RAISES),
    *((name, (), None, NotImplementedError, f"{name}(dim=None): PyTorch deprecates its implicit",
       WARNS) for name in ("Softmax", "Softmin", "LogSoftmax")),
    *((name, (2,), [(4, 3)], ValueError, f"{name} works along axis 2; got x of shape (4, 3). "
       "Choose dim from -2 to 1.", RAISES) for name in ("Softmax", "Softmin", "LogSoftmax")),
    ("Softmax", (-3,), [(4, 3)], ValueError, "Softmax works along axis -3", RAISES),
    ("Softmax", (1,), [()], ValueError, "Softmax works along axis 1; got x of shape ()", RAISES),
    ("Softmax", (True,), None, TypeError, "Softmax expects dim to be an int; got bool", RAISES),
    ("Softmax", (1.0,), None, TypeError, "Softmax expects dim to be an int; got float", RAISES),
    ("Softmax2d", (), [(4, 3)], ValueError, "Softmax2d expects x of shape (batch, channels, heigh",
     RAISES),
    ("Softmax2d", (), [(1, 2, 3, 4, 5)], ValueError, "got (1, 2, 3, 4, 5)", RAISES),
    *((name, args, None, NotImplementedError, f"{name}(inplace=True): layers never write", ACCEPTS)
      for name, args in (
          ("ReLU", (True,)), ("ReLU6", (True,)), ("Hardtanh", (-1, 1, True)),
          ("Threshold", (0, 1, True)), ("LeakyReLU", (0.1, True)), ("RReLU", (0.1, 0.2, True)),
          ("ELU", (1, True)), ("CELU", (1, True)), ("SELU", (True,)), ("Hardsigmoid", (True,)),
          ("SiLU", (True,)), ("Mish", (True,)), ("Hardswish", (True,)), ("Dropout1d", (0.5, True)),
          ("AlphaDropout", (0.5, True)))),
    # dropout
    *((name, (p,), None, ValueError, f"{name} expects p between 0 and 1; got {p}", RAISES)
      for name in ("Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout")
      for p in (-0.1, 1.5)),
    ("Dropout1d", (), [(3,)], ValueError, "Dropout1d expects x of shape (batch, channels, length)",
     RAISES),
    ("Dropout1d", (), [(1, 2, 3, 4)], ValueError, "got (1, 2, 3, 4). Dropout takes any", RAISES),
    ("Dropout2d", (), [(2, 3, 4)], NotImplementedError, "Dropout2d of 3-D input, here (2, 3, 4)",
     WARNS),
    ("Dropout2d", (), [(2, 3)], ValueError, "Dropout2d expects x of shape (batch, channels, hei",
     WARNS),
    ("Dropout2d", (), [(3,)], ValueError, "Dropout2d expects x of shape", RAISES),
    ("Dropout2d", (), [(1, 1, 1, 1, 2)], ValueError, "Dropout2d expects x of shape", WARNS),
    ("Dropout3d", (), [(2, 3, 4)], ValueError, "Dropout3d expects x of shape", WARNS),
    ("Dropout3d", (), [()], ValueError, "Dropout3d expects x of shape", RAISES),
    ("FeatureAlphaDropout", (), [(3,)], ValueError, "FeatureAlphaDropout expects x of shape (batc",
     RAISES),
    # linear maps
    ("Bilinear", (0, 2, 3), None, ValueError, "Bilinear expects in1_features > 0; got 0", RAISES),
    ("Bilinear", (1, -2, 3), None, ValueError, "Bilinear expects in2_features >= 0; got -2",
     RAISES),
    ("Bilinear", (1, 2, -3), None, ValueError, "Bilinear expects out_features >= 0; got -3",
     RAISES),
    *(("Bilinear", (3, 2, 5), shapes, ValueError, "Bilinear expects input1 of shape (..., 3) and i",
       RAISES) for shapes in (
          [(4, 3), (3, 2)], [(4, 3), (1, 2)], [(4, 3), (1, 4, 2)], [(4, 2), (4, 3)], [(), ()])),
    ("LazyLinear", (-2,), None, ValueError, "LazyLinear expects out_features >= 0; got -2",
     ACCEPTS),  # until its first forward
    ("LazyLinear", (2,), [()], ValueError, "LazyLinear expects x of shape (..., in_features); got ",
     RAISES),
    # normalization
    *((name, (arg,), None, error, f"{name} expects normalized_shape", pytorch)
      for name in ("LayerNorm", "RMSNorm") for arg, error, pytorch in (
          (2.0, TypeError, RAISES), ("a", TypeError, RAISES), ((), ValueError, RAISES),
          (-1, ValueError, RAISES), ((2, -1), ValueError, RAISES))),
    *((name, (arg,), [shape], ValueError, f"{name} expects x of shape ({text}); got {shape}.",
       RAISES) for name in ("LayerNorm", "RMSNorm") for arg, shape, text in (
          (4, (4, 3), "..., 4"), (4, (), "..., 4"), ((2, 3), (3,), "..., 2, 3"),
          ((2, 3), (4, 3, 2), "..., 2, 3"), ((1, 3), (4, 3), "..., 1, 3"))),
    ("LayerNorm", (4, "a"), None, TypeError, "LayerNorm expects eps to be a number; got str",
     RAISES),
    ("LayerNorm", (4, None), None, TypeError, "LayerNorm expects eps to be a number", RAISES),
    ("RMSNorm", (4, "a"), None, TypeError, "RMSNorm expects eps to be a number; got str", RAISES),
    ("GroupNorm", (2, 3), None, ValueError, "GroupNorm expects num_channels >= 0 that num_groups=2",
     RAISES),
    ("GroupNorm", (2, -4), None, ValueError, "GroupNorm expects num_channels >= 0", RAISES),
    ("GroupNorm", (0, 4), None, ValueError, "GroupNorm expects num_groups > 0; got 0", RAISES),
    ("GroupNorm", (-2, 4), None, ValueError, "GroupNorm expects num_groups > 0; got -2", RAISES),
    ("GroupNorm", (2, 4, "a"), None, TypeError, "GroupNorm expects eps to be a number", RAISES),
    *(("GroupNorm", (2, 2), [shape], ValueError, message, RAISES) for shape, message in (
          ((2,), "GroupNorm expects x of shape (batch, 2, ...); got (2,)"),
          ((2, 4), "GroupNorm expects x of shape (batch, 2, ...); got (2, 4)"),
          ((1, 2), "GroupNorm expects more than one value per group; got x of shape (1, 2)"),
          ((1, 2, 1), "GroupNorm expects more than one value per group"))),
    *(("BatchNorm1d", arguments, None, error, f"BatchNorm1d expects {message}", RAISES)
      for arguments, error, message in (
          ((-1,), ValueError, "num_features >= 0; got -1"),
          ((3, "a"), TypeError, "eps to be a number; got str"),
          ((3, None), TypeError, "eps to be a number; got NoneType"),
          ((4, 1e-5, "a"), TypeError, "momentum to be a number; got str"))),
    *(("BatchNorm1d", (3,), [shape], ValueError,
       f"BatchNorm1d expects x of shape (batch, 3) or (batch, 3, length); got {shape}", RAISES)
      for shape in ((3,), (), (2, 4), (3, 2), (2, 4, 3), (2, 3, 4, 5))),
    ("BatchNorm2d", (3,), [(2, 3, 4)], ValueError,
     "BatchNorm2d expects x of shape (batch, 3, height, width); got (2, 3, 4)", RAISES),
    ("BatchNorm2d", (3,), [(2, 4, 3, 3)], ValueError, "BatchNorm2d expects x of shape", RAISES),
    ("BatchNorm3d", (3,), [(2, 3, 4, 5)], ValueError,
     "BatchNorm3d expects x of shape (batch, 3, depth, height, width); got (2, 3, 4, 5)", RAISES),
    ("BatchNorm1d", (3, 1e-5, 0.1, False, False), [(2, 4)], ValueError,
     "BatchNorm1d expects x of shape (batch, 3)", ACCEPTS),  # PyTorch compares with arrays only
    *(("BatchNorm1d", (3, 1e-5, 0.1, True, False), [shape], ValueError,
       "BatchNorm1d expects more than one value per channel in training; got x of shape", RAISES)
      for shape in ((1, 3), (1, 3, 1))),
    ("BatchNorm2d", (3, 0.0, 0.1, True, False), [(2, 3, 2, 2)], ValueError,
     "BatchNorm2d expects eps > 0 in training; got 0.0", RAISES),
    ("InstanceNorm1d", (-1, 1e-5, 0.1, True), None, ValueError,
     "InstanceNorm1d expects num_features >= 0; got -1", RAISES),
    *(("InstanceNorm1d", (3,), [shape], ValueError,
       f"InstanceNorm1d expects x of shape (batch, 3, length) or (3, length); got {shape}", pytorch)
      for shape, pytorch in (
          ((3,), RAISES), ((2, 3, 4, 5), RAISES), ((2, 4, 5), WARNS), ((2, 3), WARNS))),
    ("InstanceNorm2d", (3, 1e-5, 0.1, True), [(2, 4, 2, 2)], ValueError,
     "InstanceNorm2d expects x of shape (batch, 3, height, width) or (3, height, width)", RAISES),
    ("InstanceNorm3d", (3,), [(3, 4, 4)], ValueError, "InstanceNorm3d expects x of sh", RAISES),
    *((f"InstanceNorm{n}d", (3,), [(2, 3, *(1,) * n)], ValueError,
       f"InstanceNorm{n}d expects more than one place per channel in training", RAISES)
      for n in (1, 2, 3)),
    # convolutions
    *((name, (n_in, 4, 3), None, ValueError, f"{name} expects in_channels >= 1; got {n_in}", RAISES)
      for name in ("Conv1d", "Conv2d", "Conv3d") for n_in in (0, -1)),
    ("Conv2d", (4, 0, 3), None, ValueError, "Conv2d expects out_channels >= 1; got 0", RAISES),
    ("Conv2d", (2.0, 4, 3), None, TypeError, "Conv2d expects in_channels to be an int; got float",
     RAISES),
    ("Conv2d", (3, 4, 3, 1, 0, 1, 2), None, ValueError,
     "Conv2d divides in_channels into groups of one size; got in_channels=3 and groups=2", RAISES),
    ("Conv2d", (4, 3, 3, 1, 0, 1, 2), None, ValueError, "Conv2d divides out_channels", RAISES),
    ("Conv2d", (4, 4, 3, 1, 0, 1, 0), None, ValueError, "Conv2d expects groups >= 1; got 0",
     RAISES),
    *(("Conv2d", (1, 1, *sizes), None, ValueError, f"Conv2d expects {name} >= {least}; got", RAISES)
      for sizes, name, least in (
          ((0,), "kernel_size", 1), (((3, -1),), "kernel_size", 1), ((3, 0), "stride", 1),
          ((3, (1, -1)), "stride", 1), ((3, 1, -1), "padding", 0), ((3, 1, (0, -1)), "padding", 0),
          ((3, 1, 0, 0), "dilation", 1))),
    *(("Conv2d", (1, 1, *sizes), None, ValueError,
       f"Conv2d expects {name} to be an int or 2 ints; got", pytorch)
      for sizes, name, pytorch in (
          (((3,),), "kernel_size", RAISES), (((3, 3, 3),), "kernel_size", RAISES),
          ((3, (1, 1, 1)), "stride", RAISES), ((3, 1, (1, 1, 1)), "padding", RAISES),
          # Undocumented: one element stands for both, except in padding that is not of zeros.
          ((3, (2,)), "stride", ACCEPTS), ((3, 1, (1,)), "padding", ACCEPTS),
          ((3, 1, 0, (1,)), "dilation", ACCEPTS))),
    ("Conv1d", (1, 1, (3, 3)), None, ValueError, "Conv1d expects kernel_size to be an int or 1 int",
     RAISES),
    ("Conv3d", (1, 1, 3, 1, (1, 2)), None, ValueError, "Conv3d expects padding to be an int or 3",
     RAISES),
    *(("Conv2d", (1, 1, *sizes), None, TypeError, f"Conv2d expects {name} to be an int; got {kind}",
       pytorch) for sizes, name, kind, pytorch in (
          ((2.5,), "kernel_size", "float", RAISES), (("3",), "kernel_size", "str", RAISES),
          ((3, 1.5), "stride", "float", RAISES), ((3, 1, None), "padding", "NoneType", RAISES),
          ((True,), "kernel_size", "bool", ACCEPTS), ((3, 1, 0, 1, 1.0), "groups", "float",
                                                      RAISES))),
    ("Conv2d", (1, 1, 3, 2, "same"), None, ValueError,
     "Conv2d: padding='same' keeps the shape and needs stride 1; got (2, 2)", RAISES),
    ("Conv2d", (1, 1, 3, (1, 2), "same"), None, ValueError, "needs stride 1; got (1, 2)", RAISES),
    ("Conv2d", (1, 1, 3, 1, "full"), None, ValueError,
     "Conv2d expects padding 'same', 'valid' or ints; got 'full'", RAISES),
    ("Conv2d", (1, 1, 3, 1, 0, 1, 1, True, "mirror"), None, ValueError,
     "Conv2d expects padding_mode to be one of zeros, reflect, replicate, circular; got 'mirror'",
     RAISES),
    *((name, (3, 1, 1), [shape], ValueError, f"{name} expects x of shape (batch, 3, {axes}) or (3, "
       f"{axes}), no axis but the batch empty; got {shape}", RAISES)
      for name, axes, shapes in (
          ("Conv1d", "length", [(), (5,), (2, 5), (2, 1, 5), (1, 2, 3, 5), (2, 3, 0)]),
          ("Conv2d", "height, width", [(5, 5), (1, 5, 5), (2, 1, 5, 5), (1, 1, 3, 5, 5),
                                       (2, 3, 0, 5)]),
          ("Conv3d", "depth, height, width", [(5, 5, 5), (2, 1, 5, 5, 5), (3, 5, 0, 5)]))
      for shape in shapes),
    ("Conv2d", (1, 1, 6), [(2, 1, 5, 7)], ValueError, "Conv2d: the kernel reaches over (6, 6) eleme"
     "nts; x of shape (2, 1, 5, 7) has (5, 7) with its padding", RAISES),
    ("Conv2d", (1, 1, 3, 1, 1, 4), [(1, 5, 7)], ValueError, "the kernel reaches over (9, 9) element"
     "s; x of shape (1, 5, 7) has (7, 9) with its padding", RAISES),
    ("Conv2d", (1, 1, 3, 1, 5, 1, 1, True, "reflect"), [(2, 1, 6, 5)], ValueError,
     "Conv2d: padding_mode='reflect' adds less than the length of each axis; got padding=(5, 5) and"
     " x of shape (2, 1, 6, 5)", RAISES),
    ("Conv2d", (1, 1, 3, 1, 6, 1, 1, True, "circular"), [(2, 1, 6, 5)], ValueError,
     "Conv2d: padding_mode='circular' adds at most the length of each axis", RAISES),
    ("ConvTranspose2d", (0, 3, 3), None, ValueError, "ConvTranspose2d expects in_channels >= 1",
     RAISES),
    ("ConvTranspose2d", (3, 0, 3), None, ValueError, "ConvTranspose2d expects out_channels >= 1",
     RAISES),
    ("ConvTranspose2d", (3, 4, 3, 1, 0, 0, 2), None, ValueError, "ConvTranspose2d divides in_channe"
     "ls into groups of one size; got in_channels=3 and groups=2", RAISES),
    ("ConvTranspose2d", (4, 3, 3, 1, 0, 0, 2), None, ValueError, "ConvTranspose2d divides out_chan",
     RAISES),
    ("ConvTranspose2d", (1, 1, 3, 1, 0, 1), None, ValueError, "ConvTranspose2d expects output_p"
     "adding less than stride or dilation; got output_padding=(1, 1), stride=(1, 1) and dilation",
     RAISES),
    ("ConvTranspose2d", (1, 1, 3, 2, 0, (0, 3), 1, True, 3), None, ValueError, "expects output_pad",
     RAISES),
    ("ConvTranspose2d", (1, 1, 3, 1, 0, -1), None, ValueError, "expects output_padding >=", RAISES),
    ("ConvTranspose2d", (1, 1, 3, 1, -1), None, ValueError, "expects padding >= 0; got -1", RAISES),
    ("ConvTranspose2d", (1, 1, 3, 0), None, ValueError, "expects stride >= 1; got 0", RAISES),
    ("ConvTranspose2d", (1, 1, 3, 1, "same"), None, TypeError,
     "ConvTranspose2d expects padding to be an int; got str", RAISES),
    ("ConvTranspose2d", (1, 1, 3, 1, 0, 0, 1, True, 1, "reflect"), None, ValueError,
     "ConvTranspose2d expects padding_mode 'zeros'; got 'reflect'", RAISES),
    ("ConvTranspose2d", (1, 1, 3, 1, 9), [(2, 1, 5, 5)], ValueError,
     "ConvTranspose2d: padding=(9, 9) cuts off more than x of shape (2, 1, 5, 5) is sp", RAISES),
    ("ConvTranspose1d", (3, 1, 1), [(5,)], ValueError,
     "ConvTranspose1d expects x of shape (batch, 3, length) or (3, length)", RAISES),
    ("ConvTranspose2d", (3, 1, 1), [(2, 1, 5, 5)], ValueError, "ConvTranspose2d expects x of shape",
     RAISES),
    ("ConvTranspose2d", (1, 1, 3), [(2, 1, 0, 5)], ValueError, "no axis but the batch emp", RAISES),
    ("ConvTranspose3d", (1, 1, 3), [(5, 5, 5)], ValueError, "ConvTranspose3d expects x of shape",
     RAISES),
    *(("Unfold", sizes, None, ValueError, f"Unfold expects {name}", RAISES) for sizes, name in (
        ((0,), "kernel_size >= 1; got 0"), (((3,),), "kernel_size to be an int or 2 ints; got"),
        (((3, 3, 3),), "kernel_size to be an int or 2"), ((3, 0), "dilation >= 1; got 0"),
        ((3, 1, -1), "padding >= 0; got -1"), ((3, 1, 0, 0), "stride >= 1; got 0"))),
    ("Unfold", (3, 1, "same"), None, TypeError, "Unfold expects padding to be an int; got str",
     RAISES),
    *(("Unfold", (1,), [shape], ValueError, "Unfold expects x of shape (batch, channels, height, wi"
       f"dth) or (channels, height, width), no axis but the batch empty; got {shape}", RAISES)
      for shape in ((5, 5), (1, 1, 1, 5, 5), (2, 0, 5, 5), (2, 1, 0, 5), ())),
    ("Unfold", (6, 1, (0, 1)), [(2, 1, 5, 5)], ValueError, "Unfold: no window of kernel_size=6 and "
     "dilation=1 fits into x of shape (2, 1, 5, 5) with padding=(0, 1)", RAISES),
    *(("Fold", sizes, None, ValueError, f"Fold expects {name}", RAISES) for sizes, name in (
        (((5,), 3), "output_size to be an int or 2 ints; got (5,)"), ((0, 3), "output_size >= 1"),
        ((-5, 3), "output_size >= 1; got -5"), ((5, 0), "kernel_size >= 1; got 0"),
        ((5, 3, 1, -1), "padding >= 0; got -1"))),
    ("Fold", (2, 3), None, ValueError,
     "Fold: no window of kernel_size=3 and dilation=1 fits into output_size=2 with padding=0",
     RAISES),
    *(("Fold", (5, 3), [shape], ValueError,
       f"Fold expects x of shape (batch, channels * 9, 9) or (channels * 9, 9); got {shape}",
       RAISES) for shape in ((2, 9, 8), (2, 8, 9), (9,), (2, 0, 9), (1, 1, 9, 9), ())),
    *(("LocalResponseNorm", arguments, None, error, f"LocalResponseNorm expects {message}", RAISES)
      for arguments, error, message in (
          ((0,), ValueError, "size > 0; got 0"), ((-1,), ValueError, "size > 0; got -1"),
          ((2.5,), TypeError, "size to be an int; got 2.5"),
          ((2, "a"), TypeError, "alpha to be a number"),
          ((2, 1e-4, "a"), TypeError, "beta to be a number"),
          ((2, 1e-4, 0.75, "a"), TypeError, "k to be a number"))),
    *(("LocalResponseNorm", (2,), [shape], ValueError,
       f"LocalResponseNorm expects x of shape (batch, channels, length, ...); got {shape}", RAISES)
      for shape in ((4,), (4, 3), ())),
    # distances
    ("CosineSimilarity", (), [(4, 3), (2, 3)], ValueError,
     "CosineSimilarity expects x1 and x2 of shapes that broadcast; got (4, 3) and (2, 3)", RAISES),
    ("CosineSimilarity", (), [(3,), (3,)], ValueError, "CosineSimilarity works along axis 1",
     RAISES),
    ("CosineSimilarity", ("a",), None, TypeError, "CosineSimilarity expects dim to be an int",
     RAISES),
    ("PairwiseDistance", (), [(4, 3), (2, 3)], ValueError, "PairwiseDistance expects x1 and x2 of ",
     RAISES),
    ("PairwiseDistance", ("fro",), None, TypeError, "PairwiseDistance expects p to be a number",
     RAISES),
    *(("PairwiseDistance", (p,), [(3, 0), (3, 0)], ValueError, "has no value for vectors without",
       RAISES) for p in (INF, -INF, -1.0)),
    # embeddings
    *((name, arguments, None, error, f"{name} expects {message}", RAISES)
      for name in ("Embedding", "EmbeddingBag") for arguments, error, message in (
          ((-1, 3), ValueError, "num_embeddings >= 0; got -1"),
          ((3, -1), ValueError, "embedding_dim >= 0; got -1"),
          ((3.0, 2), TypeError, "num_embeddings to be an int; got float"),
          ((3, "a"), TypeError, "embedding_dim to be an int; got str"))),
    *(("Embedding", (3, 2, value), None, error, f"Embedding expects padding_idx {message}", RAISES)
      for value, error, message in (
          (3, ValueError, "from -3 to 2, within num_embeddings; got 3"),
          (-4, ValueError, "from -3 to 2, within num_embeddings; got -4"),
          (1.0, TypeError, "to be an int; got float"), ("a", TypeError, "to be an int; got str"))),
    ("Embedding", (0, 2, 0), None, ValueError, "Embedding expects padding_idx from",
     RAISES),
    ("EmbeddingBag", (3, 2, None, 2.0, False, "sum", False, None, False, 3), None, ValueError,
     "EmbeddingBag expects padding_idx from -3 to 2, within num_embeddings; got 3", RAISES),
    ("Embedding", (3, 2, None, "a"), None, TypeError, "Embedding expects max_norm to be a number",
     RAISES),
    ("Embedding", (3, 2, None, 1.0, "a"), None, TypeError, "Embedding expects norm_type to be a nu",
     RAISES),
    ("Embedding", (3, 2, None, None, 2.0, False, True), None, NotImplementedError,
     "Embedding(sparse=True): gradients are dense arrays here. Leave sparse=False.", ACCEPTS),
    ("EmbeddingBag", (3, 2, None, 2.0, False, "sum", True), None, NotImplementedError,
     "EmbeddingBag(sparse=True): gradients are dense arrays here", ACCEPTS),
    ("Embedding", (3, 2, None, None, 2.0, False, False, np.zeros((2, 3), np.float32)), None,
     ValueError, "Embedding expects _weight of shape (3, 2); got (2, 3)", RAISES),
    ("EmbeddingBag", (3, 2, None, 2.0, False, "all"), None, ValueError, "EmbeddingBag expects mode "
     "to be one of ('sum', 'mean', 'max'); got 'all'", RAISES),
    ("EmbeddingBag", (3, 2, None, 2.0, True, "max"), None, ValueError, "EmbeddingBag expects "
     "scale_grad_by_freq=False with mode='max'", RAISES),
    # shapes
    *(("Unflatten", arguments, None, TypeError, message, RAISES) for arguments, message in (
        (("a", (2, 3)), "Unflatten expects dim to be an int; got str"),
        ((True, (2, 3)), "Unflatten expects dim to be an int; got bool"),
        *(((1, size), "Unflatten expects unflattened_size to be a tuple of ints; got ")
          for size in (6, (2.0, 3.0), (True, 6), (("b", 2), ("c", 3)))))),
    *(("Unflatten", (-1, size), None, ValueError, "Unflatten expects lengths in unflattened_size, "
       f"one of which may be -1; got {size}", RAISES) for size in ((-1, -1), (-2, -3), ())),
    ("Unflatten", (-1, (2, 4)), [(4, 6)], ValueError, "Unflatten splits axis -1 into (2, 4); got x "
     "of shape (4, 6). Their product must be the axis' length.", RAISES),
    ("Unflatten", (1, (4, -1)), [(4, 6)], ValueError, "Unflatten splits axis 1 into", RAISES),
    ("Unflatten", (1, (0, -1)), [(3, 0)], ValueError, "Unflatten splits axis 1 into", RAISES),
    ("Unflatten", (0, (1,)), [()], ValueError, "Unflatten splits axis 0 into", RAISES),
    ("Unflatten", (3, (2, 3)), [(4, 6)], ValueError, "Unflatten works along axis 3", RAISES),
    *((name, (value,), None, error, f"{name} expects {argument} {message}", RAISES)
      for name, argument in (("PixelShuffle", "upscale_factor"), ("ChannelShuffle", "groups"),
                             ("PixelUnshuffle", "downscale_factor"))
      for value, error, message in (
          (0, ValueError, ">= 1; got 0"), (-1, ValueError, ">= 1; got -1"),
          (2.0, TypeError, "to be an int; got float"), (True, TypeError, "to be an int; got bool"),
          ("a", TypeError, "to be an int; got str"))),
    *((name, (2,), [(4, 4)], ValueError, f"{name} expects x of shape (..., channels, height, width"
       "); got (4, 4)", RAISES) for name in ("PixelShuffle", "PixelUnshuffle")),
    ("PixelShuffle", (2,), [(6, 4, 4)], ValueError, "PixelShuffle expects x with channels that upsc"
     "ale_factor ** 2 = 4 divides; got (6, 4, 4)", RAISES),
    *(("PixelUnshuffle", (2,), [shape], ValueError, "PixelUnshuffle expects x with height and width"
       " that downscale_factor = 2 divides", RAISES) for shape in ((4, 3, 4), (4, 4, 3))),
    *(("ChannelShuffle", (groups,), [shape], ValueError, "ChannelShuffle expects x of shape (batch,"
       f" channels, length, ...) with channels that groups={groups} divides; got {shape}", RAISES)
      for groups, shape in ((2, (4, 4)), (3, (1, 4, 2)), (2, ()))),
    # padding
    *((name, (padding, *value), None, error, message, does)
      for name, value in (("ConstantPad1d", (0,)), ("ReflectionPad1d", ()), ("CircularPad1d", ()))
      for padding, error, message, does in (
          (1.5, TypeError, f"{name} expects padding of ints, one or 2; got float", RAISES),
          ("a", TypeError, f"{name} expects padding of ints, one or 2; got str", RAISES),
          (True, TypeError, f"{name} expects padding of ints, one or 2; got bool", RAISES),
          ((1,), ValueError, f"{name} expects padding of one int or of 2", RAISES))),
    ("ZeroPad2d", ((1, 1),), None, ValueError, "ZeroPad2d expects padding of one int or of 4, bef",
     ACCEPTS),  # pads the last axis
    ("ConstantPad1d", (1, "a"), None, TypeError, "ConstantPad1d expects value to be a number; got",
     RAISES),
    ("ConstantPad1d", (1, None), None, TypeError, "ConstantPad1d expects value to be a number; got",
     ACCEPTS),  # as 0
    ("ConstantPad1d", (1, 1e300), [(2, 3)], ValueError, "float32 cannot hold value=1e+300", RAISES),
    ("ConstantPad1d", (1, 0), [()], ValueError, "ConstantPad1d expects x with at least 1 axes; got",
     RAISES),
    ("ZeroPad3d", (1,), [(2, 3)], ValueError, "ZeroPad3d expects x with at least 3 axes; got (2, 3",
     RAISES),
    *((name, (padding,), [(1, 5)], ValueError, f"{name} with padding={padding} takes more away than"
       " x of shape (1, 5) has", RAISES) for name in ("ZeroPad1d",)
      for padding in ((-3, -3), (-6, 3))),
    *((f"{name}Pad{n}d", (1,), [shape], ValueError, f"{name}Pad{n}d expects x of shape (batch, chan"
       f"nels, {axes}) or (channels, {axes}); got {shape}", RAISES)
      for name in ("Reflection", "Replication", "Circular")
      for n, axes in ((1, "length"), (2, "height, width"), (3, "depth, height, width"))
      for shape in ((4,) * n, (4,) * (n + 3))),
    *((name, (padding,), [(2, 5)], ValueError, f"{name} with padding={padding} needs a longer axis "
       "1; got x of shape (2, 5)", does) for name, padding, does in (
          ("ReflectionPad1d", (5, 0), RAISES), ("ReflectionPad1d", (-5, 6), RAISES),
          ("ReflectionPad1d", (-2, -3), RAISES), ("ReplicationPad1d", (-2, -3), RAISES),
          ("CircularPad1d", (6, 0), RAISES), ("CircularPad1d", (-3, -3), RAISES),
          ("CircularPad1d", (4, -3), ACCEPTS),
          ("CircularPad1d", (-5, 3), ACCEPTS))),  # and reads memory that nothing was written to
    *((name, (1,), [(2, 2, 0)], ValueError, "needs a longer axis 2", RAISES)
      for name in ("ReflectionPad1d", "ReplicationPad1d", "CircularPad1d")),
    # upsampling
    *(("Upsample", arguments, None, error, f"Upsample expects {message}", RAISES)
      for arguments, error, message in (
          ((), ValueError, "either size or scale_factor; got size=None and scale_factor=None"),
          ((3, 2), ValueError, "either size or scale_factor; got size=3 and scale_factor=2"),
          ((3, None, "cubic"), ValueError, "mode to be one of nearest, nearest-exact, area, li"),
          ((3, None, "lanczos"), ValueError, "mode to be one of"),
          ((3, None, "nearest", False), ValueError, "align_corners with mode linear, bilinear, b"),
          ((3, None, "area", True), ValueError, "align_corners with mode linear, bilinear, b"),
          ((3, None, "linear", 1), TypeError, "align_corners to be a bool or None; got int"),
          ((3.0,), TypeError, "size to be an int; got float"),
          (((True,),), TypeError, "size to be an int; got bool"),
          ((0,), ValueError, "size >= 1; got 0"), (((2, -1),), ValueError, "size >= 1; got -1"),
          ((None, 0), ValueError, "a finite scale_factor > 0; got 0"),
          ((None, -2.0), ValueError, "a finite scale_factor > 0; got -2.0"),
          ((None, NAN), ValueError, "a finite scale_factor > 0; got nan"),
          ((None, INF), ValueError, "a finite scale_factor > 0; got inf"),
          ((None, "a"), TypeError, "scale_factor of numbers; got str"))),
    ("Upsample", (3, None, "nearest", None, True), None, ValueError, "Upsample recomputes a scale_",
     RAISES),
    *(("Upsample", (3, None, mode), [shape], ValueError, f"Upsample with mode='{mode}' expects x of"
       f" {axes} axes, (batch, channels, ...), none but the batch empty; got {shape}", RAISES)
      for mode, axes, shape in (
          ("nearest", "3 or 4 or 5", (4, 4)), ("area", "3 or 4 or 5", (1, 1, 1, 1, 1, 4)),
          ("linear", "3", (1, 1, 4, 4)), ("bilinear", "4", (1, 1, 4)), ("bicubic", "4", (1, 1, 4)),
          ("trilinear", "5", (1, 1, 4, 4)), ("nearest", "3 or 4 or 5", (1, 0, 4)),
          ("bicubic", "4", (1, 1, 0, 4)))),
    ("Upsample", ((3, 3),), [(1, 1, 4)], ValueError, "Upsample expects x of 4 axes, as it has so",
     RAISES),
    ("Upsample", (None, (2.0,)), [(1, 1, 4, 4)], ValueError, "Upsample expects x of 3 axes, as it ",
     RAISES),
    ("Upsample", (None, 0.2), [(1, 1, 4)], ValueError, "Upsample with scale_factor=0.2 leaves noth",
     RAISES),
    ("UpsamplingBilinear2d", (3,), [(1, 1, 4)], ValueError, "UpsamplingBilinear2d with mode='bilin",
     RAISES),
    # pooling
    *((name, arguments, None, error, f"{name} expects {message}", RAISES)
      for name in (f"{kind}Pool{n}d" for kind in ("Max", "Avg") for n in (1, 2, 3))
      for arguments, error, message in (
          ((0,), ValueError, "kernel_size >= 1; got 0"),
          ((2, 0), ValueError, "stride >= 1; got 0"),
          ((2, 1, -1), ValueError, "padding >= 0; got -1"),
          ((2, 1, 2), ValueError, "padding of at most half the kernel; got padding=2 and kernel_s"),
          ((2.0,), TypeError, "kernel_size to be an int; got"),
          (("a",), TypeError, "kernel_size to be an int; got"),
          ((True,), TypeError, "kernel_size to be an int; got"),
          ((None,), TypeError, "kernel_size to be an int; got"))),
    *((f"MaxPool{n}d", (2, 1, 0, 0), None, ValueError, "dilation >= 1; got 0", RAISES)
      for n in (1, 2, 3)),
    *((name, (2, None, 0, False, True, value), None, error, f"{name} expects divisor_override "
       f"{text}", RAISES) for name in ("AvgPool2d", "AvgPool3d") for value, error, text in (
          (0, ValueError, "other than 0"), (1.5, TypeError, "to be an int or None; got float"),
          (True, TypeError, "to be an int or None; got bool"))),
    *((f"LPPool{n}d", arguments, None, error, message, does) for n in (1, 2, 3)
      for arguments, error, message, does in (
          ((0, 2), ValueError, "expects a finite norm_type other than 0; got 0", RAISES),
          ((INF, 2), ValueError, "expects a finite norm_type other than 0", ACCEPTS),
          (("a", 2), TypeError, "expects norm_type to be a number; got str", RAISES),
          ((2, 0), ValueError, "expects kernel_size >= 1; got 0", RAISES),
          ((2, 2, 0), ValueError, "expects stride >= 1; got 0", RAISES))),
    ("MaxPool1d", ((2, 2),), None, ValueError, "expects kernel_size of one int or 1; got 2",
     RAISES),
    ("MaxPool2d", ((2, 2, 2),), None, ValueError, "kernel_size of one int or 2; got 3", RAISES),
    ("MaxPool2d", (3, 1, 2, 2), None, ValueError, "padding of at most half the kernel", RAISES),
    *((f"{kind}Pool1d", arguments, [(1, 5)], ValueError, f"with kernel_size={arguments[0]} has no "
       "room in x of shape (1, 5)", RAISES) for kind, arguments in (
          ("Max", (6,)), ("Max", (2, 1, 0, 5)), ("Avg", (6,)))),
    *((f"Adaptive{kind}Pool{n}d", (size,), None, error, f"expects output_size {message}", RAISES)
      for kind in ("Avg", "Max") for n in (1, 2, 3) for size, error, message in (
          (-1, ValueError, ">= 0; got -1"), (2.0, TypeError, "of ints"),
          ("a", TypeError, "of ints"),
          (True, TypeError, "of ints"), (None, TypeError, "of ints"),
          ((2,) * (n % 3 + 1), ValueError, f"of one int or {n}; got {n % 3 + 1}"))),
    *((f"Adaptive{kind}Pool{n}d", (2,), [shape], ValueError, message, RAISES)
      for kind in ("Avg", "Max") for n in (1, 2, 3) for shape, message in (
          ((4,) * n, "expects x of shape (batch, channels, "),
          ((4,) * (n + 3), "expects x of shape (batch, channels, "),
          ((2, 2, *(0,) * n), "has nothing to pool in x of shape (2, 2, 0"))),
    ("LPPool2d", (2, 6), [(1, 5, 6)], ValueError, "has no room in x of shape (1, 5, 6)", RAISES),
    *((f"{kind}Pool{n}d", arguments, [shape], ValueError, f"{kind}Pool{n}d expects x of shape (bat",
       RAISES) for kind, arguments in (("Max", (2,)), ("Avg", (2,)), ("LP", (2, 2)))
      for n in (1, 2, 3) for shape in ((4,) * n, (4,) * (n + 3))),
    ("MaxPool1d", (1, 1), [(2, 2, 0)], ValueError, "has no room in x of shape (2, 2, 0)", RAISES),
    *((f"MaxUnpool{n}d", arguments, None, error, f"MaxUnpool{n}d expects {message}", does)
      for n in (1, 2, 3) for arguments, error, message, does in (
          ((0,), ValueError, "kernel_size >= 1; got 0", ACCEPTS),
          ((2, 0), ValueError, "stride >= 1; got 0", ACCEPTS),  # and refuses the call in 3-D
          ((2, 1, -1), ValueError, "padding >= 0; got -1", ACCEPTS),
          ((2.0,), TypeError, "kernel_size to be an int; got", RAISES),
          (("a",), TypeError, "kernel_size to be an int; got", RAISES))),
    *((f"MaxUnpool{n}d", (2, None, padding), [shape] * 2, error, message, RAISES)
      for n in (1, 2, 3) for padding, shape, error, message in (
          (0, (4,) * (n + 1), TypeError, "expects indices of an integer dtype; got float32"),
          (0, (4,) * n, ValueError, f"MaxUnpool{n}d expects x of shape (batch, channels, "),
          (0, (4,) * (n + 3), ValueError, f"MaxUnpool{n}d expects x of shape (batch, channels, "),
          (0, (1, 0, *(4,) * n), ValueError, "expects no axis but the batch empty; got x of shape"),
          (0, (1, 1, *(0,) * n), ValueError, "expects no axis but the batch empty; got x of shape"),
          (4, (1, 1, *(4,) * n), ValueError, "to lengths 1 to 1"))),
    *((f"FractionalMaxPool{n}d", arguments, None, error, f"FractionalMaxPool{n}d expects {message}",
       does) for n in (2, 3) for arguments, error, message, does in (
          ((2,), ValueError, "either output_size or output_ratio; got output_size=None an", RAISES),
          ((2, 2, 0.5), ValueError, "either output_size or output_ratio; got output_size=", RAISES),
          ((2, None, 1.0), ValueError, "output_ratio between 0 and 1; got 1.0", RAISES),
          ((2, None, (0.5,)), ValueError, "output_ratio of one number or", RAISES),
          ((2, None, "a"), TypeError, "output_ratio to be a number; got str", RAISES),
          ((0, 2), ValueError, "kernel_size >= 1; got 0", RAISES if n == 3 else ACCEPTS),
          ((2, 0), ValueError, "output_size >= 1; got 0", ACCEPTS),
          ((2, (2,) * 4), ValueError, "output_size of one int or", RAISES),
          ((2.0, 2), TypeError, "kernel_size to be an int; got", RAISES))),
    *((f"FractionalMaxPool{n}d", arguments, [shape], ValueError, f"FractionalMaxPool{n}d {message}",
       does) for n in (2, 3) for arguments, shape, message, does in (
          ((2, 4), (1, 1, *(4,) * n), "makes lengths (4, 4", RAISES),
          ((2, None, 0.1), (1, 1, *(4,) * n), "makes lengths (0, 0", ACCEPTS),
          ((2, 2), (4,) * n, "expects x of shape (batch, channels, ", RAISES),
          ((2, 2), (4,) * (n + 3), "expects x of shape (batch, channels, ", RAISES),
          ((2, 2), (1, 0, *(4,) * n), "expects no axis but the batch empty", RAISES))),
    # recurrent layers
    *((name, arguments, None, error, f"{name} expects {message}", RAISES)
      for name in ("RNN", "LSTM", "GRU") for arguments, error, message in (
          ((0, 4), ValueError, "input_size >= 1; got 0"),
          ((3, 0), ValueError, "hidden_size >= 1; got 0"),
          ((3, 4, 0), ValueError, "num_layers >= 1; got 0"),
          ((3.0, 4), TypeError, "input_size to be an int; got float"),
          ((3, "4"), TypeError, "hidden_size to be an int; got str"))),
    *((name, arguments, None, error, f"{name} expects {message}", RAISES)
      for name in ("LSTM", "GRU") for arguments, error, message in (
          ((3, 4, 1, 1), TypeError, "bias to be a bool; got int"),
          ((3, 4, 1, True, 0), TypeError, "batch_first to be a bool; got int"),
          ((3, 4, 2, True, False, 1.5), ValueError, "dropout between 0 and 1; got 1.5"),
          ((3, 4, 2, True, False, -0.1), ValueError, "dropout between 0 and 1; got -0.1"),
          ((3, 4, 2, True, False, True), ValueError, "dropout between 0 and 1; got True"),
          ((3, 4, 2, True, False, "a"), TypeError, "dropout to be a number; got str"))),
    ("RNN", (3, 4, 1, "sigmoid"), None, ValueError,
     "RNN expects nonlinearity 'tanh' or 'relu'; got 'sigmoid'", RAISES),
    ("RNNCell", (4, 4, True, "sigmoid"), None, ValueError,
     "RNNCell expects nonlinearity 'tanh' or 'relu'; got 'sigmoid'", RAISES),
    *((name, (4, 4, 1, True, False, 0.5), None, ValueError,
       f"{name} puts dropout=0.5 between layers, and has one. Take num_layers > 1, or put", WARNS)
      for name in ("LSTM", "GRU")),
    ("RNN", (4, 4, 1, "tanh", True, False, 0.5), None, ValueError, "puts dropout=0.5 between",
     WARNS),
    *(("LSTM", (3, 4, 1, True, False, 0.0, False, size), None, ValueError,
       f"LSTM expects proj_size {message}; got {size}", RAISES)
      for size, message in ((4, "< hidden_size=4"), (5, "< hidden_size=4"), (-1, ">= 0"))),
    *((name, (3, 4), [shape], ValueError,
       f"{name} expects x of shape (time, batch, 3) or (time, 3), or a PackedSequence; got",
       RAISES) for name in ("RNN", "LSTM", "GRU")
      for shape in ((), (3,), (2, 4), (5, 2, 4), (1, 5, 2, 3))),
    ("GRU", (3, 4, 1, True, True), [(5, 2, 4)], ValueError,
     "GRU expects x of shape (batch, time, 3) or (time, 3)", RAISES),
    *((name, (3, 4), [shape], ValueError,
       f"{name} expects at least one step; got x of shape {shape}", RAISES)
      for name in ("RNN", "LSTM", "GRU") for shape in ((0, 2, 3), (0, 3))),
    ("GRU", (3, 4, 1, True, True), [(2, 0, 3)], ValueError, "expects at least one step", RAISES),
    *((name, (3, 4), [(5, 2, 3), shape], ValueError,
       f"{name} expects h_0 of shape (1, 2, 4); got {shape}", RAISES)
      for name in ("RNN", "GRU") for shape in ((1, 3, 4), (2, 2, 4), (1, 2, 3), (2, 4), (1, 1, 4))),
    *((name, (3, 4), [(5, 3), shape], ValueError,
       f"{name} expects h_0 of shape (1, 4); got {shape}", RAISES)
      for name in ("RNN", "GRU") for shape in ((1, 1, 4), (2, 4), (1, 3), (4,))),
    *((name, arguments, None, error, f"{name} expects {message}", RAISES)
      for name in ("RNNCell", "LSTMCell", "GRUCell") for arguments, error, message in (
          ((-1, 4), ValueError, "input_size >= 0; got -1"),
          ((3, -4), ValueError, "hidden_size >= 0; got -4"),
          ((3.0, 4), TypeError, "input_size to be an int; got float"))),
    *((name, (3, 4), [shape], ValueError,
       f"{name} expects x of shape (batch, 3) or (3,); got {shape}", RAISES)
      for name in ("RNNCell", "LSTMCell", "GRUCell")
      for shape in ((), (4,), (2, 4), (1, 2, 3))),
    *((name, (3, 4), shapes, ValueError, f"{name} expects h_0 of shape", RAISES)
      for name in ("RNNCell", "GRUCell")
      for shapes in ([(2, 3), (3, 4)], [(2, 3), (2, 3)], [(2, 3), (4,)], [(3,), (1, 4)])),
]  # fmt: skip

every_row = pytest.mark.parametrize(
    "row", REFUSED, ids=[f"{n}-{row[0]}{row[1]}".replace(" ", "") for n, row in enumerate(REFUSED)]
)


def inputs_of(shapes: list[tuple[int, ...]] | None) -> list[np.ndarray]:
    """What our constructor refuses is called in PyTorch, which often looks only then."""
    return [np.ones(shape, np.float32) for shape in shapes or [(4, 4)]]


def everything(module: Any) -> tuple[Any, ...]:
    arrays = module.state_dict() | module.extra_state()
    found = {name: (array.shape, array.tobytes()) for name, array in arrays.items()}
    return found, module.training, repr(module)


@every_row
def test_refused(row: Any, xb_device: Device) -> None:
    name, arguments, shapes, error, message, _ = row
    if shapes is None:
        with pytest.raises(error, match=re.escape(message)):
            getattr(nn, name)(*arguments)
        return
    module = getattr(nn, name)(*arguments)
    before = everything(module)
    for call in (module.forward, module, module.eval()):
        with pytest.raises(error, match=re.escape(message)):
            call(*[xb.asarray(x) for x in inputs_of(shapes)])
        module.train()
    assert everything(module) == before


@pytest.mark.torch_parity
@every_row
def test_what_pytorch_does(row: Any) -> None:
    name, arguments, shapes, _, _, pytorch = row
    torch = import_torch()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            module = getattr(torch.nn, name)(*arguments)
            if pytorch is not ACCEPTS:
                module(*[torch.tensor(x) for x in inputs_of(shapes)])
        except Exception:  # noqa: BLE001  # of many classes
            assert pytorch is RAISES
            return
    assert bool(warned) == (pytorch is WARNS)
    assert pytorch is not RAISES


FLOAT_LAYERS = {
    "LayerNorm": (2,), "RMSNorm": (2, None, False), "GroupNorm": (1, 2),
    "BatchNorm2d": (2,), "InstanceNorm2d": (2,),
    "Unfold": (1,), "Fold": ((1, 2), 1),
    "LocalResponseNorm": (2,),
    "Threshold": (0.0, 1.0), "Softmax": (-1,), "Softmin": (-1,), "LogSoftmax": (-1,),
    **dict.fromkeys(
        "ReLU6 Hardtanh LeakyReLU PReLU RReLU ELU CELU SELU LogSigmoid Hardsigmoid Softsign "
        "Softplus GELU SiLU Mish Hardswish GLU Hardshrink Softshrink Tanhshrink Softmax2d "
        "Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout".split(), ()),
    **{f"{kind}Pool{n}d": (1,) for kind in ("Max", "Avg") for n in (1, 2, 3)},
    **{f"Adaptive{kind}Pool{n}d": (1,) for kind in ("Avg", "Max") for n in (1, 2, 3)},
    "FractionalMaxPool2d": (1, 1), "FractionalMaxPool3d": (1, 1),
    **{f"LPPool{n}d": (2, 1) for n in (1, 2, 3)},
    **dict.fromkeys("Upsample UpsamplingNearest2d UpsamplingBilinear2d".split(), (2,)),
    **dict.fromkeys("RNN LSTM GRU RNNCell LSTMCell GRUCell".split(), (2, 2)),
    "PixelShuffle": (1,), "PixelUnshuffle": (2,), "ChannelShuffle": (2,),
    "ConstantPad2d": (1, 0), **dict.fromkeys(
        "ZeroPad2d ReflectionPad2d ReplicationPad2d CircularPad2d".split(), (1,)),
}  # fmt: skip


@pytest.mark.parametrize("name", FLOAT_LAYERS)
def test_layers_want_arrays_of_floats(name: str, xb_device: Device) -> None:
    layer = getattr(nn, name)(*FLOAT_LAYERS[name])
    before = everything(layer)
    shape = (2, 2, 2, 2)
    with pytest.raises(TypeError, match=f"^{name} expects x of (a float )?dtype"):
        layer(xb.asarray(np.ones(shape, np.int64), dtype=np.int64))
    with pytest.raises(TypeError, match=f"^{name} expects x to be an array; got list"):
        layer([1.0, 2.0])
    assert everything(layer) == before


@pytest.mark.parametrize("name", ["CosineSimilarity", "PairwiseDistance"])
def test_distances_want_two_arrays_of_one_dtype(name: str, xb_device: Device) -> None:
    layer, x = getattr(nn, name)(), xb.asarray(np.ones((2, 3), np.float32))
    with pytest.raises(TypeError, match=f"^{name} expects x2 of dtype float32; got float64"):
        layer(x, xb.asarray(np.ones((2, 3)), dtype=np.float64))
    with pytest.raises(TypeError, match=f"^{name} expects x of a float dtype; got int64"):
        layer(xb.asarray(np.ones((2, 3), np.int64), dtype=np.int64), x)
    with pytest.raises(TypeError, match=f"^{name} expects x2 to be an array; got list"):
        layer(x, [1.0])
    with pytest.raises(TypeError, match=r"^Bilinear expects input2 of dtype float32; got float64"):
        nn.Bilinear(3, 3, 1)(x, xb.asarray(np.ones((2, 3)), dtype=np.float64))


@pytest.mark.parametrize(
    "name", [f"Conv{kind}{axes}d" for kind in ("", "Transpose") for axes in (1, 2, 3)]
)
def test_convolutions_want_arrays_of_their_dtype(name: str, xb_device: Device) -> None:
    layer, shape = getattr(nn, name)(2, 1, 1), (2,) * (2 + int(name[-2]))
    before = everything(layer)
    for dtype in (np.float64, np.int64):
        wanted = f"^{name} expects x of dtype float32; got {np.dtype(dtype)}. Call x.astype"
        with pytest.raises(TypeError, match=wanted):
            layer(xb.asarray(np.ones(shape), dtype=dtype))
    with pytest.raises(TypeError, match=f"^{name} expects x to be an array; got list"):
        layer([1.0, 2.0])
    assert everything(layer) == before


@pytest.mark.parametrize("name", ["RReLU", "Dropout1d", "AlphaDropout"])
def test_random_counters_move_in_training_only(name: str, xb_device: Device) -> None:
    layer = getattr(nn, name)(rng=0)
    x = xb.asarray(-np.ones((16, 3), np.float32))
    first, second = xb.to_host(layer(x)), xb.to_host(layer(x))
    assert first.tobytes() != second.tobytes()
    assert layer.extra_state()["random_state"][2] == 2
    layer.eval()(x)
    assert layer.extra_state()["random_state"][2] == 2
    layer.train().reset_parameters(0)
    assert xb.to_host(layer(x)).tobytes() == first.tobytes()
