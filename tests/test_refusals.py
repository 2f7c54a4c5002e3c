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
    "LocalResponseNorm": (2,), "BatchNorm2d": (2,), "InstanceNorm2d": (2,),
    "Threshold": (0.0, 1.0), "Softmax": (-1,), "Softmin": (-1,), "LogSoftmax": (-1,),
    **dict.fromkeys(
        "ReLU6 Hardtanh LeakyReLU PReLU RReLU ELU CELU SELU LogSigmoid Hardsigmoid Softsign "
        "Softplus GELU SiLU Mish Hardswish GLU Hardshrink Softshrink Tanhshrink Softmax2d "
        "Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout".split(), ()),
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
